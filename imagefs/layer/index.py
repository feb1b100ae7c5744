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
and trusted, without the rest.  Parts follow each other without gaps, which `decode` checks, so that no two records
claim the same bytes.
"""

import gc
import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import Struct
from zlib import crc32

from imagefs.errors import LayerIndexDamaged
from imagefs.layer.changeset import Changeset, Entry, link_counts
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
_SEAL_BYTES = 32
_BLOCK_RECORDS = 128

_IS_HARDLINK = 1
_HAS_SHA256 = 2
_IS_SPARSE = 4


def encode(changeset: Changeset, diff_id: DiffId) -> bytes:
    """Return *changeset*, of layer *diff_id*, as bytes that `decode` reads back; equal arguments give equal bytes."""
    records: list[bytes] = []
    heap: list[bytes] = []
    heap_at = 0
    for entry, links in zip(changeset.entries, link_counts(changeset.entries), strict=True):
        xattrs = b"".join(_XATTR.pack(len(name), len(value)) + name + value for name, value in entry.xattrs)
        extents = b"" if entry.extents is None else entry.extents.to_bytes()
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
            links,
            entry.mtime_ns,
            entry.size,
            entry.offset,
            heap_at,
            len(entry.path),
            len(entry.target),
            len(xattrs),
            len(extents),
            flags,
            entry.sha256,
            crc32(part),
            0,
        )[:_RECORD_BODY_BYTES]
        records.append(body + _CRC.pack(crc32(body)))
        heap.append(part)
        heap_at += len(part)
    whiteouts, opaques = sorted(changeset.whiteouts), sorted(changeset.opaques)
    markers = [_MARKER.pack(len(path)) for path in (*whiteouts, *opaques)]
    heap_bytes = b"".join((*heap, *whiteouts, *opaques))
    header = _HEADER.pack(
        _MAGIC,
        INDEX_VERSION,
        _RECORD.size,
        len(records),
        len(whiteouts),
        len(opaques),
        len(heap_bytes),
        _layer_digest(diff_id),
    )
    raw = b"".join((header, _CRC.pack(crc32(header)), *records, *markers, heap_bytes))
    return raw + hashlib.sha256(raw).digest()


def decode(raw: bytes, diff_id: DiffId) -> Changeset:
    """Return the changeset of layer *diff_id* that `encode` made *raw* of.

    Raises: LayerIndexDamaged, for any other bytes.
    """
    entries, whiteouts, opaques, heap_bytes = _lengths(raw[:_RECORDS_AT], diff_id)
    view = memoryview(raw)
    if hashlib.sha256(view[:-_SEAL_BYTES]).digest() != raw[-_SEAL_BYTES:]:
        raise LayerIndexDamaged("its bytes are not those that were written")
    markers_at = _RECORDS_AT + entries * _RECORD.size
    heap_at = markers_at + (whiteouts + opaques) * _MARKER.size
    if heap_at + heap_bytes + _SEAL_BYTES != len(raw):
        raise LayerIndexDamaged(f"its parts should end at byte {heap_at + heap_bytes + _SEAL_BYTES}, not {len(raw)}")
    heap = bytes(view[heap_at : heap_at + heap_bytes])
    with _collector_paused():
        found, at = _entries(view[_RECORDS_AT:markers_at], heap)
    hidden = []
    for (length,) in _MARKER.iter_unpack(view[markers_at:heap_at]):
        hidden.append(heap[at : at + length])
        at += length
    if at != len(heap):
        raise LayerIndexDamaged("its records use less or more than it holds")
    return Changeset(found, frozenset(hidden[:whiteouts]), frozenset(hidden[whiteouts:]))


class IndexFile:
    """The index of layer *diff_id*, read an entry at a time through *read*.  Thread-safe if *read* is.

    Raises: LayerIndexDamaged, as do its methods.
    """

    __slots__ = ("_block", "_heap_at", "_read", "count")

    def __init__(self, read: ReadAt, diff_id: DiffId) -> None:
        self._read = read
        self.count, whiteouts, opaques, _ = _lengths(read(_RECORDS_AT, 0), diff_id)
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
        (entry,), _ = _entries(_RECORD.pack(*fields[:9], 0, *fields[10:]), part)
        return entry, fields[5]

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


def _entries(records: memoryview | bytes, heap: bytes) -> tuple[tuple[Entry, ...], int]:
    """Return the entries of *records*, whose parts begin at byte 0 of *heap*, and where the last part ends."""
    at = 0
    entries: list[Entry] = []
    append = entries.append
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
        if part_at != at:
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
        append(
            Entry(
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
        )
    if at > len(heap):
        raise LayerIndexDamaged("its records use more than it holds")
    return tuple(entries), at


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


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the cycle collector from walking, again and again, the growing heap of values that cannot form cycles.

    It takes as long as the decoding itself.  Threads that overlap here cannot leave it off: whoever found it on turns
    it on again.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
