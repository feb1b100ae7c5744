"""Is this folder a store, may it become one, and of which format?

Receives a path; returns nothing but its verdict.  ``imagefs.json`` marks a store and is the first file written into
one, so a folder that holds other things is never taken over.
"""

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path

from imagefs.errors import StoreUnusable
from imagefs.store.access import MARK, check_access, check_parents, share
from imagefs.store.trusted_path import user_name

FORMAT = 1
_MARK_BYTES = 4096
"""More than any mark has."""
_TEMPORARY = ".imagefs-"


def is_store(path: Path) -> bool:
    """Return whether *path* holds the mark of a store, of whatever format."""
    return (path / MARK).is_file()


@contextlib.contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while a store is made into StoreUnusable."""
    try:
        yield
    except OSError as error:
        raise StoreUnusable(str(path), os.strerror(error.errno or 0).lower()) from error


def check(path: Path, *, create: bool, trust: bool = False) -> bool:
    """Make sure that *path* is a store that this process may use; with *create*, make an empty one if need be.

    Returns whether this process owns the store; others only read it.  *trust* is that of `check_access`.

    Raises: StoreUnusable.
    """
    with refusals_named(path):
        if create and not path.exists():
            if not trust:
                check_parents(path)
            _make_folder(path)
        try:
            top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _no_store(path) from None
        except NotADirectoryError:
            raise StoreUnusable(str(path), "not a folder") from None
        try:
            if create and not _exists(top, MARK):
                _begin(top, path)
            mark = _read_mark(top)
            if mark is None:
                raise _no_store(path)
            group = mark.get("group")
            is_owner = check_access(top, path, group if isinstance(group, int) else None, trust=trust)
        finally:
            os.close(top)
        if not trust:
            check_parents(path)
    if "format" not in mark:
        raise StoreUnusable(str(path), f"{MARK} is damaged")
    if mark["format"] != FORMAT:
        raise StoreUnusable(
            str(path), f"it has format {mark['format']!r}, this imagefs knows format {FORMAT}; upgrade imagefs"
        )
    return is_owner


def set_group(path: Path, group: int | None) -> None:
    """Make the store at *path* readable for *group*, or private; see `access.share` for what the caller ensures."""
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchmod(top, 0o700)
        temporary = _write_temporary(top, group)
        os.rename(temporary, MARK, src_dir_fd=top, dst_dir_fd=top)
        os.fsync(top)
    finally:
        os.close(top)
    share(path, group)


def _no_store(path: Path) -> StoreUnusable:
    return StoreUnusable(str(path), "there is no store yet; 'imagefs pull' or 'imagefs load' makes one")


def _make_folder(path: Path) -> None:
    """Make the folder *path*, for its owner only, and those above it, which others may pass but not change."""
    for folder in reversed(path.parents):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o755)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o700)  # whatever the umask


def _begin(top: int, path: Path) -> None:
    """Make the folder open as *top* a store, if it is empty and this user's."""
    foreign = [name for name in os.listdir(top) if name != "lost+found" and not name.startswith(_TEMPORARY)]
    if foreign and not _exists(top, MARK):
        raise StoreUnusable(str(path), f"the folder holds other files, such as '{foreign[0]}'; choose an empty one")
    owner = os.fstat(top).st_uid
    if owner != os.geteuid():
        name = user_name(owner)
        raise StoreUnusable(str(path), f"the folder belongs to user {name}, so only {name} can make a store of it")
    os.fchmod(top, 0o700)
    while not _exists(top, MARK):
        # Others that make this store now begin again, and those that were killed leave nothing.
        for name in os.listdir(top):
            if name.startswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=top)
        temporary = _write_temporary(top, None)
        try:
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(temporary, MARK, src_dir_fd=top, dst_dir_fd=top)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=top)
        os.fsync(top)


def _write_temporary(top: int, group: int | None) -> str:
    """Write a mark to a new file in the folder *top* and return its name."""
    name = f"{_TEMPORARY}{secrets.token_hex(8)}"
    mark = {"format": FORMAT} if group is None else {"format": FORMAT, "group": group}
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=top)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, json.dumps(mark).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return name


def _read_mark(top: int) -> dict[str, object] | None:
    """Return what the mark in the folder *top* says; nothing if it is damaged, None if there is none."""
    try:
        descriptor = os.open(MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=top)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        if error.errno == errno.ELOOP:  # a symlink, which `check_access` refuses
            return {}
        raise
    try:
        mark = json.loads(os.read(descriptor, _MARK_BYTES))
    except (ValueError, IsADirectoryError):
        return {}
    finally:
        os.close(descriptor)
    return mark if isinstance(mark, dict) else {}


def _exists(top: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=top, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


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
