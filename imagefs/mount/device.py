"""Mounts made on /dev/fuse without a library: by mount(2) as root, through fusermount3 as a user.

Receives where, called what, and with which options; hands on the descriptor on which the kernel asks.  Knows nothing
of what is asked.  Linux only.

Source: mount(2); libfuse, lib/mount.c (the protocol of fusermount3: a socket named in _FUSE_COMMFD).
"""

import array
import ctypes
import os
import socket
import subprocess
from pathlib import Path

from imagefs.errors import MountError
from imagefs.mount.mountpoint import fusermount
from imagefs.mount.options import MountOptions

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MNT_DETACH = 2
_ROOT_MODE = "40000"


def mount(mountpoint: Path, *, source: str, options: MountOptions) -> int:
    """Mount at *mountpoint* and return the descriptor of the device, which the caller closes.

    Raises: MountError.
    """
    return _as_root(mountpoint, source, options) if os.geteuid() == 0 else _as_user(mountpoint, source, options)


def unmount(mountpoint: Path) -> None:
    """Take the mount away, now from its place and, when nobody uses it any more, altogether.  Does not wait."""
    if os.geteuid() == 0:
        ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(mountpoint), _MNT_DETACH)
    elif program := fusermount():
        subprocess.Popen([program, "-u", "-z", "--", mountpoint], stdin=subprocess.DEVNULL)


def _as_root(mountpoint: Path, source: str, options: MountOptions) -> int:
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"cannot open /dev/fuse: {error.strerror}") from error
    words = [f"fd={device}", f"rootmode={_ROOT_MODE}", "user_id=0", "group_id=0"]
    words += _asked(options)
    flags = _MS_RDONLY | (0 if options.suid else _MS_NOSUID) | (0 if options.dev else _MS_NODEV)
    flags |= _MS_NOEXEC if options.noexec else 0
    libc = ctypes.CDLL(None, use_errno=True)
    where = os.fsencode(source), os.fsencode(mountpoint)
    if libc.mount(*where, b"fuse.imagefs", ctypes.c_ulong(flags), ",".join(words).encode()) != 0:
        reason = os.strerror(ctypes.get_errno())
        os.close(device)
        raise MountError(f"mounting at {mountpoint} failed: {reason}")
    return device


def _as_user(mountpoint: Path, source: str, options: MountOptions) -> int:
    program = fusermount()
    if program is None:
        raise MountError("fusermount3 was not found; users other than root need it: on Debian install fuse3")
    name = source.replace("\\", "\\\\").replace(",", "\\,")
    words = ["ro", "nosuid", "nodev", f"fsname={name}", "subtype=imagefs", *_asked(options)]
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
        return descriptors[0]


def _asked(options: MountOptions) -> list[str]:
    words = ["allow_other"] if options.allow_other else []
    return [*words, "default_permissions"] if options.allow_other or options.default_permissions else words
