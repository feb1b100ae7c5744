"""Checks whether a mount can be made at a path, and says what to do where it cannot.

Changes nothing.
"""

import contextlib
import errno
import itertools
import os
import shutil
import stat
import sys
from pathlib import Path

from imagefs.errors import MountError, describe
from imagefs.mount.mountinfo import MOUNTINFO, mount_at

_READ_AHEAD_KIB = 1024


def canonical(path: Path) -> Path:
    """Return *path* absolute and without symlinks, as mountinfo shows it; it need not exist, nor its mount live."""
    return Path(os.path.realpath(path))


def open_mountpoint(target: Path, *, store: Path, nonempty: bool) -> int:
    """Return a descriptor of the empty folder *target* (with *nonempty*, of any folder), to mount on.

    *target* is canonical.  All checks are about the folder of the descriptor, which the caller closes.

    Raises: MountError.
    """
    store = canonical(store)
    if target == store or target.is_relative_to(store):
        raise MountError(f"cannot mount at {target}, inside the store {store}; choose another folder")
    if store.is_relative_to(target):
        raise MountError(f"cannot mount at {target}: it would hide the store {store}, which is inside")
    try:
        folder = open_without_links(target)
    except FileNotFoundError:
        raise MountError(f"cannot mount at {target}: there is no such folder; make it with: mkdir {target}") from None
    except OSError as error:
        raise MountError(f"cannot mount at {target}: {error.strerror}") from error
    try:
        _check_folder(folder, target, nonempty=nonempty)
    except BaseException:
        os.close(folder)
        raise
    return folder


def _check_folder(folder: int, target: Path, *, nonempty: bool) -> None:
    mounted = mount_at(target)
    if mounted is not None and mounted.fstype == "autofs":
        # A look into it would start the very mount that is about to be made.
        return
    where = descriptor_path(folder)
    try:
        if mounted is not None and mounted.is_fuse:
            os.statvfs(where)  # asks the serving process; the kernel may still remember what stat says
            raise MountError(f"{target} is already mounted ({mounted.fstype} from {mounted.source}){_remedy(target)}")
        if not stat.S_ISDIR(os.fstat(folder).st_mode):
            raise MountError(f"cannot mount at {target}: it is not a folder")
        occupied = None if nonempty else next(iter(os.listdir(where)), None)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(f"the process that served {target} has died{_remedy(target)}") from None
        raise MountError(f"cannot mount at {target}: {error.strerror}") from error
    if occupied is not None:
        raise MountError(
            f"cannot mount at {target}: the folder is not empty (it holds '{occupied}'); "
            "choose another or give -o nonempty"
        )


def open_without_links(path: Path) -> int:
    """Return a descriptor (O_PATH) of *path*, an absolute path of which no component but the last may be a symlink.

    A symlink at the end is opened itself.  The file system at *path* is not asked for anything, and an automount
    there does not start.  The caller closes the descriptor.

    Raises: OSError: NotADirectoryError where a component on the way is a symlink.
    """
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open("/", flags | os.O_DIRECTORY)
    parts = path.parts[1:]
    for number, part in enumerate(parts, 1):
        parent = descriptor
        try:
            # With O_DIRECTORY, the last one would start an automount.
            descriptor = os.open(part, flags | (os.O_DIRECTORY if number < len(parts) else 0), dir_fd=parent)
        finally:
            os.close(parent)
    return descriptor


def descriptor_path(descriptor: int) -> str:
    """Return a path that leads to the file of *descriptor*, whatever its name leads to by now."""
    return f"/proc/self/fd/{descriptor}" if sys.platform == "linux" else f"/dev/fd/{descriptor}"


def check_only_root_can_redirect(target: Path) -> None:
    """Make sure that no other user can replace a component of *target*, for a library that mounts by path.

    Raises: MountError.
    """
    for parent, child in itertools.pairwise((*reversed(target.parents), target)):
        folder, entry = parent.lstat(), child.lstat()
        is_shared = bool(folder.st_mode & 0o022)
        is_sticky = bool(folder.st_mode & stat.S_ISVTX) and entry.st_uid == 0
        if folder.st_uid != 0 or (is_shared and not is_sticky):
            raise MountError(
                f"cannot mount at {target} with driver=fusepy as root: other users can change {parent};"
                " choose another folder or driver=kernel"
            )


def check_fuse() -> None:
    """Make sure that this machine and this user can mount with FUSE at all.

    Raises: MountError.
    """
    if os.uname().sysname == "Linux" and not Path("/dev/fuse").exists():
        raise MountError(
            "there is no /dev/fuse; load the kernel module with 'modprobe fuse', or give it to the container"
        )
    if os.geteuid() != 0 and fusermount() is None:
        raise MountError("fusermount3 was not found; users other than root need it: on Debian install fuse3")


def unmount_command(target: Path) -> str:
    """Return what a person types to unmount *target*."""
    return f"umount {target}" if os.geteuid() == 0 else f"{fusermount() or 'fusermount3'} -u {target}"


def fusermount() -> str | None:
    """Return the name of the program with which an ordinary user unmounts, if there is one."""
    return next((name for name in ("fusermount3", "fusermount") if shutil.which(name)), None)


def confirm_mounted(target: Path) -> None:
    """Make sure, from another process than the serving one, that the mount at *target* is there and answers.

    Raises: MountError.
    """
    mounted = mount_at(target)
    if MOUNTINFO.exists() and not (mounted and mounted.is_imagefs):
        raise MountError(f"the mount at {target} vanished right away; was it unmounted?")
    try:
        os.statvfs(target)
    except OSError as error:
        raise MountError(f"the mount at {target} does not answer: {describe(error)}") from error


def raise_read_ahead(target: Path) -> None:
    """Let the kernel read a megabyte ahead in the mount at *target*, where we may ask for it.

    INIT can only lower the limit of 128 KiB, which is a round trip for every 128 KiB of a big file; root can raise it.
    """
    mounted = mount_at(target)
    if mounted is not None and mounted.is_imagefs:
        with contextlib.suppress(OSError):  # not root, no /sys, or unmounted again: it is only slower
            Path(f"/sys/class/bdi/{mounted.identity.device}/read_ahead_kb").write_text(f"{_READ_AHEAD_KIB}")


def _remedy(target: Path) -> str:
    return f"; unmount it first: {unmount_command(target)}"
