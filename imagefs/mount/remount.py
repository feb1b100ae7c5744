"""Replaces the processes of a mount by the installed version of the program, while the mount is in use.

Afterwards the mount is as it was, open files included, and newer code answers.  Touches the mount only when the new
server should answer.
"""

import os
import signal
from pathlib import Path

from imagefs.errors import MountError, describe
from imagefs.mount.holder import REPLACE_SIGNAL, STATE_FORMAT
from imagefs.mount.holder_process import has_ended, open_holder
from imagefs.mount.mountinfo import mount_at
from imagefs.mount.mountpoint import canonical, confirm_mounted
from imagefs.mount.unmount import recorded_mount

WAIT_S = 10.0
_PERIOD_S = 0.02


def remount(mountpoint: Path, *, store: Path) -> None:
    """Have the imagefs mount at *mountpoint* served by the program as it is installed where it was mounted from.

    *store* is where to look for the record of the mount if its source is not a store itself.

    Raises: MountError.
    """
    target = canonical(mountpoint)
    mounted = mount_at(target)
    if mounted is None or not mounted.is_imagefs:
        raise MountError(f"cannot remount {target}: imagefs is not mounted there")
    record = recorded_mount(mounted, store)
    if record is None:
        raise MountError(f"cannot remount {target}: no process is known that serves it; give its store with --store")
    if record.format != STATE_FORMAT:
        why = "the driver fusepy" if record.format == 0 else "the version that mounted it"
        raise MountError(f"cannot remount {target}: {why} cannot hand the mount over; unmount and mount it again")
    process = open_holder(record)
    try:
        before = _command_line(record.pid)
        try:
            signal.pidfd_send_signal(process, REPLACE_SIGNAL)
        except OSError as error:
            raise MountError(f"cannot remount {target}: process {record.pid}: {describe(error)}") from error
        # The command line of a holder counts its servers.  The record does so, too, but not on a read-only disk.
        for _ in range(round(WAIT_S / _PERIOD_S)):
            if has_ended(process, timeout_s=_PERIOD_S):
                raise MountError(f"remounting {target} failed, and it is unmounted now; see the log")
            if _command_line(record.pid) != before:
                confirm_mounted(target)
                return
    finally:
        os.close(process)
    raise MountError(f"remounting {target} takes longer than {WAIT_S:.0f} seconds; see the log")


def _command_line(pid: int) -> bytes:
    """Return the arguments of process *pid*, b"" where it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
