"""One regular file of a layer, open for reading.

Receives a layer's tar and where the file's data is in it; hands on content, with holes as zeros.
"""

import errno
import os
from collections.abc import Iterator

from imagefs.errors import BlobNotFound, LayerDamaged
from imagefs.layer.extents import Extents
from imagefs.oci.digest import Digest
from imagefs.view.kept import KeptFile

_MOST_RUNS = 500
_LEAST_HOLE_BYTES = 4096
"""No file system keeps smaller holes."""


class OpenFile:
    """A regular file being read.  It stays readable when its image is removed.  Thread-safe."""

    __slots__ = ("_diff_id", "_extents", "_offset", "_tar", "size")

    def __init__(self, tar: KeptFile, diff_id: Digest, *, size: int, offset: int, extents: Extents | None) -> None:
        self._tar = tar
        self._diff_id = diff_id
        self._offset = offset
        self._extents = extents
        self.size = size

    @property
    def is_sparse(self) -> bool:
        """Whether there are holes: then it can only be read, and the rest is not for it."""
        return self._extents is not None

    def place(self, offset: int) -> tuple[int, int]:
        """Return (descriptor, position) of byte *offset*."""
        return self._tar.descriptor, self._offset + offset

    @property
    def has_big_map(self) -> bool:
        """Whether this object takes much memory, so that it should not be kept."""
        return self._extents is not None and len(self._extents) > _MOST_RUNS

    def is_brief(self, offset: int, size: int) -> bool:
        """Return whether `read` takes less than a millisecond, but for the disk: runs of data are put together."""
        return self._extents is None or self._extents.count_touching(offset, size) <= _MOST_RUNS

    def is_at_hand(self, offset: int, size: int) -> bool:
        """Return whether these bytes can be viewed without waiting for the disk, as far as the last of them tells."""
        return self._tar.is_at_hand(self._offset + offset + size - 1)

    def view(self, offset: int, size: int) -> memoryview:
        """Return *size* bytes, all of which the file has, for system calls only; see `KeptFile.view`.

        Raises: LayerDamaged.
        """
        data = self._tar.view(size, self._offset + offset)
        if len(data) < size:
            raise self.damaged(self._offset + offset + size)
        return data

    def read(self, offset: int, size: int) -> bytes:
        """Return up to *size* bytes from byte *offset*; fewer mean end of file and nothing else.

        Raises: LayerDamaged, OSError.
        """
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        if self._extents is None:
            return self._data(self._offset + offset, size)
        return self._with_holes(self._extents, offset, size)

    def seek(self, offset: int, whence: int) -> int:
        """Return what lseek(2) returns for SEEK_DATA or SEEK_HOLE from byte *offset*.

        Raises: OSError(ENXIO), where no such byte follows; OSError(EINVAL), for another *whence*.
        """
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        place: int | None = None
        if offset < self.size:
            if self._extents is None:
                place = offset if whence == os.SEEK_DATA else self.size
            elif whence == os.SEEK_DATA:
                place = self._extents.next_data(offset)
            else:
                place = self._extents.next_hole(offset)
        if place is None:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return place

    def regions(self) -> Iterator[tuple[int, int]]:
        """Yield where data begin and end, in order; holes too small for a file system count as data."""
        if self._extents is None:
            if self.size:
                yield 0, self.size
            return
        begin = end = 0
        for start, length in self._extents:
            if start - end >= _LEAST_HOLE_BYTES:
                if begin < end:
                    yield begin, end
                begin = start
            end = start + length
        if begin < end:
            yield begin, end

    def _with_holes(self, extents: Extents, offset: int, size: int) -> bytes:
        """Return *size* bytes from byte *offset*, with one read: runs follow each other without gaps in the tar."""
        pieces = []
        for start, length, place in extents.touching(offset, size):
            first, last = max(start, offset), min(start + length, offset + size)
            pieces.append((first - offset, last - first, place + first - start))
        result = bytearray(size)  # holes are zeros
        if pieces:
            begin, end = pieces[0][2], pieces[-1][2] + pieces[-1][1]
            data = self._data(self._offset + begin, end - begin)
            for at, length, place in pieces:
                result[at : at + length] = data[place - begin : place - begin + length]
        return bytes(result)

    def _data(self, offset: int, size: int) -> bytes:
        try:
            data = self._tar.read(size, offset)
        except FileNotFoundError:  # closed, because others were needed more, and then removed
            raise BlobNotFound("layer", str(self._diff_id)) from None
        if len(data) < size:
            raise self.damaged(offset + size)
        return data

    def damaged(self, position: int) -> LayerDamaged:
        """Return the error that says that there is nothing at *position* of the layer's tar."""
        return LayerDamaged(str(self._diff_id), f"its tar ends before offset {position}")

    def close(self) -> None:
        """Nothing to do: what is read is kept open for others, or closed with the last of them."""
