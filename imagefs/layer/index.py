"""A changeset's form on disk: the layer index.

Receives changesets to keep and bytes to read back; hands on the other of the two.  The index is derived from the
layer's tar and can be made again at any time, so an unknown version is simply damaged.  It must never know where the
bytes are kept.

The layout, all numbers little-endian and without padding:

    header       magic, version, and the numbers that say how long each of the following parts is
    records      one of fixed size for each entry, in the changeset's order
    extents      (logical offset, length) pairs of the sparse files, in the order of their records
    xattrs       (name length, value length) pairs, in the order of their records
    markers      the path length of each whiteout, sorted by path, then of each opaque directory, sorted by path
    heap         for each entry its path, its target, then its xattrs as name, value, name, value;
                 then the paths of the whiteouts and of the opaque directories
    seal         SHA-256 of everything before it

Nothing holds an offset into the heap: parts are read in step with the records, so no two records can claim the same
bytes, and the lengths must use up the heap exactly.
"""

import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from struct import Struct

from imagefs.errors import LayerIndexDamaged
from imagefs.layer.changeset import Changeset, Entry

INDEX_VERSION = 1

_MAGIC = b"imagefsX"
_HEADER = Struct("<8sIIQQQQQQ")  # magic, version, record size, entries, extents, xattrs, whiteouts, opaques, heap bytes
# mode, uid, gid, major, minor, mtime_ns, size, offset, path length, target length, xattrs, extents, flags, sha256
_RECORD = Struct("<IIIIIqQQIIIII32s")
_EXTENT = Struct("<QQ")
_XATTR = Struct("<II")
_MARKER = Struct("<I")
_SEAL_BYTES = 32

_IS_HARDLINK = 1
_HAS_SHA256 = 2
_IS_SPARSE = 4

_NO_DIGEST = bytes(32)


def encode(changeset: Changeset) -> bytes:
    """Return *changeset* as bytes that `decode` reads back; equal changesets give equal bytes."""
    records: list[bytes] = []
    extents: list[bytes] = []
    xattrs: list[bytes] = []
    heap: list[bytes] = []
    for entry in changeset.entries:
        flags = (
            (_IS_HARDLINK if entry.is_hardlink else 0)
            | (_HAS_SHA256 if entry.sha256 else 0)
            | (_IS_SPARSE if entry.extents is not None else 0)
        )
        records.append(
            _RECORD.pack(
                entry.mode,
                entry.uid,
                entry.gid,
                entry.rdev[0],
                entry.rdev[1],
                entry.mtime_ns,
                entry.size,
                entry.offset,
                len(entry.path),
                len(entry.target),
                len(entry.xattrs),
                len(entry.extents or ()),
                flags,
                entry.sha256,
            )
        )
        extents.extend(_EXTENT.pack(*extent) for extent in entry.extents or ())
        xattrs.extend(_XATTR.pack(len(name), len(value)) for name, value in entry.xattrs)
        heap.append(entry.path)
        heap.append(entry.target)
        heap.extend(chain.from_iterable(entry.xattrs))
    whiteouts, opaques = sorted(changeset.whiteouts), sorted(changeset.opaques)
    markers = [_MARKER.pack(len(path)) for path in (*whiteouts, *opaques)]
    heap_bytes = b"".join((*heap, *whiteouts, *opaques))
    header = _HEADER.pack(
        _MAGIC,
        INDEX_VERSION,
        _RECORD.size,
        len(records),
        len(extents),
        len(xattrs),
        len(whiteouts),
        len(opaques),
        len(heap_bytes),
    )
    raw = b"".join((header, *records, *extents, *xattrs, *markers, heap_bytes))
    return raw + hashlib.sha256(raw).digest()


