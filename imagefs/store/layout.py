"""Is this folder a store, may it become one, and of which format?

Receives a path; hands on nothing but its verdict.  ``imagefs.json`` marks a store and is the first file written into
one, so a folder that holds other things is never taken over.
"""

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from imagefs.errors import StoreUnusable

FORMAT = 1
_MARK = "imagefs.json"


def is_store(path: Path) -> bool:
    """Return whether *path* holds the mark of a store, of whatever format."""
    return (path / _MARK).is_file()


@contextlib.contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while a store is made into StoreUnusable."""
    try:
        yield
    except OSError as error:
        raise StoreUnusable(str(path), os.strerror(error.errno or 0).lower()) from error


def check(path: Path, *, create: bool) -> None:
    """Make sure that *path* is a store this program understands; with *create*, make an empty one if need be.

    The folder is made accessible to its owner only: layers hold files, such as /etc/shadow, that an image keeps from
    ordinary users.

    Raises: StoreUnusable.
    """
    mark = path / _MARK
    with refusals_named(path):
        if create and not mark.exists():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            foreign = [name for name in os.listdir(path) if name != "lost+found" and not name.startswith(".imagefs-")]
            if foreign and not mark.exists():
                raise StoreUnusable(
                    str(path), f"the folder holds other files, such as '{foreign[0]}'; choose an empty one"
                )
            _write_mark(path)
        try:
            raw = mark.read_bytes()
        except FileNotFoundError:
            raise StoreUnusable(
                str(path), "there is no store yet; 'imagefs pull' or 'imagefs load' makes one"
            ) from None
        except NotADirectoryError:
            raise StoreUnusable(str(path), "not a folder") from None
    try:
        found = json.loads(raw)["format"]
    except (ValueError, KeyError, TypeError):
        raise StoreUnusable(str(path), f"{_MARK} is damaged") from None
    if found != FORMAT:
        raise StoreUnusable(str(path), f"it has format {found!r}, this imagefs knows format {FORMAT}; upgrade imagefs")


def _write_mark(path: Path) -> None:
    # One name for all, and the same bytes: what one that was killed left is finished by the next, and two at once do
    # each other no harm.
    temporary = path / f".imagefs-{'0' * 16}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, json.dumps({"format": FORMAT}).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileNotFoundError):  # another was faster
        temporary.rename(path / _MARK)


_OWN = re.compile(
    r"imagefs\.json|\.imagefs-[0-9a-f]{16}|catalog\.sqlite(\.damaged-[0-9TZ]+)?(-journal)?"
    r"|lock|sweep-wanted|secret|reserve|(ingest|mounts)/[0-9a-f]{16}|partial/sha(256-[0-9a-f]{64}|512-[0-9a-f]{128})"
)
_FOLDERS = re.compile(r"blobs|layers|trees|(blobs|layers|trees)/sha(256|512)|ingest|mounts|partial|lost\+found")


def foreign_files(path: Path, content: Collection[Path]) -> Iterator[Path]:
    """Yield what is in the store's folder *path* and neither one of its own files nor *content*; folders as a whole."""
    folders = [path]
    while folders:
        folder = folders.pop()
        for name in sorted(os.listdir(folder)):
            found = folder / name
            relative = str(found.relative_to(path))
            if found.is_dir() and not found.is_symlink() and _FOLDERS.fullmatch(relative):
                if name != "lost+found":
                    folders.append(found)
            elif found not in content and not _OWN.fullmatch(relative):
                yield found
