import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import InvalidManifest
from imagefs.oci.config import ImageConfig, parse_config, parse_time_ns
from imagefs.oci.digest import Digest
from imagefs.oci.manifest import MAX_LAYERS, Manifest, parse_manifest
from tests.support.data import data_dir, needs_data

HEX = "a" * 64


def config(**changes: object) -> dict[str, object]:
    """Return a valid config with *changes*; a change to ``...`` leaves the field out."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.000000012Z",
        "config": {"Labels": {"b": "1", "a": "2"}, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{HEX}"]},
        "history": [{"created_by": "ADD x", "empty_layer": True}, {"comment": "c"}],
        **changes,
    }
    return {key: value for key, value in document.items() if value is not ...}


def parse(document: object) -> ImageConfig:
    return parse_config(json.dumps(document).encode())


def test_a_config_says_what_is_in_it() -> None:
    raw = json.dumps(config(variant="v2")).encode()
    parsed = parse_config(raw)
    assert parsed.raw == raw
    assert parsed.digest == Digest.of(raw)
    assert str(parsed.platform) == "linux/amd64/v2"
    assert parsed.created_ns == 1_714_979_289_000_000_012
    assert parsed.diff_ids == (Digest("sha256", HEX),)
    assert parsed.labels == (("b", "1"), ("a", "2"))
    assert parsed.container["Env"] == ["PATH=/bin"]
    assert [(step.created_by, step.comment, step.empty_layer) for step in parsed.history] == [
        ("ADD x", "", True),
        ("", "c", False),
    ]
    assert hash(parsed) == hash(parse_config(raw))


def test_what_go_programs_leave_null_is_empty() -> None:
    parsed = parse(
        config(config=None, history=None, created=None, rootfs={"type": "layers", "diff_ids": None}, variant=None)
    )
    assert (parsed.container, parsed.history, parsed.created_ns, parsed.diff_ids) == ({}, (), None, ())
    assert parse(config(config={"Labels": None})).labels == ()
    assert parse(config(config=..., history=..., created=...)).labels == ()


def test_the_first_configs_say_no_system() -> None:
    assert str(parse(config(os=..., architecture=...)).platform) == "linux"
    assert str(parse(config(os="", variant="v8", architecture="arm64")).platform) == "linux/arm64/v8"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "expected a JSON object"),
        ({}, "expected 'rootfs', found none"),
        (config(rootfs=...), "expected 'rootfs', found none"),
        (config(rootfs=None), "expected 'rootfs', found none"),
        (config(rootfs=[]), "expected a JSON object, found an array"),
        (config(rootfs={"diff_ids": []}), "expected a string as 'type', found nothing"),
        (config(rootfs={"type": "layers+base"}), "expected 'layers' as its type, found 'layers+base'"),
        (config(rootfs={"type": "layers", "diff_ids": ["sha256:../x"]}), "invalid digest 'sha256:../x'"),
        (config(rootfs={"type": "layers", "diff_ids": [7]}), "a string as 'diff_ids[0]'"),
        (config(rootfs={"type": "layers", "diff_ids": [f"sha256:{HEX}"] * (MAX_LAYERS + 1)}), "at most 1024"),
        (config(config=[]), "expected an object as 'config'"),
        (config(config={"Labels": {"a": 1}}), "expected a string as 'Labels.a', found the number 1"),
        (config(config={"Labels": ["a"]}), "expected an object as 'Labels'"),
        (config(history=[None]), "invalid image config (history[0])"),
        (config(history=[{"created_by": 1}]), "expected a string as 'created_by'"),
        (config(architecture=1), "expected a string as 'architecture'"),
    ],
)
def test_configs_that_break_the_rules_are_refused(document: object, reason: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse(document)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.1Z", 100_000_000),
        ("1970-01-01T00:00:00.1234567899Z", 123_456_789),
        ("1970-01-01T01:30:00+01:30", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
        ("1980-01-01t00:00:00z", 315_532_800_000_000_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
        ("2262-04-11T23:47:16.854775807Z", 2**63 - 1),
        ("2262-04-11T23:47:16.854775808Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("2023-02-29T00:00:00Z", None),
        ("2024-13-01T00:00:00Z", None),
        ("2024-00-01T00:00:00Z", None),
        ("2024-01-01T24:00:00Z", None),
        ("2024-01-01T00:00:61Z", None),
        ("2024-01-01", None),
        ("2024-01-01T00:00:00", None),
        ("2024-01-01 00:00:00Z", None),
        ("٢٠٢٤-01-01T00:00:00Z", None),
        ("2024-01-01T00:00:00Z\n", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times_are_read_to_the_nanosecond_or_not_at_all(text: str, expected: int | None) -> None:
    assert parse_time_ns(text) == expected
    assert parse(config(created=text)).created_ns == expected


def test_a_creation_time_of_another_type_is_no_time() -> None:
    assert parse(config(created=1234)).created_ns is None


@needs_data
def test_every_config_of_real_images_is_understood() -> None:
    folder = data_dir()
    assert folder is not None
    seen = 0
    for blobs in sorted((folder / "images").glob("*/blobs/sha256")):
        for blob in blobs.iterdir():
            raw = blob.read_bytes() if blob.stat().st_size < 100_000 else b""
            if not raw.startswith(b"{") or b'"layers"' not in raw or b'"schemaVersion"' not in raw:
                continue
            manifest = parse_manifest(raw)
            assert isinstance(manifest, Manifest)
            if (blobs / manifest.config.digest.hex).is_file():
                parsed = parse_config((blobs / manifest.config.digest.hex).read_bytes())
                assert parsed.digest == manifest.config.digest
                assert len(parsed.diff_ids) == len(manifest.layers)
                seen += 1
    assert seen > 10


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.text(max_size=5) | st.just(f"sha256:{HEX}"),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "diff_ids", "Labels", "created", "created_by", "empty_layer"]),
            children,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    st.one_of(
        st.binary(),
        st.builds(
            lambda key, value: json.dumps(config(**{key: value})).encode(),
            st.sampled_from(["architecture", "os", "created", "config", "rootfs", "history", "os.features", "variant"]),
            _values,
        ),
    )
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_config_or_one_kind_of_error(raw: bytes) -> None:
    try:
        parsed = parse_config(raw)
    except InvalidManifest as error:
        assert str(error).isprintable()  # noqa: PT017 - nothing raised is as good
    else:
        assert parsed.raw == raw


@given(
    st.from_regex(
        r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
        fullmatch=True,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_time_fits_a_database_or_is_none(text: str) -> None:
    found = parse_time_ns(text)
    assert found is None or -(2**63) <= found < 2**63
