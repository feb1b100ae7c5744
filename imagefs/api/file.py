"""Files inside images as Python's file objects.

Receives an open file of a view; hands on bytes from wherever one seeks to.  Knows neither paths nor images.
"""

import io
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagefs.view.open_file import OpenFile


class ImageFile(io.RawIOBase):
    """A regular file of an image, unbuffered.  It stays readable when its image is removed or its store is closed.

    For one thread at a time, as it has a position; `io.BufferedReader` and what `ImagePath.open` returns by default
    lock.  Reading raises LayerDamaged where the store's content ends too early.
    """

    def __init__(self, file: "OpenFile", name: str) -> None:
        self._file: OpenFile | None = file
        self._position = 0
        self.name = name
        self.mode = "rb"
        self.size = file.size

    def readable(self) -> bool:
        self._open()
        return True

    def seekable(self) -> bool:
        self._open()
        return True

    def tell(self) -> int:
        self._open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to *offset* from the beginning, the position or the end; beyond the end there is nothing to read."""
        self._open()
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in starts:
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        position = starts[whence] + offset
        if position < 0:
            raise ValueError(f"expected a position from 0 on, found {position}")
        self._position = position
        return position

    def readinto(self, buffer: Any, /) -> int:  # Python 3.11 has no name for what can be written into
        """Fill *buffer* as far as the file goes, and return how many bytes that were."""
        view = memoryview(buffer).cast("B")
        data = self._open().read(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return all from the position to the end, in one piece."""
        data = self._open().read(self._position, max(0, self.size - self._position))
        self._position += len(data)
        return data

    def close(self) -> None:
        self._file = None
        super().close()

    def _open(self) -> "OpenFile":
        if self._file is None:
            raise ValueError("I/O operation on closed file")
        return self._file
