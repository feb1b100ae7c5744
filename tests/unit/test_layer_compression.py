"""Decompression: kinds, splits, bombs, and everything that can be cut off or broken."""

import gzip
import lzma
import os
import random
import struct
import zlib
from bz2 import compress as bzip2

import pytest
import zstandard

from imagefs.errors import InvalidLayer
from imagefs.layer.compression import MAX_PIECE_BYTES, Decompressor, decompress, decompressor

DATA = random.Random(3).randbytes(3000) * 60 + bytes(20_000) + b"text " * 5000
SKIPPABLE = b"\x5a\x2a\x4d\x18" + struct.pack("<I", 7) + b"skipped"


def zstd(data: bytes, *, checksum: bool = True, size: bool = True, level: int = 3) -> bytes:
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=size)
    return compressor.compress(data)


def zstd_stream(data: bytes, *, window_log: int = 20) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(data) + stream.flush()


def gzip_member(data: bytes, flags: int) -> bytes:
    header = bytearray(b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff")
    if flags & 4:
        header += struct.pack("<H", 6) + b"SG\x02\0xy"
    if flags & 8:
        header += b"a name\0"
    if flags & 16:
        header += b"a comment\0"
    if flags & 2:
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(data) + deflate.flush()
    return bytes(header) + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def run(raw: bytes, step: int = 1 << 20) -> bytes:
    pieces = list(decompress(raw[at : at + step] for at in range(0, len(raw), step)))
    assert all(0 < len(piece) <= MAX_PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


STREAMS = {
    "gzip": gzip.compress(DATA),
    "gzip of nothing": gzip.compress(b""),
    "gzip stored": gzip.compress(DATA, 0),
    "gzip members": gzip.compress(DATA[:5]) + gzip.compress(b"") + gzip.compress(DATA[5:]),
    "gzip padded": gzip.compress(DATA) + bytes(1000),
    "zstd": zstd(DATA),
    "zstd of nothing": zstd(b""),
    "zstd bare": zstd(DATA, checksum=False, size=False),
    "zstd stream": zstd_stream(DATA),
    "zstd frames": SKIPPABLE + zstd(DATA[:5]) + SKIPPABLE + zstd(DATA[5:], checksum=False) + SKIPPABLE,
    "zstd random": zstd(random.Random(1).randbytes(300_000)),
    "plain": b"a tar" + bytes(2000),
}
CONTENT = {
    "gzip of nothing": b"",
    "zstd of nothing": b"",
    "zstd random": random.Random(1).randbytes(300_000),
    "plain": b"a tar" + bytes(2000),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("step", [1, 2, 13, 511, 4097, 1 << 20])
def test_splits_do_not_matter(name: str, step: int) -> None:
    assert run(STREAMS[name], step) == CONTENT.get(name, DATA)


@pytest.mark.parametrize("flags", range(32))
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_every_kind_of_gzip_header_is_read_in_any_split(flags: int, step: int) -> None:
    raw = gzip_member(b"hello" * 100, flags) + gzip_member(b"more", flags)
    assert run(raw, step) == b"hello" * 100 + b"more"


@pytest.mark.parametrize("name", ["gzip", "zstd", "zstd bare", "zstd frames", "gzip members"])
def test_a_stream_cut_off_anywhere_is_refused(name: str) -> None:
    small = {
        "gzip": gzip_member(b"hello" * 50, 31),
        "zstd": zstd(os.urandom(50) + b"hello" * 50),
        "zstd bare": zstd(b"hello" * 50, checksum=False, size=False),
        "zstd frames": zstd(b"hello") + SKIPPABLE,
        "gzip members": gzip_member(b"hello", 4) + gzip_member(b"more", 8),
    }[name]
    complete = {"zstd frames": {len(zstd(b"hello"))}, "gzip members": {len(gzip_member(b"hello", 4))}}.get(name, set())
    for length in range(1, len(small)):
        if length in complete:
            continue
        with pytest.raises(InvalidLayer):
            run(small[:length])


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_flipped_bits_give_an_error_or_the_same_bytes(name: str) -> None:
    content = b"hello world, " * 20
    good = gzip_member(content, 0) if name == "gzip" else zstd(content)
    for at in range(len(good)):
        broken = bytearray(good)
        broken[at] ^= 0x41
        try:
            # a changed magic makes it no compressed stream at all
            assert run(bytes(broken)) in (content, bytes(broken))
        except InvalidLayer:
            pass


def test_nothing_is_an_empty_stream() -> None:
    assert run(b"") == b""
    stream = decompressor()
    assert list(stream.feed(b"")) == []
    stream.finish()


@pytest.mark.parametrize("raw", [b"\0", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"short"])
def test_a_few_bytes_are_no_layer(raw: bytes) -> None:
    with pytest.raises(InvalidLayer, match="found only"):
        run(raw)


@pytest.mark.parametrize(
    ("raw", "name"),
    [(bzip2(DATA), "bzip2"), (lzma.compress(DATA), "xz"), (lzma.compress(DATA, lzma.FORMAT_ALONE), "lzma")],
)
def test_other_compressions_are_refused_by_name(raw: bytes, name: str) -> None:
    with pytest.raises(InvalidLayer, match=f"{name} compression is not supported"):
        run(raw)


def test_a_tar_whose_first_name_looks_like_lzma_is_a_tar() -> None:
    raw = b"]".ljust(100, b"\0") + b"0000644\0"
    assert run(raw) == raw


@pytest.mark.parametrize("junk", [b"junk", b"\0\0\0junk", b"\x1f\x8c", bytes(600) + gzip.compress(b"x")])
def test_junk_after_gzip_is_refused(junk: bytes) -> None:
    for step in (1, 1 << 20):
        with pytest.raises(InvalidLayer):
            run(gzip.compress(DATA[:100]) + junk, step)


@pytest.mark.parametrize("junk", [b"junk", bytes(4), gzip.compress(b"x")])
def test_junk_after_zstd_is_refused(junk: bytes) -> None:
    with pytest.raises(InvalidLayer):
        run(zstd(DATA[:100]) + junk)


def test_gzip_headers_without_end_are_refused() -> None:
    with pytest.raises(InvalidLayer, match="gzip header"):
        run(b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"n" * (1 << 20))
    with pytest.raises(InvalidLayer, match="method 7"):
        run(b"\x1f\x8b\x07\x00\0\0\0\0\0\xff" + b"n" * 100)


def test_a_bomb_comes_out_in_pieces_and_only_as_asked_for() -> None:
    for bomb in (gzip.compress(bytes(50 << 20), 9), zstd(bytes(50 << 20), size=False)):
        stream = Decompressor()
        pieces = stream.feed(bomb)
        total = 0
        for piece in pieces:
            assert len(piece) <= MAX_PIECE_BYTES
            total += len(piece)
        stream.finish()
        assert total == 50 << 20


def test_a_zstd_bomb_of_repeat_blocks_is_taken_a_few_blocks_at_a_time() -> None:
    # a frame of 4000 blocks of 128 KiB zeros: 16 KB for half a gigabyte
    block = struct.pack("<I", (128 * 1024) << 3 | 1 << 1)[:3] + b"\0"
    raw = b"\x28\xb5\x2f\xfd\x00\x38" + block * 4000 + b"\x01\0\0"
    longest = total = 0
    for piece in decompress([raw]):
        longest, total = max(longest, len(piece)), total + len(piece)
    assert total == 4000 * 128 * 1024
    assert longest <= MAX_PIECE_BYTES


def test_zstd_windows_are_bounded() -> None:
    assert run(zstd_stream(b"a" * 1000, window_log=27)) == b"a" * 1000
    with pytest.raises(InvalidLayer, match="too much memory"):
        run(zstd_stream(b"a" * 1000, window_log=28))
    with pytest.raises(InvalidLayer):
        run(b"\x28\xb5\x2f\xfd\x00\xff" + bytes(100))


def test_thousands_of_small_members_are_one_stream() -> None:
    assert run(gzip.compress(b"x") * 5000) == b"x" * 5000
    assert run(zstd(b"x") * 5000) == b"x" * 5000
