"""A changeset's form on disk: the layer index.

Receives changesets to keep and bytes to read back, all at once or an entry at a time; hands on the other of the two.
The index is derived from the layer's tar and can be made again at any time, so an unknown version, or the index of
another layer, is simply damaged.
It must never know where the bytes are kept.

The layout, all numbers little-endian and without padding:

    header       magic, version, size of a record, the numbers of entries, whiteouts and opaque directories, bytes of
                 the heap, a digest of the diff_id; CRC-32
    records      one of fixed size for each entry, in the changeset's order
    markers      the path length of each whiteout, sorted by path, then of each opaque directory, sorted by path
    heap         for each entry its path, its target, its xattrs (both lengths, name, value) and its extents (logical
                 offset, length); then the paths of the whiteouts and of the opaque directories
    seal         SHA-256 of everything before it

A record holds where in the heap its entry's part begins, its own CRC-32 and that of its part: one entry can be read,
and trusted, without the rest.  Parts follow each other without gaps, so that no two records claim the same bytes;
`decode` checks that within each block of records that it reads at once.
"""

import hashlib
import operator
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import overload
from zlib import crc32

from imagefs.errors import LayerIndexDamaged
from imagefs.layer.changeset import Changeset, Entry
from imagefs.layer.extents import Extents
from imagefs.oci.digest import DiffId

INDEX_VERSION = 3

ReadAt = Callable[[int, int], bytes]
"""(size, offset) → that many bytes from there, fewer at the end of the file."""

_MAGIC = b"imagefsX"
_VERSION = Struct("<8sI")
_HEADER = Struct("<8sIIQQQQ32s")  # magic, version, record size, entries, whiteouts, opaques, heap bytes, layer
_CRC = Struct("<I")
_RECORDS_AT = _HEADER.size + _CRC.size
# mode, uid, gid, major, minor, links, mtime_ns, size, offset, place in the heap; lengths there of path, target, xattrs
# and extents; flags, sha256, CRC of the part in the heap, CRC of the record
_RECORD = Struct("<IIIIIIqQQQIIIII32sII")
_RECORD_BODY_BYTES = _RECORD.size - _CRC.size
_XATTR = Struct("<II")
_MARKER = Struct("<I")
_LINKS = Struct("<I")
_LINKS_AT = 20
_PATH = Struct("<QI")
_PATH_AT = 48  # of a record: where its part is in the heap, and how long the path is, with which the part begins
_SEAL_BYTES = 32
_PIECE_BYTES = 1 << 20
_BLOCK_RECORDS = 128

_IS_HARDLINK = 1
_HAS_SHA256 = 2
_IS_SPARSE = 4