def decode(raw: bytes) -> Changeset:
    """Return the changeset that `encode` made *raw* of.

    Raises: LayerIndexDamaged, for any other bytes.
    """
    if len(raw) < _HEADER.size + _SEAL_BYTES:
        raise LayerIndexDamaged(f"expected at least {_HEADER.size + _SEAL_BYTES} bytes, found {len(raw)}")
    magic, version, record_size, *lengths = _HEADER.unpack_from(raw)
    if magic != _MAGIC or version != INDEX_VERSION or record_size != _RECORD.size:
        raise LayerIndexDamaged(f"expected a layer index of version {INDEX_VERSION}, found another kind of file")
    view = memoryview(raw)
    if hashlib.sha256(view[:-_SEAL_BYTES]).digest() != raw[-_SEAL_BYTES:]:
        raise LayerIndexDamaged("its bytes are not those that were written")
    entries, extents, xattrs, whiteouts, opaques, heap_length = lengths
    sizes = (
        entries * _RECORD.size,
        extents * _EXTENT.size,
        xattrs * _XATTR.size,
        (whiteouts + opaques) * _MARKER.size,
        heap_length,
    )
    if _HEADER.size + sum(sizes) + _SEAL_BYTES != len(raw):
        raise LayerIndexDamaged(f"its parts should have {sum(sizes)} bytes together, the file has {len(raw)}")
    parts = []
    start = _HEADER.size
    for size in sizes:
        parts.append(view[start : start + size])
        start += size
    with _collector_paused():
        return _Reader(*parts).changeset(whiteouts)


class _Reader:
    """The parts of one index, read in step."""

    def __init__(
        self, records: memoryview, extents: memoryview, xattrs: memoryview, markers: memoryview, heap: memoryview
    ) -> None:
        self._records = records
        self._extents: Iterator[tuple[int, int]] = _EXTENT.iter_unpack(extents)
        self._xattrs: Iterator[tuple[int, int]] = _XATTR.iter_unpack(xattrs)
        self._markers = markers
        self._heap = bytes(heap)
        self._at = 0

    def changeset(self, whiteouts: int) -> Changeset:
        entries = self._entries()
        hidden = [self._text(length) for (length,) in _MARKER.iter_unpack(self._markers)]
        if self._at != len(self._heap) or next(self._extents, None) or next(self._xattrs, None):
            raise LayerIndexDamaged("its records use less or more than it holds")
        return Changeset(entries, frozenset(hidden[:whiteouts]), frozenset(hidden[whiteouts:]))

    def _entries(self) -> tuple[Entry, ...]:
        heap = self._heap
        at = self._at
        entries: list[Entry] = []
        append = entries.append
        no_device = (0, 0)
        for (
            mode,
            uid,
            gid,
            major,
            minor,
            mtime_ns,
            size,
            offset,
            path_length,
            target_length,
            xattr_count,
            extent_count,
            flags,
            sha256,
        ) in _RECORD.iter_unpack(self._records):
            path = heap[at : at + path_length]
            at += path_length
            target = b""
            if target_length:
                target = heap[at : at + target_length]
                at += target_length
            xattrs: tuple[tuple[bytes, bytes], ...] = ()
            if xattr_count:
                self._at = at
                xattrs = self._attributes(xattr_count)
                at = self._at
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
                    _exactly(extent_count, self._extents) if flags & _IS_SPARSE else None,
                    sha256 if flags & _HAS_SHA256 else b"",
                )
            )
        self._at = at
        return tuple(entries)

    def _attributes(self, count: int) -> tuple[tuple[bytes, bytes], ...]:
        lengths = _exactly(count, self._xattrs)
        return tuple((self._text(name_length), self._text(value_length)) for name_length, value_length in lengths)

    def _text(self, length: int) -> bytes:
        text = self._heap[self._at : self._at + length]
        self._at += length
        return text


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


def _exactly(count: int, pairs: Iterator[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    taken = tuple(islice(pairs, count))
    if len(taken) != count:
        raise LayerIndexDamaged("its records count more extents or attributes than it holds")
    return taken
