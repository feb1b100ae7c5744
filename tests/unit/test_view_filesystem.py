"""The view without a kernel: attributes, content, names that change, and damage that is told."""

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import BlobNotFound, LayerDamaged, errno_of
from imagefs.store.removal import remove
from imagefs.store.store import Store
from imagefs.view import filesystem as module
from imagefs.view import opened
from imagefs.view.attributes import ROOT, NodeId
from imagefs.view.filesystem import Filesystem
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, sparse, symlink
from tests.support.nasty import BASE, TOP
from tests.support.viewed import snapshot_view

CONTENT = random.Random(1).randbytes(300_000)
SIMPLE = layer(dir_("d"), file("d/data", CONTENT), symlink("l", "d/data"), file("x", b"x", xattrs={"user.a": b"1"}))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(module, "REFRESH_S", 0.0)
    with Store.open(tmp_path / "store", create=True) as opened_store:
        yield opened_store


def walk(filesystem: Filesystem, path: str) -> NodeId:
    node = ROOT
    for name in path.encode().split(b"/"):
        node = filesystem.lookup(node, name)
    return node


def other(store: Store) -> Filesystem:
    """Return a view of the same store through a connection of its own, as a serving process has it."""
    return Filesystem.for_store(Store.open(store.path))


def test_the_whole_store_and_one_image_show_the_same_tree(store: Store) -> None:
    image = add_image(store, [BASE, TOP], "nasty:2")
    whole, single = other(store), Filesystem.for_image(Store.open(store.path), image)
    assert snapshot_view(whole, walk(whole, "nasty/2")) == snapshot_view(single)
    whole.close()
    single.close()


def test_random_reads_give_the_bytes_that_are_there(store: Store) -> None:
    add_image(store, [SIMPLE], "one:1")
    view = other(store)
    opened_file = view.open(walk(view, "one/1/d/data"))
    chance = random.Random(2)
    for _ in range(300):
        offset, size = chance.randrange(len(CONTENT) + 10), chance.randrange(len(CONTENT))
        assert opened_file.read(offset, size) == CONTENT[offset : offset + size]
    opened_file.close()
    view.close()


def test_holes_of_sparse_files_are_zeros(store: Store) -> None:
    add_image(store, [layer(sparse("sparse", 10_000, [(1000, b"first"), (5000, b"second")]))], "one:1")
    view = other(store)
    node = walk(view, "one/1/sparse")
    expected = bytearray(10_000)
    expected[1000:1005], expected[5000:5006] = b"first", b"second"
    assert view.getattr(node).size == 10_000
    assert view.getattr(node).blocks == 1
    opened_file = view.open(node)
    chance = random.Random(3)
    assert opened_file.read(0, 20_000) == expected
    for _ in range(300):
        offset, size = chance.randrange(10_100), chance.choice([1, 3, 10, 600, 9_000])
        assert opened_file.read(offset, size) == expected[offset : offset + size]
    opened_file.close()
    view.close()


def test_what_is_no_file_cannot_be_opened(store: Store) -> None:
    add_image(store, [BASE], "one:1")
    view = other(store)
    with pytest.raises(IsADirectoryError):
        view.open(walk(view, "one/1/etc"))
    with pytest.raises(IsADirectoryError):
        view.open(ROOT)
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        view.open(walk(view, "one/1/dev/null"))
    with pytest.raises(NotADirectoryError):
        view.lookup(walk(view, "one/1/etc/conf"), b"x")
    with pytest.raises(NotADirectoryError):
        view.readdir(walk(view, "one/1/etc/conf"))
    view.close()


def test_extended_attributes_are_told_and_absent_ones_too(store: Store) -> None:
    add_image(store, [SIMPLE], "one:1")
    view = other(store)
    node = walk(view, "one/1/x")
    assert view.listxattr(node) == (b"user.a",)
    assert view.getxattr(node, b"user.a") == b"1"
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        view.getxattr(node, b"security.selinux")
    for where, name in ((node, b"user.b"), (ROOT, b"user.a")):
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            view.getxattr(where, name)
    view.close()


def test_readlink_is_for_symlinks_only(store: Store) -> None:
    add_image(store, [SIMPLE], "one:1")
    view = other(store)
    assert view.readlink(walk(view, "one/1/l")) == b"d/data"
    assert view.readlink(walk(view, "one:1")) == b"one/1"
    assert stat.S_ISLNK(view.getattr(walk(view, "one:1")).mode)
    for path in ("one/1/x", "one"):
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            view.readlink(walk(view, path))
    view.close()


