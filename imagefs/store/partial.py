"""Downloads that were not finished: what came of a blob, kept from one attempt, and process, to the next.

Receives compressed bytes as they arrive; hands them on again, first of all, to who goes on.  Knows neither registries
nor what is in a blob, and believes nothing: what is kept here is only known to be right when the whole blob is.

On disk, below the store::

    partial/<algorithm>-<hex>          the first bytes of the blob of that digest; an flock is held by who adds to it

The compressed bytes are what is kept, because inflating cannot be taken up in the middle: neither gzip nor zstd
decoders can be saved, and a hash cannot either.  Going on costs reading, hashing and inflating again what is there,
which is ten times faster than a fast network.  On the way of a download that succeeds it costs one write into the page
cache; the file is never synced, and gone before most of it has seen the disk.  What a loss of power made of it shows
in the digest, and then the blob is fetched from its beginning.

The lock also keeps two processes from downloading the same blob twice: who does not get it waits, and finds either the
layer in the store, or, after the holder died, what it left.
"""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from imagefs.oci.digest import Digest
from imagefs.store.access import make_folder

KEPT_S = 7 * 24 * 3600
"""How long a download that nobody took up again is kept at least; then the next sweep removes it."""

_NAME = re.compile(r"sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128}")
_CHUNK_BYTES = 1 << 20


class Partial:
    """The file of one blob, locked until `close` or `discard`.  Not thread-safe."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def chunks(self) -> Iterator[bytes]:
        """Yield what was there when the iteration began, in pieces of at most a mebibyte."""
        at, end = 0, self.size
        while at < end:
            chunk = os.pread(self._descriptor, min(_CHUNK_BYTES, end - at), at)
            if not chunk:
                return
            at += len(chunk)
            yield chunk

    def append(self, data: bytes) -> None:
        """Keep *data*, which come next in the blob.

        Raises: OSError, with the file's name.
        """
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(self._descriptor, view, self.size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            view = view[written:]
            self.size += written

    def clear(self) -> None:
        """Forget all there is."""
        os.ftruncate(self._descriptor, 0)
        self.size = 0

    def discard(self) -> None:
        """Remove the file and give up the lock.  May be repeated."""
        self._leave(keep=False)

    def close(self) -> None:
        """Give up the lock and keep what there is for the next one; an empty file is not worth it.  May be repeated."""
        self._leave(keep=self.size > 0)

    def _leave(self, *, keep: bool) -> None:
        if self._descriptor < 0:
            return
        if not keep:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1


class Partials:
    """The partial downloads of one store.  Thread-safe; any number of processes may use one store at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, digest: Digest) -> Partial | None:
        """Return what is there of blob *digest*, perhaps nothing, locked; None while another holds it."""
        path = self._path(digest)
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                make_folder(path.parent)
                continue
            if not _lock(descriptor):
                return None
            # Between open and flock its holder may have finished and removed it.
            if os.fstat(descriptor).st_nlink:
                return Partial(path, descriptor)
            os.close(descriptor)

    def drop(self, digest: Digest) -> None:
        """Remove what is there of blob *digest*, unless another holds it."""
        _remove(self._path(digest))

    def size(self, digest: Digest) -> int:
        """Return how many bytes of blob *digest* are there."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def remove_old(self, age_s: float = KEPT_S) -> int:
        """Remove what nobody holds and nobody has added to for *age_s* seconds; return the bytes it took.

        Files of other names are not ours and stay.
        """
        try:
            entries = list(os.scandir(self._folder))
        except FileNotFoundError:
            return 0
        freed = 0
        before_s = time.time() - age_s
        for entry in entries:
            if not _NAME.fullmatch(entry.name):
                continue
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if found.st_mtime <= before_s and _remove(Path(entry.path)):
                    freed += found.st_blocks * 512
        return freed

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest.algorithm}-{digest.hex}"


def _remove(path: Path) -> bool:
    """Remove the file, unless it is not there or locked by another; return whether it was removed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    if not _lock(descriptor):
        return False
    if not os.fstat(descriptor).st_nlink:  # its holder removed it before the lock; the path may be another's by now
        os.close(descriptor)
        return False
    Partial(path, descriptor).discard()
    return True


def _lock(descriptor: int) -> bool:
    """Lock the file and return True; where another has it locked, close it and return False."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True
