"""A process that cannot read the secret of a store shows it all the same, each thing with one number."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.check.verify import Finding, verify
from imagefs.layer.tar import scan
from imagefs.mount.holder import State, opened_store
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay import tree_file
from imagefs.overlay.attributes import NumberKey
from imagefs.overlay.resolve import resolve
from imagefs.overlay.stored import Stack, store_tree
from imagefs.store.store import Store
from imagefs.view.attributes import ROOT, NodeId
from imagefs.view.filesystem import Filesystem
from tests.support.images import add_image
from tests.support.layers import Member, dir_, file, layer
from tests.support.nasty import BASE, TOP
from tests.support.viewed import snapshot_view


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a store with the trees of two images, the secret of which no process can read any more."""
    with Store.open(tmp_path / "store", create=True) as store:
        for name, layers in (("app:1", [BASE]), ("app:2", [BASE, TOP])):
            store_tree(store, add_image(store, layers, name).diff_ids)
        assert list(verify(store)) == []
    (tmp_path / "store/secret").rename(tmp_path / "secret")
    (tmp_path / "store/secret").mkdir()
    return tmp_path / "store"


def walk(view: Filesystem, path: str) -> NodeId:
    node = ROOT
    for name in path.encode().split(b"/"):
        node = view.lookup(node, name)
    return node


def entries(view: Filesystem, path: str) -> Iterator[tuple[str, NodeId, int]]:
    """Yield path, node and listed number of everything below *path*."""
    for name, node, mode, ino in view.readdir(walk(view, path)):
        child = f"{path}/{name.decode('latin-1')}"
        yield child, node, ino
        if mode & 0o170000 == 0o040000 and all(byte < 0x80 for byte in name):
            yield from entries(view, child)


def trees(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("trees/sha256/*")}


def test_stored_trees_are_served_as_they_are(folder: Path) -> None:
    before = trees(folder)
    view = Filesystem(Store.open(folder))
    for name in ("app/1", "app/2"):
        assert snapshot_view(view, walk(view, name))  # which compares numbers in listings with those of entries
    numbers = {path: ino for path, _, ino in entries(view, "app/1")}
    view.close()
    assert trees(folder) == before
    (folder / "secret").rmdir()
    (folder.parent / "secret").rename(folder / "secret")
    view = Filesystem(Store.open(folder))
    assert {path: ino for path, _, ino in entries(view, "app/1")} == numbers
    assert {path: view.getattr(node).ino for path, node, _ in entries(view, "app/1")} == numbers
    view.close()


def test_verify_compares_trees_in_all_but_numbers(folder: Path) -> None:
    with Store.open(folder) as store:
        assert list(verify(store)) == []
        one, two = sorted(trees(folder))
        good = two.read_bytes()
        two.unlink()
        two.write_bytes(one.read_bytes())
        assert kinds(verify(store)) == {("damaged", "tree")}
        two.write_bytes(bytes([good[0]]) + bytes([good[1] ^ 1]) + good[2:])
        assert kinds(verify(store)) == {("damaged", "tree")}


def kinds(findings: Iterator[Finding]) -> set[tuple[str, str]]:
    return {(finding.state, finding.kind) for finding in findings}


def test_a_process_that_takes_over_a_mount_computes_the_same_numbers(folder: Path) -> None:
    state = State(
        device=-1,
        store=str(folder),
        mountpoint="",
        reference=None,
        image=None,
        layers=[],
        size=0,
        presentation={},
        log_file=None,
        record=None,
    )
    with opened_store(state) as one, opened_store(state) as other:
        assert not one.secret().is_stored
        assert one.secret() == other.secret()
    assert state.substitute not in repr(state)


ONE, OTHER = file("a", b"same"), file("b", b"same")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((dir_("", mode=0o755), ONE), (dir_("", mode=0o700), ONE)),  # seen in the row of the root alone
        ((ONE, OTHER), (OTHER, ONE)),  # seen in the owners of names alone
        ((ONE,), (ONE, OTHER)),
        ((dir_("d"), ONE), (ONE,)),
        ((ONE,), (dir_("d"), ONE)),
    ],
)
def test_verify_compares_rows_and_owners_without_the_secret(
    tmp_path: Path, before: tuple[Member, ...], after: tuple[Member, ...]
) -> None:
    path = tmp_path / "store"
    raw = layer(*after)
    with Store.open(path, create=True) as store:
        image = add_image(store, [layer(*before)], "app:1")
        stack = Stack(image.diff_ids)
        stack.keep(store)
        good = stack.path(store).read_bytes()
        other = tree_file.encode(
            resolve([scan([raw])]), [DiffId(Digest.of(raw))], stack=str(stack), key=NumberKey(b"k" * 32)
        )
    (path / "secret").rename(tmp_path / "secret")
    (path / "secret").mkdir()
    with Store.open(path) as store:
        assert list(verify(store)) == []
        stack.path(store).write_bytes(b"".join(other))
        assert kinds(verify(store)) == {("damaged", "tree")}
        stack.path(store).write_bytes(good)
        assert list(verify(store)) == []
