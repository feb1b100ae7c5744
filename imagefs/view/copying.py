"""Files of an image, copied into a folder outside of it.

Receives an `ImageTree` and a folder to copy into; returns nothing.  Images are hostile, and so is the folder: an
earlier copy may have left symlinks there, and another user may own it and exchange names during the copy.  Hence each
file is created and changed through a descriptor or relative to one, no symlink below the folder is followed, and
nothing outside of the folder is touched.

Source: CVE-2018-15664 and CVE-2019-14271 (``docker cp``); the same attacks on tar extractors.
"""

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from typing import Self

from imagefs.errors import ImagefsError, PathUnsafe, printable
from imagefs.store.trusted_path import remove_own
from imagefs.view.descent import Descent
from imagefs.view.tree import ImageTree, Place, Thing

_CHUNK_BYTES = 1024 * 1024


class Copy:
    """Copies files of *tree* into the folder open as *descriptor*, which the caller keeps open.

    With *archive*, owners, setuid bits, extended attributes and devices are copied too, as far as the caller may;
    otherwise the copy belongs to the caller and has no special bits.  *left_out* receives the path and the reason of
    whatever is not copied.  Use it as a context manager.
    """

    def __init__(
        self, tree: ImageTree, descriptor: int, *, archive: bool, left_out: Callable[[bytes, str], None]
    ) -> None:
        self._tree = tree
        self._archive = archive
        self._left_out = left_out
        self._links: dict[Place, bytes] = {}
        self._folders = Descent(descriptor)
        # A second one, so that a link to a file far away does not cost the way back.
        self._sources = Descent(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folders.close()
        self._sources.close()

    def copy(self, path: bytes, thing: Thing, name: bytes) -> None:
        """Copy *thing*, at *path* in the image, and its subtree as *name*; b"" is the folder itself.

        An existing file is replaced, a directory is added to.

        Raises: OSError, if the disk refuses, something else than a directory is in the way of one, or another process
        exchanges files meanwhile; StoreError, if the store is damaged.
        """
        things = itertools.chain([(path, thing)], self._tree.walk((path, thing)) if thing.is_directory else ())
        directories: list[tuple[bytes, bytes, Thing]] = []
        for at, one in things:
            target = b"/".join(filter(None, (name, at[len(path) :].lstrip(b"/"))))
            if target:
                if one.is_directory:
                    directories.append((at, target, one))
                with _named(target):
                    self._make(at, target, one)
        # Adding an entry changes a directory's times, and its final mode may forbid it.
        for at, target, one in reversed(directories):
            with _named(target):
                self._set_attributes(at, self._folders.enter(target), one)

    def _make(self, path: bytes, target: bytes, thing: Thing) -> None:
        above, _, name = target.rpartition(b"/")
        folder = self._folders.enter(above)
        attributes = thing.attributes
        kind = stat.S_IFMT(attributes.mode)
        if kind == stat.S_IFDIR:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)
            self._folders.enter(target)  # refuses anything but a directory
            return
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and not self._archive:
            self._left_out(path, "it is a device, which only --archive copies")
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        # By place, not by inode number, which is 64 bits only.
        first = self._links.get(thing.place) if thing.place is not None and attributes.nlink > 1 else None
        if first is not None:
            above, _, other = first.rpartition(b"/")
            os.link(other, name, src_dir_fd=self._sources.enter(above), dst_dir_fd=folder, follow_symlinks=False)
            return
        if kind == stat.S_IFREG:
            self._write(path, folder, name, thing)
        elif kind == stat.S_IFLNK:
            os.symlink(self._tree.entry(thing).target, name, dir_fd=folder)
            self._set_attributes_of_special(path, folder, name, thing)
        else:
            try:
                os.mknod(name, kind | 0o600, attributes.rdev, dir_fd=folder)
            except PermissionError as error:
                self._left_out(path, os.strerror(error.errno or 0))
                return
            self._set_attributes_of_special(path, folder, name, thing)
        if thing.place is not None and attributes.nlink > 1:
            self._links[thing.place] = target

    def _write(self, path: bytes, folder: int, name: bytes, thing: Thing) -> None:
        file = self._tree.open(thing)
        copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            os.ftruncate(copy, file.size)  # first, for a disk may hold no file of that size
            for begin, end in file.regions():
                os.lseek(copy, begin, os.SEEK_SET)
                for offset in range(begin, end, _CHUNK_BYTES):
                    _write_all(copy, file.read(offset, min(_CHUNK_BYTES, end - offset)))
            self._set_attributes(path, copy, thing)
        except BaseException:
            remove_own(copy, name, folder)
            raise
        finally:
            os.close(copy)

    def _set_attributes_of_special(self, path: bytes, folder: int, name: bytes, thing: Thing) -> None:
        """Set the attributes of the symlink, FIFO or device *name*, which was just made in *folder*.

        Raises: OSError, if the name leads to something else by now.
        """
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            kind = stat.S_IFMT(thing.attributes.mode)
            # More than one link: perhaps a file of root that another user linked to this name.
            if (stat.S_IFMT(status.st_mode), status.st_uid, status.st_nlink) != (kind, os.geteuid(), 1):
                raise PathUnsafe(os.fsdecode(name), "another process replaced it during the copy")
            # The kernel refuses fchmod and the like on O_PATH; through /proc it changes what is open, also a symlink.
            self._set_attributes(path, f"/proc/self/fd/{descriptor}", thing)
        finally:
            os.close(descriptor)

    def _set_attributes(self, path: bytes, copy: int | str, thing: Thing) -> None:
        """Give *copy*, an open file, owner, extended attributes, mode and times of *thing*."""
        attributes = thing.attributes
        mode = stat.S_IMODE(attributes.mode) & (0o7777 if self._archive else 0o777)
        if self._archive:
            try:
                os.chown(copy, attributes.uid, attributes.gid)
            except PermissionError:  # as with cp -a: only root gives files away
                mode &= 0o777
            for key, value in self._tree.entry(thing).xattrs:
                try:
                    os.setxattr(copy, key, value)
                except OSError as error:
                    self._left_out(path, f"extended attribute {printable(key)}: {os.strerror(error.errno or 0)}")
        if not stat.S_ISLNK(attributes.mode):
            os.chmod(copy, mode)  # noqa: PTH101  # an open file
        with contextlib.suppress(OverflowError):  # a time that this disk cannot hold is not worth failing for
            os.utime(copy, ns=(attributes.mtime_ns, attributes.mtime_ns))


@contextlib.contextmanager
def _named(target: bytes) -> Iterator[None]:
    """Let each OSError name *target*."""
    try:
        yield
    except PathUnsafe as error:
        raise PathUnsafe(os.fsdecode(target), error.reason) from None
    except ImagefsError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(target)) from None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
