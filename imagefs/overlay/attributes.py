"""What ``stat`` shows of an inode, and the number that says what a thing is.

Receives entries of layers; hands on plain values.  Pure; knows neither files nor kernels.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from imagefs.layer.changeset import Entry
from imagefs.oci.digest import DiffId

RESERVED_NUMBERS = 1 << 32
"""Inode numbers below this are for whoever shows several images in one file system."""

# mode, uid, gid, major, minor, mtime_ns, size, lengths of path, target and what follows
_IDENTITY = Struct("<IIIIIqQIII")


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


def attributes(entry: Entry, *, ino: int, nlink: int) -> Attributes:
    """Return what ``stat`` shows of *entry* under inode number *ino* with *nlink* names."""
    stored = entry.size if entry.extents is None else sum(length for _, length in entry.extents)
    return Attributes(
        ino=ino,
        mode=entry.mode,
        nlink=nlink,
        uid=entry.uid,
        gid=entry.gid,
        size=len(entry.target) if stat.S_ISLNK(entry.mode) else entry.size,
        blocks=-(-stored // 512),
        mtime_ns=entry.mtime_ns,
        rdev=os.makedev(*entry.rdev) if entry.rdev != (0, 0) else 0,
    )


def leaf_number(entry: Entry, *, layer: DiffId, position: int, attempt: int = 0) -> int:
    """Return the inode number of *entry*, no directory: a 64-bit hash of its path, all its attributes and its content.

    Equal things have equal numbers, in whatever image and on whatever machine.  Being the entry at *position* of
    *layer* counts only for content that has no digest.  *attempt* counts up where a number is taken already.
    """
    content = entry.sha256
    if not content and stat.S_ISREG(entry.mode):
        content = f"{position}@{layer}".encode()
    return _number(entry, entry.path, content, attempt)


def directory_number(entry: Entry, path: bytes, children: Iterable[bytes], *, attempt: int = 0) -> int:
    """Return the inode number of the directory *entry* at *path*, a hash also of its *children*.

    Each child is its name and its number; equal numbers thus mean equal trees.
    """
    return _number(entry, path, hashlib.blake2b(b"".join(children), digest_size=16).digest(), attempt)


def child(name: bytes, number: int) -> bytes:
    """Return how a directory's number sees one of its children."""
    return name + b"\0" + number.to_bytes(8, "little")


def _number(entry: Entry, path: bytes, content: bytes, attempt: int) -> int:
    xattrs = b"".join(b"%d,%d,%b%b" % (len(name), len(value), name, value) for name, value in entry.xattrs)
    said = _IDENTITY.pack(
        entry.mode,
        entry.uid,
        entry.gid,
        *entry.rdev,
        entry.mtime_ns,
        entry.size,
        len(path),
        len(entry.target),
        len(xattrs),
    )
    text = b"".join((said, path, entry.target, xattrs, content))
    while True:
        salted = text + attempt.to_bytes(4, "little") if attempt else text
        number = int.from_bytes(hashlib.blake2b(salted, digest_size=8).digest(), "little")
        if number >= RESERVED_NUMBERS:
            return number
        attempt += 1
