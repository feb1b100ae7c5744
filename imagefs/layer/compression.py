"""Decompression of layers: gzip, zstd, or none, as the first bytes say.

Receives a blob's bytes in pieces of any size; hands on the uncompressed tar in pieces of at most a mebibyte, one by
one as they are asked for, so that a bomb fills no memory.  It must never know what a tar is.

The media type is not asked: what the bytes are decides, as in docker and containerd, whose images carry wrong media
types.  A blob of no bytes is an empty tar.

Several gzip members or zstd frames in a row are one stream (eStargz, zstd:chunked).  After the last gzip member zeros
are taken for padding, as gzip(1) does; anything else after it, or after the last zstd frame, is an error: data that
no reader would show do not belong into a layer.

Source: RFC 1952; RFC 8878.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from typing import Protocol
from zlib import crc32

import zstandard
from isal import igzip_lib

from imagefs.errors import InvalidLayer

MAX_PIECE_BYTES = 1 << 20
"""No piece of output is longer."""

MAX_ZSTD_WINDOW_BYTES = 1 << 27
"""What zstd itself allows unless told otherwise, and what its highest level uses; it is allocated for decoding."""

_MAX_GZIP_HEADER_BYTES = 128 * 1024  # the extra field can have 64 KiB; file name and comment are never long
_SNIFFED_BYTES = 13

BZIP2_MAGIC = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", re.DOTALL)
"""A level and the mark of the first block, or of the end: a tar may well begin with a name in BZh."""
_UNSUPPORTED = (
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"\x1f\xa0", "compress"),
    (b"LZIP\x01", "lzip"),
    (b"PK\x03\x04", "zip"),
)


class _Codec(Protocol):
    def feed(self, data: memoryview) -> Iterator[bytes]: ...
    def finish(self) -> None: ...


class Decompressor:
    """One stream: `feed` it everything in order, then `finish`.  Not for several threads at once."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._codec: _Codec | None = None

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Take the next compressed bytes and yield what they decompress to; the iterator must be used up.

        Raises: InvalidLayer, while iterating, for broken or unsupported compression.
        """
        if self._codec is None:
            self._head += data
            if len(self._head) < _SNIFFED_BYTES:
                return
            data = bytes(self._head)
            self._codec = _codec_of(data)
        yield from self._codec.feed(memoryview(data))

    def finish(self) -> None:
        """Take note that nothing comes any more.

        Raises: InvalidLayer, if the stream is cut off.
        """
        if self._codec is not None:
            self._codec.finish()
        elif self._head:
            raise InvalidLayer(f"expected a tar, compressed or not, found only {len(self._head)} bytes")


def decompressor() -> Decompressor:
    """Return a decompressor for one stream of a kind yet to be seen."""
    return Decompressor()


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what *chunks* together decompress to, in pieces of at most `MAX_PIECE_BYTES`.

    Raises: InvalidLayer, while iterating.
    """
    stream = Decompressor()
    for chunk in chunks:
        yield from stream.feed(chunk)
    stream.finish()


def _codec_of(head: bytes) -> _Codec:
    if head.startswith(_GZIP_MAGIC):
        return _Gzip()
    if head.startswith(_ZSTD_MAGIC) or _is_skippable(head[:4]):
        return _Zstd()
    if BZIP2_MAGIC.match(head):
        raise InvalidLayer("bzip2 compression is not supported; layers are gzip, zstd or uncompressed")
    for magic, name in _UNSUPPORTED:
        if head.startswith(magic):
            raise InvalidLayer(f"{name} compression is not supported; layers are gzip, zstd or uncompressed")
    # The magic of lzma could be the start of a file name, but names are padded with zeros.
    if head.startswith(b"\x5d\0\0") and any(head[3:_SNIFFED_BYTES]):
        raise InvalidLayer("lzma compression is not supported; layers are gzip, zstd or uncompressed")
    return _Uncompressed()


class _Uncompressed:
    def feed(self, data: memoryview) -> Iterator[bytes]:
        for at in range(0, len(data), MAX_PIECE_BYTES):
            yield bytes(data[at : at + MAX_PIECE_BYTES])

    def finish(self) -> None:
        pass


# ---- gzip ----

_IsalError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stubs take the class for an instance

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_FIXED = struct.Struct("<2sBBIBB")
_DEFLATE = 8
_HAS_HEADER_CRC, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT, _RESERVED = 2, 4, 8, 16, 0xE0

_HEADER_SLICE_BYTES = 512
_FIRST_SLICE_BYTES = 4 * 1024
_LARGEST_SLICE_BYTES = 256 * 1024


