"""An index or tree is believed only for its own layers, and a tar only with its own digest."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.check.verify import verify
from imagefs.errors import LayerDamaged, errno_of
from imagefs.oci.digest import DiffId, chain_id
from imagefs.overlay.stored import Stack, store_tree
from imagefs.store.store import Store
from imagefs.view.attributes import ROOT, NodeId
from imagefs.view.filesystem import Filesystem
from tests.support.commands import imagefs
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, symlink, whiteout
from tests.support.mounts import mounted, needs_fuse
from tests.support.snapshot import Snapshot, differences, snapshot
from tests.support.viewed import snapshot_view

# Of equal shape, so that each place in one tar has its like in the other.
HARMLESS = layer(dir_("bin"), file("bin/tool", b"harmless"), symlink("link", "bin/tool"), file("key", b"k", mode=0o600))
EVIL = layer(dir_("bin"), file("bin/tool", b"evil!!!!"), symlink("link", "evil/tool"), file("key", b"e", mode=0o644))
COMMON = layer(file("common", b"c"))


def write_lone_tree(store: Store, diff_id: DiffId) -> None:
    """Put the tree of layer *diff_id* by itself into *store*, as 0.3 did; today it is made in memory."""
    pieces = Stack((diff_id,), alone=True).computed(store)
    store.lone_tree_path(diff_id).write_bytes(b"".join(pieces))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store of two images, the tree of each, and the tree of each layer by itself."""
    with Store.open(tmp_path / "store", create=True) as opened:
        for name, top in (("app:1", HARMLESS), ("app:2", EVIL)):
            image = add_image(opened, [COMMON, top], name)
            store_tree(opened, image.diff_ids)
            write_lone_tree(opened, image.diff_ids[1])
        yield opened


def layers(store: Store) -> tuple[DiffId, DiffId]:
    """Return the layers in which the two images differ."""
    return store.image("app:1").diff_ids[1], store.image("app:2").diff_ids[1]


def paths_of(kind: str) -> Callable[[Store], tuple[Path, Path]]:
    def paths(store: Store) -> tuple[Path, Path]:
        harmless, evil = layers(store)
        if kind == "index":
            return store.index_path(harmless), store.index_path(evil)
        if kind == "tree":
            trees = [store.tree_path(chain_id(store.image(name).diff_ids)) for name in ("app:1", "app:2")]
            return trees[0], trees[1]
        return store.lone_tree_path(harmless), store.lone_tree_path(evil)

    return paths


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_suffix(".swap"))
    other.rename(one)
    one.with_suffix(".swap").rename(other)


def walk(view: Filesystem, path: str) -> NodeId:
    node = ROOT
    for name in path.encode().split(b"/"):
        node = view.lookup(node, name)
    return node


def shown(store: Store, *, check: bool) -> dict[str, Snapshot]:
    view = Filesystem(Store.open(store.path), verify=check)
    try:
        lone = [f".imagefs/layers/{diff_id.hex}" for diff_id in layers(store)]
        return {path: snapshot_view(view, walk(view, path)) for path in ("app/1", "app/2", *lone)}
    finally:
        view.close()


@pytest.mark.parametrize("kind", ["index", "tree", "lone tree"])
@pytest.mark.parametrize("check", [False, True], ids=["", "verify=open"])
def test_the_index_or_tree_of_another_layer_is_never_believed(store: Store, kind: str, check: bool) -> None:
    expected = shown(store, check=check)
    paths = paths_of(kind)(store)
    good = [path.read_bytes() for path in paths]
    swap(*paths)
    assert {finding.kind for finding in verify(store)} == {"index" if kind == "index" else "tree"}
    assert shown(store, check=check) == expected
    if kind == "lone tree":  # nothing makes these again in the store
        imagefs("--store", store.path, "verify", "--repair")
        assert not any(path.exists() for path in paths)
    else:
        assert [path.read_bytes() for path in paths] == good
    assert list(verify(store)) == []


