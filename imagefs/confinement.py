"""Takes from a process that parses hostile bytes everything that parsing does not need.

Privileges belong to threads, so all of this is for a process with one thread, whose later threads inherit it.  On
systems other than Linux nothing is taken.

Source: capabilities(7), prctl(2), landlock(7); Linux, include/uapi/linux/landlock.h.
"""

import contextlib
import ctypes
import encodings.unicode_escape  # noqa: F401 - loaded when first used, from a file that is out of reach by then
import errno
import os
import sys
import time
from pathlib import Path

_CAP_DAC_READ_SEARCH, _CAP_SYS_ADMIN = 2, 21
_SET_DUMPABLE, _SET_KEEPCAPS, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT = 4, 8, 24, 38, 47
_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_MOST_CAPABILITIES = 64

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of system calls, the same on all architectures."""
_RULESET_VERSION = 1
_PATH_BENEATH = 1
_LEAST_ABI = 2
"""Before it (Linux 5.19), Landlock forbids every rename between two folders, and so to store a tree."""
_FILE_RIGHTS = {2: 1 << 14, 3: 1 << 15, 5: 1 << 16}
"""From which ABI on there are this many rights, as one more than the mask of all."""
_EXECUTE = 1 << 0
_MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 6, 1 << 9, 1 << 10, 1 << 11, 1 << 12
_IOCTL_DEV = 1 << 15
_NEVER = _EXECUTE | _MAKE_CHAR | _MAKE_SOCK | _MAKE_FIFO | _MAKE_BLOCK | _MAKE_SYM | _IOCTL_DEV
_NETWORK_ABI, _ALL_NETWORK = 4, 0b11
_SCOPE_ABI, _ALL_SCOPES = 6, 0b11


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilitySets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine(folder: Path | None) -> None:
    """Leave to this process its open files, and what is in *folder* as far as the owner of *folder* may use it.

    Root becomes the owner of *folder*.  No capability is left, with one exception: where that owner cannot reach
    *folder*, because a folder above it is closed, CAP_DAC_READ_SEARCH is.  No program that is started gains
    privileges, and no other process of this user can look into this one.  With Landlock (Linux 5.19), no other file
    can be opened, no TCP connection made, and no process outside be signaled.

    Raises: OSError.
    """
    if sys.platform != "linux":
        return
    time.tzset()  # reads a file, for the times in the log
    _clear_inheritable_privileges()
    if folder is not None:
        _become_owner(folder)
    _keep_capabilities(_needed_to_reach(folder))
    _prctl(_SET_DUMPABLE, 0)
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _restrict_files(folder)


def keep_mounting(folder: Path) -> None:
    """Leave to this process of root no capability but CAP_SYS_ADMIN, and what reading *folder* takes.

    For a library that unmounts by itself: Landlock would forbid that, and so would another user ID.  A process of an
    ordinary user has nothing that could be taken: it needs a set-user-ID program to unmount.

    Raises: OSError.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    _clear_inheritable_privileges()
    _keep_capabilities(_needed_to_reach(folder) | 1 << _CAP_SYS_ADMIN)
    _prctl(_SET_DUMPABLE, 0)
    _prctl(_SET_NO_NEW_PRIVS, 1)


def _clear_inheritable_privileges() -> None:
    """Empty the bounding set, where this user may, and the ambient set."""
    for capability in range(_MOST_CAPABILITIES):
        try:
            _prctl(_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):  # no such capability; not root
                raise
            break
    with contextlib.suppress(OSError):  # there is none before Linux 4.3
        _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)


def _become_owner(folder: Path) -> None:
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    _prctl(_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def _needed_to_reach(folder: Path | None) -> int:
    """Return the mask of the capabilities, of those that this process has, that it needs to list *folder*.

    The effective set is empty afterwards.
    """
    permitted = _capabilities()
    _set_capabilities(effective=0, permitted=permitted)
    if folder is not None:
        try:
            os.listdir(folder)
        except PermissionError:
            return permitted & 1 << _CAP_DAC_READ_SEARCH
    return 0


def _keep_capabilities(mask: int) -> None:
    mask &= _capabilities()
    _set_capabilities(effective=mask, permitted=mask)


def _capabilities() -> int:
    """Return the mask of the permitted capabilities."""
    sets = (_CapabilitySets * 2)()
    _check(_libc().capget(ctypes.byref(_CapabilityHeader(_CAPABILITY_VERSION_3, 0)), sets))
    return int(sets[0].permitted) | int(sets[1].permitted) << 32


def _set_capabilities(*, effective: int, permitted: int) -> None:
    sets = (_CapabilitySets * 2)()
    for half, shift in zip(sets, (0, 32), strict=True):
        half.effective, half.permitted = effective >> shift & 0xFFFFFFFF, permitted >> shift & 0xFFFFFFFF
    _check(_libc().capset(ctypes.byref(_CapabilityHeader(_CAPABILITY_VERSION_3, 0)), sets))


def _restrict_files(folder: Path | None) -> None:
    """Leave nothing of all files, networks and other processes but what is in *folder*, where there is Landlock."""
    abi = _libc().syscall(_CREATE_RULESET, None, 0, _RULESET_VERSION)
    if abi < _LEAST_ABI:
        return
    all_rights = max(limit for since, limit in _FILE_RIGHTS.items() if since <= abi) - 1
    rules = _Ruleset(all_rights, _ALL_NETWORK if abi >= _NETWORK_ABI else 0, _ALL_SCOPES if abi >= _SCOPE_ABI else 0)
    # An older kernel refuses the size of a newer structure only where what is new in it is not zero.
    ruleset = _check(_libc().syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0))
    try:
        if folder is not None:
            beneath = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                rule = _PathBeneath(all_rights & ~_NEVER, beneath)
                _check(_libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
            finally:
                os.close(beneath)
        _check(_libc().syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc().prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
