"""A mount's processes replaced by the version of the program that is installed now, while it is in use.

Receives a mount point; hands on nothing: afterwards the mount is as it was, open files included, and answered by newer
code.  Touches the mount only when it answers again.
"""

import os
import time
from pathlib import Path

from imagefs.errors import MountError
from imagefs.mount.holder import REPLACE_SIGNAL, STATE_FORMAT
from imagefs.mount.mountinfo import mount_at
from imagefs.mount.mountpoint import canonical, confirm_mounted
from imagefs.mount.unmount import recorded_mount

WAIT_S = 10.0
_PERIOD_S = 0.02


def remount(mountpoint: Path, *, store: Path) -> None:
    """Have the imagefs mount at *mountpoint* served by the program as it is installed where it was mounted from.

    *store* is where to look for who holds the mount if its source is not a store itself.

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
    try:
        os.kill(record.pid, REPLACE_SIGNAL)
    except OSError as error:
        raise MountError(f"cannot remount {target}: process {record.pid}: {os.strerror(error.errno or 0)}") from error
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        now = recorded_mount(mounted, store)
        if now is None:
            raise MountError(f"remounting {target} failed, and it is unmounted now; see the log")
        if now.starts > record.starts:
            confirm_mounted(target)
            return
        time.sleep(_PERIOD_S)
    raise MountError(f"remounting {target} takes longer than {WAIT_S:.0f} seconds; see the log")
