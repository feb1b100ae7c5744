"""Open files of the store, kept so that what somebody is using outlives its removal.

Receives paths; hands on files open for reading at any offset.  Every file that is opened can be handed over to
whoever keeps it should this process die.  Knows nothing of what is in the files.

The number of descriptors is bounded by what the process may have.  A file that still has its name is closed when others
are needed more, and opened again by its next use.  Content of removed images cannot be opened again: it is closed only
if it takes more than half of the bound, and its readers then meet ESTALE.
"""

import errno
import mmap
import os
import resource
import sys
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import IO, Any

from imagefs.store.content import open_file
from imagefs.view import waiting
from imagefs.view.waiting import Duration

_SPARE_DESCRIPTORS = 32
"""For everything but kept files: the device, the catalog, the holder, helper processes, a log.  About 20 are used."""
_DESCRIPTORS_EACH = 2
"""A file that is viewed takes two: Python's mmap has one of its own."""
_FEWEST_FILES = 4
"""A layer's data and index, a tree, and a file that is just opened."""
_MOST_SEEN_BYTES = 32 * 1024 * 1024
_MOST_NAMELESS_BYTES = 128 * 1024 * 1024
"""Of content outside of the store, in memory.  Any user can have a tree of a layer made by looking at it."""
_FULL = frozenset({errno.EMFILE, errno.ENFILE})

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


class _Opened:
    """An open descriptor and a map of the file; closed when nobody uses it any more."""

    __slots__ = ("descriptor", "map")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.map: mmap.mmap | None = None

    def __del__(self) -> None:
        os.close(self.descriptor)


