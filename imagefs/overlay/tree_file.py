"""A tree's form on disk: the union of a stack of layers, computed once and served by copying bytes.

Receives a `Tree`, and what its layers are called; hands on bytes to keep, and answers read from such bytes.  The file
is derived from the layers' indexes and can be made again at any time, so an unknown version is simply damaged.  It
must never know where the bytes are kept, nor who asks.

Every inode has an owner and an index.  Files, symlinks and devices that are just what their layer says belong to the
layer (its place in the stack, counted from 1), and their index is their entry's place in the layer's changeset: so
they are the same thing in every image that has the layer.  Directories, and files whose link count or number another
layer changed, belong to the tree (owner 0) and are numbered from 1, the root, in the order of a walk.  So does every
name of a symlink that climbs (its target is absolute or has ".."): where that leads depends on where it is.

The layout, all numbers little-endian:

    listings     one for each directory, in the order of a walk: pages of up to 128 records (see `listing`), each the
                 records, then where each starts, then padding to 8 bytes; of more than one page there is a table: where
                 each page is in the listing, how long it is, its CRC-32
    table        for each inode of the tree's own: attributes, the layer and entry behind it, the directory it is in,
                 where its listing is, how long it is and of how many records, CRC-32 of its only page or of the table
                 of its pages, digest of the
                 directory with all that is in it, CRC-32 of this row
    trailer      number of inodes and of rows; where the table is; a digest of the name of the stack; the fingerprint of
                 the key of all inode numbers; version of this layout and of the rules of the union, version of the
                 indexes, magic, CRC-32 of the trailer

Each piece that is read alone is checked alone: opening takes one read, whatever the size, and nothing that was not
written is ever served.  A tree of another stack counts as damaged, one with numbers of another key as outdated.  It is
read with pread and not mapped: a listing must be copied anyway to put node ids into it, and a mapped file that somebody
cuts would kill the process instead of failing a read.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from struct import Struct
from zlib import crc32

from imagefs.errors import TreeDamaged
from imagefs.layer.index import INDEX_VERSION, ReadAt
from imagefs.oci.digest import DiffId
from imagefs.overlay.attributes import (
    DIGEST_BYTES,
    FINGERPRINT_BYTES,
    Attributes,
    NumberKey,
)
from imagefs.overlay.listing import PAGE_RECORDS, Listing, Page, packed_page, paged
from imagefs.overlay.numbering import ROOT_INDEX, Numbering
from imagefs.overlay.record import ATTRIBUTES, unpacked
from imagefs.overlay.tree import Tree

TREE_VERSION = 5
"""To be counted up when this layout changes, and when `resolve` decides anything differently."""

_MAGIC = b"imagefsT"
_STACK_BYTES = 32
_TRAILER = Struct(f"<QQQ{_STACK_BYTES}s{FINGERPRINT_BYTES}sII8sI")
_VERSIONS_AT = -20
_OLD_MAGIC = slice(-48, -40)
"""Where trees of versions up to 3 have their magic."""
_ROW = Struct(f"<IIIQQII{DIGEST_BYTES}sI")
_PAGE = Struct("<QII")
_ROW_BYTES = ATTRIBUTES.size + _ROW.size
_NO_LAYER = 0xFFFFFFFF
_OWNER_SHIFT = 32


@dataclass(frozen=True, slots=True)
class Row:
    """One inode of the tree's own.

    *layer* is the place in the stack (0 is the base) of the layer whose changeset has its entry at *position*; None
    where there is no such entry.  *parent* is the index of the directory that a directory (the root: itself) or a
    climbing symlink is in; 0 for everything else, which may be in several.  *digest* is that of the inode, and of all
    that is in it.
    """

    attributes: Attributes
    layer: int | None
    position: int
    parent: int
    listing_at: int
    listing_bytes: int
    records: int
    listing_crc: int
    digest: bytes


_NO_ROW = Row(Attributes(0, 0, 0, 0, 0, 0, 0, 0, 0), None, 0, 0, 0, 0, 0, 0, b"")


def encode(tree: Tree, diff_ids: Sequence[DiffId], *, stack: str, key: NumberKey) -> Iterator[bytes]:
    """Yield the bytes of the file of *tree*, whose layers are called *diff_ids*.

    *stack* names the file; only a reader that expects this name accepts it.  *key* makes the inode numbers.  Equal
    arguments give equal bytes.
    """
    numbering = Numbering(tree, diff_ids, key)
    rows: list[bytes] = []
    at = 0
    for number, parent in numbering.own:
        records = numbering.records(number) if tree.is_directory(number) else []
        listing, crc = _packed_listing(records) if records else (b"", 0)
        layer, position = tree.place(number)
        row = numbering.packed(number) + _ROW.pack(
            _NO_LAYER if layer < 0 else layer,
            position,
            parent,
            at,
            len(listing),
            len(records),
            crc,
            numbering.digest(number),
            0,
        )
        rows.append(row[:-4] + crc32(row[:-4]).to_bytes(4, "little"))
        if listing:
            padding = bytes(-len(listing) % 8)
            at += len(listing) + len(padding)
            yield listing + padding
    yield from rows
    trailer = _TRAILER.pack(
        len(tree), len(rows), at, _stack_digest(stack), key.fingerprint, TREE_VERSION, INDEX_VERSION, _MAGIC, 0
    )
    yield trailer[:-4] + crc32(trailer[:-4]).to_bytes(4, "little")


def _packed_listing(records: Sequence[bytes]) -> tuple[bytes, int]:
    """Return the listing of *records*, and the CRC-32 by which it is checked first."""
    pieces: list[bytes] = []
    table: list[bytes] = []
    at = 0
    for part in paged(records):
        page = packed_page(part)
        table.append(_PAGE.pack(at, len(page), crc32(page)))
        pieces += [page, bytes(-len(page) % 8)]
        at += len(page) + len(pieces[-1])
    if len(table) == 1:
        return pieces[0], crc32(pieces[0])
    raw_table = b"".join(table)
    return b"".join((*pieces, raw_table)), crc32(raw_table)


def _stack_digest(stack: str) -> bytes:
    return hashlib.blake2b(stack.encode(), digest_size=_STACK_BYTES).digest()


def _check_version(raw: bytes) -> None:
    if raw[_OLD_MAGIC] == _MAGIC:
        raise TreeDamaged("it has version 3 or less", is_outdated=True)
    if len(raw) < _TRAILER.size:
        raise TreeDamaged(f"expected at least {_TRAILER.size} bytes, found {len(raw)}")
    version, index_version, magic = struct.unpack_from("<II8s", raw, len(raw) + _VERSIONS_AT)
    if magic != _MAGIC:
        raise TreeDamaged("it does not end as it was written")
    if (version, index_version) != (TREE_VERSION, INDEX_VERSION):
        raise TreeDamaged(
            f"it has version {version}.{index_version}, not {TREE_VERSION}.{INDEX_VERSION}", is_outdated=True
        )


class TreeFile:
    """The tree of *stack*, read through *read* from a file of *size* bytes.  Thread-safe if *read* is.

    Its numbers must be of *key*; None accepts those of any.

    Raises: TreeDamaged, as do its methods.
    """

    __slots__ = ("_last", "_read", "_rows_at", "inodes", "rows")

    def __init__(self, read: ReadAt, size: int, *, stack: str, key: NumberKey | None) -> None:
        self._read = read
        self._last: tuple[int, Row, bytes] = (0, _NO_ROW, b"")
        raw = read(_TRAILER.size, max(0, size - _TRAILER.size))
        _check_version(raw)
        self.inodes, self.rows, self._rows_at, name, fingerprint, *_, crc = _TRAILER.unpack(raw)
        if crc32(raw[:-4]) != crc:
            raise TreeDamaged("its trailer is not what was written")
        if name != _stack_digest(stack):
            raise TreeDamaged("it is the tree of other layers")
        if key is not None and fingerprint != key.fingerprint:
            raise TreeDamaged("its inode numbers are those of another store", is_outdated=True)
        if self._rows_at + self.rows * _ROW_BYTES + _TRAILER.size != size:
            raise TreeDamaged(f"its parts do not add up to its {size} bytes")

    def row(self, index: int) -> Row:
        """Return inode *index* of the tree's own, from 1."""
        raw = self._raw_row(index)
        layer, *rest, _ = _ROW.unpack_from(raw, ATTRIBUTES.size)
        return Row(unpacked(raw), None if layer == _NO_LAYER else layer, *rest)

    def digest(self, index: int) -> bytes:
        """Return the digest in row *index*."""
        return self._raw_row(index)[-DIGEST_BYTES - 4 : -4]

    def way(self, row: Row) -> list[int]:
        """Return the indexes of the directories that *row* is in, from the root down."""
        way = [row.parent]
        while way[-1] != ROOT_INDEX:
            way.append(self.row(way[-1]).parent)
        return way[::-1]

    def _raw_row(self, index: int) -> bytes:
        raw = self._read(_ROW_BYTES, self._rows_at + (index - 1) * _ROW_BYTES) if 0 < index <= self.rows else b""
        if len(raw) < _ROW_BYTES or crc32(raw[:-4]).to_bytes(4, "little") != raw[-4:]:
            raise TreeDamaged(f"row {index} is not what was written")
        return raw

    def listing(self, index: int) -> Listing:
        """Return the listing of directory *index*, not bound yet, which the caller owns; it reads from this file.

        Raises: NotADirectoryError.
        """
        records, size = self.listing_size(index)
        return Listing(records, partial(self.page, index), size)

    def listing_size(self, index: int) -> tuple[int, int]:
        """Return of how many records and bytes the listing of directory *index* is.

        Raises: NotADirectoryError.
        """
        row = self.row(index)
        if not row.records:
            raise NotADirectoryError
        return row.records, row.listing_bytes

    def page(self, index: int, number: int) -> Page:
        """Return page *number* of the listing of directory *index*, not bound yet, which the caller owns."""
        row, table = self._paged(index)
        at, size, crc = _PAGE.unpack_from(table, number * _PAGE.size)
        raw = self._read(size, row.listing_at + at)
        if len(raw) < size or crc32(raw) != crc:
            raise TreeDamaged(f"the listing of directory {index} is not what was written")
        return Page(bytearray(raw), min(PAGE_RECORDS, row.records - number * PAGE_RECORDS))

    def _paged(self, index: int) -> tuple[Row, bytes]:
        """Return row *index* and the table of the pages of its listing; those of the last directory are kept."""
        last, row, table = self._last
        if last != index:
            row = self.row(index)
            size = -(-row.records // PAGE_RECORDS) * _PAGE.size
            if size == _PAGE.size:
                table = _PAGE.pack(0, row.listing_bytes, row.listing_crc)
            else:
                table = self._read(size, row.listing_at + row.listing_bytes - size)
                if len(table) < size or crc32(table) != row.listing_crc:
                    raise TreeDamaged(f"the table of directory {index} is not what was written")
            self._last = index, row, table
        return row, table
