"""A copy of an archive that cannot be read in any order where it is: piped in, or compressed as a whole.

Receives a file and a folder; hands on an unnamed temporary file with the uncompressed archive.  What it takes of the
disk is bounded by what the archive may expand to, and by the reserve of the disk.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from imagefs.store.space import check_space, write_with_holes
from imagefs.transfer.expansion import Expansion
from imagefs.transfer.outer_compression import uncompressed

_CHUNK_BYTES = 1 << 20
_CHECK_BYTES = 16 << 20


def spool(file: BinaryIO, folder: Path, *, allow_expansion: bool) -> IO[bytes]:
    """Return a new temporary file in *folder* with what *file*, compressed or not, holds; the caller closes it.

    Raises: InvalidLayer, for broken compression and for what expands too much; DiskFull; OSError.
    """
    expansion = Expansion(allowed=allow_expansion)

    def chunks() -> Iterator[bytes]:
        while chunk := file.read(_CHUNK_BYTES):
            expansion.arrived(len(chunk))
            yield chunk

    check_space(folder, 0)
    result = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # the caller closes it
    try:
        size = stored = checked = 0
        for piece in uncompressed(chunks()):
            stored += write_with_holes(result.fileno(), piece, size)
            size += len(piece)
            expansion.check(size, stored=stored)
            if stored - checked >= _CHECK_BYTES:
                check_space(folder, 0)
                checked = stored
    except BaseException:
        result.close()
        raise
    return result
