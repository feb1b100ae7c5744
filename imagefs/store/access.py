"""Who may use a store: its owner, and the members of one group if the owner wants so.

Receives the open folder of a store; returns what this process may do, or raises the reason with the command that mends
it.  A store is private (folders 0700, files 0600), or its mark names a group and it is readable for that group (2750,
0640).  Either way nobody but the owner can add or exchange a name in it, which makes one check on opening enough.

Layers hold files, such as /etc/shadow, that an image keeps from ordinary users, and a store of another user can lead
root to any file: hence whatever is neither private nor shared on purpose is refused.
"""

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imagefs.errors import StoreUnusable
from imagefs.store.trusted_path import first_exchangeable, user_name

MARK = "imagefs.json"
_PRIVATE, _PRIVATE_FILE = 0o700, 0o600
_SHARED, _SHARED_FILE = 0o2750, 0o640
"""The set-group-ID bit gives new files the folder's group.  Source: inode(7)."""

_CONTENT = tuple(f"{kind}{below}" for kind in ("blobs", "layers", "trees") for below in ("", "/sha256", "/sha512"))
_FOLDERS = (*_CONTENT, "ingest", "mounts", "partial")
_FILES = (MARK, "catalog.sqlite", "catalog.sqlite-journal", "lock", "reserve", "sweep-wanted")
"""Not ``secret``, which is never shared."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_folder(path: Path) -> None:
    """Make folder *path* in a store, and those above it, for the users that may enter the folder above."""
    if not path.is_dir():
        make_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=_PRIVATE)
            path.chmod(stat.S_IMODE(path.parent.stat().st_mode) & _SHARED | _PRIVATE)


def file_mode(folder: Path) -> int:
    """Return the mode of a new file in *folder* of a store: readable for the users that may list the folder."""
    return _SHARED_FILE if folder.stat().st_mode & stat.S_IRGRP else _PRIVATE_FILE


def check_parents(path: Path) -> None:
    """Make sure, for root, that no other user can exchange the store's folder *path*.

    Other users' stores are not checked so: private groups and user namespaces make such folders common, and the user
    loses no more than what belongs to that user.

    Raises: StoreUnusable.
    """
    if os.geteuid() == 0 and (found := first_exchangeable(path)) is not None:
        folder, why = found
        raise StoreUnusable(
            str(path),
            f"'{folder}' above it {why}, who could exchange the store; move it to a folder of root,"
            f" or use it all the same with 'imagefs --trust-store'",
        )


def check_access(top: int, path: Path, group: int | None, *, trust: bool) -> bool:
    """Return whether this process owns the store at *path*, whose folder is open as *top*; others only read.

    *group* is the ID of the group for which the store's mark makes it readable.  *trust* accepts another owner, and
    any mode.  Modes inside of a private store that an older version or another umask left wide are mended.

    Raises: StoreUnusable.
    """
    status = os.fstat(top)
    is_owner = status.st_uid == os.geteuid()
    is_shared = group is not None and stat.S_IMODE(status.st_mode) | stat.S_ISGID == _SHARED
    if not trust:
        _check_top(status, path, group if is_shared else None)
    for name in (*_FOLDERS, *_FILES):
        _check_entry(top, name, status, path, is_shared=is_shared)
    if is_shared and is_owner and not status.st_mode & stat.S_ISGID:
        with suppress(OSError):
            os.fchmod(top, _SHARED)
    return is_owner


def _check_top(status: os.stat_result, path: Path, group: int | None) -> None:
    me, quoted = os.geteuid(), shlex.quote(str(path))
    is_member = group is not None and me != 0 and group in {os.getegid(), *os.getgroups()}
    if status.st_uid != me and not is_member:
        command = f"imagefs --trust-store --store {quoted}"
        take = f", or make it root's with 'chown -R root {quoted}'" if me == 0 else ""
        raise StoreUnusable(
            str(path), f"it belongs to user {user_name(status.st_uid)}; read it all the same with '{command}'{take}"
        )
    if group is not None and group != status.st_gid:
        raise StoreUnusable(
            str(path),
            f"it belongs to group {status.st_gid} and not to group {group}, for which it was made readable;"
            f" 'chgrp -R {group} {quoted}' mends that",
        )
    if group is None and status.st_mode & _OTHERS:
        raise StoreUnusable(
            str(path), f"its mode lets other users in; 'chmod -R go= {quoted}' makes it private, as a store must be"
        )


def _check_entry(top: int, name: str, store: os.stat_result, path: Path, *, is_shared: bool) -> None:
    try:
        status = os.stat(name, dir_fd=top, follow_symlinks=False)
    except (FileNotFoundError, PermissionError):
        return
    is_folder = name in _FOLDERS
    is_right = stat.S_ISDIR if is_folder else stat.S_ISREG
    quoted = shlex.quote(str(path / name))
    if not is_right(status.st_mode):
        kind = "folder" if is_folder else "regular file"
        command = "mv" if stat.S_ISDIR(status.st_mode) else "rm"
        rest = f" {shlex.quote(str(path))}-{name}" if command == "mv" else ""
        raise StoreUnusable(str(path), f"'{name}' in it is no {kind}; '{command} {quoted}{rest}' removes it")
    if status.st_uid not in (store.st_uid, 0):
        command = f"chown -R {store.st_uid} {shlex.quote(str(path))}"
        raise StoreUnusable(
            str(path), f"'{name}' in it belongs to user {user_name(status.st_uid)}; '{command}' gives it to the owner"
        )
    mode = (_SHARED if is_folder else _SHARED_FILE) if is_shared else (_PRIVATE if is_folder else _PRIVATE_FILE)
    surplus = stat.S_IMODE(status.st_mode) & _OTHERS & ~mode
    if surplus and is_shared:
        command = f"chmod -R g-w,o= {shlex.quote(str(path))}"
        raise StoreUnusable(str(path), f"'{name}' in it can be changed by other users; '{command}' mends that")
    # The folder itself is private, so nobody could use what these modes grant.
    if surplus and status.st_uid == os.geteuid() == store.st_uid:
        with suppress(OSError):  # on a read-only disk
            os.chmod(name, mode, dir_fd=top)


def share(path: Path, group: int | None) -> None:
    """Give all that is in the store at *path* to *group*, readable; None makes it private.

    The folder itself is opened for the group last, and closed first.  The caller owns the store and keeps writers out.

    Raises: OSError, where this user is no member of the group.
    """
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchmod(top, _PRIVATE)
        folder_mode, mode = (_PRIVATE, _PRIVATE_FILE) if group is None else (_SHARED, _SHARED_FILE)
        for name in _existing(top, _FOLDERS):
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            try:
                _give(folder, group, folder_mode)
                if name in _CONTENT:
                    for entry in os.scandir(folder):
                        if entry.is_file(follow_symlinks=False):
                            _give_file(folder, entry.name, group, mode)
            finally:
                os.close(folder)
        for name in _existing(top, _FILES):
            _give_file(top, name, group, mode)
        if group is not None:
            _give(top, group, _SHARED)
    finally:
        os.close(top)


def _existing(top: int, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=top, follow_symlinks=False)
            yield name


def _give_file(folder: int, name: str, group: int | None, mode: int) -> None:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        _give(file, group, mode)
    finally:
        os.close(file)


def _give(descriptor: int, group: int | None, mode: int) -> None:
    if group is not None:
        os.fchown(descriptor, -1, group)
    os.fchmod(descriptor, mode)
