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
from imagefs.oci.digest import DiffId, Digest

RESERVED_NUMBERS = 1 << 32
"""Inode numbers below this are for whoever shows several images in one file system."""

DIGEST_BYTES = 32
FINGERPRINT_BYTES = 16

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
    stored = entry.size if entry.extents is None else entry.extents.stored_bytes
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


class NumberKey:
    """Inode numbers that only the owner of *secret* can compute: 64 bits of a keyed hash of a digest.

    So images cannot be made to have different things with one number, which `diff -r`, `cmp`, `cp -a` and `tar` would
    take for one thing.  Equal things have equal numbers.  Thread-safe.
    """

    __slots__ = ("_hash", "fingerprint")

    def __init__(self, secret: bytes) -> None:
        self._hash = hashlib.blake2b(key=secret, digest_size=8, person=b"inode number")
        self.fingerprint = hashlib.blake2b(key=secret, digest_size=FINGERPRINT_BYTES, person=b"number key").digest()
        """Tells keys apart, and says nothing about them."""

    def number(self, digest: bytes, attempt: int = 0) -> int:
        """Return the inode number of what has *digest*; *attempt* counts up where a number is taken already."""
        hasher = self._hash.copy()
        hasher.update(digest if attempt == 0 else digest + attempt.to_bytes(4, "little"))
        number = int.from_bytes(hasher.digest(), "little")
        return number if number >= RESERVED_NUMBERS else self.number(digest, attempt + 1)

    def root_number(self, digest: bytes, path: bytes) -> int:
        """Return the inode number of the root, with *digest*, of a tree that is shown at *path* among others.

        Tools take two arguments of one number for one directory: du would leave the second of two tags out, and cp
        refuse it.  Inside a tag, no tool compares two roots.
        """
        return self.number(hashlib.blake2b(path + b"\0" + digest, digest_size=DIGEST_BYTES).digest())

    def document_number(self, digest: Digest) -> int:
        """Return the inode number of the manifest or config *digest*."""
        return self.number(hashlib.blake2b(str(digest).encode(), digest_size=DIGEST_BYTES, person=b"document").digest())


def _digest(entry: Entry, path: bytes, content: bytes) -> bytes:
    xattrs = b""
    if entry.xattrs:  # nearly always none
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
