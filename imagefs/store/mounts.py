"""Who serves this store right now.

Receives what a serving process says of itself; hands on the records of those that live.  A record is a file whose
writer holds an flock on it, so death, however sudden, ends it; readers remove what the dead left.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagefs.errors import InvalidDigest
from imagefs.oci.digest import Digest
from imagefs.store.content import Ingest


@dataclass(frozen=True, slots=True)
class MountRecord:
    """One live mount: where, by which process, and which single image it shows (None: the whole store)."""

    mountpoint: str
    pid: int
    image: Digest | None
    reference: str | None


@contextlib.contextmanager
def recorded(folder: Path, record: MountRecord) -> Iterator[None]:
    """Keep *record* in *folder* while the context lasts."""
    text = json.dumps(
        {
            "mountpoint": record.mountpoint,
            "pid": record.pid,
            "image": str(record.image) if record.image else None,
            "reference": record.reference,
        }
    )
    with Ingest(folder) as file:  # the very same need: a file that is locked while its maker lives, removed at the end
        file.write(os.fsencode(text))
        yield


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
                    image = Digest.parse(said["image"]) if said["image"] else None
                    records.append(MountRecord(said["mountpoint"], int(said["pid"]), image, said["reference"]))
                else:
                    path.unlink()
    return tuple(sorted(records, key=lambda record: record.mountpoint))
