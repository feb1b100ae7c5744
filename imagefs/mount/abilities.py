"""What this machine lets a mount do.

Hands on words for a person; the drivers find out for themselves.  Looks, and changes nothing.
"""

import os
import re
from pathlib import Path

from imagefs.mount.mountpoint import fusermount
from imagefs.mount.options import DEFAULT_DRIVER

_SINCE = (
    ((3, 15), "files are opened without asking"),
    ((4, 7), "directories are read by many at once"),
    ((4, 20), "symlinks are kept, reads of a megabyte"),
    ((5, 1), "directories are opened without asking"),
    ((6, 9), "mounts outlive the process that serves them"),
)
"""Releases of Linux and what came with them (FUSE protocol 7.23, 7.25, 7.28, 7.29, 7.40)."""


def driver() -> str:
    """Return the driver that a mount uses when nobody says otherwise."""
    return DEFAULT_DRIVER


def way_to_mount() -> str:
    """Return how a mount would be made here, or why it cannot be."""
    if os.uname().sysname != "Linux":
        return "libfuse 2, through fusepy"
    if not Path("/dev/fuse").exists():
        return "none: there is no /dev/fuse"
    if os.geteuid() == 0:
        return "mount(2), as root"
    return fusermount() or "none: fusermount3 was not found"


def kernel() -> str:
    """Return the kernel's name and release."""
    return f"{os.uname().sysname} {os.uname().release}"


def features() -> tuple[str, ...]:
    """Return what of use to the kernel driver this kernel is new enough for, the oldest first."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if os.uname().sysname != "Linux" or found is None:
        return ()
    release = (int(found[1]), int(found[2]))
    return tuple(what for since, what in _SINCE if release >= since)
