"""Paths that no other user can redirect, and names that still lead to the same file.

Receives a path; returns the folder that it leads to, open, or raises.  A component that another user owns can be
exchanged by that user, between any check and the use; a symlink of another user leads wherever that user likes.
"""

import errno
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagefs.errors import PathUnsafe, printable

_MOST_FOLLOWED = 40
"""Symlinks on the way to one path, as in Linux (MAXSYMLINKS)."""
_OVERFLOW_UID = 65534
"""Stands for owners that have no number in this user namespace, such as root outside.  Source: user_namespaces(7)."""

Judge = Callable[[str, os.stat_result], None]
"""Called with each folder and each symlink on the way, and its status; raises to refuse it."""


def user_name(uid: int) -> str:
    """Return the name of user *uid*, or the number of a user without name."""
    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)


def open_parent(path: str | os.PathLike[str], judge: Judge) -> tuple[int, str]:
    """Open the folder that *path* is in, all symlinks resolved, and return it (O_PATH) with the name in it.

    The name is "." for a path that ends in a folder's own name such as "/" or "a/..".  It need not exist.  Each
    component is opened relative to the one before, so what *judge* sees is what is used.

    Raises: OSError; whatever *judge* raises.
    """
    text = os.fspath(path)
    if not text:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
    at = "/" if text.startswith("/") else str(Path.cwd())
    names = [name for name in text.split("/")[::-1] if name not in ("", ".")]
    followed = 0
    folder = os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            judge(at, os.fstat(folder))
            if not names:
                return folder, "."
            name = names.pop()
            try:
                inner = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                if not names:
                    return folder, name
                raise
            try:
                status = os.fstat(inner)
                if stat.S_ISLNK(status.st_mode):
                    judge(str(Path(at, name)), status)
                    target = os.readlink("", dir_fd=inner)
                    if not names and is_magic_link(status):
                        return folder, name
                    followed += 1
                    if followed > _MOST_FOLLOWED:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    names += [part for part in target.split("/")[::-1] if part not in ("", ".")]
                    if target.startswith("/"):
                        at, name = "/", "/"
                        os.close(inner)
                        inner = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                        folder, inner = inner, folder
                elif names or name == "..":
                    if not stat.S_ISDIR(status.st_mode):
                        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                    at = str(Path(at).parent if name == ".." else Path(at, name))
                    folder, inner = inner, folder
                else:
                    return folder, name
            finally:
                os.close(inner)
    except BaseException as error:
        os.close(folder)
        if isinstance(error, OSError) and not isinstance(error, PathUnsafe):
            raise type(error)(error.errno, error.strerror, text) from None
        raise


def refuse_links_of_others(path: str, status: os.stat_result) -> None:
    """Refuse a symlink that belongs neither to this user nor to root.

    Raises: PathUnsafe.
    """
    if stat.S_ISLNK(status.st_mode) and not _is_trusted(status.st_uid):
        owner = user_name(status.st_uid)
        raise PathUnsafe(path, f"it is a symlink of user {owner}; name its target instead")


def refuse_other_owners(path: str, status: os.stat_result) -> None:
    """Refuse a file that belongs neither to this user nor to root.

    Raises: PathUnsafe.
    """
    if not _is_trusted(status.st_uid):
        raise PathUnsafe(path, f"it belongs to user {user_name(status.st_uid)}; name a file of your own")


def first_exchangeable(path: Path) -> tuple[str, str] | None:
    """Return the first component above *path* that others than root and this user can exchange, and the reason.

    None where there is none; *path* itself is not judged, and need not exist.
    """

    def judge(at: str, status: os.stat_result) -> None:
        if not _is_trusted(status.st_uid):
            raise PathUnsafe(at, f"belongs to user {user_name(status.st_uid)}")
        if stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_ISVTX:
            return  # in a sticky folder only the owner of an entry can exchange it, and each entry is judged
        writable = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != 0)
        if writable:
            raise PathUnsafe(at, "can be written to by other users")

    try:
        with suppress(FileNotFoundError, NotADirectoryError):  # told to the caller by what it does next
            os.close(open_parent(path, judge)[0])
    except PathUnsafe as unsafe:
        return unsafe.path, unsafe.reason
    return None


@contextmanager
def failures_named(path: Path, temporary: str) -> Iterator[None]:
    """Let an OSError that names the file *temporary* name *path*, which the user knows."""
    try:
        yield
    except PathUnsafe as error:
        raise PathUnsafe(str(path), error.reason) from None
    except OSError as error:
        if error.filename != temporary:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def check_own(descriptor: int, name: bytes | str, folder: int) -> None:
    """Make sure that *name* in *folder* is the file open as *descriptor*.

    Raises: PathUnsafe, where another process exchanged it; FileNotFoundError.
    """
    if not os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False)):
        raise PathUnsafe(os.fsdecode(name), "another process replaced it")


def remove_own(descriptor: int, name: bytes | str, folder: int) -> None:
    """Remove *name* from *folder* if it is still the file open as *descriptor*."""
    with suppress(OSError):
        check_own(descriptor, name, folder)
        os.unlink(name, dir_fd=folder)


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid()) or (uid == _OVERFLOW_UID and not _is_mapped(uid))


def _is_mapped(uid: int) -> bool:
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= uid < first + count for first, _, count in ranges)


def is_magic_link(status: os.stat_result) -> bool:
    """Return whether this symlink is one of /proc, such as /proc/self/fd/1, which leads where no path does."""
    with suppress(OSError):
        return status.st_dev == Path("/proc/self/fd").stat().st_dev
    return False