def test_the_tree_of_a_layer_by_itself_is_not_that_of_an_image_of_this_layer(store: Store) -> None:
    image = add_image(store, [layer(file("key"), whiteout("gone"))], "one:1")
    store_tree(store, image.diff_ids)
    write_lone_tree(store, image.diff_ids[0])
    tree = store.tree_path(chain_id(image.diff_ids))
    good = tree.read_bytes()
    tree.unlink()
    shutil.copy(store.lone_tree_path(image.diff_ids[0]), tree)
    view = Filesystem(Store.open(store.path))
    assert [name for name, *_ in view.readdir(walk(view, "one/1"))] == [b"key"]
    view.close()
    assert tree.read_bytes() == good


@pytest.mark.parametrize("index", [b"", b"damaged", None], ids=["empty", "damaged", "missing"])
@pytest.mark.parametrize("check", [False, True], ids=["", "verify=open"])
def test_a_replaced_tar_is_not_scanned_in_place_of_the_layer(store: Store, index: bytes | None, check: bool) -> None:
    harmless, _ = layers(store)
    store.layer_path(harmless).unlink()
    store.layer_path(harmless).write_bytes(EVIL)
    store.index_path(harmless).unlink()
    if index is not None:
        store.index_path(harmless).write_bytes(index)
    tree = store.tree_path(chain_id(store.image("app:1").diff_ids))
    tree.unlink()
    view = Filesystem(Store.open(store.path), verify=check)
    with pytest.raises(LayerDamaged, match=str(harmless)) as caught:
        snapshot_view(view, walk(view, "app/1"))
    assert errno_of(caught.value) == 5
    view.close()
    assert store.layer_index(harmless) == (index or b"")
    assert not tree.exists()
    assert os.listdir(store.path / "ingest") == []


def test_repair_makes_nothing_from_a_replaced_tar(store: Store) -> None:
    harmless, _ = layers(store)
    store.layer_path(harmless).unlink()
    store.layer_path(harmless).write_bytes(EVIL)
    store.index_path(harmless).unlink()
    done = imagefs("--store", store.path, "verify", "--repair", check=False)
    assert done.returncode != 0
    assert str(harmless) in done.stdout
    assert store.layer_index(harmless) == b""


@needs_fuse[0]
@needs_fuse[1]
@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_a_mount_shows_nothing_of_another_layer(store: Store, tmp_path: Path, driver: str) -> None:
    def seen() -> list[Snapshot]:
        with mounted(store.path, tmp_path / "mnt", "-o", f"driver={driver},verify=open") as top:
            return [snapshot(top / "app/1"), snapshot(top / "app/2")]

    expected = seen()
    swap(*paths_of("index")(store))
    swap(*paths_of("tree")(store))
    assert [differences(*pair) for pair in zip(seen(), expected, strict=True)] == [[], []]


def test_numbers_are_equal_within_a_store_and_depend_on_its_secret(store: Store, tmp_path: Path) -> None:
    def numbers(path: Path) -> dict[str, dict[bytes, int]]:
        view = Filesystem(Store.open(path))
        found: dict[str, dict[bytes, int]] = {}
        documents = walk(view, ".imagefs/meta/app/1")
        for place in ("app/1", "app/2"):
            root = walk(view, place)
            of_names = {name: view.getattr(child).ino for name, child, _, _ in view.readdir(root)}
            found[place] = {b"": view.getattr(root).ino, **of_names}
        found["documents"] = {name: view.getattr(child).ino for name, child, _, _ in view.readdir(documents)}
        view.close()
        return found

    shutil.copytree(store.path, tmp_path / "copy")
    first = numbers(store.path)
    assert numbers(tmp_path / "copy") == first
    assert first["app/1"][b"common"] == first["app/2"][b"common"]
    assert first["app/1"][b"link"] != first["app/2"][b"link"]
    (tmp_path / "copy/secret").unlink()  # the trees stay, with numbers that nobody can compute any more
    other = numbers(tmp_path / "copy")
    assert other["app/1"][b"common"] == other["app/2"][b"common"]
    for place, of_names in first.items():
        assert of_names.keys() == other[place].keys()
        assert set(of_names.values()).isdisjoint(other[place].values())
    with Store.open(tmp_path / "copy") as copy:
        assert list(verify(copy)) == []
