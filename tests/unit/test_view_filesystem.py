"""The view without a kernel: attributes, content, names that change, and damage that is told."""

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import BlobNotFound, LayerDamaged, errno_of
from imagefs.oci.digest import chain_id
from imagefs.overlay.record import ENTRY, unpacked
from imagefs.store.removal import remove
from imagefs.store.store import Store
from imagefs.view import inside as module
from imagefs.view import live_names
from imagefs.view.attributes import ROOT, NodeId
from imagefs.view.filesystem import Filesystem, Shown
from imagefs.view.presentation import Presentation
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, link, sparse, symlink
from tests.support.nasty import BASE, TOP
from tests.support.viewed import snapshot_view

CONTENT = random.Random(1).randbytes(300_000)
SIMPLE = layer(dir_("d"), file("d/data", CONTENT), symlink("l", "d/data"), file("x", b"x", xattrs={"user.a": b"1"}))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(live_names, "REFRESH_S", 0.0)
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
    for probe in (b"security.selinux", b"system.posix_acl_access", b"system.posix_acl_default", b"system.nfs4_acl"):
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            view.getxattr(node, probe)
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


def test_looking_up_abbreviations_does_not_take_memory(store: Store) -> None:
    images = [add_image(store, [layer(file("x", bytes([number])))], f"many:{number}") for number in range(20)]
    view = other(store)
    folders = {name: walk(view, f".imagefs/{name}") for name in ("images", "layers")}
    wholes = [("images", image.id.hex) for image in images] + [("layers", image.diff_ids[0].hex) for image in images]

    def look_up_all() -> None:
        for folder, whole in wholes:
            for length in range(12, len(whole)):
                for prefix in ("", "sha256:"):
                    node = view.lookup(folders[folder], f"{prefix}{whole[:length]}".encode())
                    assert view.readlink(node) == whole.encode()

    before = len(view._slots)
    look_up_all()
    assert len(view._slots) <= before + len(wholes)
    view.close()


def test_numbers_are_unique_but_for_hard_links_and_equal_for_two_tags_of_one_image(store: Store) -> None:
    add_image(store, [BASE, TOP], "one:1", "one:again")
    add_image(store, [BASE], "two:1")
    view = other(store)
    seen: dict[int, str] = {}
    links = 0
    stack = [("one/1", walk(view, "one/1"))]
    while stack:
        path, node = stack.pop()
        attributes = view.getattr(node)
        links += attributes.ino in seen
        assert attributes.ino not in seen or attributes.nlink > 1
        seen[attributes.ino] = path
        if stat.S_ISDIR(attributes.mode):
            for name, child, _, ino in view.readdir(node):
                stack.append((f"{path}/{name!r}", child))
                assert view.getattr(child).ino == ino
    assert links == 2  # bin/same and "late link"
    assert view.getattr(walk(view, "one/1/etc")).ino == view.getattr(walk(view, "one/again/etc")).ino
    view.close()


def test_files_of_a_shared_layer_are_one_node_in_all_images_and_directories_never(store: Store) -> None:
    add_image(store, [SIMPLE], "one:1", "one:again")
    add_image(store, [SIMPLE, layer(link("d/second", "x"))], "two:1")
    view = other(store)
    for path in ("d/data", "l"):
        assert walk(view, f"one/1/{path}") == walk(view, f"one/again/{path}") == walk(view, f"two/1/{path}")
    # Its link count is another in two: so it is another node there, of equal content and another number.
    assert walk(view, "one/1/x") == walk(view, "one/again/x") != walk(view, "two/1/x") == walk(view, "two/1/d/second")
    assert view.getattr(walk(view, "one/1/x")).nlink == 1
    assert view.getattr(walk(view, "two/1/x")).nlink == 2
    assert len({walk(view, path) for path in ("one/1/d", "one/again/d", "two/1/d")}) == 3
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
    store.layer_path(image.diff_ids[0]).unlink()
    view = other(store)
    node = walk(view, "one/1/d/data")
    with pytest.raises(BlobNotFound) as caught:
        view.open(node)
    assert errno_of(caught.value) == errno.EIO
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


