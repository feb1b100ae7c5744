"""Space on the disk: zeros written as holes, and a reserve that is never used.

Receives descriptors, bytes and folders; hands on what was written.  Knows nothing of stores.

Images are hostile, and their zeros compress thousands to one: stored as holes, they take no space.  The rest of the
machine lives on the same disk as the store, mostly, and must not be the first to notice that it is full.
"""

import os
from pathlib import Path

from imagefs.errors import DiskFull

HOLE_BYTES = 64 * 1024
"""Zeros are looked for in aligned blocks of this size: shorter runs would make files of many small pieces."""

RESERVE_BYTES = 256 << 20
"""What other programs find free when imagefs stops writing: room to log, and to remove images."""
_RESERVE_SHARE = 20
"""On a small disk, the reserve is this part of it."""

_BLOCK_BYTES = 4096  # no file system keeps smaller holes
_ZEROS = bytes(HOLE_BYTES)


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raise DiskFull unless the disk of *folder* has *needed_bytes* free beside the reserve."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    reserve = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _RESERVE_SHARE)
    if free < needed_bytes + reserve:
        raise DiskFull(str(folder), needed_bytes=needed_bytes, free_bytes=free, reserve_bytes=reserve)


def write_with_holes(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write *data* at byte *offset*, where the file ends and its descriptor stands, with holes for runs of zeros.

    Returns the number of bytes that are not in holes.  The file then ends, and the descriptor stands, behind *data*.

    Raises: OSError.
    """
    view = memoryview(data)
    stored = start = at = 0
    while at < len(view):
        end = min(len(view), at + HOLE_BYTES - (offset + at) % HOLE_BYTES)
        if _is_hole(view[at:end]):
            _write(descriptor, view[start:at])
            os.lseek(descriptor, end - at, os.SEEK_CUR)
            stored += at - start
            start = end
        at = end
    _write(descriptor, view[start:])
    if start == len(view):
        os.ftruncate(descriptor, offset + start)
    return stored + len(view) - start


def _is_hole(part: memoryview) -> bool:
    # Most parts are no zeros, and say so at once.
    if len(part) < _BLOCK_BYTES or part[0] or part[-1] or part[len(part) // 2]:
        return False
    return bytes(part) == (_ZEROS if len(part) == HOLE_BYTES else _ZEROS[: len(part)])


def _write(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]