class KeptFile:
    """A file to read from; its descriptor is closed with this object, or earlier by `KeptFiles`.  Thread-safe.

    Methods raise FileNotFoundError if the file was closed and then removed.
    """

    __slots__ = ("__weakref__", "_open_again", "is_nameless", "opened", "path", "reader")

    def __init__(
        self, path: str, descriptor: int, open_again: "Callable[[KeptFile], _Opened]", *, is_nameless: bool = False
    ) -> None:
        """Take *descriptor* over; *is_nameless* files never had a name that could be removed."""
        self.path = path
        self.is_nameless = is_nameless
        self.opened: _Opened | None = _Opened(descriptor)
        self._open_again = open_again
        self.reader: Any = None
        """Whatever those who read the file want to keep beside it."""

    def _use(self) -> _Opened:
        return self.opened or self._open_again(self)

    @property
    def descriptor(self) -> int:
        """A descriptor of the file, which may be closed by the next use of another file."""
        return self._use().descriptor

    def read(self, size: int, offset: int) -> bytes:
        """Return *size* bytes from byte *offset*; fewer only at the end of the file.

        Raises: OSError; NotReady, in a thread that must not wait for the disk.
        """
        if waiting.may(Duration.DISK):
            return self._wait_for(size, offset)
        data = self._in_memory(size, offset)
        if data is None:
            raise waiting.NotReady((self.path, offset), partial(self._wait_for, size, offset), Duration.DISK)
        return data

    def _wait_for(self, size: int, offset: int) -> bytes:
        opened = self._use()
        data = os.pread(opened.descriptor, size, offset)
        while len(data) < size:  # a signal may cut a read short; only nothing at all means the end
            more = os.pread(opened.descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def _in_memory(self, size: int, offset: int) -> bytes | None:
        """Return what `read` does if that is in the system's memory, else None."""
        opened = self._use()
        buffer = bytearray(size)
        try:
            count = os.preadv(opened.descriptor, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return self._wait_for(size, offset)  # a file system that cannot tell
        if count == size:
            return bytes(buffer)
        return bytes(buffer[:count]) if offset + count >= self.size() else None

    def view(self, size: int, offset: int) -> memoryview:
        """Return *size* bytes from byte *offset* as they are in the system's memory; fewer at the end of the file.

        For system calls only, which fail with EFAULT if the file was cut meanwhile: this process would be killed.
        Not thread-safe.
        """
        opened = self._use()
        if opened.map is None:
            opened.map = mmap.mmap(opened.descriptor, 0, prot=mmap.PROT_READ)
        _seen.add(opened.map, size)
        return memoryview(opened.map)[offset : offset + size]

    def is_at_hand(self, position: int) -> bool:
        """Return whether byte *position* is in the system's memory; False also where there is no telling."""
        try:
            return os.preadv(self._use().descriptor, _one_byte, position, os.RWF_NOWAIT) == 1
        except OSError:
            return False

    def size(self) -> int:
        return os.fstat(self._use().descriptor).st_size

    def is_removed(self) -> bool:
        """Return whether the file is open and has no name any more."""
        opened = self.opened
        return opened is not None and not self.is_nameless and os.fstat(opened.descriptor).st_nlink == 0

    def is_replaced(self) -> bool:
        """Return whether the file is open and another one has its path."""
        opened = self.opened
        if opened is None or self.is_nameless:
            return False
        try:
            status = os.stat(self.path)  # noqa: PTH116 - paths are text here, for speed
        except OSError:
            return False
        ours = os.fstat(opened.descriptor)
        return (status.st_dev, status.st_ino) != (ours.st_dev, ours.st_ino)


class KeptFiles:
    """The files in use, by path.  Thread-safe.

    At most as many are open as the process may have; those not used for longest are closed first, removed ones last.
    """

    def __init__(
        self,
        given: Mapping[str, int] | None = None,
        hand_over: Callable[[str, int | None], None] | None = None,
        *,
        most: int | None = None,
    ) -> None:
        """Take over the descriptors *given*; *hand_over* is told every file opened, and None of every one closed.

        *most* is a lower limit to how many are open.
        """
        self._lock = threading.Lock()
        self._hand_over = hand_over or (lambda _path, _descriptor: None)
        self._open = OrderedDict(
            (path, KeptFile(path, descriptor, self._open_again, is_nameless=_is_nameless(path, descriptor)))
            for path, descriptor in (given or {}).items()
        )
        self._known: weakref.WeakValueDictionary[str, KeptFile] = weakref.WeakValueDictionary(self._open)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS
        self.limit = max(_FEWEST_FILES, descriptors // _DESCRIPTORS_EACH)
        """How many files are open at most."""
        if most is not None:
            self.limit = min(self.limit, most)

    def has(self, path: str) -> bool:
        """Return whether the file at *path* is open here."""
        return path in self._open

    def get(self, path: str) -> KeptFile:
        """Return the file at *path*, or the one that was there when it was first asked for.

        Raises: OSError; FileNotFoundError also where a folder is in its place.
        """
        with self._lock:
            file = self._open.get(path)
            if file is not None:
                self._open.move_to_end(path)
                return file
            file = self._known.get(path)
            if file is None:
                file = self._known[path] = KeptFile(path, self._descriptor(path), self._open_again)
            else:
                file.opened = _Opened(self._descriptor(path))
            return self._put(file)

    def _open_again(self, file: KeptFile) -> _Opened:
        with self._lock:
            opened = file.opened
            if opened is None and file.is_nameless:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.path)
            if opened is None:
                opened = file.opened = _Opened(self._descriptor(file.path))
                if self._known.get(file.path) is file:
                    self._put(file)
            return opened

    def _descriptor(self, path: str) -> int:
        try:
            return open_file(path)
        except OSError as error:
            if error.errno not in _FULL:
                raise
        # This process has more other files open than was expected, or the system is full.
        self.limit = max(_FEWEST_FILES, len(self._open) // 2)
        for other, file in list(self._open.items()):
            if not file.is_nameless and not file.is_removed():
                self._close(other)
        return open_file(path)

    def put(self, path: str, pieces: Iterable[bytes]) -> KeptFile:
        """Keep what *pieces* make in a nameless file as what is at *path*, which cannot be written to."""
        return self.adopt(path, nameless(pieces))

    def adopt(self, path: str, descriptor: int) -> KeptFile:
        """Keep the nameless file open as *descriptor*, which is taken over, as what is at *path*."""
        with self._lock:
            file = self._known[path] = KeptFile(path, descriptor, self._open_again, is_nameless=True)
            self._put(file)
            sizes = [(kept.size(), other) for other, kept in self._open.items() if kept.is_nameless]
            surplus = sum(size for size, _ in sizes) - _MOST_NAMELESS_BYTES
            for size, other in sizes[:-1]:
                if surplus > 0:
                    self._close(other)
                    surplus -= size
            return file

    def _put(self, file: KeptFile) -> KeptFile:
        assert file.opened is not None
        self._open[file.path] = file
        self._open.move_to_end(file.path)
        self._hand_over(file.path, file.opened.descriptor)
        surplus = len(self._open) - self.limit
        if surplus <= 0:
            return file
        removed = []
        for path, other in list(self._open.items())[:-1]:
            if other.is_removed():
                removed.append(path)
            else:
                self._close(path)
                surplus -= 1
            if surplus <= 0:
                break
        for path in removed[: max(surplus, len(removed) - self.limit // 2)]:
            self._close(path)
        return file

    def _close(self, path: str) -> None:
        file = self._open.pop(path)
        file.opened = None  # a thread that is reading has its own reference
        if file.is_nameless:
            del self._known[path]
        self._hand_over(path, None)

    def drop(self, path: str) -> None:
        """Give up the file kept for *path*, if there is one; who holds it can go on reading it."""
        with self._lock:
            self._known.pop(path, None)
            if self._open.pop(path, None) is not None:
                self._hand_over(path, None)

    def removed(self) -> list[str]:
        """Return the paths of files that were removed from the store and not replaced."""
        with self._lock:
            gone = [path for path, file in self._open.items() if file.is_removed()]
        return [path for path in gone if not os.path.exists(path)]  # noqa: PTH110 - paths are text here, for speed

    def replaced(self) -> list[str]:
        """Give up the open files whose paths the store has given to others, and return those paths."""
        with self._lock:
            paths = [path for path, file in self._open.items() if file.is_replaced()]
        for path in paths:
            self.drop(path)
        return paths

    def close(self) -> None:
        """Give up all files."""
        with self._lock:
            for file in self._open.values():
                file.reader = None  # which has the file in turn: it would stay open until cycles are collected
            self._open.clear()
            self._known.clear()


def _is_nameless(path: str, descriptor: int) -> bool:
    """Return whether *descriptor*, which a predecessor kept as what is at *path*, is of a file from `nameless`."""
    if os.fstat(descriptor).st_nlink:
        return False
    name = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")  # noqa: PTH115 - for few
    return name.rpartition("/")[2] != path.rpartition("/")[2]


def nameless(pieces: Iterable[bytes]) -> int:
    """Return the descriptor of a new file without a name that holds *pieces*.

    Raises: OSError; whatever *pieces* raises.
    """
    with _nameless_file() as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        return os.dup(file.fileno())


def _nameless_file() -> IO[bytes]:
    if sys.platform != "linux":
        return tempfile.TemporaryFile()
    # In memory: a confined server may write nowhere but in the store.
    return os.fdopen(os.memfd_create("imagefs"), "r+b")
