"""Who serves this store right now.

Receives what a serving process says of itself; hands on the records of those that live.  A record is a file whose
writer holds an flock on it, so death, however sudden, ends it; readers remove what the dead left.
"""

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from imagefs.errors import InvalidDigest
from imagefs.oci.digest import Digest
from imagefs.store.content import locked_temporary


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


class RecordFile:
    """The file of one record, locked while the process that has it open lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over what `begin` made."""
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def begin(cls, folder: Path) -> Self:
        """Make an empty record in *folder*."""
        return cls(*locked_temporary(folder))

    def write(self, record: MountRecord) -> None:
        """Say *record*, in place of what was said before."""
        said = {**asdict(record), "image": str(record.image) if record.image else None}
        # Padded, so that whoever reads meanwhile never finds the end of an older, longer one.
        os.pwrite(self.descriptor, os.fsencode(json.dumps(said)).ljust(os.fstat(self.descriptor).st_size), 0)

    def end(self) -> None:
        """Remove the record."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def live(folder: Path) -> tuple[MountRecord, ...]:
    """Return the records in *folder* whose makers live, sorted by mount point; remove the others where allowed."""
    records = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return ()
    for name in names:
        with contextlib.suppress(FileNotFoundError, PermissionError, ValueError, KeyError, TypeError, InvalidDigest):
            path = folder / name
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    said = json.loads(os.fsdecode(file.read()))
                    image = Digest.parse(said.pop("image")) if said["image"] else said.pop("image")
                    records.append(MountRecord(image=image, **said))
                else:
                    with contextlib.suppress(OSError):  # on a read-only disk it stays, and is skipped every time
                        path.unlink()
    return tuple(sorted(records, key=lambda record: record.mountpoint))