class _Gzip:
    """A row of gzip members.

    Headers are read here: igzip loses its way in some that arrive in two parts (with file name or header checksum).
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._is_first = True
        self._padded = False
        self._slice = _FIRST_SLICE_BYTES

    def feed(self, data: memoryview) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            if self._member is None:
                at = self._between(data, at)
                continue
            # Each call copies what it does not use.  Slices start small, as eStargz has thousands of small members
            # in a row, and grow with the member.
            piece = data[at : at + self._slice]
            self._slice = min(4 * self._slice, _LARGEST_SLICE_BYTES)
            yield from self._inflate(self._member, piece)
            at += len(piece)
            if self._member.eof:
                at -= len(self._member.unused_data)
                self._member = None

    def finish(self) -> None:
        if self._member is not None or self._header:
            raise InvalidLayer("the gzip data are cut off")

    def _inflate(self, member: igzip_lib.IgzipDecompressor, piece: memoryview) -> Iterator[bytes]:
        try:
            if output := member.decompress(piece, MAX_PIECE_BYTES):
                yield output
            while not member.eof and not member.needs_input:
                if output := member.decompress(b"", MAX_PIECE_BYTES):
                    yield output
        except _IsalError as error:
            raise InvalidLayer(f"broken gzip data: {error}") from None

    def _between(self, data: memoryview, at: int) -> int:
        """Read the next member's header, or padding; return where the next bytes are."""
        if self._padded or (self._header == b"" and not self._is_first and not data[at]):
            self._padded = True
            if any(data[at:]):
                raise InvalidLayer("expected zeros after the padding of the gzip data, found something else")
            return len(data)
        known = len(self._header)
        piece = data[at : at + _HEADER_SLICE_BYTES]
        self._header += piece
        length = _gzip_header_length(self._header)
        if length is None:
            if len(self._header) > _MAX_GZIP_HEADER_BYTES:
                raise InvalidLayer(f"expected a gzip header of at most {_MAX_GZIP_HEADER_BYTES} bytes")
            return at + len(piece)
        self._header.clear()
        self._is_first = False
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP_NO_HDR_VER)
        self._slice = _FIRST_SLICE_BYTES
        return at + length - known


def _gzip_header_length(data: bytearray) -> int | None:
    """Return the length of the gzip header that *data* start with; None if it is not all there yet."""
    if not _GZIP_MAGIC.startswith(data[:2]):
        raise InvalidLayer("expected a gzip member or the end, found something else")
    if len(data) < _GZIP_FIXED.size:
        return None
    _, method, flags, _, _, _ = _GZIP_FIXED.unpack_from(data)
    if method != _DEFLATE or flags & _RESERVED:
        raise InvalidLayer(f"expected a gzip member with deflate, found method {method} and flags {flags:#04x}")
    at = _GZIP_FIXED.size
    if flags & _HAS_EXTRA:
        if len(data) < at + 2:
            return None
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (_HAS_NAME, _HAS_COMMENT):
        if flags & flag:
            at = data.find(b"\0", at) + 1
            if not at:
                return None
    if flags & _HAS_HEADER_CRC:
        if len(data) < at + 2:
            return None
        if int.from_bytes(data[at : at + 2], "little") != crc32(data[:at]) & 0xFFFF:
            raise InvalidLayer("broken gzip data: wrong checksum of a header")
        at += 2
    return at if at <= len(data) else None


# ---- zstd ----

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAGIC_BYTES = 4
_SKIPPABLE_HEADER_BYTES = 8
_BLOCK_HEADER_BYTES = 3
_CHECKSUM_BYTES = 4
_MAX_BLOCK_BYTES = 128 * 1024
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3
_LONGEST_HEADER_BYTES = 18
_BLOCKS_AT_A_TIME = MAX_PIECE_BYTES // _MAX_BLOCK_BYTES


def _is_skippable(magic: bytes | memoryview) -> bool:
    return len(magic) == _MAGIC_BYTES and magic[0] & 0xF0 == 0x50 and magic[1:] == b"\x2a\x4d\x18"


