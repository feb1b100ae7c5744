"""The kernel's FUSE protocol as bytes: requests taken apart, replies put together.

Receives and hands on bytes and plain values.  Pure: it must never know a file descriptor, nor what a node is.

Source: include/uapi/linux/fuse.h; Documentation/filesystems/fuse.rst.  Spoken from protocol 7.23 (Linux 3.15) on.
"""

import errno
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from imagefs.view.attributes import Attributes, NodeId, StatFs

MAJOR, OLDEST_MINOR, NEWEST_MINOR = 7, 23, 38
MAX_PAGES = 256
"""Pages in one request: the most any kernel allows unless its administrator says otherwise."""
PAGE_BYTES = 4096
REQUEST_BYTES = 128 * 1024
"""Room for any request: writes, the only long ones, are refused by the kernel itself on a read-only mount."""
FOREVER_S = 1 << 32
"""What never changes is believed for a century: the kernel turns seconds into jiffies, so the largest number is not
the longest time."""

FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3


class Opcode(IntEnum):
    """What the kernel may ask that is answered with more than a refusal."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44


UNANSWERED = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})
CHANGING = frozenset({4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51})
"""Requests that would change something: setattr, symlink, mknod, mkdir, unlink, rmdir, rename, link, write, setxattr,
removexattr, create, fallocate, rename2, copy_file_range, tmpfile."""


class Flag(IntFlag):
    """INIT flags that are of use here."""

    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23


WANTED = Flag.ASYNC_READ | Flag.DO_READDIRPLUS | Flag.PARALLEL_DIROPS | Flag.MAX_PAGES | Flag.CACHE_SYMLINKS

_IN_HEADER = struct.Struct("<IIQQIIII")
_OUT_HEADER = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ATTR = struct.Struct("<QQQqqqIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_DIRENT = struct.Struct("<QQII")
_STATFS_OUT = struct.Struct("<QQQQQIIII24x")
_SIZE_OUT = struct.Struct("<II")
_GETXATTR_IN = struct.Struct("<II")
_READ_IN = struct.Struct("<QQI")
_OPEN_IN = struct.Struct("<I")
_HANDLE_IN = struct.Struct("<Q")
OUT_HEADER_BYTES = _OUT_HEADER.size


@dataclass(frozen=True, slots=True)
class Request:
    """One request: *opcode* is an `Opcode` or any other number, *body* what follows the header."""

    opcode: int
    unique: int
    node: NodeId
    body: bytes

    @property
    def name(self) -> bytes:
        """The name that a LOOKUP is for."""
        return self.body[: self.body.index(b"\0")]

    @property
    def handle(self) -> int:
        """The handle that READ, READDIRPLUS, RELEASE and RELEASEDIR begin with."""
        return int(_HANDLE_IN.unpack_from(self.body)[0])

    @property
    def reading(self) -> tuple[int, int]:
        """(offset, size) of READ and READDIRPLUS."""
        _, offset, size = _READ_IN.unpack_from(self.body)
        return offset, size

    @property
    def open_flags(self) -> int:
        """The flags of an OPEN, as open(2) has them."""
        return int(_OPEN_IN.unpack_from(self.body)[0])

    @property
    def xattr_size(self) -> int:
        """The room that the asker of GETXATTR or LISTXATTR has; 0 asks for the size only."""
        return int(_GETXATTR_IN.unpack_from(self.body)[0])

    @property
    def xattr_name(self) -> bytes:
        """The attribute that a GETXATTR is for."""
        return self.body[_GETXATTR_IN.size : self.body.index(b"\0", _GETXATTR_IN.size)]


def parse(raw: bytes) -> Request:
    """Return the request in *raw*, which is one read of the device."""
    length, opcode, unique, node, *_ = _IN_HEADER.unpack_from(raw)
    return Request(opcode, unique, NodeId(node), raw[_IN_HEADER.size : length])


def reply(unique: int, *parts: bytes) -> list[bytes]:
    """Return the pieces of a successful reply, to be written at once."""
    return [_OUT_HEADER.pack(OUT_HEADER_BYTES + sum(map(len, parts)), 0, unique), *parts]


def refusal(unique: int, number: int) -> list[bytes]:
    """Return the reply that fails with errno *number*."""
    return [_OUT_HEADER.pack(OUT_HEADER_BYTES, -number, unique)]


@dataclass(frozen=True, slots=True)
class Session:
    """What INIT settled, for as long as the mount lasts."""

    minor: int
    flags: Flag


def negotiate(body: bytes) -> tuple[bytes, Session | None]:
    """Return the answer to an INIT with *body*, and what it settles; None where the kernel will ask again.

    Raises: OSError(EPROTO), for a kernel whose protocol is too old.
    """
    major, minor, readahead, offered = _INIT_IN.unpack_from(body)
    if major > MAJOR:  # the kernel comes back with the version it is answered
        return _INIT_OUT.pack(MAJOR, NEWEST_MINOR, 0, 0, 0, 0, 0, 0, 0, 0, 0), None
    if major < MAJOR or minor < OLDEST_MINOR:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
    session = Session(min(minor, NEWEST_MINOR), WANTED & Flag(offered & int(WANTED)))
    pages = MAX_PAGES if Flag.MAX_PAGES in session.flags else 0
    answer = _INIT_OUT.pack(MAJOR, session.minor, readahead, int(session.flags), 64, 48, PAGE_BYTES, 1, pages, 0, 0)
    return answer, session


def device_number(rdev: int) -> int:
    """Return *rdev*, as os.makedev makes it, in the kernel's 32 bits.  Source: linux/kdev_t.h, new_encode_dev."""
    major, minor = os.major(rdev), os.minor(rdev)
    return (minor & 0xFF | major << 8 | (minor & ~0xFF) << 12) & 0xFFFFFFFF


