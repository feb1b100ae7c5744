"""Whole archives that somebody compressed, as one stream of the tar inside.

Receives chunks of a file; hands on chunks of what it holds: gzip and zstd as for layers, and beside them bzip2 and xz,
in which ``docker save`` output is passed around though no registry takes them for layers.  Memory is bounded.
"""

import bz2
import itertools
import lzma
from collections.abc import Callable, Iterator

from imagefs.errors import InvalidLayer
from imagefs.layer.compression import BZIP2_MAGIC, decompress, decompressor

_CHUNK_BYTES = 1 << 20
_XZ_MEMORY_BYTES = 256 << 20
"""For xz's window: four times what its highest preset takes; a stream may ask for 4 GiB."""
_New = Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]
_XZ = b"\xfd7zXZ\x00"


def is_compressed(head: bytes) -> bool:
    """Return whether what begins with *head* is something else than its own uncompressed form.

    Raises: InvalidLayer, for kinds of compression that are not supported.
    """
    if head.startswith(_XZ) or BZIP2_MAGIC.match(head):
        return True
    return b"".join(decompressor().feed(head)) != head


def uncompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what *chunks* together hold, decompressed by their magic bytes, in pieces of at most 1 MiB.

    Raises: InvalidLayer, for broken or truncated compression; what *chunks* raise.
    """
    first = next(chunks, b"")
    chunks = itertools.chain([first], chunks)
    if BZIP2_MAGIC.match(first):
        return _streams(chunks, bz2.BZ2Decompressor, "bzip2")
    if first.startswith(_XZ):
        return _streams(chunks, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES), "xz")
    return decompress(chunks)


def _streams(chunks: Iterator[bytes], new: _New, kind: str) -> Iterator[bytes]:
    """Decompress the streams that follow each other in *chunks*, as their own tools do."""
    decompressor = new()
    begun = False
    try:
        for chunk in chunks:
            data = chunk
            while data or not (decompressor.eof or decompressor.needs_input):
                if decompressor.eof:
                    if kind == "xz":
                        data = data.lstrip(b"\0")  # stream padding
                    if not data:
                        break
                    decompressor, begun = new(), False
                piece = decompressor.decompress(data, _CHUNK_BYTES)
                begun = True
                data = decompressor.unused_data if decompressor.eof else b""
                if piece:
                    yield piece
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InvalidLayer(f"its {kind} compression is broken: {error}") from error
    if begun and not decompressor.eof:
        raise InvalidLayer(f"its {kind} compression ends too early")
