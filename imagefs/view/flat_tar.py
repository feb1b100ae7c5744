"""An image as one tar: its tree as the layers left it, without whiteouts, all metadata kept.

Receives an `ImageTree` and a file to write to; hands on nothing.  Equal images give equal bytes: entries come in the
order of their names, a directory before what is in it.

The format is pax: times to the nanosecond, extended attributes as ``SCHILY.xattr.…``, names in whatever bytes.  Of
several names of one file, the first is the file and the others are hard links to it.  Files with holes are sparse
members of format 1.0, which GNU tar, libarchive and Go (so docker and podman) read: a few bytes of an image can claim
exabytes of zeros.

Source: GNU tar manual, "Storing Sparse Files".
"""

import io
import itertools
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO

from imagefs.layer.changeset import Entry
from imagefs.view.open_file import OpenFile
from imagefs.view.tree import ImageTree, Thing

_CHUNK_BYTES = 1024 * 1024
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def write_tar(tree: ImageTree, out: IO[bytes], top: tuple[bytes, Thing] | None = None, *, name: bytes = b"") -> None:
    """Write *tree*, its root left out, to *out*, which need not seek; or only *top*, with its path, under *name*.

    Raises: StoreError, ContentError, OSError.
    """
    names: dict[int, bytes] = {}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for path, thing in _named(tree, top, name) if top is not None else tree.walk():
            shown = thing.attributes
            first = names.setdefault(shown.ino, path) if shown.nlink > 1 and not thing.is_directory else path
            info = _described(path, thing, tree.entry(thing))
            if first != path:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, os.fsdecode(first), 0
                archive.addfile(info)
            elif info.isreg():
                file = tree.open(thing)
                regions = [_blocks(begin, end, file.size) for begin, end in file.regions()]
                if not file.is_sparse or regions == [(0, file.size)]:
                    archive.addfile(info, _Reader(_content(file, [(0, file.size)])))
                else:
                    table = _sparse_map(regions, file.size)
                    _make_sparse(info, len(table) + sum(end - begin for begin, end in regions))
                    archive.addfile(info, _Reader(itertools.chain([table], _content(file, regions))))
            else:
                archive.addfile(info)


def _named(tree: ImageTree, top: tuple[bytes, Thing], name: bytes) -> Iterator[tuple[bytes, Thing]]:
    """Yield *top* and all below it, with *name* in the place of its path; b"" leaves *top* itself out."""
    path, thing = top
    if name:
        yield name, thing
    if thing.is_directory:
        for at, one in tree.walk(top):
            yield b"/".join(filter(None, (name, at[len(path) :].lstrip(b"/")))), one


def _described(path: bytes, thing: Thing, entry: Entry) -> tarfile.TarInfo:
    shown = thing.attributes
    info = tarfile.TarInfo(os.fsdecode(path))
    info.type = _TYPES[stat.S_IFMT(shown.mode)]
    info.mode = stat.S_IMODE(shown.mode)
    info.uid, info.gid = shown.uid, shown.gid
    info.mtime = shown.mtime_ns // 10**9
    if info.isreg():
        info.size = shown.size
    if info.issym():
        info.linkname = os.fsdecode(entry.target)
    if shown.rdev:
        info.devmajor, info.devminor = os.major(shown.rdev), os.minor(shown.rdev)
    headers = {f"SCHILY.xattr.{os.fsdecode(name)}": os.fsdecode(value) for name, value in entry.xattrs}
    if shown.mtime_ns % 10**9 or shown.mtime_ns < 0:
        sign, (seconds, nanoseconds) = "-" * (shown.mtime_ns < 0), divmod(abs(shown.mtime_ns), 10**9)
        headers["mtime"] = f"{sign}{seconds}.{nanoseconds:09d}"
        info.mtime = max(info.mtime, 0)
    info.pax_headers = headers
    return info


def _make_sparse(info: tarfile.TarInfo, stored_bytes: int) -> None:
    """Make *info* describe the same file as a sparse member of *stored_bytes*, its map included."""
    info.pax_headers = {
        **info.pax_headers,
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(info.size),
    }
    # What readers without sparse files show.  Short and plain: a pax record of the path would win over that above.
    name = info.name.encode("ascii", "replace").decode()
    info.name = "GNUSparseFile.0/" + name[-80:].lstrip("/")
    info.size = stored_bytes


def _blocks(begin: int, end: int, size: int) -> tuple[int, int]:
    """Return where the blocks begin and end that have the bytes from *begin* to *end* of a file of *size* bytes.

    GNU tar begins to read each region at a new block.
    """
    block = tarfile.BLOCKSIZE
    return begin - begin % block, min(size, end + -end % block)


def _sparse_map(regions: Sequence[tuple[int, int]], size: int) -> bytes:
    """Return the map of *regions* of data in a file of *size* bytes, padded to whole blocks."""
    runs = [(begin, end - begin) for begin, end in regions]
    if not runs or regions[-1][1] < size:
        runs.append((size, 0))  # by which GNU tar knows that a hole is at the end
    lines = [b"%d\n" % len(runs), *(b"%d\n%d\n" % run for run in runs)]
    table = b"".join(lines)
    return table + bytes(-len(table) % tarfile.BLOCKSIZE)


def _content(file: OpenFile, regions: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    for begin, end in regions:
        for offset in range(begin, end, _CHUNK_BYTES):
            yield file.read(offset, min(_CHUNK_BYTES, end - offset))


class _Reader(io.RawIOBase):
    """*pieces* as `tarfile` reads them: from the first to the last, always as many bytes as it requests."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        result = bytearray()
        while size < 0 or len(result) < size:
            if not self._rest:
                piece = next(self._pieces, b"")
                if not piece:
                    break
                self._rest = memoryview(piece)
            taken = self._rest if size < 0 else self._rest[: size - len(result)]
            result += taken
            self._rest = self._rest[len(taken) :]
        return bytes(result)
