"""Sparse files: where their data belongs, in the four ways tar has of saying it.

Receives header fields, pax records or the first blocks of a file's data; hands on extents, and the digest of the
logical content.  It must never know names or members.

Source: GNU tar manual, "Storing Sparse Files"; Go archive/tar, reader.go.
"""

import hashlib
from collections.abc import Mapping
from typing import Protocol

from imagefs.errors import InvalidLayer
from imagefs.layer.extents import Extents
from imagefs.layer.header import BLOCK_BYTES, number
from imagefs.layer.pax import GNU_MAP, integer

MAX_EXTENTS = 1 << 20
"""Of one file: 4 TiB of data scattered over runs of 4 MiB, or 4 GiB of single pages."""

_OLD_GNU_RUNS_AT = 386
_OLD_GNU_RUNS = 4
_OLD_GNU_EXTENDED_AT = 482
_OLD_GNU_SIZE = slice(483, 495)
_EXTENSION_RUNS = 21
_EXTENSION_EXTENDED_AT = 504
_RUN_BYTES = 24

_ZEROS = bytes(64 * 1024)


class OldGnuMap:
    """The map of a member of type S: up to four runs in its header, 21 more in each extension block after that."""

    def __init__(self, header: bytes) -> None:
        """Read the header block; `more` says whether an extension block follows."""
        self.runs: list[tuple[int, int]] = []
        self.size = number(header[_OLD_GNU_SIZE])
        self._read(header, _OLD_GNU_RUNS_AT, _OLD_GNU_RUNS)
        self.more = header[_OLD_GNU_EXTENDED_AT] != 0

    def extend(self, block: bytes) -> None:
        """Read an extension block."""
        self._read(block, 0, _EXTENSION_RUNS)
        self.more = block[_EXTENSION_EXTENDED_AT] != 0

    def _read(self, block: bytes, start: int, count: int) -> None:
        for at in range(start, start + count * _RUN_BYTES, _RUN_BYTES):
            if not block[at]:
                break
            self.runs.append((number(block[at : at + 12]), number(block[at + 12 : at + 24])))
        if len(self.runs) > MAX_EXTENTS:
            raise InvalidLayer(f"expected at most {MAX_EXTENTS} runs of data in a sparse file")


class PaxMap:
    """The map of sparse format 1.0: decimal numbers on lines of their own, in the first blocks of the data."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []
        self.more = True
        self._wanted: int | None = None
        self._numbers: list[int] = []
        self._rest = b""

    def extend(self, block: bytes) -> None:
        """Read the next block; `more` says whether another one follows."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            if self._wanted is None:
                count = integer(line, "the number of runs of a sparse file")
                if not 0 <= count <= MAX_EXTENTS:
                    raise InvalidLayer(f"expected at most {MAX_EXTENTS} runs of data in a sparse file, found {count}")
                self._wanted = 2 * count
            elif len(self._numbers) < self._wanted:
                self._numbers.append(integer(line, "a run of a sparse file"))
        if self._wanted is not None and len(self._numbers) == self._wanted:
            self.runs = list(zip(self._numbers[::2], self._numbers[1::2], strict=True))
            self.more = False
        elif len(self._rest) > BLOCK_BYTES:
            raise InvalidLayer("expected the numbers of a sparse file's map, found no end of a line")


def is_sparse(records: Mapping[bytes, bytes]) -> bool:
    """Return whether pax *records* describe a sparse file (of any format)."""
    return b"GNU.sparse.major" in records or b"GNU.sparse.minor" in records or bool(records.get(GNU_MAP))


def map_is_in_data(records: Mapping[bytes, bytes]) -> bool:
    """Return whether the map is in the data (format 1.0) and not in *records* (0.0 and 0.1).

    Raises: InvalidLayer, for a format of the future: its data would be shown as something it is not.
    """
    version = records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b"")
    if version == (b"1", b"0"):
        return True
    if version in ((b"0", b"0"), (b"0", b"1"), (b"", b"")):
        return False
    raise InvalidLayer(f"expected a sparse file of format 0.0, 0.1 or 1.0, found {b'.'.join(version)[:40]!r}")


def logical_size(records: Mapping[bytes, bytes], physical: int) -> int:
    """Return the size that *records* give a sparse file; *physical* where they are silent."""
    text = records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize")
    return integer(text, "the size of a sparse file") if text else physical


def runs_in(records: Mapping[bytes, bytes]) -> list[tuple[int, int]]:
    """Return the runs that *records* hold (formats 0.0 and 0.1)."""
    text = records.get(GNU_MAP, b"")
    numbers = [integer(field, "a run of a sparse file") for field in text.split(b",")] if text else []
    count = integer(records.get(b"GNU.sparse.numblocks", b""), "the number of runs of a sparse file")
    if len(numbers) != 2 * count:
        raise InvalidLayer(f"expected {count} runs of data in a sparse file, found {len(numbers)} numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def extents(runs: list[tuple[int, int]], *, size: int, physical: int) -> Extents | None:
    """Return *runs* without empty ones; None where one run is the whole file.

    Raises: InvalidLayer, unless they ascend, do not overlap, end within *size* and have *physical* bytes together.
    """
    if size < 0:
        raise InvalidLayer(f"expected the size of a sparse file, found {size}")
    end = stored = 0
    for offset, length in runs:
        if offset < end or length < 0 or offset + length > size:
            raise InvalidLayer(f"a run of {length} bytes at {offset} does not fit into its sparse file of {size}")
        end = offset + length
        stored += length
    if stored != physical:
        raise InvalidLayer(f"expected {stored} bytes of data for a sparse file, found {physical}")
    if not size:
        return None
    try:
        found = Extents.of(run for run in runs if run[1])
    except OverflowError:
        raise InvalidLayer(f"a run of a sparse file of {size} bytes does not fit into 64 bits") from None
    return None if found[:2] == ((0, size),) else found


class Digest(Protocol):
    """What a file's data are fed to, piece by piece."""

    def update(self, piece: memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class NoDigest:
    """The digest of files that are not worth hashing."""

    def update(self, piece: memoryview, /) -> None: ...
    def digest(self) -> bytes:
        return b""


class SparseDigest:
    """SHA-256 over the logical content of a sparse file, fed its stored data."""

    def __init__(self, runs: Extents, size: int) -> None:
        self._runs = iter(runs)
        self._size = size
        self._hash = hashlib.sha256()
        self._at = 0
        self._left = 0

    def update(self, piece: memoryview) -> None:
        """Take the next stored bytes, never more than the runs have together."""
        while piece:
            if not self._left:
                start, self._left = next(self._runs)
                self._zeros(start)
            taken = piece[: self._left]
            self._hash.update(taken)
            self._at += len(taken)
            self._left -= len(taken)
            piece = piece[len(taken) :]

    def digest(self) -> bytes:
        """Return the digest, once all data has been taken."""
        self._zeros(self._size)
        return self._hash.digest()

    def _zeros(self, until: int) -> None:
        while (missing := until - self._at) > 0:
            self._hash.update(_ZEROS if missing >= len(_ZEROS) else _ZEROS[:missing])
            self._at += min(missing, len(_ZEROS))
