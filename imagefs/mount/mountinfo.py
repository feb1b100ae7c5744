"""What is mounted where, as the kernel tells it.

Receives the text of ``/proc/self/mountinfo``; hands on `Mount` values.  Touches no mount itself, so a dead one cannot
block it.
"""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
FSTYPE = "fuse.imagefs"

_OCTAL = re.compile(rb"\\([0-3][0-7][0-7])")


@dataclass(frozen=True, slots=True)
class MountIdentity:
    """What tells one mount from all others of its time: the kernel reuses both values only after its end.

    *number* is the mount ID, *device* the file system's device as ``major:minor``.
    """

    number: int
    device: str


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo; texts are decoded as os.fsdecode does."""

    identity: MountIdentity
    source: str
    target: str
    fstype: str
    options: tuple[str, ...]
    """The mount's own options, then those of the file system that are not among them."""

    @property
    def is_imagefs(self) -> bool:
        return self.fstype == FSTYPE

    @property
    def is_fuse(self) -> bool:
        return self.fstype in ("fuse", "fuseblk") or self.fstype.startswith(("fuse.", "fuseblk."))


def parse(text: bytes) -> tuple[Mount, ...]:
    """Return the mounts in *text*, in its order: of several at one target, the last is the visible one.

    Lines of an unknown form are left out.  Source: proc(5), /proc/pid/mountinfo.
    """
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(b" - ")
        own, filesystem = before.split(b" "), after.split(b" ")
        if not separator or len(own) < 6 or len(filesystem) < 3 or not own[0].isdigit():
            continue
        options = own[5].split(b",")
        options += [option for option in filesystem[2].split(b",") if option not in options]
        mounts.append(
            Mount(
                identity=MountIdentity(int(own[0]), _decoded(own[2])),
                source=_decoded(filesystem[1]),
                target=_decoded(own[4]),
                fstype=_decoded(filesystem[0]),
                options=tuple(map(_decoded, options)),
            )
        )
    return tuple(mounts)


def mounts() -> tuple[Mount, ...]:
    """Return what this process sees mounted; nothing where there is no /proc."""
    try:
        return parse(MOUNTINFO.read_bytes())
    except FileNotFoundError:
        return ()


def mount_at(target: Path) -> Mount | None:
    """Return the visible mount whose root is *target*, an absolute path without symlinks."""
    text = str(target)
    return next((mount for mount in reversed(mounts()) if mount.target == text), None)


def mount_with(identity: MountIdentity) -> Mount | None:
    """Return the mount with *identity*, wherever it is now; None where it has ended."""
    return next((mount for mount in mounts() if mount.identity == identity), None)


def mount_number(descriptor: int) -> int:
    """Return the ID of the mount that the file of *descriptor* is in, without asking its file system.

    Raises: OSError.  Source: proc(5), /proc/pid/fdinfo.
    """
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().splitlines():
        if line.startswith(b"mnt_id:"):
            return int(line.split()[1])
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _decoded(field: bytes) -> str:
    """Return *field* with the kernel's octal escapes (of space, tab, newline, backslash and #) undone."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))
