"""How a mounted store's inodes are called, how long that is true, and what ``statfs`` says.

Receives and hands on nothing by itself: `filesystem` makes these values, drivers turn them into their protocol's
form.  Knows neither trees nor kernels.
"""

from dataclasses import dataclass
from typing import NewType

NodeId = NewType("NodeId", int)
"""Names one inode of a mount for as long as that lasts; what users see as inode number is `Attributes.ino`."""

SLOT_SHIFT = 32
"""A node id is a slot in the high and an index in the low half: the indexes of trees and layers count in 32 bits."""

ROOT = NodeId(1)
"""The root directory of every `Filesystem`."""


NAMES_VALID_S = 0.3
"""How long whoever asked may believe which images there are: a moved tag must show within a second."""


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
