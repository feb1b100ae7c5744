"""The kernel's FUSE protocol as bytes: requests taken apart, replies put together.

Receives and hands on bytes and plain values.  Pure: it must never know a file descriptor, nor what a node is.

Source: include/uapi/linux/fuse.h; Documentation/filesystems/fuse.rst.  Spoken from protocol 7.23 (Linux 3.15) on.
"""

import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from imagefs.overlay.record import BLOCK_BYTES, ENTRY
from imagefs.view.attributes import NodeId, StatFs

MAJOR, OLDEST_MINOR, NEWEST_MINOR = 7, 23, 38
MAX_PAGES = 256
"""Pages in one request: the most any kernel allows unless its administrator says otherwise."""
REQUEST_BYTES = 128 * 1024
"""Room for any request: writes, the only long ones, are refused by the kernel itself on a read-only mount."""
MOST_BACKGROUND, CONGESTED = 4096, 3072
"""Reads that the kernel has under way at once, for all users together.  With its usual 64, a user whose reads wait for
long work would keep everybody else's from being sent at all."""
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
    LSEEK = 46


UNANSWERED = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET})
CHANGING = frozenset({4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51})
"""Requests that would change something: setattr, symlink, mknod, mkdir, unlink, rmdir, rename, link, write, setxattr,
removexattr, create, fallocate, rename2, copy_file_range, tmpfile."""


class Flag(IntFlag):
    """INIT flags that are of use here."""

    ASYNC_READ = 1 << 0
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24


WANTED = Flag(sum(Flag))
"""All of them.  AUTO_INVAL_DATA is for directories of names: the kernel keeps what it has read of a directory until
the directory's time has changed, and only with this flag asks for that time before it trusts what it kept."""


class Notice(IntEnum):
    """What the kernel may be told unasked."""

    INVALIDATE_INODE = 2
    INVALIDATE_ENTRY = 3
    STORE = 4
    RESEND = 7


HEADER = struct.Struct("<IIQQIIII")
"""Of a request: length, opcode, unique, node, uid, gid, pid, padding; what follows begins at its size."""
_UNIQUE = struct.Struct("<Q")
_OUT_HEADER = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_STATFS_OUT = struct.Struct("<QQQQQIIII24x")
_SIZE_OUT = struct.Struct("<II")
_GETXATTR_IN = struct.Struct("<II")
_READ_IN = struct.Struct("<QQI")
_OPEN_IN = struct.Struct("<I")
_LSEEK_IN = struct.Struct("<QQI")
_LSEEK_OUT = struct.Struct("<Q")
_INVALIDATE_INODE = struct.Struct("<Qqq")
_INVALIDATE_ENTRY = struct.Struct("<QII")
_STORE = struct.Struct("<QQII")
OUT_HEADER_BYTES = _OUT_HEADER.size

Buffer = bytes | bytearray | memoryview


def unique(raw: Buffer) -> int:
    """Return the number of the request *raw*, which its reply carries."""
    return int(_UNIQUE.unpack_from(raw, 8)[0])


def interrupted(raw: Buffer) -> int:
    """Return the number of the request that the INTERRUPT *raw* is about."""
    return int(_UNIQUE.unpack_from(raw, HEADER.size)[0])


def name(raw: Buffer) -> bytes:
    """Return the name that the LOOKUP *raw* is for."""
    return _text(raw, HEADER.size)


def reading(raw: Buffer) -> tuple[int, int]:
    """Return (offset, size) of the READ or READDIRPLUS *raw*."""
    _, offset, size = _READ_IN.unpack_from(raw, HEADER.size)
    return offset, size


def seeking(raw: Buffer) -> tuple[int, int]:
    """Return (offset, whence) of the LSEEK *raw*."""
    _, offset, whence = _LSEEK_IN.unpack_from(raw, HEADER.size)
    return offset, whence


def place(offset: int) -> bytes:
    """Return the answer to an LSEEK that leads to *offset*."""
    return _LSEEK_OUT.pack(offset)


def open_flags(raw: Buffer) -> int:
    """Return the flags of the OPEN *raw*, as open(2) has them."""
    return int(_OPEN_IN.unpack_from(raw, HEADER.size)[0])


