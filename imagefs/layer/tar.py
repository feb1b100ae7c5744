"""The tar scanner: a layer's uncompressed bytes, pushed in pieces of any size, become a changeset.

Receives bytes, all of them hostile; hands on a `Changeset`, or raises InvalidLayer and nothing else.  Time is linear
in the bytes; memory is bounded by the ``MAX_`` constants whatever comes.  Keeps no data: files are hashed as they pass
and remembered by their place.  It must never know where the bytes come from, or where they are kept.

The measure is Go's archive/tar, the reader behind docker, containerd, podman and umoci.  As there:

* Extended headers override headers, and global ones do not count (see `extended`).
* Links, directories and nodes have no data, whatever their size field says.
* One zero block must be followed by a second, or by the end; after two, anything may follow.
* The end blocks, and the padding of the last member, may be missing (umoci writes such layers).

On purpose it differs where Go would show less than the layer holds, or content that is not what was packed: an
extended header that no member follows, unknown sparse formats, and sparse data of the wrong length are errors.  Owners
must fit 32 bits, as in any kernel.  Times beyond what 64 bits of nanoseconds hold (the years 1677 and 2262) stop
there, as kernels clamp the times a file system cannot hold.
"""

import stat
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from imagefs.errors import InvalidLayer
from imagefs.layer import pax, sparse
from imagefs.layer.changeset import Changeset, Entries, Entry
from imagefs.layer.extended import EXTENDED_TYPES, Extended
from imagefs.layer.extents import Extents
from imagefs.layer.header import (
    BLOCK_BYTES,
    FORMS,
    GNU_DUMPDIR,
    GNU_SPARSE,
    HARD_LINK,
    INT64_MAX,
    PLAIN,
    SYMLINK,
    VOLUME_LABEL,
    ZERO_BLOCK,
    device,
    number,
    parse,
)
from imagefs.layer.paths import Meaning, aufs_link_key, clean, meaning

MAX_MEMBERS = 1 << 22
"""Of one layer: several times what the biggest known images have in all their layers; about 1 GB of index."""

MAX_TEXT_BYTES = 1 << 28
"""Of all paths, targets, attributes and extents of a layer together: the index, with all of them, is made in memory."""

MAX_HASHED_HOLES_BYTES = 256 << 20
"""Of one layer: a few bytes of tar can claim exabytes of zeros.  Files whose holes go beyond it have no digest."""

_MAX_SYMLINK_BYTES = 4095  # PATH_MAX without its NUL: symlink(2) and readlink(2) take no more
_UINT32_MAX = 2**32 - 1
_EXTENT_COST_BYTES = 128
_NO_DEVICE = (0, 0)
_EMPTY_SHA256 = sha256().digest()
_NO_RECORDS: Mapping[bytes, bytes] = {}

_NODES = frozenset({stat.S_IFCHR, stat.S_IFBLK})

_Attributes = tuple[bytes, int, int, int, int, tuple[tuple[bytes, bytes], ...]]
"""path, mode, uid, gid, mtime_ns, xattrs"""


def scan(chunks: Iterable[bytes | memoryview]) -> Changeset:
    """Return the changeset of the tar that *chunks* hold together.

    Raises: InvalidLayer.
    """
    scanner = Scanner()
    for chunk in chunks:
        scanner.feed(chunk)
    return scanner.finish()


