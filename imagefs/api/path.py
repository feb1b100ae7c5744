"""Paths inside an image, in the manner of pathlib.

Receives an image and a path; hands on what is there: attributes, names, content.  A path is a value: making one looks
at nothing.  It must never know how an image came to be, nor touch the file system of this machine.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, overload

from imagefs.api.file import ImageFile
from imagefs.errors import PathNotFound

if TYPE_CHECKING:
    from imagefs.api.image import Image
    from imagefs.view.tree import Thing

_BLOCK_BYTES = 4096


class ImagePath:
    """A path inside *image*, from its root, as `pathlib.PurePosixPath` understands it, and what it leads to.

    Names that are not UTF-8 are text with the surrogates of PEP 383, as `os.fsdecode` makes it; `bytes` of a path
    gives the original, and bytes are taken wherever text is.  Symlinks are followed inside the image, never out of it,
    and ".." leads to where the directory is, at most to the root.

    Methods that look raise PathNotFound, which is a FileNotFoundError, where there is nothing, OSError(ELOOP) for
    symlinks without an end, StoreUnusable once the store is closed, BlobNotFound and InvalidLayer for a damaged store.
    Thread-safe.
    """

    __slots__ = ("_bytes", "_pure", "_thing", "image")

    def __init__(self, image: "Image", path: str | bytes, thing: "Thing | None" = None) -> None:
        """*thing*, if it is known, is what the path itself names, no symlink followed at its end."""
        self.image = image
        self._pure = PurePosixPath("/" + os.fsdecode(path).lstrip("/"))
        self._bytes = os.fsencode(str(self._pure))[1:]
        self._thing = thing

    # ---- the path alone ----

    def __str__(self) -> str:
        return str(self._pure)

    def __bytes__(self) -> bytes:
        return b"/" + self._bytes

    def __repr__(self) -> str:
        return f"ImagePath({self.image.reference!r}, {str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImagePath) and (self._bytes, self.image) == (other._bytes, other.image)

    def __hash__(self) -> int:
        return hash((self._bytes, self.image))

    def __lt__(self, other: "ImagePath") -> bool:
        return self._pure < other._pure

    def __truediv__(self, other: str | bytes) -> "ImagePath":
        return self.joinpath(other)

    def joinpath(self, *others: str | bytes) -> "ImagePath":
        """Return the path of *others* below this one; one that is absolute starts from the root again."""
        return ImagePath(self.image, str(self._pure.joinpath(*(os.fsdecode(other) for other in others))))

    @property
    def parts(self) -> tuple[str, ...]:
        return self._pure.parts

    @property
    def name(self) -> str:
        """The last component, "" for the root."""
        return self._pure.name

    @property
    def stem(self) -> str:
        return self._pure.stem

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        return self._pure.suffixes

    @property
    def parent(self) -> "ImagePath":
        return ImagePath(self.image, str(self._pure.parent))

    @property
    def parents(self) -> tuple["ImagePath", ...]:
        return tuple(ImagePath(self.image, str(parent)) for parent in self._pure.parents)

    def with_name(self, name: str) -> "ImagePath":
        return ImagePath(self.image, str(self._pure.with_name(name)))

    def with_suffix(self, suffix: str) -> "ImagePath":
        return ImagePath(self.image, str(self._pure.with_suffix(suffix)))

    def relative_to(self, other: "ImagePath | str") -> PurePosixPath:
        """Return the way from *other* to here.  Raises: ValueError, if it is not above."""
        return self._pure.relative_to(str(other))

    def is_relative_to(self, other: "ImagePath | str") -> bool:
        return self._pure.is_relative_to(str(other))

    def match(self, pattern: str) -> bool:
        return self._pure.match(pattern)

    # ---- what is there ----

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the attributes; of the three times, images record only that of the last change of content.

        Equal things have equal inode numbers in all images; ``st_dev`` is 0.
        """
        shown = self._found(follow=follow_symlinks).attributes
        seconds, second = shown.mtime_ns // 10**9, shown.mtime_ns / 10**9
        times = {f"st_{which}time": second for which in "amc"} | {
            f"st_{which}time_ns": shown.mtime_ns for which in "amc"
        }
        more = {"st_blksize": _BLOCK_BYTES, "st_blocks": shown.blocks, "st_rdev": shown.rdev}
        plain = (shown.mode, shown.ino, 0, shown.nlink, shown.uid, shown.gid, shown.size, seconds, seconds, seconds)
        return os.stat_result(plain, times | more)

    def lstat(self) -> os.stat_result:
        """Return the attributes of the path itself, be it a symlink."""
        return self.stat(follow_symlinks=False)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether there is something; False for symlinks that lead nowhere or in a circle."""
        return self._mode(follow=follow_symlinks) != 0

    def is_file(self) -> bool:
        """Return whether this is a regular file, or a symlink to one."""
        return stat.S_ISREG(self._mode(follow=True))

    def is_dir(self) -> bool:
        """Return whether this is a directory, or a symlink to one."""
        return stat.S_ISDIR(self._mode(follow=True))

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._mode(follow=False))

    def readlink(self) -> str:
        """Return the text of a symlink, verbatim.  Raises: OSError(EINVAL), if it is none."""
        found = self._found(follow=False)
        if not stat.S_ISLNK(found.attributes.mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(self))
        return os.fsdecode(self.image.tree().entry(found).target)

    def resolve(self) -> "ImagePath":
        """Return the path without symlinks and ".." of what is here, which must be there."""
        found = self.image.tree().find(self._bytes, follow=True)
        if found is None:
            raise self._missing()
        return ImagePath(self.image, found[0], found[1])

    def xattrs(self, *, follow_symlinks: bool = True) -> dict[str, bytes]:
        """Return the extended attributes, sorted by name."""
        entry = self.image.tree().entry(self._found(follow=follow_symlinks))
        return {os.fsdecode(name): value for name, value in entry.xattrs}

    def layer(self, *, follow_symlinks: bool = True) -> str | None:
        """Return the diff_id of the layer that this is from; None for a directory that no layer mentions."""
        place = self._found(follow=follow_symlinks).place
        return None if place is None else str(place.layer)

    def sha256(self) -> str | None:
        """Return the digest, in hexadecimal, of a file's content, without reading it.

        None for all but regular files, and for those whose holes are too big to have been hashed.
        """
        return self.image.tree().entry(self._found(follow=True)).sha256.hex() or None

    # ---- directories ----

    def iterdir(self) -> Iterator["ImagePath"]:
        """Yield what is in the directory, in byte order of the names.  Raises: NotADirectoryError."""
        found = self._found(follow=True)
        if not found.is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self))
        self.image.directories.put(self._bytes, found)
        for path, thing in self.image.tree().children(self._bytes, found):
            yield ImagePath(self.image, path, thing)

    def child(self, name: str) -> "ImagePath | None":
        """Return what is called *name* in this directory; None where there is nothing, or this is no directory.

        Unlike ``/`` it looks, once: *name* is one component, and neither "." nor "..".
        """
        if not self.is_dir():
            return None
        thing = self.image.directories.find(self.image.tree(), self._bytes, os.fsencode(name))
        return None if thing is None else ImagePath(self.image, str(self._pure / name), thing)

    def walk(self, *, top_down: bool = True) -> Iterator[tuple["ImagePath", list[str], list[str]]]:
        """Yield (directory, names of directories, names of all else) of all below, as `pathlib.Path.walk` does.

        Names are in byte order.  Symlinks are not followed, and count as files.  Top down, the caller may take names of
        directories away that shall not be walked.  Raises: NotADirectoryError.
        """
        # An explicit stack: a layer may nest directories deeper than Python likes to recurse.
        stack: list[ImagePath | tuple[ImagePath, list[str], list[str]]] = [self]
        while stack:
            path = stack.pop()
            if isinstance(path, tuple):
                yield path
                continue
            directories: dict[str, ImagePath] = {}
            files: list[str] = []
            for child in path.iterdir():
                if child._found(follow=False).is_directory:
                    directories[child.name] = child
                else:
                    files.append(child.name)
            names = list(directories)
            if top_down:
                yield path, names, files
            else:
                stack.append((path, names, files))
            stack += [directories.get(name) or path / name for name in reversed(names)]

    def glob(self, pattern: str) -> Iterator["ImagePath"]:
        """Yield what is below and matches *pattern*, each once; ``**`` is any number of directories, none a symlink.

        Raises: ValueError, for an empty or absolute pattern.
        """
        from imagefs.api.globbing import matching

        return matching(self, pattern)

    def rglob(self, pattern: str) -> Iterator["ImagePath"]:
        """Yield what is below, at any depth, and matches *pattern*."""
        return self.glob(f"**/{pattern}")

    # ---- content ----

    @overload
    def open(
        self,
        mode: Literal["r", "rt"] = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper: ...
    @overload
    def open(self, mode: Literal["rb"]) -> io.BufferedReader: ...
    @overload
    def open(self, mode: Literal["rb"], buffering: Literal[0]) -> ImageFile: ...
    @overload
    def open(
        self,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper | io.BufferedReader | ImageFile: ...
    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper | io.BufferedReader | ImageFile:
        """Open the file for reading, as the built-in `open` does; text is UTF-8 unless *encoding* says otherwise.

        Raises: IsADirectoryError; OSError(EROFS), for a mode that writes; OSError(ENXIO), for what is neither file nor
        directory; FileDamaged, where the store verifies and its content is not what was stored.
        """
        if set(mode) & set("wax+"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        if mode not in ("r", "rt", "tr", "rb", "br"):
            raise ValueError(f"expected mode r, rt or rb, found {mode!r}")
        if "b" in mode and (encoding or errors or newline) is not None:
            raise ValueError("binary mode takes no encoding, errors or newline")
        if buffering == 0 and "b" not in mode:
            raise ValueError("text cannot be unbuffered")
        raw = self._opened()
        if buffering == 0:
            return raw
        binary: io.BufferedReader = io.BufferedReader(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        """Return all of the file's content."""
        with self._opened() as file:
            return file.readall()

    def read_text(self, encoding: str = "utf-8", errors: str | None = None) -> str:
        """Return all of the file's content as text."""
        with self.open("r", encoding=encoding, errors=errors) as file:
            return file.read()

    # ---- what it rests on ----

    def _opened(self) -> ImageFile:
        found = self._found(follow=True)
        if found.is_directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
        if not stat.S_ISREG(found.attributes.mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), str(self))
        return ImageFile(self.image.tree().open(found), str(self))

    def _look(self, *, follow: bool) -> "Thing | None":
        tree = self.image.tree()
        if self._thing is None:  # what a path leads to never changes, so whoever sets it sets the same
            folder, _, name = self._bytes.rpartition(b"/")
            if name in (b"", b".."):
                found = tree.find(self._bytes)
                self._thing = found[1] if found is not None else None
            else:
                self._thing = self.image.directories.find(tree, folder, name)
            if self._thing is None:
                return None
            if self._thing.is_directory:
                self.image.directories.put(self._bytes, self._thing)
        if not follow or not stat.S_ISLNK(self._thing.attributes.mode):
            return self._thing
        led_to = tree.find(self._bytes, follow=True)
        return None if led_to is None else led_to[1]

    def _found(self, *, follow: bool) -> "Thing":
        found = self._look(follow=follow)
        if found is None:
            raise self._missing()
        return found

    def _missing(self) -> PathNotFound:
        return PathNotFound(self._bytes, self.image.reference)

    def _mode(self, *, follow: bool) -> int:
        try:
            found = self._look(follow=follow)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return 0
        return 0 if found is None else found.attributes.mode
