"""Proof that a process holds a mount, before a signal goes to it.

A mount record is written by the owner of a store, and the process that it names may have died since: the server of a
dead holder keeps the record locked, and the kernel gives process IDs out again.  So the record only says where to look.
Linux only.
"""

import os
import select
import stat
from pathlib import Path

from imagefs.errors import MountError
from imagefs.store.mounts import MountRecord, RecordIdentity

_FUSE_DEVICE = os.makedev(10, 229)
"""The number of /dev/fuse.  Source: Linux, Documentation/admin-guide/devices.txt."""


def open_holder(record: MountRecord) -> int:
    """Return a pidfd, owned by the caller, of the process that holds the mount of *record*.

    The process has the same owner as the record's file, and has that file and /dev/fuse open.

    Raises: MountError, where it is dead or cannot be inspected.
    """
    assert record.file is not None
    dead = MountError(
        f"the process that held the mount at {record.mountpoint} is dead"
        f" (process ID {record.pid} is free or another's); unmount and mount it again"
    )
    try:
        process = os.pidfd_open(record.pid)
    except OSError:
        raise dead from None
    try:
        is_proven = _uids(record.pid) == {record.file.owner} and _has_open(record.pid, record.file)
        # What /proc said is about this process only if the process still lives: else its ID may be another's by now.
        if not is_proven or has_ended(process):
            raise dead
    except PermissionError:
        os.close(process)
        raise MountError(
            f"process {record.pid}, which should hold the mount at {record.mountpoint}, cannot be inspected;"
            " try again as the user who mounted, or as root"
        ) from None
    except (FileNotFoundError, ProcessLookupError):
        os.close(process)
        raise dead from None
    except BaseException:
        os.close(process)
        raise
    return process


def has_ended(process: int, *, timeout_s: float = 0.0) -> bool:
    """Return whether the process of pidfd *process* ends within *timeout_s* seconds."""
    return bool(select.select([process], [], [], timeout_s)[0])


def _uids(pid: int) -> set[int]:
    """Return the real, effective, saved and file system user IDs of process *pid*.

    Raises: FileNotFoundError, ProcessLookupError.
    """
    for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
        if line.startswith(b"Uid:"):
            return set(map(int, line.split()[1:]))
    return set()


def _has_open(pid: int, file: RecordIdentity) -> bool:
    """Return whether process *pid* has the record *file* and a FUSE device open.

    Raises: PermissionError, FileNotFoundError, ProcessLookupError.
    """
    has_record = has_device = False
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = descriptor.readlink()
            # Other files are left alone: one on a network file system might not answer.
            if target.name == file.path.name:
                status = descriptor.stat()
                has_record |= (status.st_dev, status.st_ino) == (file.device, file.inode)
            elif target.is_relative_to("/dev") or target.name == "fuse":
                status = descriptor.stat()
                has_device |= stat.S_ISCHR(status.st_mode) and status.st_rdev == _FUSE_DEVICE
        except FileNotFoundError:  # closed meanwhile
            continue
    return has_record and has_device
