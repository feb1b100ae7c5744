import json
import platform as machine

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import InvalidPlatform
from imagefs.oci.platform import Platform, select
from tests.support.data import data_dir, needs_data

DEFAULT = Platform("linux", "amd64")


def parse(text: str) -> Platform:
    return Platform.parse(text, default=DEFAULT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("armhf", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("i386", "linux/386"),
        ("macOS", "darwin/amd64"),
        ("LINUX/AMD64", "linux/amd64"),
        ("plan10/quantum/v2", "plan10/quantum/v2"),
        ("linux(a%20b%7E+%C3%A9)/amd64", "linux(a%20b%7E+%C3%A9)/amd64"),
        ("windows(10.0.17763%2B1+b+a+a)/amd64", "windows(10.0.17763%2B1+a+b)/amd64"),
    ],
)
def test_names_are_normalised_as_containerd_does(text: str, expected: str) -> None:
    assert str(parse(text).normalized()) == expected
    assert parse(expected).normalized() == parse(text).normalized()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/linux/arm",
        "linux/arm/",
        "linux//arm",
        "linux /arm",
        "linux/&arm",
        "linux/arm/v7/x",
        "quantum",
        "*",
        "linux/*",
        "linux(",
        "linux(%)",
        "linux(%zz)",
        "linux(%ff)",
        "linux(%0a)",
        "amd64(+x)",
        "linux/arm\n",
        "linüx",
        "linux(1)x/arm",
    ],
)
def test_text_that_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidPlatform):
        parse(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x86_64", "linux/amd64"),
        ("AMD64", "linux/amd64"),
        ("i686", "linux/386"),
        ("aarch64", "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("armv8l", "linux/arm/v8"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("armv5tejl", "linux/arm/v5"),
        ("riscv64", "linux/riscv64"),
        ("ppc64le", "linux/ppc64le"),
        ("s390x", "linux/s390x"),
        ("loongarch64", "linux/loong64"),
    ],
)
def test_the_host_is_linux_for_what_the_machine_is_called(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setattr(machine, "machine", lambda: name)
    assert str(Platform.host()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "amd64 386"),
        ("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
        ("linux/amd64/weird", "amd64/weird 386"),
        ("linux/arm", "arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v8", "arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v5", "arm/v5"),
        ("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm64/v8.2", "arm64/v8.2 arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        (
            "linux/arm64/v9.1",
            (
                "arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64 "
                "arm/v8 arm/v7 arm/v6 arm/v5"
            ),
        ),
        ("linux/arm64/weird", "arm64/weird"),
        ("linux/s390x", "s390x"),
        ("linux/amd64/v99999999999", "amd64/v99999999999 386"),
    ],
)
def test_preference_goes_down_the_variants(text: str, expected: str) -> None:
    assert [str(platform) for platform in parse(text).preference()] == [f"linux/{name}" for name in expected.split()]


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ("linux/arm/v7", "linux/arm/v5 linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm/v7 linux/arm/v8", None),
        ("linux/arm64", "linux/amd64 linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm/v7 linux/arm64", "linux/arm64"),
        ("linux/arm64", "linux/arm64/v9", None),
        ("linux/arm64", "linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
        ("linux/amd64/v3", "linux/386 linux/amd64 linux/amd64/v4", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v2 linux/amd64/v3", "linux/amd64/v3"),
        ("linux/amd64", "linux/amd64/v2", None),
        ("linux/amd64", "linux/386 windows/amd64", "linux/386"),
        ("linux/amd64", "unknown/unknown", None),
        ("unknown/unknown", "unknown/unknown", None),
        ("linux/arm", "linux/armhf", "linux/armhf"),
        ("linux/s390x", "", None),
        ("windows(10.0.17763.1)/amd64", "windows(10.0.20348.5)/amd64 windows(10.0.17763.9)/amd64", 1),
        ("windows/amd64", "windows(10.0.20348.5+win32k)/amd64", 0),
        ("linux(+gpu+simd)/amd64", "linux/amd64 linux(+gpu)/amd64 linux(+gpu+other)/amd64", 1),
        ("linux/amd64", "linux(+gpu)/amd64", None),
    ],
)
def test_the_best_offer_is_selected(wanted: str, offered: str, expected: str | int | None) -> None:
    offers = [parse(text) for text in offered.split()]
    index = offered.split().index(expected) if isinstance(expected, str) else expected
    assert select(parse(wanted), offers) == index


