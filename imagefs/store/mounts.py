"""Records of the live mounts of a store.

A record is a file whose writer holds an flock on it, so the record ends with the writer, however it dies.  Readers
remove the files of dead writers.  What a record says is a hint and no proof: `imagefs.mount.holder_process` proves
that a process holds a mount before it sends a signal to it.
"""

import contextlib
import fcntl
import json
import logging
import os
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from imagefs.errors import InvalidDigest, describe
from imagefs.oci.digest import Digest
from imagefs.store.content import locked_temporary

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordIdentity:
    """The file of a record: its path, and its owner, device and inode when it was read."""

    path: Path
    owner: int
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class MountRecord:
    """One live mount: where, held by which process, and which single image it shows (None: the whole store).

    *server* is the process that answers; *pid* itself, or a child of it.  *starts* counts those that have answered.
    *format* is that of the state which *pid* could hand to its successor, 0 if it cannot.
    """

    mountpoint: str
    pid: int
    image: Digest | None
    reference: str | None
    server: int = 0
    starts: int = 0
    format: int = 0
    file: RecordIdentity | None = field(default=None, compare=False)
    """Where the record was read; None in a record that was not read."""


class RecordFile:
    """The file of one record, locked while the process that has it open lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over what `begin` made."""
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def begin(cls, folder: Path) -> Self | None:
        """Make an empty record in *folder*; log why and return None where the disk refuses it."""
        try:
            return cls(*locked_temporary(folder))
        except OSError as error:
            _log.warning("the mount gets no record in %s: %s", folder, describe(error))
            return None

    def write(self, record: MountRecord) -> None:
        """Replace the content by *record*.

        A mount does not depend on its record: where the disk refuses it, the older content stays and a line is logged.
        """
        fields = {**asdict(record), "image": str(record.image) if record.image else None}
        del fields["file"]
        try:
            # Padded, so that a concurrent reader never sees the end of an older, longer record.
            size = os.fstat(self.descriptor).st_size
            os.pwrite(self.descriptor, os.fsencode(json.dumps(fields)).ljust(size), 0)
        except OSError as error:
            _log.warning("the mount record %s cannot be written: %s", self.path, describe(error))

    def end(self) -> None:
        """Remove the record; a line is logged where the disk refuses that."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the mount record %s cannot be removed: %s", self.path, describe(error))
        finally:
            os.close(self.descriptor)


def live(folder: Path) -> tuple[MountRecord, ...]:
    """Return the records in *folder* whose makers live, sorted by mount point; remove the others where allowed."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return ()
    records = []
    for name in names:
        # A record that cannot be read, or a dead one that cannot be removed, must not stop `df` or `prune`.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, InvalidDigest):
            record = _live_record(folder / name)
            if record is not None:
                records.append(record)
    return tuple(sorted(records, key=lambda record: record.mountpoint))


def _live_record(path: Path) -> MountRecord | None:
    """Return the record at *path*; None where its maker is dead: then the file is removed.

    Raises: OSError, ValueError, KeyError, TypeError, InvalidDigest, where it is no record.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            identity = RecordIdentity(path, status.st_uid, status.st_dev, status.st_ino)
            return _parsed(json.loads(os.fsdecode(file.read())), identity)
        path.unlink()
        return None


def _parsed(fields: Any, identity: RecordIdentity) -> MountRecord:
    if not isinstance(fields, dict):
        raise TypeError("a mount record is an object")
    numbers = [fields.get(name, 0) for name in ("pid", "server", "starts", "format")]
    if not all(type(number) is int and number >= 0 for number in numbers) or type(fields["mountpoint"]) is not str:
        raise TypeError("a field of a mount record has the wrong type")
    if fields["pid"] == 0:
        raise ValueError("process 0 holds no mount")
    image = Digest.parse(fields["image"]) if fields["image"] else None
    return MountRecord(**{**fields, "image": image, "file": identity})
