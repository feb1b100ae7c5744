"""What ``stat`` and ``statfs`` say of a mounted store, as plain values.

Receives and hands on nothing by itself: `filesystem` makes these values, drivers turn them into their protocol's
form.  Knows neither trees nor kernels.
"""

from dataclasses import dataclass
from typing import NewType

NodeId = NewType("NodeId", int)
"""Names one inode of a `Filesystem` while that lives; what users see as inode number is `Attributes.ino`."""

ROOT = NodeId(1)
"""The root directory of every `Filesystem`."""


NAMES_VALID_S = 0.3
"""How long whoever asked may believe which images there are: a moved tag must show within a second."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What ``stat`` shows of one inode.  Of the three times there is one: images record no others."""

    ino: int
    mode: int
    """Type and permission bits, as st_mode."""
    nlink: int
    uid: int
    gid: int
    size: int
    blocks: int
    """Space taken, in units of 512 bytes."""
    mtime_ns: int
    """Nanoseconds since the epoch; may be negative."""
    rdev: int
    """As os.makedev makes it; 0 unless a device."""


@dataclass(frozen=True, slots=True)
class StatFs:
    """What ``statfs`` shows of the whole file system; counts of blocks are in units of bsize bytes."""

    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    namemax: int