class Scanner:
    """The scanner of one tar: `feed` it everything in order, then `finish`.  Not for several threads at once.

    Entries are appended to *entries* as they come, where that is given: the changeset then has none.
    """

    def __init__(self, entries: Entries | None = None, *, max_members: int | None = None) -> None:
        self._max_members = MAX_MEMBERS if max_members is None else max_members
        self._kept: list[Entry] = []
        self._append = self._kept.append if entries is None else entries.append
        self._whiteouts: set[bytes] = set()
        self._opaques: set[bytes] = set()
        self._aufs_links: dict[bytes, Entry] = {}
        self._members = 0
        self._text_bytes = 0
        self._hashed_holes_bytes = 0
        self._failure: InvalidLayer | None = None

        # Where the scanner is: first the rest of a member's data, then padding, then the next block for _on_block.
        self._position = 0  # in the raw tar, after the last block
        self._left = 0
        self._padding = 0
        self._partial = bytearray()
        self._on_block: Callable[[bytes], None] = self._header
        self._at_end = False

        # The current member: its header's place, its name as written, and what its data are for, if anything.
        self._member_at = 0
        self._name = b""
        self._special: bytearray | None = None
        self._special_type = b""
        self._file: _Attributes | None = None
        self._size = 0
        self._offset = 0
        self._extents: Extents | None = None
        self._digest: sparse.Digest | None = None
        self._aufs_key: bytes | None = None
        self._map: sparse.OldGnuMap | sparse.PaxMap | None = None
        self._physical = 0

        self._extended = Extended()  # of the next member

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the tar; they are not kept.

        Raises: InvalidLayer, as soon as what came so far cannot be the start of a layer; and ever after.
        """
        if self._failure is not None:
            raise self._failure
        try:
            self._take(memoryview(data))
        except InvalidLayer as error:
            self._failure = self._located(error)
            raise

    def finish(self) -> Changeset:
        """Return what the layer says; nothing may be fed any more.  Nothing fed at all is an empty layer, as in Go.

        Raises: InvalidLayer, also if the tar is cut off.
        """
        if self._failure is not None:
            raise self._failure
        if self._left:
            raise self._located(InvalidLayer(f"the tar is cut off: {self._left} more bytes of data expected"))
        if self._partial or self._map is not None:
            raise self._located(InvalidLayer("the tar is cut off inside a header"))
        self._check_nothing_dangles()
        return Changeset(tuple(self._kept), frozenset(self._whiteouts), frozenset(self._opaques))

    def _located(self, error: InvalidLayer) -> InvalidLayer:
        if error.entry is None and self._name:
            error.entry = self._name
        if error.offset is None:
            error.offset = self._member_at
        return error

    # ---- bytes ----

    def _take(self, view: memoryview) -> None:
        base = self._position
        at, end = 0, len(view)
        while at < end and not self._at_end:
            if left := self._left:
                piece = view[at : at + left]
                at += len(piece)
                self._left = left - len(piece)
                self._data(piece)
            elif padding := self._padding:
                taken = min(padding, end - at)
                at += taken
                self._padding = padding - taken
            elif self._partial or end - at < BLOCK_BYTES:
                piece = view[at : at + BLOCK_BYTES - len(self._partial)]
                at += len(piece)
                self._partial += piece
                if len(self._partial) == BLOCK_BYTES:
                    block = bytes(self._partial)
                    self._partial.clear()
                    self._position = base + at
                    self._on_block(block)
            else:
                at += BLOCK_BYTES
                self._position = base + at
                self._on_block(bytes(view[at - BLOCK_BYTES : at]))
        self._position = base + end

    def _data(self, piece: memoryview) -> None:
        """Take some of the member's data; `_left` is what still comes after it."""
        if self._file is not None:
            if self._digest is not None:
                self._digest.update(piece)
                if not self._left:
                    self._end_file(self._digest.digest())
            else:
                digest = sha256(piece)
                if not self._left:
                    self._end_file(digest.digest())
                else:
                    self._digest = digest
        elif self._special is not None:
            self._special += piece
            if not self._left:
                self._end_special(self._special)

    def _expect(self, length: int) -> None:
        """Let *length* bytes of data and their padding come before the next block."""
        if length < 0:
            raise InvalidLayer(f"expected the size of a member, found {length}")
        self._left = length
        self._padding = -length % BLOCK_BYTES

    # ---- blocks ----

    def _header(self, block: bytes) -> None:
        self._member_at = self._position - BLOCK_BYTES
        self._name = b""
        if block == ZERO_BLOCK:
            self._check_nothing_dangles()
            self._on_block = self._second_zero_block
            return
        name, mode, uid, gid, size, mtime, type_, target, major, minor, is_gnu = parse(block)
        self._name = name
        length = number(size)
        if type_ in EXTENDED_TYPES:
            self._begin_special(type_, length)
            return
        self._members += 1
        if self._members > self._max_members:
            raise InvalidLayer(f"expected at most {self._max_members} members; split the archive into several")
        owner, group, mtime_ns = number(uid), number(gid), number(mtime) * 1_000_000_000
        records = _NO_RECORDS
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        if (extended := self._extended).present:
            records = extended.records
            name = extended.name(name)
            target = extended.target(target)
            length = extended.number(b"size", length)
            owner = extended.number(b"uid", owner)
            group = extended.number(b"gid", group)
            mtime_ns = extended.mtime_ns(mtime_ns)
            xattrs = pax.xattrs(records)
            extended.forget()
        form = FORMS.get(type_)
        if form is None:
            if type_ != VOLUME_LABEL:
                raise InvalidLayer(f"expected a file, directory, link or node, found a member of type {type_!r}")
            self._expect(length)
            return
        if type_ in PLAIN and name.endswith(b"/"):
            # From before directories had a type.  Readers disagree about where the data of such a one are.
            if length:
                raise InvalidLayer("the name of a file with data ends in a slash")
            form = stat.S_IFDIR
        is_sparse = bool(records) and sparse.is_sparse(records)
        if is_sparse:
            if form != stat.S_IFREG or type_ == GNU_SPARSE:
                raise InvalidLayer(f"expected a regular file to be sparse, found a member of type {type_!r}")
            name = records.get(b"GNU.sparse.name") or name
        if not 0 <= owner <= _UINT32_MAX or not 0 <= group <= _UINT32_MAX:
            raise InvalidLayer(f"expected an owner and group of 0 to {_UINT32_MAX}, found {owner}:{group}")
        if not -INT64_MAX <= mtime_ns <= INT64_MAX:
            mtime_ns = INT64_MAX if mtime_ns > 0 else -INT64_MAX
        path = clean(name)
        if not path and form != stat.S_IFDIR:
            raise InvalidLayer("expected a directory, found something that would replace the image root")
        self._count_text(len(path))
        if xattrs:
            self._count_text(sum(len(key) + len(value) for key, value in xattrs))
        what, subject = meaning(path)
        attributes = path, form | number(mode) & 0o7777, owner, group, mtime_ns, xattrs
        if form == stat.S_IFREG and what is not Meaning.ENTRY:
            if what is not Meaning.AUFS_LINK:
                if type_ == GNU_SPARSE:
                    raise InvalidLayer("expected a whiteout to be an empty file, found a sparse one")
                self._mark(what, subject)
                self._expect(length)
                return
            self._aufs_key = subject
        if form == stat.S_IFREG:
            if type_ == GNU_SPARSE:
                self._begin_gnu_sparse(attributes, block, length, is_gnu=is_gnu)
            elif is_sparse:
                self._begin_pax_sparse(attributes, records, length)
            else:
                self._begin_file(attributes, length)
            return
        if type_ == GNU_DUMPDIR:
            self._expect(length)
        if what is Meaning.ENTRY:
            rdev = (device(major), device(minor)) if form in _NODES else _NO_DEVICE
            self._other(attributes, type_, target, rdev)
        else:
            self._mark(what, subject)

    def _second_zero_block(self, block: bytes) -> None:
        if block != ZERO_BLOCK:
            raise InvalidLayer("expected a second zero block at the end of the tar, found something else")
        self._at_end = True

    def _map_block(self, block: bytes) -> None:
        found, attributes = self._map, self._file
        assert found is not None
        assert attributes is not None
        found.extend(block)
        if isinstance(found, sparse.PaxMap):
            self._physical -= BLOCK_BYTES
        if found.more:
            self._check_map_is_inside()
            return
        self._on_block = self._header
        self._map = None
        self._begin_sparse(attributes, found.runs)

    # ---- members ----

    def _begin_special(self, type_: bytes, length: int) -> None:
        if length > pax.MAX_EXTENDED_BYTES:
            raise InvalidLayer(f"expected an extended header of at most {pax.MAX_EXTENDED_BYTES} bytes, found {length}")
        self._expect(length)
        self._special = bytearray()
        self._special_type = type_
        if not length:
            self._end_special(self._special)

    def _end_special(self, body: bytearray) -> None:
        self._special = None
        self._extended.add(self._special_type, bytes(body))

    def _check_nothing_dangles(self) -> None:
        if self._extended.present:
            raise self._located(InvalidLayer("the tar ends after an extended header, where its member is expected"))

    def _mark(self, what: Meaning, subject: bytes) -> None:
        if what is Meaning.WHITEOUT:
            self._whiteouts.add(subject)
        elif what is Meaning.OPAQUE:
            self._opaques.add(subject)

    def _begin_file(self, attributes: _Attributes, size: int) -> None:
        self._file = attributes
        self._size = size
        self._offset = self._position
        self._extents = None
        self._digest = None
        self._expect(size)
        if not size:
            self._end_file(_EMPTY_SHA256)

    def _begin_gnu_sparse(self, attributes: _Attributes, block: bytes, length: int, *, is_gnu: bool) -> None:
        if not is_gnu:
            raise InvalidLayer("expected a sparse file in GNU's format, found another with the same type")
        found = sparse.OldGnuMap(block)
        self._size, self._physical = found.size, length
        if found.more:
            self._file, self._map = attributes, found
            self._on_block = self._map_block
        else:
            self._begin_sparse(attributes, found.runs)

    def _begin_pax_sparse(self, attributes: _Attributes, records: Mapping[bytes, bytes], length: int) -> None:
        self._size, self._physical = sparse.logical_size(records, length), length
        if sparse.map_is_in_data(records):
            self._file, self._map = attributes, sparse.PaxMap()
            self._on_block = self._map_block
            self._check_map_is_inside()
        else:
            self._begin_sparse(attributes, sparse.runs_in(records))

    def _check_map_is_inside(self) -> None:
        if isinstance(self._map, sparse.PaxMap) and self._physical < BLOCK_BYTES:
            raise InvalidLayer("expected the map of a sparse file, found the end of its data")

    def _begin_sparse(self, attributes: _Attributes, runs: list[tuple[int, int]]) -> None:
        size, physical = self._size, self._physical
        extents = sparse.extents(runs, size=size, physical=physical)
        if extents is None:
            self._begin_file(attributes, size)
            return
        self._count_text(len(extents) * _EXTENT_COST_BYTES)
        self._file, self._extents = attributes, extents
        self._offset = self._position
        hashed = self._hashed_holes_bytes + size - physical
        digest: sparse.Digest = sparse.NoDigest()
        if hashed <= MAX_HASHED_HOLES_BYTES:
            self._hashed_holes_bytes = hashed
            digest = sparse.SparseDigest(extents, size)
        self._digest = digest
        self._expect(physical)
        if not physical:
            self._end_file(digest.digest())

    def _end_file(self, digest: bytes) -> None:
        assert self._file is not None
        path, mode, uid, gid, mtime_ns, xattrs = self._file
        entry = Entry(
            path,
            mode,
            uid,
            gid,
            mtime_ns,
            self._size,
            b"",
            False,
            _NO_DEVICE,
            xattrs,
            self._offset,
            self._extents,
            digest,
        )
        self._file = None
        self._digest = None
        if self._aufs_key is None:
            self._append(entry)
        else:
            self._aufs_links[self._aufs_key] = entry
            self._aufs_key = None

    def _other(self, attributes: _Attributes, type_: bytes, target: bytes, rdev: tuple[int, int]) -> None:
        """Take an entry that has no data."""
        path, mode, uid, gid, mtime_ns, xattrs = attributes
        if type_ == HARD_LINK:
            target = clean(target)
            if not target:
                raise InvalidLayer("expected a hard link to a file, found one to the image root")
            if (key := aufs_link_key(target)) is not None:
                if key not in self._aufs_links:
                    raise InvalidLayer("a hard link names an AUFS link file that the layer does not hold")
                # As with docker: a file of its own for each name.
                file = self._aufs_links[key]._replace(path=path)
                # Each name has all of it again, though the tar has it once.
                self._count_text(sum(len(name) + len(value) for name, value in file.xattrs))
                self._count_text(len(file.extents or ()) * _EXTENT_COST_BYTES)
                self._append(file)
                return
        elif type_ == SYMLINK:
            if not 0 < len(target) <= _MAX_SYMLINK_BYTES:
                raise InvalidLayer(f"expected a symlink of 1 to {_MAX_SYMLINK_BYTES} bytes, found {len(target)}")
        else:
            target = b""
        self._count_text(len(target))
        self._append(Entry(path, mode, uid, gid, mtime_ns, 0, target, type_ == HARD_LINK, rdev, xattrs, 0, None, b""))

    def _count_text(self, length: int) -> None:
        self._text_bytes += length
        if self._text_bytes > MAX_TEXT_BYTES:
            raise InvalidLayer(
                f"expected at most {MAX_TEXT_BYTES} bytes of names and attributes; split the layer into several"
            )
