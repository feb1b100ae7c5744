"""The lock of a store: shared by writers, exclusive for a sweep and for the exchange of the catalog.

An flock on the file ``lock``: a process that dies holds none.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from errno import EACCES, EPERM, EROFS
from pathlib import Path

READ_ONLY = "it can only be read: the disk is read-only, or the store belongs to another user"
"""The reason for StoreUnusable where a store that cannot be written to is to change."""


def can_write(folder: Path) -> bool:
    """Return whether files of the store at *folder* can be written to.

    Opens a file: since Linux 6.12, ``access`` and ``statvfs`` still call ext4 writable after an error of the disk has
    made it read-only, and only writing fails.
    """
    try:
        os.close(_opened(folder, os.O_RDWR | os.O_CREAT))
    except OSError as error:
        if error.errno in (EROFS, EACCES, EPERM):
            return False
        raise
    return True


@contextlib.contextmanager
def locked(folder: Path, operation: int, *, read_only: bool) -> Iterator[None]:
    """Hold the lock of the store at *folder*; *operation* is LOCK_SH or LOCK_EX, perhaps with LOCK_NB.

    With *read_only*, nothing is made: root could make the lock in a store of another user, who could not use it.

    Raises: BlockingIOError, with LOCK_NB, if another process holds it.
    """
    try:
        descriptor = _opened_for(folder, read_only=read_only)
    except FileNotFoundError:  # no process can write here, so none can sweep
        yield
        return
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _opened_for(folder: Path, *, read_only: bool) -> int:
    if not read_only:
        try:
            return _opened(folder, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno not in (EROFS, EACCES, EPERM):  # the disk may have turned read-only
                raise
    return _opened(folder, os.O_RDONLY)


def _opened(folder: Path, flags: int) -> int:
    return os.open(folder / "lock", flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
