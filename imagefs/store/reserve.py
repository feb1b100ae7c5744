"""Disk space that is kept for the removal of images, so that a full disk can be emptied.

A removal changes the catalog, and a change writes the journal of the database first, which takes space that a full
disk does not have.  The file ``reserve`` holds it: given up for as long as the change takes, allocated again after it.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

RESERVE_BYTES = 256 * 1024
"""The journal of a removal: each page of the database that it changes, a dozen of 4 KiB, or 40 for 127 layers."""


class Reserve:
    """The reserve at one path.  Thread-safe; any number of processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Allocate what is missing of the reserve, as far as the disk has it."""
        with contextlib.suppress(OSError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as descriptor:
            _fill(descriptor)

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Give the reserve up; fill it again on leaving.

        Raises: OSError.
        """
        with self._locked(fcntl.LOCK_EX) as descriptor:  # no other process fills it meanwhile
            os.ftruncate(descriptor, 0)
            os.fsync(descriptor)  # ext4 reuses blocks only after the commit that frees them
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    _fill(descriptor)

    @contextlib.contextmanager
    def _locked(self, operation: int) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation)
            yield descriptor
        finally:
            os.close(descriptor)


def _fill(descriptor: int) -> None:
    if os.fstat(descriptor).st_blocks * 512 < RESERVE_BYTES:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