def test_names_follow_the_store(store: Store) -> None:
    view = other(store)
    assert view.readdir(ROOT) == []
    add_image(store, [SIMPLE], "one:1")
    first = walk(view, "one/1")
    add_image(store, [BASE], "one:1")
    moved = walk(view, "one/1")
    assert moved != first
    remove(store, "one:1")
    with pytest.raises(FileNotFoundError):
        walk(view, "one/1")
    add_image(store, [SIMPLE], "one:1")
    assert walk(view, "one/1") == first  # the same image at the same path is the same node again
    view.close()


def test_numbers_are_unique_but_for_hard_links_and_equal_for_two_tags_of_one_image(store: Store) -> None:
    add_image(store, [BASE, TOP], "one:1", "one:again")
    add_image(store, [BASE], "two:1")
    view = other(store)
    seen: dict[int, str] = {}
    links = 0
    stack = [("one/1", walk(view, "one/1")), ("two/1", walk(view, "two/1"))]
    while stack:
        path, node = stack.pop()
        attributes = view.getattr(node)
        assert attributes.ino == view.inode_number(node)
        links += attributes.ino in seen
        assert attributes.ino not in seen or attributes.nlink > 1
        seen[attributes.ino] = path
        if stat.S_ISDIR(attributes.mode):
            stack += [(f"{path}/{name!r}", child) for name, child, _ in view.readdir(node)]
    assert links == 3  # bin/same and "late link" in one, bin/same in two
    assert view.getattr(walk(view, "one/1/etc")).ino == view.getattr(walk(view, "one/again/etc")).ino
    view.close()


def test_a_truncated_layer_is_an_error_and_never_short_data(store: Store) -> None:
    image = add_image(store, [SIMPLE], "one:1")
    view = other(store)
    opened_file = view.open(walk(view, "one/1/d/data"))
    path = store.layer_path(image.diff_ids[0])
    path.chmod(0o600)
    os.truncate(path, 200_000)
    assert opened_file.read(0, 1000) == CONTENT[:1000]
    with pytest.raises(LayerDamaged) as caught:
        opened_file.read(100_000, 200_000)
    assert errno_of(caught.value) == errno.EIO
    opened_file.close()
    view.close()


def test_a_missing_layer_is_an_error_and_not_an_absent_file(store: Store) -> None:
    image = add_image(store, [SIMPLE], "one:1")
    view = other(store)
    node = walk(view, "one/1/d/data")
    store.layer_path(image.diff_ids[0]).unlink()
    with pytest.raises(BlobNotFound) as caught:
        view.open(node)
    assert errno_of(caught.value) == errno.EIO
    view.close()


def test_who_is_still_in_a_removed_image_is_told_that_it_is_stale(store: Store) -> None:
    add_image(store, [SIMPLE], "one:1")
    view = other(store)
    folder = walk(view, "one/1/d")
    remove(store, "one:1")
    assert view.readdir(ROOT) == []  # it has noticed, and dropped the image's tree
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        view.lookup(folder, b"data")
    view.close()


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_missing_or_damaged_index_is_made_again(store: Store, damage: bytes | None) -> None:
    image = add_image(store, [SIMPLE], "one:1")
    good = store.layer_index(image.diff_ids[0])
    path = store.path / "layers" / "sha256" / f"{image.diff_ids[0].hex}.index"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    view = other(store)
    assert view.getattr(walk(view, "one/1/d/data")).size == len(CONTENT)
    assert path.read_bytes() == good
    view.close()


def test_trees_not_used_for_long_are_dropped_and_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "MAX_KEPT_INODES", 3)
    for number in range(4):
        add_image(store, [layer(file(f"file{number}", b"x" * number))], f"image:{number}")
    view = other(store)
    for _ in range(2):
        for number in range(4):
            assert view.getattr(walk(view, f"image/{number}/file{number}")).size == number
    assert len(view._images._trees) <= 3
    view.close()


def test_the_size_of_the_mount_is_that_of_its_images(store: Store) -> None:
    view = other(store)
    assert view.statfs().blocks == 0
    image = add_image(store, [SIMPLE], "one:1")
    assert view.statfs().blocks == -(-image.size // 4096)
    assert view.statfs().bfree == 0
    view.close()
