"""An image as one tar: its tree as the layers left it, without whiteouts, all metadata kept.

Receives an `ImageTree` and a file to write to; hands on nothing.  Equal images give equal bytes: entries come in the
order of their names, a directory before what is in it.

The format is pax: times to the nanosecond, extended attributes as ``SCHILY.xattr.…``, names in whatever bytes.  Of
several names of one file, the first is the file and the others are hard links to it.  Holes are written as the zeros
they are.
"""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

from imagefs.layer.changeset import Entry
from imagefs.view.opened import OpenFile
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
                archive.addfile(info, _Reader(tree.open(thing)))
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


class _Reader(io.RawIOBase):
    """A file of an image as `tarfile` wants to read it: from its beginning to its end."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._at, _CHUNK_BYTES if size < 0 else size)
        self._at += len(data)
        return data
