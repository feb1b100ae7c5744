"""What an ordinary entry costs while a layer is scanned and its image's tree is made: bytes, not kilobytes."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.layer.index import IndexWriter
from imagefs.layer.indexed import stored_changeset
from imagefs.layer.tar import Scanner
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.attributes import NumberKey
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree_file import encode
from imagefs.store.store import Store
from tests.support.layers import file, member_bytes

COUNT = 8_000
LAYER = DiffId(Digest.of(b"layer"))


def tar() -> Iterator[bytes]:
    for number in range(COUNT):
        yield member_bytes(file(f"usr/lib/folder{number // 100}/file_{number:07}.py", mtime_ns=number * 10**9))


def bytes_per_entry(work: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / COUNT
    finally:
        tracemalloc.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    writer = IndexWriter()
    scanner = Scanner(writer)
    for piece in tar():
        scanner.feed(piece)
    with Store.open(tmp_path / "store", create=True) as opened:
        (tmp_path / "store/layers/sha256").mkdir(exist_ok=True)
        opened.replace_layer_index(LAYER, writer.pieces(scanner.finish(), LAYER))
        yield opened


def test_an_entry_that_is_scanned_takes_as_much_as_in_the_index() -> None:
    def scan() -> None:
        writer = IndexWriter()
        scanner = Scanner(writer)
        for piece in tar():
            scanner.feed(piece)
        for _ in writer.pieces(scanner.finish(), LAYER):
            pass

    assert bytes_per_entry(scan) < 400 + (1 << 20) / COUNT


def test_an_entry_of_a_tree_that_is_made_takes_some_hundred_bytes(store: Store) -> None:
    def unite() -> None:
        tree = resolve([stored_changeset(store, LAYER)])
        for _ in encode(tree, [LAYER], stack="s", key=NumberKey(b"k" * 32)):
            pass

    assert bytes_per_entry(unite) < 420 + (1 << 20) / COUNT
