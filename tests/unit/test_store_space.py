"""Zeros take no space, and the last of the disk is left to others."""

import os
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import EXIT_FAILURE, DiskFull, describe, errno_of
from imagefs.oci.digest import DiffId, Digest
from imagefs.store import space
from imagefs.store.space import HOLE_BYTES, RESERVE_BYTES, check_space, write_with_holes
from imagefs.store.store import Store

MIB = 1 << 20
Disk = namedtuple("Disk", "f_bavail f_frsize f_blocks")


def with_disk(monkeypatch: pytest.MonkeyPatch, *, free: int, size: int = 1 << 40) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(free // 4, 4, size // 4))


def written(path: Path, pieces: list[bytes]) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        size = stored = 0
        for piece in pieces:
            stored += write_with_holes(descriptor, piece, size)
            size += len(piece)
            assert os.fstat(descriptor).st_size == size  # another process reads what has been written
        return stored
    finally:
        os.close(descriptor)


def test_zeros_take_no_space(tmp_path: Path) -> None:
    pieces = [b"x" * 100, bytes(8 * MIB), b"y", bytes(3 * MIB)]
    stored = written(tmp_path / "f", pieces)
    assert (tmp_path / "f").read_bytes() == b"".join(pieces)
    assert stored < 4 * HOLE_BYTES
    assert (tmp_path / "f").stat().st_blocks * 512 < 4 * HOLE_BYTES


def test_content_without_zeros_is_all_stored(tmp_path: Path) -> None:
    assert written(tmp_path / "f", [b"x" * MIB, b"\0" * 100 + b"y" * 5000]) == MIB + 5100


@pytest.mark.parametrize("at", [0, 1, HOLE_BYTES // 2 - 1, HOLE_BYTES // 2, HOLE_BYTES - 1])
def test_one_byte_among_zeros_is_stored(tmp_path: Path, at: int) -> None:
    block = bytearray(HOLE_BYTES)
    for value in (1, 0x80, 0xFF):
        block[at] = value
        written(tmp_path / "f", [bytes(HOLE_BYTES), bytes(block), bytes(HOLE_BYTES)])
        assert (tmp_path / "f").read_bytes() == bytes(HOLE_BYTES) + bytes(block) + bytes(HOLE_BYTES)


@given(
    runs=st.lists(st.tuples(st.sampled_from([0, 0, 0, 7]), st.sampled_from([1, 511, 4096, 65536, 70000, 200000]))),
    lengths=st.lists(st.integers(4000, 150_000), min_size=1),
)
@settings(deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int]], lengths: list[int]
) -> None:
    content = b"".join(bytes([value]) * length for value, length in runs)
    pieces: list[bytes] = []
    at = 0
    while at < len(content):
        length = lengths[len(pieces) % len(lengths)]
        pieces.append(content[at : at + length])
        at += length
    path = tmp_path_factory.getbasetemp() / "holes"
    assert written(path, pieces) <= len(content)
    assert path.read_bytes() == content


def test_the_reserve_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_disk(monkeypatch, free=RESERVE_BYTES + 1024)
    check_space(tmp_path, 1024)
    with pytest.raises(DiskFull) as caught:
        check_space(tmp_path, 1025)
    assert caught.value.reserve_bytes == RESERVE_BYTES
    assert caught.value.free_bytes == RESERVE_BYTES + 1024
    assert describe(caught.value).startswith(f"No space left on device: {tmp_path}: ")
    assert "imagefs prune" in describe(caught.value)
    assert errno_of(caught.value) == 28
    assert caught.value.exit_code == EXIT_FAILURE


def test_on_a_small_disk_the_reserve_is_a_small_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_disk(monkeypatch, size=20 * MIB, free=MIB)
    check_space(tmp_path, 0)
    with pytest.raises(DiskFull):
        check_space(tmp_path, 1)


def test_no_file_is_begun_where_only_the_reserve_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        with_disk(monkeypatch, free=RESERVE_BYTES - 1)
        with store.writing(), pytest.raises(DiskFull), store.new_layer():
            pass
        assert list((tmp_path / "store/ingest").iterdir()) == []


def test_what_is_to_come_is_compared_with_the_disk_while_a_layer_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path / "store", create=True) as store, store.writing(), store.new_layer() as layer:
        with_disk(monkeypatch, free=RESERVE_BYTES + 100)
        layer.expect(100)
        layer.write(b"x" * 16 * MIB)
        layer.write(b"x")
        layer.expect(104)
        layer.write(b"x" * 16 * MIB)
        with pytest.raises(DiskFull) as caught:
            layer.write(b"x")
        assert caught.value.needed_bytes == 104


def test_a_stored_layer_is_byte_for_byte_what_was_written(tmp_path: Path) -> None:
    content = b"a" * 1000 + bytes(5 * MIB) + b"b"
    diff_id = DiffId(Digest.of(content))
    with Store.open(tmp_path / "store", create=True) as store, store.writing():
        with store.new_layer() as layer:
            layer.write(content)
            assert layer.stored < layer.size == len(content)
            layer.commit(diff_id, b"")
        assert store.layer_path(diff_id).read_bytes() == content
        assert store.layer_path(diff_id).stat().st_blocks * 512 < MIB


def test_holes_are_looked_for_in_blocks_that_a_file_system_can_leave_out() -> None:
    assert HOLE_BYTES % 4096 == 0
    assert not space._is_hole(memoryview(bytes(4095)))
    assert space._is_hole(memoryview(bytes(4096)))
