"""Unmounts, and waits for the holder to exit.

Asks no mount for anything: a dead one does not answer.
"""

import errno
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from imagefs.errors import ImagefsError, MountError
from imagefs.mount import device
from imagefs.mount.holder_process import has_ended, open_holder
from imagefs.mount.mountinfo import Mount, mount_at
from imagefs.mount.mountpoint import canonical, fusermount

if TYPE_CHECKING:
    from imagefs.store.mounts import MountRecord

WAIT_S = 5.0
"""How long to wait for the serving process; it only has files to close."""

_MOST_HOLDERS = 5

_log = logging.getLogger(__name__)


def unmount(mountpoint: Path, *, store: Path, lazy: bool = False) -> None:
    """Unmount the imagefs mount at *mountpoint* and wait until its serving process has ended.

    With *lazy* the mount vanishes at once and its process ends with the last file held open; nobody waits for that.
    *store* is where to look for that process if the mount's source is not a store itself.

    Raises: MountError.
    """
    target = canonical(mountpoint)
    mounted = mount_at(target)
    if mounted is None:
        raise MountError(f"nothing is mounted at {target}")
    if not mounted.is_imagefs:
        raise MountError(f"the {mounted.fstype} mount at {target} is not one of imagefs; leave it to umount")
    process = None if lazy else _serving_process(mounted, store)
    try:
        _take_away(mounted, lazy=lazy)
        if process is not None and not has_ended(process, timeout_s=WAIT_S):
            _log.warning(
                "%s is unmounted here; the process that served it goes on for who still has it, such as an overlayfs"
                " or another mount namespace",
                target,
            )
    finally:
        if process is not None:
            os.close(process)


def _take_away(mounted: Mount, *, lazy: bool) -> None:
    if os.geteuid() == 0:
        try:
            device.unmount(mounted, lazy=lazy)
        except OSError as error:
            raise _refused(mounted, error.strerror or "", is_busy=error.errno == errno.EBUSY) from error
        return
    program = fusermount()
    if program is None:
        raise MountError("fusermount was not found; users other than root need it: on Debian install fuse3")
    done = subprocess.run(
        [program, "-u", *(["-z"] if lazy else []), "--", mounted.target],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"{program} failed with status {done.returncode}"
        raise _refused(mounted, reason, is_busy="busy" in reason)


def _refused(mounted: Mount, reason: str, *, is_busy: bool) -> MountError:
    if is_busy:
        reason = f"it is busy; {_held(Path(mounted.target))}end what uses it, or unmount it lazily with -l"
    return MountError(f"cannot unmount {mounted.target}: {reason}")


def recorded_mount(mounted: Mount, store: Path) -> "MountRecord | None":
    """Return what the store that *mounted* shows, or else *store*, knows of the processes behind it."""
    from imagefs.store import layout
    from imagefs.store.store import Store

    source = Path(mounted.source)
    try:
        with Store.open(source if layout.is_store(source) else store) as opened:
            return next((record for record in opened.live_mounts() if record.mountpoint == mounted.target), None)
    except (ImagefsError, OSError):
        return None


def _serving_process(mounted: Mount, store: Path) -> int | None:
    """Return a pidfd of the process that serves *mounted*, if it left a record in its store."""
    record = recorded_mount(mounted, store)
    try:
        return open_holder(record) if record is not None else None
    except MountError:
        return None  # to unmount does not depend on the wait


def _held(target: Path) -> str:
    """Return who keeps *target* busy, as far as this user may know, as the beginning of a sentence."""
    holders = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and any(Path(link).is_relative_to(target) for link in _links(process)):
            try:
                name = (process / "comm").read_text(errors="replace").strip()
            except OSError:
                continue
            holders.append(f"{name} (pid {process.name})")
    if not holders:
        return ""
    more = f" and {len(holders) - _MOST_HOLDERS} more" if len(holders) > _MOST_HOLDERS else ""
    return f"used by {', '.join(holders[:_MOST_HOLDERS])}{more}; "


def _links(process: Path) -> Iterator[str]:
    """Yield the paths that *process* holds: working folder, root, program, open files."""
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        descriptors = []
    for link in (process / "cwd", process / "root", process / "exe", *descriptors):
        try:
            yield str(link.readlink())
        except OSError:
            continue
