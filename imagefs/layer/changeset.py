"""What one layer says: its entries, and what it hides of the layers below.

The tar scanner makes these values, the index keeps them on disk, the resolver stacks them.  Nothing here knows tar.

Source: OCI image-spec, layer.md, "Image Layer Filesystem Changeset".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from imagefs.layer.extents import Extents


class Entry(NamedTuple):
    """One file, directory, link or node of a layer, located in the layer's raw (uncompressed) tar.

    *path* is clean: relative to the image root, without empty, "." or ".." components; b"" is the root itself.
    *mode* is type and permission bits as in ``st_mode``; a hard link has only the permission bits that were written,
    and no type.  *uid*, *gid* and both numbers of *rdev* (major, minor) fit 32 bits.  *mtime_ns* counts nanoseconds
    since the Unix epoch, may be negative, and fits 64 bits.

    *size* is the logical length in bytes of a regular file, and 0 of everything else.  *offset* is where its first
    data byte is in the raw tar (0 unless a regular file).  *extents* is None where the data is contiguous; else the
    data consists of (logical offset, length) runs, ascending and disjoint, packed one after the other from *offset*;
    what lies between and after them, up to *size*, reads as zeros.

    *target* is a symlink's text verbatim, or the clean path of what a hard link (*is_hardlink*) is a name of.
    *xattrs* is sorted by name, names unique.  *sha256* is the digest (32 bytes) of a regular file's logical content,
    holes as zeros; b"" of everything else, and of files whose holes are too big to be worth hashing.

    A tuple, because a frozen dataclass takes four times as long to make, and millions are made.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    target: bytes
    is_hardlink: bool
    rdev: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    offset: int
    extents: Extents | None
    sha256: bytes


class Entries(Protocol):
    """What the entries of a layer are put into, one after the other."""

    def append(self, entry: Entry, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Changeset:
    """A layer, split into what it adds and what it hides.

    *entries* are in tar order, which matters only for duplicates (the last wins), hard links and symlinked parents.
    *whiteouts* are the clean paths that are hidden in lower layers, *opaques* the directories (b"" is the root) whose
    children in lower layers are hidden; neither ever hides an entry of the same layer, wherever it stood in the tar.
    """

    entries: Sequence[Entry]
    whiteouts: frozenset[bytes]
    opaques: frozenset[bytes]
