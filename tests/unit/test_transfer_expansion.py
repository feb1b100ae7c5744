"""What a few compressed bytes may expand to, and what becomes of the rest."""

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from imagefs.errors import DiskFull, InvalidLayer
from imagefs.oci.digest import DiffId, Digest
from imagefs.store.store import Store
from imagefs.transfer import expansion
from imagefs.transfer import spool as spooling
from imagefs.transfer.expansion import (
    FREE_BYTES,
    FREE_STORED_BYTES,
    MAX_RATIO,
    MAX_STORED_RATIO,
    Expansion,
)
from imagefs.transfer.layer_ingest import ingest_layer
from imagefs.transfer.spool import spool
from tests.support.layers import file, layer

MIB = 1 << 20


def test_bytes_on_the_disk_are_bounded_by_a_ratio_beyond_the_free_ones() -> None:
    bound = Expansion(allowed=False)
    bound.arrived(1000)
    bound.arrived(1000)
    most = FREE_STORED_BYTES + 2000 * MAX_STORED_RATIO
    bound.check(most, stored=most)
    with pytest.raises(
        InvalidLayer, match=f"2000 compressed bytes expand to {most + 1} .* 24 MiB and 200 for each.*--allow-expansion"
    ):
        bound.check(most + 1, stored=most + 1)
    Expansion(allowed=True).check(1 << 60, stored=1 << 60)


def test_zeros_are_bounded_by_a_ratio_that_gzip_cannot_reach() -> None:
    bound = Expansion(allowed=False)
    bound.arrived(2000)
    most = FREE_BYTES + 2000 * MAX_RATIO
    bound.check(most, stored=0)
    with pytest.raises(InvalidLayer, match="512 MiB and 1100 for each"):
        bound.check(most + 1, stored=0)
    zeros = gzip.compress(bytes(16 * MIB), 9)
    assert len(zeros) * MAX_RATIO > 16 * MIB


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


def ingest(store: Store, blob: bytes, tar: bytes, *, allow: bool = False) -> None:
    with store.writing():
        ingest_layer(
            store,
            [blob[at : at + 65536] for at in range(0, len(blob), 65536)],
            diff_id=DiffId(Digest.of(tar)),
            advance=lambda _: None,
            proceed=lambda: None,
            size=len(blob),
            allow_expansion=allow,
        )


BOMB = layer(file("f", b"A" * (25 * MIB)))


@pytest.mark.parametrize("compress", [zstandard.ZstdCompressor().compress, lambda raw: gzip.compress(raw, 9)])
def test_a_layer_of_one_repeated_byte_is_refused_unless_allowed(store: Store, compress, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(expansion, "FREE_STORED_BYTES", 2 * MIB)
    blob = compress(BOMB)
    with pytest.raises(InvalidLayer, match="--allow-expansion"):
        ingest(store, blob, BOMB)
    assert list((store.path / "ingest").iterdir()) == []
    assert not store.has_layer(DiffId(Digest.of(BOMB)))
    ingest(store, blob, BOMB, allow=True)
    assert store.has_layer(DiffId(Digest.of(BOMB)))


def test_a_bomb_is_refused_before_it_has_filled_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    write = os.write

    def counting(descriptor: int, data: bytes) -> int:
        nonlocal most
        most += len(data)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", counting)
    bomb = layer(file("f", b"A" * (64 * MIB)))
    with pytest.raises(InvalidLayer, match="24 MiB"):
        ingest(store, zstandard.ZstdCompressor().compress(bomb), bomb)
    assert most <= FREE_STORED_BYTES + 8 * MIB


def test_a_layer_of_zeros_is_stored_as_a_hole(store: Store) -> None:
    tar = layer(file("f", bytes(64 * MIB)))
    ingest(store, zstandard.ZstdCompressor().compress(tar), tar)
    assert store.layer_path(DiffId(Digest.of(tar))).stat().st_blocks * 512 < MIB


def test_an_uncompressed_layer_may_be_of_any_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "FREE_STORED_BYTES", 0)
    monkeypatch.setattr(expansion, "MAX_STORED_RATIO", 1)
    ingest(store, BOMB, BOMB)


# ---- spools ----


def archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_spool_holds_what_was_piped_in(tmp_path: Path) -> None:
    raw = archive(b"x" * 1000 + bytes(8 * MIB))
    for packed in (raw, gzip.compress(raw)):
        with spool(io.BytesIO(packed), tmp_path, allow_expansion=False) as result:
            assert os.pread(result.fileno(), len(raw) + 1, 0) == raw
            assert os.fstat(result.fileno()).st_blocks * 512 < MIB
    assert list(tmp_path.iterdir()) == []


def test_a_spool_is_bounded_by_what_an_archive_may_expand_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "FREE_STORED_BYTES", MIB)
    packed = gzip.compress(archive(b"A" * (8 * MIB)))
    with pytest.raises(InvalidLayer, match="--allow-expansion"):
        spool(io.BytesIO(packed), tmp_path, allow_expansion=False)
    spool(io.BytesIO(packed), tmp_path, allow_expansion=True).close()


def test_a_spool_leaves_the_reserve_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = 0

    def check(folder: Path, needed: int) -> None:
        nonlocal checks
        checks += 1
        assert folder == tmp_path
        if checks == 3:
            raise DiskFull(str(folder), needed_bytes=0, free_bytes=0, reserve_bytes=0)

    monkeypatch.setattr(spooling, "check_space", check)
    with pytest.raises(DiskFull):
        spool(io.BytesIO(b"A" * (40 * MIB)), tmp_path, allow_expansion=False)