def attributes(shown: Attributes) -> bytes:
    """Return *shown* as a fuse_attr."""
    seconds, nanoseconds = divmod(shown.mtime_ns, 10**9)
    return _ATTR.pack(
        shown.ino,
        shown.size,
        shown.blocks,
        *(seconds,) * 3,
        *(nanoseconds,) * 3,
        shown.mode,
        shown.nlink,
        shown.uid,
        shown.gid,
        device_number(shown.rdev),
        PAGE_BYTES,
        0,
    )


def _validity(valid_s: float) -> tuple[int, int]:
    seconds = int(valid_s)
    return seconds, int((valid_s - seconds) * 1e9)


def entry(node: int, shown: bytes, *, name_valid_s: float, attributes_valid_s: float) -> bytes:
    """Return a fuse_entry_out; *node* 0 says that there is no such name, *shown* is what `attributes` made."""
    name_s, name_ns = _validity(name_valid_s)
    attributes_s, attributes_ns = _validity(attributes_valid_s)
    return _ENTRY.pack(node, 0, name_s, attributes_s, name_ns, attributes_ns) + shown


NO_ATTRIBUTES = bytes(_ATTR.size)


def attributes_reply(shown: bytes, *, valid_s: float) -> bytes:
    """Return a fuse_attr_out."""
    seconds, nanoseconds = _validity(valid_s)
    return _ATTR_OUT.pack(seconds, nanoseconds, 0) + shown


def opened(handle: int, flags: int) -> bytes:
    """Return a fuse_open_out."""
    return _OPEN_OUT.pack(handle, flags, 0)


def dirent(name: bytes, ino: int, mode: int, *, cookie: int, made: bytes) -> bytes:
    """Return a fuse_direntplus; *cookie* is where the next one is asked for, *made* the `entry` of this one."""
    padding = -(len(name)) % 8
    return made + _DIRENT.pack(ino, cookie, len(name), mode >> 12 & 0xF) + name + bytes(padding)


def cut(entries: Sequence[bytes], first: int, size: int) -> bytes:
    """Return *entries* from index *first* on, as many whole ones as fit into *size* bytes."""
    taken = []
    for piece in entries[first:]:
        size -= len(piece)
        if size < 0:
            break
        taken.append(piece)
    return b"".join(taken)


def statfs(found: StatFs) -> bytes:
    """Return a fuse_statfs_out."""
    return _STATFS_OUT.pack(
        found.blocks, found.bfree, found.bavail, found.files, found.ffree, found.bsize, found.namemax, found.bsize, 0
    )


def sized(value: bytes, room: int) -> bytes:
    """Return the answer of GETXATTR and LISTXATTR: *value*, or only its size where *room* is 0.

    Raises: OSError(ERANGE), if *value* does not fit.
    """
    if room == 0:
        return _SIZE_OUT.pack(len(value), 0)
    if len(value) > room:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value


def listed(names: Iterable[bytes]) -> bytes:
    """Return attribute names as listxattr(2) has them."""
    return b"".join(name + b"\0" for name in names)
