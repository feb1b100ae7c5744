"""One directory's records (see `record`), read a page at a time.

Receives records, or a way to load pages of them; hands on answers to lookups and directory reads.  A directory may have
a million names: finding one of them, or listing the next few, must not take the time to read them all.
"""

import array
import bisect
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from struct import Struct

from imagefs.overlay.attributes import Attributes
from imagefs.overlay.record import ATTRIBUTES, ENTRY, ENTRY_BYTES, RECORD_BYTES, packed, unpacked

PAGE_RECORDS = 128
"""About 22 kB: read, checked and bound in a tenth of a millisecond."""
_MOST_PAGES = 64
"""In memory, of one directory."""

_NODE = Struct("<Q")
_HALVES = Struct("<II")
_INO = Struct("<Q")
_SIZE = Struct("<Q")
_TYPE_AT = ENTRY_BYTES + 20
_NAME_LENGTH_AT = ENTRY_BYTES + 16
_WORD = Struct("<I")


class Page:
    """Records that follow each other in a directory, numbered from 0; in the first page, 0 and 1 are "." and "..".

    Immutable once `bind`, `set_ino` and `set_size` were called; then thread-safe.
    """

    __slots__ = ("_starts", "records")

    def __init__(self, raw: bytearray, count: int) -> None:
        """Take over *raw*, which `packed_page` made of *count* records."""
        view = memoryview(raw)
        records_bytes = len(raw) - (count + 1) * 4
        self.records = view[:records_bytes]
        self._starts = view[records_bytes:].cast("I")

    def bind(self, slots: Sequence[int], adjust: Callable[[Attributes], Attributes] | None, *, first: int) -> None:
        """Put ``slots[owner]`` in place of each record's owner, and what *adjust* returns in place of attributes.

        Of record *first* and those after it.
        """
        words = self.records.cast("I")
        for start in self._starts[first:-1]:
            owner_at = (start >> 2) + 1
            words[owner_at] = slots[words[owner_at]]
        if adjust is not None:
            for start in self._starts[first:-1]:
                at = start + ENTRY.size
                self.records[at : at + ATTRIBUTES.size] = packed(adjust(unpacked(self.records, at)))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def name(self, number: int) -> bytes:
        """Return the name of record *number*."""
        at = self._starts[number]
        (length,) = _WORD.unpack_from(self.records, at + _NAME_LENGTH_AT)
        return bytes(self.records[at + RECORD_BYTES : at + RECORD_BYTES + length])

    def find(self, name: bytes, *, first: int) -> int | None:
        """Return the number of the record of *name*, None where there is none from record *first* on."""
        number = bisect.bisect_left(range(len(self)), name, lo=first, key=self.name)
        return number if number < len(self) and self.name(number) == name else None

    def node(self, number: int) -> int:
        """Return the node id in record *number*."""
        return int(_NODE.unpack_from(self.records, self._starts[number])[0])

    def owner(self, number: int) -> tuple[int, int]:
        """Return (owner, index) of what record *number* leads to; what an owner is, changes with `bind`."""
        index, owner = _HALVES.unpack_from(self.records, self._starts[number])
        return owner, index

    def nodes(self, first: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, owner and index of each record from *first* on."""
        records = self.records
        halves_of, length_of = _HALVES.unpack_from, _WORD.unpack_from
        for at in self._starts[first:-1]:
            name_at = at + RECORD_BYTES
            (length,) = length_of(records, at + _NAME_LENGTH_AT)
            index, owner = halves_of(records, at)
            yield bytes(records[name_at : name_at + length]), owner, index

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
        """Put *size* in place of st_size of what record *number* leads to; only before others see the page."""
        _SIZE.pack_into(self.records, self._starts[number] + ENTRY.size + 8, size)

    def entry(self, number: int) -> memoryview:
        """Return record *number* without name and cookie: the reply to a lookup of its name."""
        at = self._starts[number]
        return self.records[at : at + ENTRY_BYTES]

    def cut(self, first: int, size: int) -> tuple[memoryview, int]:
        """Return as many whole records from number *first* on as fit into *size* bytes, and the number after them."""
        start = self._starts[first]
        last = bisect.bisect_right(self._starts, start + size, lo=first) - 1
        return self.records[start : self._starts[last]], last


class Listing:
    """All records of one directory: "." and ".." first, then the others in byte order of their names.

    Thread-safe.  Methods raise what loading a page raises.
    """

    __slots__ = ("_count", "_finish", "_first_names", "_load", "_lock", "_pages", "kept_bytes")

    def __init__(self, count: int, load: Callable[[int], Page], size: int) -> None:
        """Have *count* records, in pages of `PAGE_RECORDS`; *load* returns a page by number, *size* is that of all."""
        self._count = count
        self._load = load
        self._lock = threading.Lock()
        self._pages: OrderedDict[int, Page] = OrderedDict()
        self._first_names: dict[int, bytes] = {}
        self._finish: Callable[[Page, bool], None] | None = None
        pages = -(-count // PAGE_RECORDS)
        self.kept_bytes = size if pages <= _MOST_PAGES else size // pages * _MOST_PAGES + RECORD_BYTES * pages
        """What this object may take in memory."""

    @classmethod
    def of(cls, records: Sequence[bytes]) -> "Listing":
        """Return the listing of *records*."""
        pages = [Page(bytearray(packed_page(part)), len(part)) for part in paged(records)]
        return cls(len(records), pages.__getitem__, sum(len(page.records) for page in pages))

    def finish(self, finish: Callable[[Page, bool], None]) -> None:
        """Have *finish* complete each page when it is loaded; it is told whether it is the first one.

        To be called before the first look at a record.
        """
        self._finish = finish

    def _page(self, number: int) -> Page:
        page = self._pages.get(number)
        if page is not None:
            return page
        page = self._load(number)
        if self._finish is not None:
            self._finish(page, number == 0)
        with self._lock:
            self._pages[number] = page
            if len(self._pages) > _MOST_PAGES:
                self._pages.popitem(last=False)
        return page

    def __len__(self) -> int:
        """Return how many records there are, "." and ".." included."""
        return self._count

    def find(self, name: bytes) -> int | None:
        """Return the number of the record of *name*, None where there is none; "." and ".." are not looked for."""
        number = 0
        if self._count > PAGE_RECORDS:
            pages = range(1, -(-self._count // PAGE_RECORDS))
            number = bisect.bisect_right(pages, name, key=self._first_name)
        found = self._page(number).find(name, first=2 if number == 0 else 0)
        return None if found is None else number * PAGE_RECORDS + found

    def _first_name(self, page: int) -> bytes:
        name = self._first_names.get(page)
        if name is None:
            name = self._first_names[page] = self._page(page).name(0)
        return name

    def name(self, number: int) -> bytes:
        """Return the name of record *number*."""
        return self._page(number // PAGE_RECORDS).name(number % PAGE_RECORDS)

    def node(self, number: int) -> int:
        """Return the node id in record *number*."""
        return self._page(number // PAGE_RECORDS).node(number % PAGE_RECORDS)

    def owner(self, number: int) -> tuple[int, int]:
        """Return (owner, index) of what record *number* leads to; what an owner is, changes with `Page.bind`."""
        return self._page(number // PAGE_RECORDS).owner(number % PAGE_RECORDS)

    def attributes(self, number: int) -> Attributes:
        """Return the attributes in record *number*, which is not "." or ".."."""
        return self._page(number // PAGE_RECORDS).attributes(number % PAGE_RECORDS)

    def ino(self, number: int) -> int:
        """Return the inode number in record *number*."""
        return self._page(number // PAGE_RECORDS).ino(number % PAGE_RECORDS)

    def mode(self, number: int) -> int:
        """Return st_mode of what record *number* leads to, with permission bits only where it has attributes."""
        return self._page(number // PAGE_RECORDS).mode(number % PAGE_RECORDS)

    def size(self, number: int) -> int:
        """Return st_size of what record *number* leads to."""
        return self._page(number // PAGE_RECORDS).size(number % PAGE_RECORDS)

    def entry(self, number: int) -> memoryview:
        """Return record *number* without name and cookie: the reply to a lookup of its name."""
        return self._page(number // PAGE_RECORDS).entry(number % PAGE_RECORDS)

    def nodes(self) -> dict[bytes, tuple[int, int, int]]:
        """Return by name, in byte order, owner, index and number of each record but those of "." and ".."."""
        found = {}
        number = 2
        for page in range(-(-self._count // PAGE_RECORDS)):
            for name, owner, index in self._page(page).nodes(2 if page == 0 else 0):
                found[name] = owner, index, number
                number += 1
        return found

    def files(self, first: int, last: int | None = None) -> Iterator[int]:
        """Yield the numbers, from *first* up to *last*, of the records of regular files that are not empty."""
        for number in range(first, len(self) if last is None else min(last, len(self))):
            if stat.S_ISREG(self.mode(number)) and self.size(number):
                yield number

    def cut(self, first: int, size: int) -> list[memoryview]:
        """Return the records from number *first* on, as many whole ones as fit into *size* bytes, in pieces."""
        pieces: list[memoryview] = []
        while first < self._count:
            start = first - first % PAGE_RECORDS
            page = self._page(start // PAGE_RECORDS)
            piece, last = page.cut(first - start, size)
            if piece:
                pieces.append(piece)
            if last < len(page):
                break
            size -= len(piece)
            first = start + last
        return pieces


def paged(records: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield *records* in pages."""
    for start in range(0, len(records), PAGE_RECORDS):
        yield records[start : start + PAGE_RECORDS]


def packed_page(records: Sequence[bytes]) -> bytes:
    """Return *records* and where each of them starts, the end of the last included, in 32 bits each."""
    starts = array.array("I", [0])
    at = 0
    for one in records:
        at += len(one)
        starts.append(at)
    return b"".join((*records, starts.tobytes()))
