"""Archives as somebody compressed them: whole, in several streams, cut off, or full of zeros."""

import bz2
import gzip
import lzma
import random
from collections.abc import Callable

import pytest
import zstandard

from imagefs.errors import InvalidLayer
from imagefs.transfer.outer_compression import is_compressed, uncompressed
from tests.support.built_images import tar

DATA = tar({"random": random.Random(1).randbytes(300_000), "zeros": bytes(3_000_000)})
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "none": bytes,
}


def opened(raw: bytes) -> bytes:
    pieces = list(uncompressed(iter([raw])))
    assert all(0 < len(piece) <= 1 << 20 for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_by_its_magic_and_undone(kind: str) -> None:
    raw = KINDS[kind](DATA)
    assert is_compressed(raw[:512]) == (kind != "none")
    assert opened(raw) == DATA


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bzip2", "xz"])
def test_streams_may_follow_each_other(kind: str) -> None:
    assert opened(KINDS[kind](DATA[:1000]) + KINDS[kind](DATA[1000:])) == DATA


def test_xz_may_be_padded() -> None:
    assert opened(lzma.compress(DATA[:9]) + bytes(8) + lzma.compress(DATA[9:]) + bytes(4)) == DATA


@pytest.mark.parametrize("kind", ["bzip2", "xz"])
def test_what_is_cut_off_or_broken_is_an_error(kind: str) -> None:
    raw = KINDS[kind](DATA)
    with pytest.raises(InvalidLayer, match=f"{kind} compression ends too early"):
        opened(raw[: len(raw) // 2])
    with pytest.raises(InvalidLayer, match=f"{kind} compression is broken"):
        opened(raw[: len(raw) // 2] + b"\xa5" * 100 + raw[len(raw) // 2 + 100 :])
    with pytest.raises(InvalidLayer, match=f"{kind} compression is broken"):
        opened(raw + b"rubbish")


def test_an_xz_stream_that_wants_gigabytes_of_memory_is_refused() -> None:
    def packed(window_bytes: int) -> bytes:
        # The cheapest way to look for matches: others make the packer take eleven times the window.
        how = {"id": lzma.FILTER_LZMA2, "dict_size": window_bytes, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}
        return lzma.compress(DATA[:1000], filters=[how])

    assert opened(packed(192 << 20)) == DATA[:1000]
    with pytest.raises(InvalidLayer, match="xz compression is broken"):
        opened(packed(256 << 20))


def test_a_tar_whose_first_name_looks_like_bzip2_is_a_tar() -> None:
    raw = tar({"BZh9": b"x"})
    assert not is_compressed(raw[:512])
    assert opened(raw) == raw
