"""May we mount here, and if not, what should the person do about it?

Receives a path; hands on where to mount, or the refusal.  Looks, and changes nothing.
"""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from imagefs.errors import MountError, describe
from imagefs.mount.mountinfo import MOUNTINFO, mount_at

_READ_AHEAD_KIB = 1024


def canonical(path: Path) -> Path:
    """Return *path* absolute and without symlinks, as mountinfo shows it; it need not exist, nor its mount live."""
    return Path(os.path.realpath(path))


def check_mountpoint(path: Path, *, store: Path, nonempty: bool) -> Path:
    """Return the canonical form of *path*, at which an empty folder (with *nonempty*, any) waits for a mount.

    Raises: MountError.
    """
    target, store = canonical(path), canonical(store)
    if target == store or target.is_relative_to(store):
        raise MountError(f"cannot mount at {target}, inside the store {store}; choose another folder")
    if store.is_relative_to(target):
        raise MountError(f"cannot mount at {target}: it would hide the store {store}, which is inside")
    mounted = mount_at(target)
    if mounted is not None and mounted.fstype == "autofs":
        # To look into it would start the very mount that we are about to be.
        return target
    try:
        mode = target.stat().st_mode
        if mounted is not None and mounted.is_fuse:
            os.statvfs(target)  # asks the serving process; the kernel may still remember what stat says
            raise MountError(f"{target} is already mounted ({mounted.fstype} from {mounted.source}){_remedy(target)}")
        if not stat.S_ISDIR(mode):
            raise MountError(f"cannot mount at {target}: it is not a folder")
        occupied = None if nonempty else next(iter(os.listdir(target)), None)
    except FileNotFoundError:
        raise MountError(f"cannot mount at {target}: there is no such folder; make it with: mkdir {target}") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(f"the process that served {target} has died{_remedy(target)}") from None
        raise MountError(f"cannot mount at {target}: {describe(error)}") from error
    if occupied is not None:
        raise MountError(
            f"cannot mount at {target}: the folder is not empty (it holds '{occupied}'); "
            "choose another or give -o nonempty"
        )
    return target


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
    Not to be called by the process that serves *target*.
    """
    with contextlib.suppress(OSError):  # not root, no /sys, or unmounted again: it is only slower
        device = os.stat(target).st_dev  # noqa: PTH116 - as above
        setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        setting.write_text(f"{_READ_AHEAD_KIB}")


def _remedy(target: Path) -> str:
    return f"; unmount it first: {unmount_command(target)}"
