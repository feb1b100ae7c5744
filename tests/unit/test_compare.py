"""What counts as a change: of an entry, of a layer's bytes, and of a path from layer to layer."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.compare.blame import Touch, blame
from imagefs.compare.layers import LayerShare, layer_shares
from imagefs.compare.trees import ASPECTS, differing
from imagefs.layer.changeset import Entry
from imagefs.oci.config import parse_config
from imagefs.overlay.stored import Stack
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.view.kept import KeptFiles
from imagefs.view.opened import OpenedImages
from tests.support.images import add_image
from tests.support.layers import Member, block, dir_, file, layer, symlink, whiteout

ENTRY = Entry(b"p", stat.S_IFREG | 0o644, 1, 2, 3, 4, b"t", False, (5, 6), ((b"user.a", b"1"),), 512, None, b"1" * 32)


@pytest.mark.parametrize(
    ("change", "aspect"),
    [
        ({"mode": stat.S_IFIFO | 0o644}, "type"),
        ({"sha256": b"2" * 32}, "content"),
        ({"size": 5}, "content"),
        ({"target": b"u"}, "target"),
        ({"rdev": (0, 6)}, "device"),
        ({"rdev": (5, 0)}, "device"),
        ({"mode": stat.S_IFREG | 0o4644}, "mode"),
        ({"uid": 0}, "owner"),
        ({"gid": 0}, "owner"),
        ({"mtime_ns": 4}, "times"),
        ({"xattrs": ((b"user.a", b"2"),)}, "xattrs"),
        ({"path": b"q"}, None),
        ({"offset": 1024}, None),
    ],
)
def test_each_field_of_an_entry_has_its_aspect(change: dict[str, object], aspect: str | None) -> None:
    changed = ENTRY._replace(**change)  # type: ignore[arg-type]
    assert list(differing(ENTRY, changed)) == ([aspect] if aspect else [])
    assert aspect is None or aspect in ASPECTS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


def touches(store: Store, path: bytes, *layers: bytes) -> list[Touch]:
    config = parse_config(store.document(add_image(store, layers, "app:1").id), algorithm="sha256")
    (found,) = blame(store, config, [path])
    return found


@pytest.mark.parametrize(
    ("before", "after", "aspect"),
    [
        (symlink("p", "one"), symlink("p", "two"), "target"),
        (block("p", 1, 2), block("p", 1, 3), "device"),
        (file("p", b"one"), file("p", b"two"), "content"),
    ],
)
def test_a_layer_that_replaces_what_a_path_is_changed_it(
    store: Store, before: Member, after: Member, aspect: str
) -> None:
    newest, _ = touches(store, b"p", layer(before), layer(after))
    assert (newest.action, newest.aspects) == ("changed", (aspect,))


def test_a_layer_is_blamed_for_the_size_of_the_file_that_it_left(store: Store) -> None:
    found = touches(store, b"p", layer(file("p", b"1234567")), layer(file("p", b"123")), layer(whiteout("p")))
    assert [touch.size for touch in found] == [0, 3, 7]


def test_a_layer_that_moves_a_symlinked_parent_changed_what_is_below(store: Store) -> None:
    base = layer(dir_("one"), file("one/p", b"1"), dir_("two"), file("two/p", b"2"), symlink("now", "one"))
    found = touches(store, b"now/p", base, layer(symlink("now", "two")))
    assert [(touch.number, touch.action, touch.aspects) for touch in found] == [
        (2, "changed", ("content",)),
        (1, "added", ()),
    ]


def shares_of(store: Store, old: Image, new: Image) -> list[LayerShare]:
    images = OpenedImages(store, KeptFiles())
    return list(layer_shares(images, Stack(old.diff_ids), Stack(new.diff_ids)))


BASE = layer(file("p", b"1234567"), file("q", b"12"))


@pytest.mark.parametrize(
    ("top", "adds", "frees"),
    [
        (file("p", b"123"), 3, 7),
        (file("new", b"123"), 3, 0),
        (whiteout("p"), 0, 7),
        (symlink("p", "q"), 0, 7),
        (dir_("p"), 0, 7),
        (file("p", b"1234567", mode=0o600), 0, 0),
    ],
)
def test_a_layer_adds_and_frees_the_bytes_of_what_it_replaces(store: Store, top: Member, adds: int, frees: int) -> None:
    old = add_image(store, [BASE], "app:1")
    new = add_image(store, [BASE, layer(top)], "app:2")
    shares = shares_of(store, old, new)
    assert [(share.where, share.adds, share.frees) for share in shares] == [("both", 0, 0), ("new", adds, frees)]


def test_common_layers_come_first_then_those_of_the_old_image(store: Store) -> None:
    old = add_image(store, [BASE, layer(file("old", b"1"))], "app:1")
    new = add_image(store, [BASE, layer(file("new", b"22"))], "app:2")
    shares = shares_of(store, old, new)
    assert [(share.where, share.adds) for share in shares] == [("both", 0), ("old", 1), ("new", 2)]
