"""Mounts made on /dev/fuse without a library: by system calls as root, through fusermount3 as a user.

Root mounts on a descriptor and detaches by a descriptor, so that a user who owns a folder on the way cannot redirect
either.  fusermount3 drops its privileges and checks for itself.  Linux only, 5.2 or newer.

Source: Linux, fs/namespace.c and fs/fsopen.c; libfuse, lib/mount.c (the protocol of fusermount3: a socket named in
_FUSE_COMMFD).
"""

import array
import contextlib
import ctypes
import errno
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from imagefs.errors import MountError
from imagefs.mount.mountinfo import Mount, MountIdentity, mount_at, mount_number, mount_with, mounts
from imagefs.mount.mountpoint import descriptor_path, fusermount, open_without_links
from imagefs.mount.options import MountOptions

_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
"""Numbers of system calls, the same on all architectures.  Source: Linux, include/uapi/asm-generic/unistd.h."""
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_FROM_DESCRIPTOR, _TO_DESCRIPTOR = 0x4, 0x40
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_ROOT_MODE = "40000"
_MOST_SOURCE_BYTES = 255
"""The longest value that fsconfig(2) takes."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount just made: *device* is the descriptor on which the kernel asks; the caller closes it."""

    device: int
    identity: MountIdentity


def mount(folder: int, mountpoint: Path, *, source: str, options: MountOptions) -> Mounted:
    """Mount on the directory of descriptor *folder*, whose path is *mountpoint*.

    Raises: MountError; nothing is mounted then.
    """
    if os.geteuid() == 0:
        return _as_root(folder, mountpoint, source, options)
    return _as_user(mountpoint, source, options)


def detach(mount: Mounted) -> None:
    """Detach *mount*, and no other, from its place, whatever its path is now.

    It ends when its last file is closed.  Does nothing where it is gone; does not wait.
    """
    # The kernel reuses the identity of a mount only after the end of its connection, which stays over for good.
    mounted = None if _is_over(mount.device) else mount_with(mount.identity)
    if mounted is None:
        return
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            unmount(mounted, lazy=True)
    elif program := fusermount():
        subprocess.Popen([program, "-u", "-z", "--", mounted.target], stdin=subprocess.DEVNULL)


def unmount(mounted: Mount, *, lazy: bool) -> None:
    """Unmount *mounted*, and no other mount, as root; with *lazy*, even while it is in use.

    Raises: OSError: EBUSY where it is in use; FileNotFoundError where it is not at its target any more.
    """
    target = Path(mounted.target)
    with opened(target) as root:
        if mount_number(root) != mounted.identity.number:
            raise FileNotFoundError(errno.ENOENT, "it is not mounted there any more")
        if lazy:
            _umount2(descriptor_path(root), _MNT_DETACH)
            return
    # An open root keeps its mount busy, so this goes by name.  No user can rename or replace a mount point.
    with opened(target.parent) as parent:
        _umount2(f"{descriptor_path(parent)}/{target.name}", _UMOUNT_NOFOLLOW)


def _is_over(device: int) -> bool:
    """Return whether the connection of *device* has ended.  Source: Linux, fs/fuse/dev.c, fuse_dev_poll."""
    poll = select.poll()
    poll.register(device, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Lend a descriptor of the folder at *path*; see `open_without_links`."""
    descriptor = open_without_links(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _umount2(path: str, flags: int) -> None:
    if _libc().umount2(os.fsencode(path), flags) != 0:
        _raise_errno()


def _as_root(folder: int, mountpoint: Path, source: str, options: MountOptions) -> Mounted:
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"cannot open /dev/fuse: {error.strerror}") from error
    try:
        identity = _attached(folder, _parameters(device, source, options), _attributes(options))
    except OSError as error:
        os.close(device)
        raise MountError(f"mounting at {mountpoint} failed: {error.strerror}") from error
    return Mounted(device, identity)


def _parameters(device: int, source: str, options: MountOptions) -> dict[str, str | None]:
    """Return the parameters of the file system; None for one that is a flag."""
    if len(os.fsencode(source)) > _MOST_SOURCE_BYTES:
        source = "imagefs"
    return {
        "source": source,
        "subtype": "imagefs",
        "fd": str(device),
        "rootmode": _ROOT_MODE,
        "user_id": "0",
        "group_id": "0",
        "ro": None,
        **dict.fromkeys(_sharing(options)),
    }


def _attributes(options: MountOptions) -> int:
    attributes = _ATTR_RDONLY | (0 if options.suid else _ATTR_NOSUID) | (0 if options.dev else _ATTR_NODEV)
    return attributes | (_ATTR_NOEXEC if options.noexec else 0)


def _attached(folder: int, parameters: dict[str, str | None], attributes: int) -> MountIdentity:
    """Make a mount that no path leads to, attach it to the directory of descriptor *folder*, and return what it is.

    Raises: OSError; the mount, if there was one, is gone then.
    """
    context = _call(_FSOPEN, b"fuse", _CLOEXEC)
    try:
        for name, value in parameters.items():
            kind, text = (_SET_FLAG, None) if value is None else (_SET_STRING, os.fsencode(value))
            _call(_FSCONFIG, context, kind, name.encode(), text, 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        root = _call(_FSMOUNT, context, _CLOEXEC, attributes)
    finally:
        os.close(context)
    try:
        _call(_MOVE_MOUNT, root, b"", folder, b"", _FROM_DESCRIPTOR | _TO_DESCRIPTOR)
        number = mount_number(root)
    finally:
        os.close(root)
    return next(mount.identity for mount in mounts() if mount.identity.number == number)


def _call(number: int, *arguments: int | bytes | None) -> int:
    result: int = _libc().syscall(
        *(ctypes.c_long(one) if isinstance(one, int) else one for one in (number, *arguments))
    )
    if result < 0:
        _raise_errno()
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _raise_errno() -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def _as_user(mountpoint: Path, source: str, options: MountOptions) -> Mounted:
    program = fusermount()
    if program is None:
        raise MountError("fusermount3 was not found; users other than root need it: on Debian install fuse3")
    name = source.replace("\\", "\\\\").replace(",", "\\,")
    words = ["ro", "nosuid", "nodev", f"fsname={name}", "subtype=imagefs", *_sharing(options)]
    if options.noexec:
        words.append("noexec")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.run(
            [program, "-o", ",".join(words), "--", mountpoint],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            check=False,
        )
        theirs.close()
        if process.returncode != 0:
            raise MountError(f"mounting at {mountpoint} failed")  # it said why on standard error
        descriptors = array.array("i")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(descriptors.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: descriptors.itemsize])
        if not descriptors:
            raise MountError(f"{program} mounted at {mountpoint}, but handed no device over")
        os.set_inheritable(descriptors[0], False)
        mounted = mount_at(mountpoint)
        if mounted is None or not mounted.is_imagefs:
            os.close(descriptors[0])
            raise MountError(f"the mount at {mountpoint} vanished right away; was it unmounted?")
        return Mounted(descriptors[0], mounted.identity)


def _sharing(options: MountOptions) -> list[str]:
    words = ["allow_other"] if options.allow_other else []
    return [*words, "default_permissions"] if options.allow_other or options.default_permissions else words
