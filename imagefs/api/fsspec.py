"""Images as a read-only file system for fsspec, and so for all that reads by URL: ``image://alpine:3.20/etc/passwd``.

Receives URLs; hands on listings and files.  The only module that imports fsspec, which imports it when it meets such a
URL.  It must never know more of images than every user of the API does.

A URL begins with the name of an image of the store, then comes a path in there.  As names have slashes, too, the
longest beginning that names an image counts; one by itself means ``:latest``, and IDs (``sha256:…``), digests and
``@layer:N`` are understood.  Above the images, names are folders: ``image://`` has ``ghcr.io``, which has an image
``app:1``.  Where a name leads both to an image and to such a folder, it has the content of both.
"""

import datetime
import errno
import io
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn

from fsspec.spec import AbstractFileSystem

from imagefs.api.file import ImageFile
from imagefs.api.image import Image
from imagefs.api.path import ImagePath
from imagefs.api.store import open_store
from imagefs.errors import ImageNotFound, InvalidReference, PathNotFound
from imagefs.oci.reference import Reference

_BUFFER_BYTES = 128 * 1024
_log = logging.getLogger("imagefs")

Info = dict[str, Any]
"""What fsspec wants to know of a thing; see its documentation of ``AbstractFileSystem.info``."""


class _Reader(io.BufferedReader):
    """A buffered file that knows how long it is, as fsspec expects of files."""

    def __init__(self, raw: ImageFile, buffer_size: int) -> None:
        super().__init__(raw, buffer_size)
        self.size = raw.size


class ImageFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The images of one store, for fsspec.  Whatever would write raises OSError(EROFS).  Thread-safe.

    Symlinks to files are files, with ``islink`` and ``destination``.  Those to directories can be entered by name, but
    in listings they are of type "other", as are broken ones and devices, and recursive methods leave them out.

    Methods raise PathNotFound, which is a FileNotFoundError, where a URL leads nowhere.
    """

    protocol = "image"
    root_marker: ClassVar[str] = ""

    def __init__(self, store: str | os.PathLike[str] | None = None, *, verify: bool = True, **options: Any) -> None:
        """Open the store at *store*; see `imagefs.open_store` for its default and for *verify*."""
        super().__init__(**options)
        self._store = open_store(store, verify=verify)
        weakref.finalize(self, self._store.close)
        self._lock = threading.Lock()
        self._generation = -1
        self._names: frozenset[str] = frozenset()
        self._repositories: frozenset[str] = frozenset()
        self._most_parts = 1
        self._images: dict[str, Image] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped.strip("/") if isinstance(stripped, str) else stripped

    # ---- what a URL means ----

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget which images there are; changes by others are noticed anyway."""
        with self._lock:
            self._generation = -1

    def _refreshed(self) -> None:
        generation = self._store.generation()
        with self._lock:
            if generation == self._generation:
                return
            images = list(self._store)
            shown = [image.names or image.digests or (image.id,) for image in images]
            self._names = frozenset(name for names in shown for name in names)
            every = [name for image in images for name in (*image.names, *image.digests)]
            self._repositories = frozenset(Reference.parse(name).name for name in every)
            self._most_parts = max((name.count("/") + 1 for name in self._repositories), default=1)
            self._images = {}
            self._generation = generation

    def _image(self, text: str) -> Image | None:
        """Return the image that *text* names, if it does."""
        image = self._images.get(text)
        if image is None:
            try:
                is_id = text.startswith("sha256:")
                if not is_id and Reference.parse(text.partition("@layer:")[0]).name not in self._repositories:
                    return None
                image = self._images[text] = self._store[text]
            except (ImageNotFound, InvalidReference):
                return None
        return image

    def _inside(self, text: str) -> ImagePath | None:
        """Return what *text*, by its longest beginning that names an image, means in there; None if none does."""
        self._refreshed()
        parts = text.split("/", self._most_parts)
        for count in range(min(len(parts), self._most_parts), 0, -1):
            image = self._image("/".join(parts[:count]))
            if image is not None:
                return image.path("/".join(parts[count:]))
        return None

    def _folders(self, text: str) -> list[str]:
        """Return what is in the folder *text* of names of images, sorted; nothing if it is none."""
        prefix = f"{text}/" if text else ""
        return sorted({name[len(prefix) :].partition("/")[0] for name in self._names if name.startswith(prefix)})

    def _missing(self, text: str, inside: ImagePath | None) -> PathNotFound:
        if inside is not None:
            return PathNotFound(bytes(inside)[1:], inside.image.reference)
        return PathNotFound(os.fsencode(text), "image://", "no image of the store is called like its beginning")

    def _path(self, path: str) -> ImagePath:
        text = self._strip_protocol(path)
        inside = self._inside(text)
        if inside is None:
            if self._folders(text) or not text:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text)
            raise self._missing(text, None)
        return inside

    # ---- looking ----

    def info(self, path: str, **_: Any) -> Info:
        """Return what is known of *path*; a symlink at its end is followed."""
        text = self._strip_protocol(path)
        inside = self._inside(text)
        if inside is not None and inside.exists():
            return _described(text, inside, follow=True)
        if self._folders(text) or not text:
            return _folder(text)
        raise self._missing(text, inside)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return what is in the directory *path*, or the file itself, with *detail* as `info` does."""
        text = self._strip_protocol(path)
        inside = self._inside(text)
        prefix = f"{text}/" if text else ""
        found: dict[str, Info] = {}
        if inside is not None and inside.exists():
            if not inside.is_dir():
                found[text] = _described(text, inside, follow=True)
            else:
                for child in inside.iterdir():
                    found[prefix + child.name] = _described(prefix + child.name, child, follow=False)
        folders = self._folders(text)
        if not folders and text and (inside is None or not inside.exists()):
            raise self._missing(text, inside)
        for name in folders:
            found[prefix + name] = _folder(prefix + name)
        return list(found.values()) if detail else list(found)

    def exists(self, path: str, **_: Any) -> bool:
        """Return whether *path* leads to something."""
        try:
            self.info(path)
        except OSError:
            return False
        return True

    def modified(self, path: str) -> datetime.datetime:
        """Return when *path* was last changed, in UTC.  Raises: NotImplementedError, for a folder of images."""
        found = self.info(path)
        if "mtime" not in found:
            raise NotImplementedError(f"a folder of images has no time: {path}")
        return datetime.datetime.fromtimestamp(found["mtime"], tz=datetime.UTC)

    created = modified  # images record no other time

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "omit", **kwargs: Any
    ) -> Iterator[tuple[str, Any, Any]]:
        """Yield (directory, directories, files) of all below *path*, as fsspec documents it."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        detail = kwargs.pop("detail", False)
        # Not fsspec's own, which recurses: a layer may nest directories deeper than Python likes to.
        stack: list[tuple[str, int] | tuple[str, Any, Any]] = [(self._strip_protocol(path), 1)]
        while stack:
            item = stack.pop()
            if len(item) == 3:
                yield item
                continue
            text, depth = item
            try:
                listing = self.ls(text)
            except OSError as error:
                if on_error == "raise":
                    raise
                if callable(on_error):
                    on_error(error)
                continue
            directories: dict[str, Info] = {}
            files: dict[str, Info] = {}
            for found in listing:
                name = "" if found["name"] == text else found["name"].rpartition("/")[2]
                (directories if found["type"] == "directory" else files)[name] = found
            result = (text, directories, files) if detail else (text, list(directories), list(files))
            if topdown:
                yield result
            else:
                stack.append(result)
            if maxdepth is None or depth < maxdepth:
                prefix = f"{text}/" if text else ""
                stack += [(prefix + name, depth + 1) for name in reversed(list(result[1]))]

    def expand_path(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> list[str]:
        """Return the paths that *path* means; with *recursive*, what cannot be copied is left out with a warning."""
        paths: list[str] = super().expand_path(path, recursive=recursive, maxdepth=maxdepth, **kwargs)
        if not recursive:
            return paths
        wanted = []
        for found in paths:
            inside = self._inside(self._strip_protocol(found))
            if inside is not None and _type(inside, follow=False) == "other":
                _log.warning("left out: %s is neither a file nor a directory, nor a symlink to a file", found)
            else:
                wanted.append(found)
        return wanted

    # ---- reading ----

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **_: Any) -> io.BufferedReader:
        if mode != "rb":
            self._refuse(path)
        return _Reader(self._path(path).open("rb", buffering=0), block_size or _BUFFER_BYTES)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes from *start* to *end* of a file; below 0 they count from its end, as in slices."""
        with self._path(path).open("rb", buffering=0) as file:
            first, last, _step = slice(start, end).indices(file.size)
            file.seek(first)
            with io.BufferedReader(file, _BUFFER_BYTES) as buffered:
                return buffered.read(max(0, last - first))

    # ---- what is refused ----

    def _refuse(self, path: Any = "", *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    mkdir = makedirs = rmdir = rm = rm_file = _rm = touch = pipe_file = put_file = put = _refuse
    cp_file = copy = mv = _refuse


def _folder(text: str) -> Info:
    return {"name": text, "size": 0, "type": "directory"}


def _type(path: ImagePath, *, follow: bool) -> str:
    """Return fsspec's word for *path*; without *follow*, a symlink to a directory is none."""
    if path.is_file():
        return "file"
    return "directory" if path.is_dir() and (follow or not path.is_symlink()) else "other"


def _described(name: str, path: ImagePath, *, follow: bool) -> Info:
    """Return what is known of *path*, which may be a symlink that leads nowhere, under *name*."""
    kind = _type(path, follow=follow)
    shown = path.stat(follow_symlinks=kind != "other")
    found: Info = {
        "name": name,
        "size": shown.st_size if kind == "file" else 0,
        "type": kind,
        "created": shown.st_mtime,
        "islink": path.is_symlink(),
        "mode": shown.st_mode,
        "uid": shown.st_uid,
        "gid": shown.st_gid,
        "mtime": shown.st_mtime,
        "ino": shown.st_ino,
        "nlink": shown.st_nlink,
    }
    if found["islink"]:
        found["destination"] = path.readlink()
    return found