def test_listings_not_used_for_long_are_dropped_and_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 1500)
    for number in range(4):
        add_image(store, [layer(file(f"file{number}", b"x" * number))], f"image:{number}")
    view = other(store)
    for _ in range(2):
        for number in range(4):
            assert view.getattr(walk(view, f"image/{number}/file{number}")).size == number
    assert view._inside._listed_bytes == sum(listing.kept_bytes for listing in view._inside._listings.values()) <= 1500
    view.close()


@pytest.mark.parametrize("damage", [b"", b"rubbish", None, "flip"])
def test_a_missing_or_damaged_tree_is_made_again(store: Store, damage: bytes | str | None) -> None:
    image = add_image(store, [BASE, TOP], "one:1")
    first = other(store)
    expected = snapshot_view(first, walk(first, "one/1"))
    first.close()
    path = store.tree_path(chain_id(image.diff_ids))
    good = path.read_bytes()
    path.unlink()
    if damage == "flip":
        path.write_bytes(good[:200] + bytes([good[200] ^ 4]) + good[201:])
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    view = other(store)
    assert snapshot_view(view, walk(view, "one/1")) == expected
    assert path.read_bytes() == good
    view.close()


def test_a_damaged_page_of_a_big_directory_is_made_again(store: Store) -> None:
    image = add_image(store, [layer(*(file(f"file{number:04}") for number in range(1000)))], "one:1")
    first = other(store)
    first.getattr(walk(first, "one/1"))
    first.close()
    path = store.tree_path(chain_id(image.diff_ids))
    good = path.read_bytes()
    at = good.index(b"file0700")
    path.unlink()
    path.write_bytes(good[:at] + b"FILE" + good[at + 4 :])
    view = other(store)
    root = walk(view, "one/1")
    assert view.getattr(view.lookup(root, b"file0001")).size == 0
    assert path.read_bytes() != good, "the damaged page was not looked at yet"
    assert view.getattr(view.lookup(root, b"file0700")).size == 0
    assert path.read_bytes() == good
    assert len(view.readdir(root)) == 1000
    view.close()


def test_looking_at_a_layer_does_not_write_to_the_store(store: Store) -> None:
    image = add_image(store, [BASE, TOP], "one:1")
    view = other(store)
    before = sorted(path for path in store.path.rglob("*") if not path.name.startswith("catalog"))
    for diff_id in image.diff_ids:
        root = walk(view, f".imagefs/layers/{diff_id.hex}")
        listed = view.readdir(root)
        assert listed
        numbers = {name: ino for name, _, _, ino in view.readdir(walk(view, ".imagefs/layers"))}
        assert view.getattr(root).ino == numbers[diff_id.hex.encode()]
    assert sorted(path for path in store.path.rglob("*") if not path.name.startswith("catalog")) == before
    view.close()


def test_an_image_that_was_entered_stays_whole_after_its_removal(store: Store) -> None:
    add_image(store, [BASE, TOP], "one:1")
    view = other(store)
    node = walk(view, "one/1")
    expected = snapshot_view(view, node)
    remove(store, "one:1")
    assert view.readdir(ROOT) == []
    assert snapshot_view(view, node) == expected
    view.close()


def test_attributes_are_shown_as_asked_wherever_they_are_seen(store: Store) -> None:
    image = add_image(store, [layer(dir_("d", mode=0o777), file("f", mode=0o4777, uid=7), symlink("l", "f"))], "one:1")
    view = Filesystem(store, Shown.of(image), presentation=Presentation(uid=1000, umask=0o077))
    for name, mode in ((b"d", 0o40700), (b"f", 0o104700), (b"l", 0o120777)):
        shown = view.getattr(view.lookup(ROOT, name))
        listing = view.listing(ROOT)
        number = listing.find(name)
        assert number is not None
        assert (shown.mode, shown.uid, shown.gid) == (mode, 1000, 0)
        assert unpacked(listing.entry(number), ENTRY.size) == shown


