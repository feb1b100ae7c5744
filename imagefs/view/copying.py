"""Things of an image as files outside of it.

Receives an `ImageTree` and a folder to copy into; hands on nothing.  Images are hostile, and so is what an earlier copy
left in the folder: below it no symbolic link is ever followed, and nothing outside of it is touched (the attacks are
those on ``docker cp``, CVE-2018-15664 and CVE-2019-14271, and on tar extractors).
"""

import contextlib
import itertools
import os
import stat
from collections.abc import Callable
from typing import Self

from imagefs.errors import printable
from imagefs.view.tree import ImageTree, Thing

_CHUNK_BYTES = 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Copy:
    """Copies things of *tree* into the folder open as *descriptor*, which the caller keeps open.

    With *archive*, owners, setuid bits, extended attributes and devices are copied too, as far as the caller may;
    otherwise what arrives is the caller's own, and harmless.  *left_out* is told what is not copied.  A context, which
    ends when all is copied.
    """

    def __init__(
        self, tree: ImageTree, descriptor: int, *, archive: bool, left_out: Callable[[bytes, str], None]
    ) -> None:
        self._tree = tree
        self._archive = archive
        self._left_out = left_out
        self._links: dict[int, bytes] = {}
        self._top = descriptor
        self._open: tuple[bytes, int] = (b"", os.dup(descriptor))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._open[1])

    def copy(self, path: bytes, thing: Thing, name: bytes) -> None:
        """Copy *thing*, which is at *path* in the image, with all that is in it, as *name*; b"" is the folder itself.

        A file that is there already is replaced, a directory is added to.

        Raises: OSError, where the disk refuses or something else than a directory is in the way of one;
        StoreError, where the store is damaged.
        """
        things = itertools.chain([(path, thing)], self._tree.walk((path, thing)) if thing.is_directory else ())
        folders: list[tuple[bytes, bytes, Thing]] = []
        for at, one in things:
            target = b"/".join(filter(None, (name, at[len(path) :].lstrip(b"/"))))
            if one.is_directory:
                folders.append((at, target, one))
            if target:
                try:
                    self._make(at, target, one)
                except OSError as error:
                    raise OSError(error.errno, os.strerror(error.errno or 0), os.fsdecode(target)) from None
        # What is put into a directory changes its times, and might not be allowed by its final mode.
        for at, target, one in reversed(folders):
            if target:
                self._dress(at, self._folder(target), one)

    def _make(self, path: bytes, target: bytes, thing: Thing) -> None:
        above, _, name = target.rpartition(b"/")
        folder = self._folder(above)
        attributes = thing.attributes
        kind = stat.S_IFMT(attributes.mode)
        if kind == stat.S_IFDIR:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)
            os.close(os.open(name, _FOLDER, dir_fd=folder))  # refuses what is something else
            return
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and not self._archive:
            self._left_out(path, "it is a device, which only --archive copies")
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        first = self._links.get(attributes.ino) if attributes.nlink > 1 else None
        if first is not None:
            there = os.dup(folder)
            try:
                above, _, other = first.rpartition(b"/")
                os.link(other, name, src_dir_fd=self._folder(above), dst_dir_fd=there, follow_symlinks=False)
            finally:
                os.close(there)
            return
        if kind == stat.S_IFREG:
            self._write(path, folder, name, thing)
        elif kind == stat.S_IFLNK:
            os.symlink(self._tree.entry(thing).target, name, dir_fd=folder)
            self._dress(path, folder, thing, name)
        else:
            try:
                os.mknod(name, kind | 0o600, attributes.rdev, dir_fd=folder)
            except PermissionError as error:
                self._left_out(path, os.strerror(error.errno or 0))
                return
            self._dress(path, folder, thing, name)
        self._links[attributes.ino] = target

    def _write(self, path: bytes, folder: int, name: bytes, thing: Thing) -> None:
        file = self._tree.open(thing)
        made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            offset = 0
            while piece := file.read(offset, _CHUNK_BYTES):
                if file.is_sparse and not any(piece):
                    os.lseek(made, len(piece), os.SEEK_CUR)
                else:
                    _write_all(made, piece)
                offset += len(piece)
            os.ftruncate(made, offset)
            self._dress(path, made, thing)
        except BaseException:
            os.unlink(name, dir_fd=folder)  # nothing half is left
            raise
        finally:
            os.close(made)

    def _dress(self, path: bytes, descriptor: int, thing: Thing, name: bytes = b"") -> None:
        """Give what is open as *descriptor*, or is *name* in that folder, owner, attributes, mode and times."""
        attributes = thing.attributes
        where: str | int = f"/proc/self/fd/{descriptor}/{os.fsdecode(name)}" if name else descriptor
        follow = not name
        mode = stat.S_IMODE(attributes.mode) & (0o7777 if self._archive else 0o777)
        if self._archive:
            try:
                os.chown(where, attributes.uid, attributes.gid, follow_symlinks=follow)
            except PermissionError:  # as with cp -a: only root gives files away
                mode &= 0o777
            for key, value in self._tree.entry(thing).xattrs:
                try:
                    os.setxattr(where, key, value, follow_symlinks=follow)
                except OSError as error:
                    self._left_out(path, f"extended attribute {printable(key)}: {os.strerror(error.errno or 0)}")
        if not stat.S_ISLNK(attributes.mode):
            os.chmod(where, mode)  # noqa: PTH101  # an open file, or a name in an open folder
        with contextlib.suppress(OverflowError):  # a time that this disk cannot hold is not worth failing for
            os.utime(where, ns=(attributes.mtime_ns, attributes.mtime_ns), follow_symlinks=follow)

    def _folder(self, path: bytes) -> int:
        """Return the folder *path* below the top, opened one step at a time, through no symbolic link.

        It is valid until the next call.
        """
        if self._open[0] != path:
            current = os.dup(self._top)
            for name in filter(None, path.split(b"/")):
                try:
                    inner = os.open(name, _FOLDER, dir_fd=current)
                finally:
                    os.close(current)
                current = inner
            os.close(self._open[1])
            self._open = path, current
        return self._open[1]


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
