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

import array
import bisect
import os
import stat
from collections.abc import Callable, Iterator, Sequence
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

_NODE = Struct("<Q")
_HALVES = Struct("<II")
_INO = Struct("<Q")
_SIZE = Struct("<Q")
_TYPE_AT = ENTRY_BYTES + 20
_NAME_LENGTH_AT = ENTRY_BYTES + 16
_WORD = Struct("<I")
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


class Listing:
    """One directory's records: "." and ".." first, then the others in byte order of their names.

    Immutable once `bind`, `set_ino` and `set_size` were called; then thread-safe.
    """

    __slots__ = ("_starts", "records")

    def __init__(self, records: memoryview, starts: Sequence[int]) -> None:
        """Take *records*, which may be written to, and where each of them starts, the end of the last included."""
        self.records = records
        self._starts = starts

    @classmethod
    def parse(cls, raw: bytearray, count: int) -> "Listing":
        """Return the listing of *count* records that `packed_listing` made *raw* of, and take *raw* over."""
        records_bytes = len(raw) - (count + 1) * 4
        view = memoryview(raw)
        return cls(view[:records_bytes], view[records_bytes:].cast("I"))

    def bind(self, slots: Sequence[int], adjust: Callable[[Attributes], Attributes] | None) -> None:
        """Put ``slots[owner]`` in place of each record's owner, and what *adjust* returns in place of attributes."""
        words = self.records.cast("I")
        for start in self._starts[2:-1]:
            owner_at = (start >> 2) + 1
            words[owner_at] = slots[words[owner_at]]
        if adjust is not None:
            for start in self._starts[2:-1]:
                at = start + ENTRY.size
                self.records[at : at + ATTRIBUTES.size] = packed(adjust(unpacked(self.records, at)))

    def __len__(self) -> int:
        """Return how many records there are, "." and ".." included."""
        return len(self._starts) - 1

    def name(self, number: int) -> bytes:
        """Return the name of record *number*."""
        at = self._starts[number]
        (length,) = _WORD.unpack_from(self.records, at + _NAME_LENGTH_AT)
        return bytes(self.records[at + RECORD_BYTES : at + RECORD_BYTES + length])

    def find(self, name: bytes) -> int | None:
        """Return the number of the record of *name*, None where there is none; "." and ".." are not looked for."""
        number = bisect.bisect_left(range(len(self)), name, lo=2, key=self.name)
        return number if number < len(self) and self.name(number) == name else None

    def node(self, number: int) -> int:
        """Return the node id in record *number*."""
        return int(_NODE.unpack_from(self.records, self._starts[number])[0])

    def nodes(self) -> dict[bytes, tuple[int, int, int]]:
        """Return by name, in byte order, owner, index and number of each record but those of "." and ".."."""
        records, found = self.records, {}
        halves_of, length_of = _HALVES.unpack_from, _WORD.unpack_from
        for number in range(2, len(self)):
            at = self._starts[number]
            name_at = at + RECORD_BYTES
            (length,) = length_of(records, at + _NAME_LENGTH_AT)
            index, owner = halves_of(records, at)
            found[bytes(records[name_at : name_at + length])] = owner, index, number
        return found

    def owner(self, number: int) -> tuple[int, int]:
        """Return (owner, index) of what record *number* leads to; what an owner is, changes with `bind`."""
        index, owner = _HALVES.unpack_from(self.records, self._starts[number])
        return owner, index

    def attributes(self, number: int) -> Attributes:
        """Return the attributes in record *number*, which is not "." or ".."."""
        return unpacked(self.records, self._starts[number] + ENTRY.size)

    def ino(self, number: int) -> int:
        """Return the inode number in record *number*."""
        return int(_INO.unpack_from(self.records, self._starts[number] + ENTRY_BYTES)[0])

    def mode(self, number: int) -> int:
        """Return st_mode of what record *number* leads to, with permission bits only where it has attributes."""
        at = self._starts[number]
        (mode,) = _WORD.unpack_from(self.records, at + ENTRY.size + 60)
        return int(mode or _WORD.unpack_from(self.records, at + _TYPE_AT)[0] << 12)

    def size(self, number: int) -> int:
        """Return st_size of what record *number* leads to."""
        return int(_SIZE.unpack_from(self.records, self._starts[number] + ENTRY.size + 8)[0])

    def set_ino(self, number: int, ino: int) -> None:
        """Put *ino* in place of the inode number that record *number*, "." or "..", says; as `set_size`."""
        _INO.pack_into(self.records, self._starts[number] + ENTRY_BYTES, ino)

    def set_size(self, number: int, size: int) -> None:
        """Put *size* in place of st_size of what record *number* leads to; only before others see the listing."""
        _SIZE.pack_into(self.records, self._starts[number] + ENTRY.size + 8, size)

    def files(self, first: int) -> Iterator[int]:
        """Yield the numbers, from *first* on, of the records of regular files that are not empty."""
        for number in range(first, len(self)):
            if stat.S_ISREG(self.mode(number)) and self.size(number):
                yield number

    def entry(self, number: int) -> memoryview:
        """Return record *number* without name and cookie: what a lookup of its name is answered with."""
        at = self._starts[number]
        return self.records[at : at + ENTRY_BYTES]

    def cut(self, first: int, size: int) -> memoryview:
        """Return the records from number *first* on, as many whole ones as fit into *size* bytes."""
        if first >= len(self):
            return self.records[:0]
        start = self._starts[first]
        last = bisect.bisect_right(self._starts, start + size, lo=first) - 1
        return self.records[start : self._starts[last]]


def packed_listing(records: Sequence[bytes]) -> bytes:
    """Return *records* and where each of them starts, the end of the last included, in 32 bits each.

    Raises: OverflowError, if they are longer than that.
    """
    starts = array.array("I", [0])
    at = 0
    for one in records:
        at += len(one)
        starts.append(at)
    return b"".join((*records, starts.tobytes()))