def test_what_was_removed_is_told_until_it_is_given_up(store: Store) -> None:
    add_image(store, [BASE], "app/deep:1")
    add_image(store, [BASE, SIMPLE], "app/deep:2")
    view = other(store)
    folder = walk(view, "app/deep")
    gone = {walk(view, f"app/deep/2/{path}") for path in ("", "d", "d/data", "l") if path} | {walk(view, "app/deep/2")}
    kept = walk(view, "app/deep/2/etc/conf")
    assert view.departed() == set()
    assert view.departed() is None
    remove(store, "app/deep:2")
    assert view.departed() == {(folder, b"2")}
    tree, simple = sorted(view.removed(), key=lambda removed: len(removed.paths))
    assert gone <= {*tree.nodes(), *simple.nodes()}
    assert kept not in {*tree.nodes(), *simple.nodes()}
    for removed in (tree, simple):
        view.give_up(removed)
    assert view.removed() == []
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        view.readdir(walk_back := next(iter(tree.nodes())))
    assert walk_back in gone
    view.close()


def test_a_name_has_departed_when_it_leads_elsewhere_and_only_then(store: Store) -> None:
    first = add_image(store, [BASE], "app:1", "app:same")
    view = other(store)
    folder = walk(view, "app")
    walk(view, "app/1")
    walk(view, "app/same")
    layers = walk(view, ".imagefs/layers")
    walk(view, f".imagefs/layers/{first.diff_ids[0].hex}")
    meta = walk(view, ".imagefs/meta/app/1")
    walk(view, ".imagefs/meta/app/1/config.json")
    assert view.departed() == set()
    assert view.departed() is None, "nothing has changed"
    add_image(store, [SIMPLE], "unrelated:1")
    assert view.departed() == set()
    add_image(store, [SIMPLE], "app:1")  # the tag moves
    assert view.departed() == {(folder, b"1")}
    remove(store, "app:same")  # with the last name of the first image goes its layer
    assert view.departed() == {(folder, b"1"), (folder, b"same"), (layers, first.diff_ids[0].hex.encode())}
    add_image(store, [BASE], "app:1", "app:same")
    assert view.departed() == set()
    assert meta == walk(view, ".imagefs/meta/app/1")
    view.close()


def test_nothing_departs_from_an_image_that_is_mounted_alone(store: Store) -> None:
    image = add_image(store, [BASE], "app:1")
    view = Filesystem.for_image(Store.open(store.path), image)
    remove(store, "app:1", force=True)
    assert view.departed() is None
    assert view.removed() == []
    assert view.readdir(ROOT)
    view.close()


def test_a_removed_layer_that_comes_back_is_taken_afresh(store: Store) -> None:
    add_image(store, [SIMPLE], "one:1")
    view = other(store)
    node = walk(view, "one/1/d/data")
    remove(store, "one:1")
    image = add_image(store, [SIMPLE], "one:1")
    assert node in [again for replaced in view.replaced(thoroughly=False) for again in replaced.nodes()]
    assert view.replaced(thoroughly=True) == []
    assert [removed.paths for removed in view.removed()] == [(str(store.tree_path(chain_id(image.diff_ids))),)]
    assert view.open(node).read(0, 10) == CONTENT[:10]
    assert not view._files.get(str(store.layer_path(image.diff_ids[0]))).is_removed()
    view.close()


def test_the_size_of_the_mount_is_that_of_its_images(store: Store) -> None:
    view = other(store)
    assert view.statfs().blocks == 0
    image = add_image(store, [SIMPLE], "one:1")
    assert view.statfs().blocks == -(-image.size // 4096)
    assert view.statfs().bfree == 0
    view.close()