class _Frame(Protocol):
    """The library's decoder of one frame, which has no name at run time."""

    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Zstd:
    """A row of zstd frames, some of them skippable.

    The library's push decoder returns all that its input decompresses to, which has no useful bound.  A block has at
    most 128 KiB, so frames are cut up here, and a few blocks go in at a time.
    """

    def __init__(self) -> None:
        self._library = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        self._buffer = bytearray()
        self._needed = _MAGIC_BYTES  # as many bytes the buffer must hold before anything can be done
        self._skip = 0
        self._frame: _Frame | None = None
        self._has_checksum = False
        self._had_last_block = False

    def feed(self, data: memoryview) -> Iterator[bytes]:
        buffer = self._buffer
        buffer += data
        start = at = blocks = 0
        while len(buffer) - at >= self._needed:
            if self._skip:
                skipped = min(self._skip, len(buffer) - at)
                self._skip -= skipped
                start = at = at + skipped
                self._needed = 1 if self._skip else _MAGIC_BYTES
                continue
            length = self._item_length(at)
            if len(buffer) - at < length:
                self._needed = length
                break
            item = bytes(buffer[at : at + min(length, _LONGEST_HEADER_BYTES)])
            at += length
            if self._frame is None:
                self._frame = self._begin_frame(item)
                if self._frame is None:
                    start = at
                continue
            blocks += 1
            ended = self._ends_frame(item)
            if ended or blocks == _BLOCKS_AT_A_TIME:
                yield from self._output(self._frame, buffer[start:at])
                start, blocks = at, 0
            if ended:
                if not self._frame.eof:
                    raise InvalidLayer("broken zstd data: a frame does not end with its last block")
                self._frame = None
            self._needed = _MAGIC_BYTES if self._frame is None else _BLOCK_HEADER_BYTES
        if self._frame is not None and start < at:
            yield from self._output(self._frame, buffer[start:at])
        del buffer[:at]

    def finish(self) -> None:
        if self._frame is not None or self._buffer or self._skip:
            raise InvalidLayer("the zstd data are cut off")

    def _item_length(self, at: int) -> int:
        """Return how long the header, block or checksum at *at* is; where that cannot be seen yet, what it takes."""
        there = memoryview(self._buffer)[at : at + _LONGEST_HEADER_BYTES].tobytes()
        if self._frame is None:
            return _zstd_header_length(there)
        if self._had_last_block:
            return _CHECKSUM_BYTES
        if len(there) < _BLOCK_HEADER_BYTES:
            return _BLOCK_HEADER_BYTES
        header = int.from_bytes(there[:_BLOCK_HEADER_BYTES], "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind == _RESERVED_BLOCK or size > _MAX_BLOCK_BYTES:
            raise InvalidLayer("broken zstd data: a block that cannot be")
        return _BLOCK_HEADER_BYTES + (1 if kind == _RLE_BLOCK else size)

    def _begin_frame(self, header: bytes) -> _Frame | None:
        """Return the decoder of the frame that *header* begins; None for a skippable frame."""
        if _is_skippable(header[:_MAGIC_BYTES]):
            self._skip = int.from_bytes(header[_MAGIC_BYTES:], "little")
            self._needed = 1 if self._skip else _MAGIC_BYTES
            return None
        self._has_checksum = bool(header[_MAGIC_BYTES] & 4)
        self._had_last_block = False
        self._needed = _BLOCK_HEADER_BYTES
        return self._library.decompressobj()

    def _ends_frame(self, item: bytes) -> bool:
        """Return whether *item*, the start of a block or a checksum, is the last of its frame."""
        if self._had_last_block:
            return True
        self._had_last_block = bool(item[0] & 1)
        return self._had_last_block and not self._has_checksum

    def _output(self, frame: _Frame, data: bytearray) -> Iterator[bytes]:
        try:
            output = frame.decompress(bytes(data))
        except zstandard.ZstdError as error:
            raise InvalidLayer(f"broken zstd data: {error}") from None
        for at in range(0, len(output), MAX_PIECE_BYTES):
            yield output[at : at + MAX_PIECE_BYTES]


def _zstd_header_length(there: bytes) -> int:
    if len(there) < _MAGIC_BYTES:
        return _MAGIC_BYTES
    if _is_skippable(there[:_MAGIC_BYTES]):
        return _SKIPPABLE_HEADER_BYTES
    if not there.startswith(_ZSTD_MAGIC):
        raise InvalidLayer("expected a zstd frame or the end, found something else")
    if len(there) == _MAGIC_BYTES:
        return _MAGIC_BYTES + 1
    descriptor = there[_MAGIC_BYTES]
    is_single_segment = descriptor >> 5 & 1
    window = 0 if is_single_segment else 1
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    content_size = (is_single_segment, 2, 4, 8)[descriptor >> 6]
    return _MAGIC_BYTES + 1 + window + dictionary + content_size