def test_the_first_of_equal_offers_wins() -> None:
    assert select(DEFAULT, [parse("linux/arm64"), parse("linux/amd64"), parse("linux/x86_64")]) == 1


def test_offers_that_do_not_say_their_platform_are_left_to_the_caller() -> None:
    assert select(DEFAULT, [None, parse("linux/amd64")]) == 1
    assert select(DEFAULT, [None, None]) is None


def test_another_architecture_can_be_ruled_out() -> None:
    offers = [parse("linux/386"), parse("linux/arm/v7")]
    assert select(parse("linux/amd64"), offers) == 0
    assert select(parse("linux/amd64"), offers, same_architecture=True) is None
    assert select(parse("linux/arm64"), offers, same_architecture=True) is None
    assert select(parse("linux/arm/v8"), offers, same_architecture=True) == 1


def _table() -> dict[str, list[dict[str, object]]]:
    folder = data_dir()
    if folder is None:
        return {"valid": [{"input": "no table"}]}
    table: dict[str, list[dict[str, object]]] = json.loads((folder / "tables" / "platform_parse.json").read_text())
    return table


@needs_data
def test_the_table_of_containerd_is_there() -> None:
    assert len(_table()["valid"]) > 20
    for text in _table()["invalid"]:
        with pytest.raises(InvalidPlatform):
            parse(str(text))


@needs_data
@pytest.mark.parametrize("row", _table()["valid"], ids=lambda row: str(row["input"]))
@pytest.mark.parametrize("default", [DEFAULT, Platform("freebsd", "arm64"), Platform("linux", "arm", "v6")], ids=str)
def test_parsing_agrees_with_containerd(row: dict[str, object], default: Platform) -> None:
    names = {"defaultOS": default.os, "defaultArch": default.architecture, "defaultVariant": default.variant}

    def filled(text: object) -> str:
        return names.get(str(text), str(text))

    platform = Platform.parse(str(row["input"]), default=default)
    assert platform.os == filled(row["os"])
    assert platform.architecture == filled(row["architecture"])
    assert platform.variant == filled(row.get("variant", ""))
    assert platform.os_version == row.get("osversion", "")
    formatted = str(row["formatted"])
    if formatted.startswith("path.Join("):
        parts = [part.strip() for part in formatted.removeprefix("path.Join(").removesuffix(")").split(", ")]
        formatted = "/".join(part for part in (filled(part.strip('"')) for part in parts) if part)
    assert str(platform) == formatted


@given(st.one_of(st.text(), st.text("linuxamd64rvLINUX/()+%2B. ", max_size=30)))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_a_platform_or_one_kind_of_error(text: str) -> None:
    try:
        platform = parse(text)
    except InvalidPlatform as error:
        assert str(error).isprintable()  # noqa: PT017 - nothing raised is as good
    else:
        assert parse(str(platform)).normalized() == platform.normalized()


_words = st.one_of(
    st.text(max_size=5), st.sampled_from(["linux", "arm", "arm64", "amd64", "v8", "v9.3", "unknown", ""])
)


@given(st.builds(Platform, _words, _words, _words, _words, st.lists(_words, max_size=3).map(tuple)))
@settings(max_examples=200, deadline=None)
def test_any_platform_prefers_itself_and_is_selected_for_itself(platform: Platform) -> None:
    assert platform.normalized().normalized() == platform.normalized()
    assert platform.preference()[0] == platform.normalized()
    index = select(platform, [None, platform])
    assert index == (None if "unknown" in (platform.normalized().os, platform.normalized().architecture) else 1)
