"""What ``stat`` shows of an inode, and the digest and the number that say what a thing is.

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

DIGEST_BYTES = 32

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


def leaf_digest(entry: Entry, *, layer: DiffId, position: int) -> bytes:
    """Return a digest of what *entry*, no directory, is: its path, all its attributes and its content.

    Equal things have equal digests, in whatever image and on whatever machine.  Being the entry at *position* of
    *layer* counts only for content that has no digest.
    """
    content = entry.sha256
    if not content and stat.S_ISREG(entry.mode):
        content = f"{position}@{layer}".encode()
    return _digest(entry, entry.path, content)


def directory_digest(entry: Entry, path: bytes, children: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a digest of the directory *entry* at *path* and of all in it; *children* are names and their digests.

    Equal digests mean equal trees, also to who makes images in order to deceive.
    """
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, digest in children:
        hasher.update(name + b"\0" + digest)
    return _digest(entry, path, hasher.digest())


def inode_number(digest: bytes, attempt: int = 0) -> int:
    """Return the inode number of what has *digest*: 64 bits of it, so equal things have equal numbers.

    *attempt* counts up where a number is taken already.
    """
    text = digest
    while True:
        if attempt:
            text = hashlib.blake2b(digest + attempt.to_bytes(4, "little"), digest_size=8).digest()
        number = int.from_bytes(text[:8], "little")
        if number >= RESERVED_NUMBERS:
            return number
        attempt += 1


def root_number(digest: bytes, path: bytes) -> int:
    """Return the inode number of the root, with *digest*, of a tree that is shown at *path* among others.

    Tools take directories of one number that they are told to look at for one directory: du would leave the second of
    two tags out, and cp refuse it.  Inside, no two tags are looked at in one go.
    """
    return inode_number(hashlib.blake2b(path + b"\0" + digest, digest_size=DIGEST_BYTES).digest())


def _digest(entry: Entry, path: bytes, content: bytes) -> bytes:
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
    return hashlib.blake2b(b"".join((said, path, entry.target, xattrs, content)), digest_size=DIGEST_BYTES).digest()
