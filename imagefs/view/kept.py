"""Open files of the store, kept so that what somebody is using outlives its removal.

Receives paths; hands on files open for reading at any offset.  Every file that is opened can be handed over to
whoever keeps it should this process die.  Knows nothing of what is in the files.
"""

import errno
import mmap
import os
import resource
import stat
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

_SPARE_DESCRIPTORS = 128
_MOST_SEEN_BYTES = 32 * 1024 * 1024

_one_byte = [bytearray(1)]


class _Seen:
    """What was looked at of all maps: it counts as this process's memory, which would be all of the files in the end.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._bytes = 0

    def add(self, map_: mmap.mmap, size: int) -> None:
        """Take note that *size* bytes of *map_* are about to be looked at; let go of what was before, if it is much."""
        self._bytes += size
        if self._bytes > _MOST_SEEN_BYTES:
            for seen in self._maps:
                seen.madvise(mmap.MADV_DONTNEED)
            self._maps.clear()
            self._bytes = size
        self._maps.add(map_)


_seen = _Seen()


class KeptFile:
    """A file open for reading; closed when nobody holds this object any more.  Thread-safe."""

    __slots__ = ("_is_nameless", "_map", "descriptor", "reader")

    def __init__(self, descriptor: int, *, is_nameless: bool = False) -> None:
        """Take *descriptor* over; *is_nameless* files never had a name that could be removed."""
        self.descriptor = descriptor
        self._is_nameless = is_nameless
        self._map: mmap.mmap | None = None
        self.reader: Any = None
        """Whatever those who read the file want to keep beside it."""

    def __del__(self) -> None:
        os.close(self.descriptor)

    def read(self, size: int, offset: int) -> bytes:
        """Return *size* bytes from byte *offset*; fewer only at the end of the file.

        Raises: OSError.
        """
        data = os.pread(self.descriptor, size, offset)
        while len(data) < size:  # a signal may cut a read short; only nothing at all means the end
            more = os.pread(self.descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def view(self, size: int, offset: int) -> memoryview:
        """Return *size* bytes from byte *offset* as they are in the system's memory; fewer at the end of the file.

        For system calls only, which fail with EFAULT if the file was cut meanwhile: this process would be killed.
        Not thread-safe.
        """
        if self._map is None:
            self._map = mmap.mmap(self.descriptor, 0, prot=mmap.PROT_READ)
        _seen.add(self._map, size)
        return memoryview(self._map)[offset : offset + size]

    def is_at_hand(self, position: int) -> bool:
        """Return whether byte *position* is in the system's memory; False also where there is no telling."""
        try:
            return os.preadv(self.descriptor, _one_byte, position, os.RWF_NOWAIT) == 1
        except OSError:
            return False

    def is_regular(self) -> bool:
        return stat.S_ISREG(os.fstat(self.descriptor).st_mode)

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def is_removed(self) -> bool:
        """Return whether the file has no name any more."""
        return not self._is_nameless and os.fstat(self.descriptor).st_nlink == 0


class KeptFiles:
    """The files in use, by path.  Thread-safe.

    At most as many as the process may have open; those not used for longest are given up first.
    """

    def __init__(
        self,
        given: Mapping[str, int] | None = None,
        hand_over: Callable[[str, int | None], None] | None = None,
        *,
        most: int | None = None,
    ) -> None:
        """Take over the descriptors *given*; *hand_over* is told every file opened, and None of every one given up.

        *most* is a lower limit to how many are kept.
        """
        self._lock = threading.Lock()
        self._hand_over = hand_over or (lambda _path, _descriptor: None)
        self._files = OrderedDict((path, KeptFile(descriptor)) for path, descriptor in (given or {}).items())
        self._limit = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS)
        if most is not None:
            self._limit = min(self._limit, most)

    def get(self, path: str) -> KeptFile:
        """Return the file at *path*, or the one that was there when it was first asked for.

        Raises: OSError; FileNotFoundError also where a folder is in its place.
        """
        with self._lock:
            file = self._files.get(path)
            if file is not None:
                self._files.move_to_end(path)
                return file
            file = KeptFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            if not file.is_regular():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return self._put(path, file)

    def put(self, path: str, content: bytes) -> KeptFile:
        """Keep *content* in a nameless file as what is at *path*, which cannot be written to."""
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            descriptor = os.dup(file.fileno())
        with self._lock:
            return self._put(path, KeptFile(descriptor, is_nameless=True))

    def _put(self, path: str, file: KeptFile) -> KeptFile:
        self._files[path] = file
        self._hand_over(path, file.descriptor)
        while len(self._files) > self._limit:
            given_up, _ = self._files.popitem(last=False)
            self._hand_over(given_up, None)
        return file

    def drop(self, path: str) -> None:
        """Give up the file kept for *path*, if there is one; who holds it can go on reading it."""
        with self._lock:
            if self._files.pop(path, None) is not None:
                self._hand_over(path, None)

    def removed(self) -> list[str]:
        """Return the paths of files that were removed from the store; one that is there again is taken afresh."""
        with self._lock:
            gone = [path for path, file in self._files.items() if file.is_removed()]
        there = {path for path in gone if os.path.exists(path)}  # noqa: PTH110 - paths are text here, for speed
        for path in there:
            self.drop(path)
        return [path for path in gone if path not in there]

    def close(self) -> None:
        """Give up all files."""
        with self._lock:
            for file in self._files.values():
                file.reader = None  # which has the file in turn: it would stay open until cycles are collected
            self._files.clear()