def xattr_room(raw: Buffer) -> int:
    """Return the room that the asker of the GETXATTR or LISTXATTR *raw* has; 0 asks for the size only."""
    return int(_GETXATTR_IN.unpack_from(raw, HEADER.size)[0])


def xattr_name(raw: Buffer) -> bytes:
    """Return the attribute that the GETXATTR *raw* is for."""
    return _text(raw, HEADER.size + _GETXATTR_IN.size)


def _text(raw: Buffer, at: int) -> bytes:
    text, end, _ = bytes(raw[at:]).partition(b"\0")
    if not end:
        raise ValueError("a name does not end")
    return text


def reply(unique: int, *parts: Buffer) -> list[Buffer]:
    """Return the pieces of a successful reply, to be written at once."""
    return [_OUT_HEADER.pack(OUT_HEADER_BYTES + sum(map(len, parts)), 0, unique), *parts]


def refusal(unique: int, number: int) -> list[Buffer]:
    """Return the reply that fails with errno *number*."""
    return [_OUT_HEADER.pack(OUT_HEADER_BYTES, -number, unique)]


def resend() -> bytes:
    """Return the notice that asks for all requests again that were read and not answered (Linux 6.9)."""
    return _OUT_HEADER.pack(OUT_HEADER_BYTES, Notice.RESEND, 0)


def invalidate_entry(parent: NodeId, name: bytes) -> bytes:
    """Return the notice that *name* in *parent* leads elsewhere now; ENOENT says that the kernel did not know it."""
    body = _INVALIDATE_ENTRY.pack(parent, len(name), 0) + name + b"\0"
    return _OUT_HEADER.pack(OUT_HEADER_BYTES + len(body), Notice.INVALIDATE_ENTRY, 0) + body


def invalidate_attributes(node: NodeId) -> bytes:
    """Return the notice to ask again for the attributes of *node*; ENOENT says that the kernel does not know it."""
    body = _INVALIDATE_INODE.pack(node, -1, 0)
    return _OUT_HEADER.pack(OUT_HEADER_BYTES + len(body), Notice.INVALIDATE_INODE, 0) + body


def invalidate_content(node: NodeId) -> bytes:
    """Return the notice to forget the pages of *node*; ENOENT says that the kernel does not know it.

    It may wait until a read of these pages is answered.
    """
    body = _INVALIDATE_INODE.pack(node, 0, 0)
    return _OUT_HEADER.pack(OUT_HEADER_BYTES + len(body), Notice.INVALIDATE_INODE, 0) + body


def store(node: NodeId, data: Buffer) -> list[Buffer]:
    """Return the notice that *data* is what file *node* begins with, in pieces to be written at once.

    ENOENT says that the kernel does not know the node.  It may wait until a read of the same bytes is answered.
    """
    body = _STORE.pack(node, 0, len(data), 0)
    return [_OUT_HEADER.pack(OUT_HEADER_BYTES + len(body) + len(data), Notice.STORE, 0), body, data]


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
    answer = _INIT_OUT.pack(
        MAJOR, session.minor, readahead, int(session.flags), MOST_BACKGROUND, CONGESTED, BLOCK_BYTES, 1, pages, 0, 0
    )
    return answer, session


def _validity(valid_s: float) -> tuple[int, int]:
    seconds = int(valid_s)
    return seconds, int((valid_s - seconds) * 1e9)


def entry(node: int, shown: bytes, *, name_valid_s: float, attributes_valid_s: float) -> bytes:
    """Return a fuse_entry_out; *node* 0 says that there is no such name, *shown* are packed attributes."""
    name_s, name_ns = _validity(name_valid_s)
    attributes_s, attributes_ns = _validity(attributes_valid_s)
    return ENTRY.pack(node, 0, name_s, attributes_s, name_ns, attributes_ns) + shown


def attributes_reply(shown: bytes, *, valid_s: float) -> bytes:
    """Return a fuse_attr_out of packed attributes."""
    seconds, nanoseconds = _validity(valid_s)
    return _ATTR_OUT.pack(seconds, nanoseconds, 0) + shown


def opened(flags: int) -> bytes:
    """Return a fuse_open_out without a handle: a node says all there is to know."""
    return _OPEN_OUT.pack(0, flags, 0)


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
