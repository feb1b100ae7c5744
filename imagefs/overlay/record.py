"""The names in a directory with everything ``stat`` shows, as bytes ready to be handed to a kernel.

A record is laid out as Linux wants it answered: fuse_entry_out, fuse_dirent, name, padded to 8 bytes (struct
fuse_direntplus of include/uapi/linux/fuse.h, protocol 7.23 and later; little-endian).  So serving a directory is
copying bytes.  That is all this module knows of it: what a node id means, and who asks, is others' business.

    0    node id: in a file of ours, index in the low half and owner (see `tree_file`) in the high half
    8    generation (0), then how long name and attributes may be believed: seconds, seconds, nanoseconds, nanoseconds
    40   attributes: ino, size, blocks, three times in seconds, the same in nanoseconds, mode, nlink, uid, gid, rdev,
         blksize, flags
    128  ino again, cookie (the index of the next record), length of the name, type
    152  the name
"""

import os
from struct import Struct

from imagefs.overlay.attributes import Attributes

FOREVER_S = 1 << 32
"""What never changes is believed for a century: the kernel turns seconds into jiffies, so the largest number is not
the longest time."""
BLOCK_BYTES = 4096

ATTRIBUTES = Struct("<QQQqqqIIIIIIIIII")
ENTRY = Struct("<QQQQII")
DIRENT = Struct("<QQII")
NO_ATTRIBUTES = bytes(ATTRIBUTES.size)
ENTRY_BYTES = ENTRY.size + ATTRIBUTES.size
RECORD_BYTES = ENTRY_BYTES + DIRENT.size
"""Of a record without its name."""

_FOREVER = (FOREVER_S, FOREVER_S, 0, 0)


def device_number(rdev: int) -> int:
    """Return *rdev*, as os.makedev makes it, in the kernel's 32 bits.  Source: linux/kdev_t.h, new_encode_dev."""
    major, minor = os.major(rdev), os.minor(rdev)
    return (minor & 0xFF | major << 8 | (minor & ~0xFF) << 12) & 0xFFFFFFFF


def packed(shown: Attributes) -> bytes:
    """Return *shown* as a fuse_attr."""
    seconds, nanoseconds = divmod(shown.mtime_ns, 10**9)
    return ATTRIBUTES.pack(
        shown.ino,
        shown.size,
        shown.blocks,
        seconds,
        seconds,
        seconds,
        nanoseconds,
        nanoseconds,
        nanoseconds,
        shown.mode,
        shown.nlink,
        shown.uid,
        shown.gid,
        device_number(shown.rdev) if shown.rdev else 0,
        BLOCK_BYTES,
        0,
    )


def unpacked(raw: bytes | bytearray | memoryview, at: int = 0) -> Attributes:
    """Return the attributes that `packed` made the bytes at *at* of."""
    ino, size, blocks, seconds, _, _, nanoseconds, _, _, mode, nlink, uid, gid, device, _, _ = ATTRIBUTES.unpack_from(
        raw, at
    )
    rdev = os.makedev(device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00) if device else 0
    return Attributes(ino, mode, nlink, uid, gid, size, blocks, seconds * 10**9 + nanoseconds, rdev)


def record(name: bytes, node: int, made: bytes, *, cookie: int, ino: int, mode: int) -> bytes:
    """Return the record of *name*, which leads to *node* with the attributes that `packed` made; all lasts for ever."""
    dirent = DIRENT.pack(ino, cookie, len(name), mode >> 12 & 0xF)
    return b"".join((ENTRY.pack(node, 0, *_FOREVER), made, dirent, name, bytes(-len(name) % 8)))


def unattributed(name: bytes, ino: int, mode: int, *, cookie: int) -> bytes:
    """Return a record of *name* that says nothing but its number and type, for "." and ".." and who must be asked."""
    dirent = DIRENT.pack(ino, cookie, len(name), mode >> 12 & 0xF)
    return b"".join((bytes(ENTRY_BYTES), dirent, name, bytes(-len(name) % 8)))