class IndexWriter:
    """The index of one layer, made entry by entry, in little more memory than the index takes on disk."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._heap = bytearray()
        self._link_targets: Counter[bytes] = Counter()

    def append(self, entry: Entry) -> None:
        """Take *entry*, the next of the layer."""
        xattrs = extents = b""
        if entry.xattrs:
            xattrs = b"".join(_XATTR.pack(len(name), len(value)) + name + value for name, value in entry.xattrs)
        if entry.extents is not None:
            extents = entry.extents.to_bytes()
        if entry.is_hardlink:
            self._link_targets[entry.target] += 1
        part = b"".join((entry.path, entry.target, xattrs, extents))
        flags = (
            (_IS_HARDLINK if entry.is_hardlink else 0)
            | (_HAS_SHA256 if entry.sha256 else 0)
            | (_IS_SPARSE if entry.extents is not None else 0)
        )
        body = _RECORD.pack(
            entry.mode,
            entry.uid,
            entry.gid,
            entry.rdev[0],
            entry.rdev[1],
            1,
            entry.mtime_ns,
            entry.size,
            entry.offset,
            len(self._heap),
            len(entry.path),
            len(entry.target),
            len(xattrs),
            len(extents),
            flags,
            entry.sha256,
            crc32(part),
            0,
        )[:_RECORD_BODY_BYTES]
        self._records += body
        self._records += _CRC.pack(crc32(body))
        self._heap += part

    def pieces(self, changeset: Changeset, diff_id: DiffId) -> Iterator[bytes]:
        """Yield the index of layer *diff_id*, with what *changeset* hides; its entries are those that were appended."""
        self._count_links()
        whiteouts, opaques = sorted(changeset.whiteouts), sorted(changeset.opaques)
        hidden = b"".join((*whiteouts, *opaques))
        header = _HEADER.pack(
            _MAGIC,
            INDEX_VERSION,
            _RECORD.size,
            len(self._records) // _RECORD.size,
            len(whiteouts),
            len(opaques),
            len(self._heap) + len(hidden),
            _layer_digest(diff_id),
        )
        markers = b"".join(_MARKER.pack(len(path)) for path in (*whiteouts, *opaques))
        seal = hashlib.sha256()
        for part in (header, _CRC.pack(crc32(header)), self._records, markers, self._heap, hidden):
            with memoryview(part) as view:
                for at in range(0, len(view), _PIECE_BYTES):
                    piece = bytes(view[at : at + _PIECE_BYTES])
                    seal.update(piece)
                    yield piece
        yield seal.digest()

    def _count_links(self) -> None:
        """Put into each record how many names the layer gives its entry."""
        if not self._link_targets:
            return
        for at in range(0, len(self._records), _RECORD.size):
            heap_at, length = _PATH.unpack_from(self._records, at + _PATH_AT)
            links = self._link_targets[bytes(self._heap[heap_at : heap_at + length])]
            if links:
                _LINKS.pack_into(self._records, at + _LINKS_AT, 1 + links)
                end = at + _RECORD_BODY_BYTES
                _CRC.pack_into(self._records, end, crc32(self._records[at:end]))


def encoded(changeset: Changeset, diff_id: DiffId) -> Iterator[bytes]:
    """Return in pieces what `encode` returns."""
    writer = IndexWriter()
    for entry in changeset.entries:
        writer.append(entry)
    return writer.pieces(changeset, diff_id)


def encode(changeset: Changeset, diff_id: DiffId) -> bytes:
    """Return *changeset*, of layer *diff_id*, as bytes that `decode` reads back; equal arguments give equal bytes."""
    return b"".join(encoded(changeset, diff_id))


def decode(raw: bytes, diff_id: DiffId) -> Changeset:
    """Return the changeset of layer *diff_id* that `encode` made *raw* of.

    Raises: LayerIndexDamaged, for any other bytes.
    """
    return read_changeset(lambda size, offset: raw[offset : offset + size], len(raw), diff_id)


def read_changeset(read: ReadAt, size: int, diff_id: DiffId) -> Changeset:
    """Return the changeset of layer *diff_id* in the index of *size* bytes that *read* reads.

    All of it is compared with its seal.  Entries are then read when they are needed, and not kept.

    Raises: LayerIndexDamaged, for any other bytes; what *read* raises, also later.
    """
    index = IndexFile(read, diff_id)
    seal = hashlib.sha256()
    for at in range(0, size - _SEAL_BYTES, _PIECE_BYTES):
        seal.update(read(min(_PIECE_BYTES, size - _SEAL_BYTES - at), at))
    if size < _RECORDS_AT + _SEAL_BYTES or seal.digest() != read(_SEAL_BYTES, size - _SEAL_BYTES):
        raise LayerIndexDamaged("its bytes are not those that were written")
    return Changeset(IndexEntries(index), *index.hidden(size))


class IndexEntries(Sequence[Entry]):
    """The entries of *index*, each made anew when it is needed.  Equal to any sequence of equal entries."""

    def __init__(self, index: "IndexFile") -> None:
        self._index = index

    def __len__(self) -> int:
        return self._index.count

    def __iter__(self) -> Iterator[Entry]:
        return self._index.entries()

    @overload
    def __getitem__(self, position: int) -> Entry: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, position: int | slice) -> Entry | tuple[Entry, ...]:
        if isinstance(position, slice):
            return tuple(self[number] for number in range(*position.indices(len(self))))
        return self._index.entry(range(len(self))[position])[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # as a list, it is compared by its content


class IndexFile:
    """The index of layer *diff_id*, read an entry at a time through *read*.  Thread-safe if *read* is.

    Raises: LayerIndexDamaged, as do its methods.
    """

    __slots__ = ("_block", "_heap_at", "_lengths", "_read", "count")

    def __init__(self, read: ReadAt, diff_id: DiffId) -> None:
        self._read = read
        self._lengths = _lengths(read(_RECORDS_AT, 0), diff_id)
        self.count, whiteouts, opaques, _ = self._lengths
        self._heap_at = _RECORDS_AT + self.count * _RECORD.size + (whiteouts + opaques) * _MARKER.size
        self._block: tuple[int, bytes] = (-1, b"")

    def location(self, number: int) -> tuple[int, int, int | None]:
        """Return (mode, size, offset in the tar) of entry *number*; no offset if it is sparse: see its extents."""
        fields = self._record(number)
        return fields[0], fields[7], None if fields[14] & _IS_SPARSE else fields[8]

    def part_bytes(self, number: int) -> int:
        """Return how many bytes must be read and checked for `entry`, besides its record."""
        return sum(self._record(number)[10:14])

    def has_xattrs(self, number: int) -> bool:
        """Return whether entry *number* has extended attributes."""
        return self._record(number)[12] > 0

    def entry(self, number: int) -> tuple[Entry, int]:
        """Return entry *number* of the changeset, and how many names the layer gives it."""
        fields = self._record(number)
        part = self._read(sum(fields[10:14]), self._heap_at + fields[9])
        if crc32(part) != fields[16]:
            raise LayerIndexDamaged(f"what belongs to entry {number} is not what was written")
        (entry,) = _entries(_RECORD.pack(*fields), part, fields[9])
        return entry, fields[5]

    def entries(self) -> Iterator[Entry]:
        """Yield all entries of the changeset; their checksums are not looked at."""
        for first in range(0, self.count, _BLOCK_RECORDS):
            size = min(_BLOCK_RECORDS, self.count - first) * _RECORD.size
            records = self._read(size, _RECORDS_AT + first * _RECORD.size)
            if len(records) < size:
                raise LayerIndexDamaged(f"it has no entry {first}")
            start, _ = _part(records, 0)
            _, end = _part(records, size - _RECORD.size)
            yield from _entries(records, self._read(end - start, self._heap_at + start), start)

    def hidden(self, size: int) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """Return the whiteouts and the opaque directories; the index has *size* bytes."""
        _, whiteouts, opaques, heap_bytes = self._lengths
        if self._heap_at + heap_bytes + _SEAL_BYTES != size:
            raise LayerIndexDamaged(
                f"its parts should end at byte {self._heap_at + heap_bytes + _SEAL_BYTES}, not {size}"
            )
        at = 0
        if self.count:
            _, at = _part(self._read(_RECORD.size, _RECORDS_AT + (self.count - 1) * _RECORD.size), 0)
        markers_bytes = (whiteouts + opaques) * _MARKER.size
        markers = self._read(markers_bytes, self._heap_at - markers_bytes)
        paths = self._read(heap_bytes - at, self._heap_at + at) if at < heap_bytes else b""
        hidden = []
        start = 0
        for (length,) in _MARKER.iter_unpack(markers):
            hidden.append(paths[start : start + length])
            start += length
        if at + start != heap_bytes:
            raise LayerIndexDamaged("its records use less or more than it holds")
        return frozenset(hidden[:whiteouts]), frozenset(hidden[whiteouts:])

    def _record(self, number: int) -> tuple[int, ...]:
        # Files are read much in the order of their entries: the records around the last one are at hand.
        first, within = number - number % _BLOCK_RECORDS, number % _BLOCK_RECORDS * _RECORD.size
        block_first, block = self._block
        if block_first != first:
            block = self._read(_BLOCK_RECORDS * _RECORD.size, _RECORDS_AT + first * _RECORD.size)
            self._block = first, block
        raw = block[within : within + _RECORD.size]
        if number >= self.count or len(raw) < _RECORD.size:
            raise LayerIndexDamaged(f"it has no entry {number}")
        fields = _RECORD.unpack(raw)
        if crc32(raw[:_RECORD_BODY_BYTES]) != fields[17]:
            raise LayerIndexDamaged(f"the record of entry {number} is not what was written")
        return fields


def _layer_digest(diff_id: DiffId) -> bytes:
    return hashlib.sha256(str(diff_id).encode()).digest()


def _lengths(raw: bytes, diff_id: DiffId) -> tuple[int, int, int, int]:
    """Return how many entries, whiteouts, opaque directories and heap bytes the header *raw* announces."""
    magic, version = _VERSION.unpack_from(raw.ljust(_VERSION.size, b"\0"))
    if magic == _MAGIC and version != INDEX_VERSION:
        raise LayerIndexDamaged(f"it has version {version}, not {INDEX_VERSION}", is_outdated=True)
    if len(raw) < _RECORDS_AT:
        raise LayerIndexDamaged(f"expected at least {_RECORDS_AT} bytes, found {len(raw)}")
    _, _, record_size, entries, whiteouts, opaques, heap_bytes, layer = _HEADER.unpack_from(raw)
    if magic != _MAGIC or record_size != _RECORD.size:
        raise LayerIndexDamaged("it is another kind of file")
    if _CRC.unpack_from(raw, _HEADER.size)[0] != crc32(raw[: _HEADER.size]):
        raise LayerIndexDamaged("its header is not what was written")
    if layer != _layer_digest(diff_id):
        raise LayerIndexDamaged("it is the index of another layer")
    return entries, whiteouts, opaques, heap_bytes


def _part(records: bytes, at: int) -> tuple[int, int]:
    """Return where in the heap the part of the record at byte *at* of *records* begins and ends."""
    fields = _RECORD.unpack_from(records, at)
    return fields[9], fields[9] + sum(fields[10:14])


def _entries(records: bytes, heap: bytes, start: int) -> Iterator[Entry]:
    """Yield the entries of *records*, whose parts are all of *heap*, which begins at byte *start* of the whole."""
    at = 0
    no_device = (0, 0)
    for (
        mode,
        uid,
        gid,
        major,
        minor,
        _,
        mtime_ns,
        size,
        offset,
        part_at,
        path_length,
        target_length,
        xattrs_length,
        extents_length,
        flags,
        sha256,
        _,
        _,
    ) in _RECORD.iter_unpack(records):
        if part_at - start != at:
            raise LayerIndexDamaged("the parts of its entries do not follow each other")
        path = heap[at : at + path_length]
        at += path_length
        target = b""
        if target_length:
            target = heap[at : at + target_length]
            at += target_length
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        if xattrs_length:
            xattrs = tuple(_xattrs(heap[at : at + xattrs_length]))
            at += xattrs_length
        extents: Extents | None = None
        if flags & _IS_SPARSE:
            extents = _extents(heap[at : at + extents_length])
            at += extents_length
        if at > len(heap):
            raise LayerIndexDamaged("its records use more than it holds")
        yield Entry(
            path,
            mode,
            uid,
            gid,
            mtime_ns,
            size,
            target,
            flags & _IS_HARDLINK != 0,
            (major, minor) if major or minor else no_device,
            xattrs,
            offset,
            extents,
            sha256 if flags & _HAS_SHA256 else b"",
        )


def _xattrs(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(raw):
        try:
            name_length, value_length = _XATTR.unpack_from(raw, at)
        except struct.error:
            raise LayerIndexDamaged("its attributes are longer than it says") from None
        at += _XATTR.size
        yield raw[at : at + name_length], raw[at + name_length : at + name_length + value_length]
        at += name_length + value_length
    if at != len(raw):
        raise LayerIndexDamaged("its attributes are longer than it says")


def _extents(raw: bytes) -> Extents:
    try:
        return Extents.from_bytes(raw)
    except ValueError:
        raise LayerIndexDamaged("it holds half an extent") from None
