"""Filters mean what docker's mean, and say what they do not understand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.cli.filters import PRUNE_KEYS, matches, parse_filters
from imagefs.errors import ImageNotFound, InvalidFilter
from imagefs.oci.reference import Reference
from imagefs.store.store import Store
from tests.support.images import add_image
from tests.support.layers import file, layer

NOW_NS = 1_717_243_200 * 10**9  # 2024-06-01T12:00:00Z
LAYER = layer(file("a", b"a"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        add_image(opened, [LAYER], "old:1", created="2024-05-01T00:00:00Z", label="one")
        add_image(opened, [LAYER], "new:1", "gcr.io/deep/er/new:2", created="2024-06-01T11:30:00Z", label="two")
        add_image(opened, [LAYER], created="2024-05-31T00:00:00Z", label="two")
        add_image(opened, [LAYER], "ageless:1", created="", label="")
        yield opened


def listed(store: Store, *filters: str) -> set[str]:
    meant = parse_filters(filters, store, now_ns=NOW_NS)
    found = set()
    for image in store.images():
        for name in image.tags or (None,):
            if meant(image, name):
                found.add(name.familiar_name if name else "<none>")
    return found


EVERY = {"old", "new", "gcr.io/deep/er/new", "<none>", "ageless"}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), EVERY),
        (("dangling=true",), {"<none>"}),
        (("dangling=0",), EVERY - {"<none>"}),
        (("before=new:1",), {"old", "<none>"}),
        (("since=old:1",), {"new", "gcr.io/deep/er/new", "<none>"}),
        (("after=old:1", "before=new:1"), {"<none>"}),
        (("until=24h",), {"old", "<none>"}),
        (("until=1h30m",), {"old", "<none>"}),
        (("until=10m",), {"old", "<none>", "new", "gcr.io/deep/er/new"}),
        (("until=2024-05-15T00:00:00Z",), {"old"}),
        (("until=1715000000",), {"old"}),
        (("label=label",), EVERY),
        (("label=label=two",), {"new", "gcr.io/deep/er/new", "<none>"}),
        (("label=label=one", "label=label=two"), EVERY - {"ageless"}),
        (("label!=label=two",), {"old", "ageless"}),
        (("label=nothing",), set()),
        (("reference=new",), {"new"}),
        (("reference=*",), {"old", "new", "ageless"}),
        (("reference=**",), EVERY - {"<none>"}),
        (("reference=gcr.io/*/*/new:*",), {"gcr.io/deep/er/new"}),
        (("reference=**/new",), {"gcr.io/deep/er/new", "new"}),
        (("reference=old", "reference=new:[0-9]"), {"old", "new"}),
        (("label=label=two", "dangling=false"), {"new", "gcr.io/deep/er/new"}),
    ],
)
def test_of_one_key_any_may_match_and_of_several_all_must(
    store: Store, filters: tuple[str, ...], expected: set[str]
) -> None:
    assert listed(store, *filters) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dangling", "expected key=value"),
        ("colour=red", "unknown key 'colour'; known are dangling"),
        ("dangling=maybe", "expected true or false"),
        ("until=soon", "expected a time such as"),
        ("until=3 days", "expected a time such as"),
        ("label=", "expected the name of a label"),
        ("reference=[z-a]", "expected a pattern"),
    ],
)
def test_what_is_not_understood_is_said(store: Store, text: str, reason: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        listed(store, text)
    assert reason in str(caught.value)


def test_an_unknown_image_to_compare_with_is_an_error(store: Store) -> None:
    with pytest.raises(ImageNotFound):
        listed(store, "before=nothing:1")


def test_pruning_knows_fewer_keys(store: Store) -> None:
    with pytest.raises(InvalidFilter, match="known are until, label, label!"):
        parse_filters(["reference=*"], store, now_ns=NOW_NS, known=PRUNE_KEYS)


def test_a_star_stops_at_a_slash() -> None:
    name = Reference.parse("ghcr.io/one/two:3")
    assert not matches(name, "ghcr.io/*")
    assert matches(name, "ghcr.io/*/two:?")
    assert matches(name, "**two")
