"""Trees made by another process: what comes back, and what its failures become."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefs.errors import BlobNotFound, InvalidLayer, MountError
from imagefs.mount.holder import State
from imagefs.mount.tree_maker import TreeMaker, make
from imagefs.overlay.stored import Stack
from imagefs.store.store import Store
from tests.support.images import add_image, add_layer
from tests.support.layers import file, layer, link, whiteout

LAYERS = [layer(file("a", b"1"), file("b", b"2")), layer(whiteout("a"), file("c", b"3"))]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def elsewhere(store: Store) -> Callable[[socket.socket], None]:
    """Return what has `make` run with a copy of the socket; in a thread, which is near enough."""

    def begin(theirs: socket.socket) -> None:
        state = State(-1, str(store.path), "/mnt", None, None, [], 0, {}, None, None)
        asking = theirs.dup()

        def run() -> None:
            with asking:
                make(state, asking)

        threading.Thread(target=run).start()

    return begin


def content(descriptor: int) -> bytes:
    with open(descriptor, "rb") as opened:
        opened.seek(0)
        return opened.read()


def test_the_tree_of_a_layer_comes_back_as_a_file_and_that_of_an_image_is_in_the_store(store: Store) -> None:
    image = add_image(store, LAYERS, "app:1")
    maker = TreeMaker(store, elsewhere(store))
    alone = Stack(image.diff_ids[1:], alone=True)
    descriptor = maker(alone)
    assert descriptor is not None
    assert content(descriptor) == b"".join(alone.computed(store))
    assert not alone.path(store).exists()
    union = Stack(image.diff_ids)
    assert maker(union) is None
    assert union.path(store).read_bytes() == b"".join(union.computed(store))


def test_what_fails_there_fails_here_in_the_same_way(store: Store) -> None:
    good = add_layer(store, LAYERS[0])
    broken = add_layer(store, layer(link("x", "nowhere")))
    maker = TreeMaker(store, elsewhere(store))
    with pytest.raises(InvalidLayer) as invalid:
        maker(Stack((good, broken)))
    assert invalid.value.entry == b"x"
    store.layer_path(good).unlink()
    store.index_path(good).unlink()
    with pytest.raises(BlobNotFound) as missing:
        maker(Stack((good,), alone=True))
    assert missing.value.digest == str(good)


def test_with_a_dead_holder_the_tree_is_made_here(store: Store) -> None:
    image = add_image(store, LAYERS, "app:1")
    stack = Stack(image.diff_ids[1:], alone=True)
    descriptor = TreeMaker(store, lambda _theirs: None)(stack)
    assert descriptor is not None
    assert content(descriptor) == b"".join(stack.computed(store))


def test_a_process_that_dies_at_work_is_an_error_and_its_work_is_not_done_here(store: Store) -> None:
    def begin(theirs: socket.socket) -> None:
        end = theirs.dup()

        def die() -> None:
            with end:
                end.send(b"here")
                end.recv(1 << 16)

        threading.Thread(target=die).start()

    image = add_image(store, LAYERS, "app:1")
    stack = Stack(image.diff_ids)
    with pytest.raises(MountError, match="died"):
        TreeMaker(store, begin)(stack)
    assert not stack.path(store).exists()
