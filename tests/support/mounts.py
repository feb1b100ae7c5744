"""Real mounts for tests: made by the program, always unmounted again, and skipped only for a reason that is said."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.mount.mountinfo import mount_at
from tests.support.commands import imagefs

WAIT_S = 20.0
CHECKOUT = Path(__file__).parents[2]


def missing_for_fuse() -> str | None:
    """Return why no FUSE mount can be made here, None if it can."""
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    if os.geteuid() != 0:
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            return "/dev/fuse is not for ordinary users here"
        program = shutil.which("fusermount")
        if program is None:
            return "fusermount is not installed"
        if not Path(program).stat().st_mode & stat.S_ISUID:
            return f"{program} is not set-user-ID"
    probe = subprocess.run(
        [sys.executable, "-c", "from imagefs.mount.fusepy_driver import _library; _library()"],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        check=False,
    )
    return None if probe.returncode == 0 else probe.stderr.strip().splitlines()[-1]


_missing = missing_for_fuse()
needs_fuse = [pytest.mark.fuse, pytest.mark.skipif(_missing is not None, reason=_missing or "")]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for *condition*, and fail saying *what* did not happen."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"in {WAIT_S:.0f} seconds it did not happen that {what}"
        time.sleep(0.02)


def is_mounted(mountpoint: Path) -> bool:
    return mount_at(mountpoint.resolve()) is not None


def unmount_anyhow(mountpoint: Path) -> None:
    """Leave nothing mounted at *mountpoint*, whatever state it is in."""
    target = Path(os.path.realpath(mountpoint))
    while mount_at(target) is not None:
        command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount", "-u", "-z"]
        subprocess.run([*command, str(target)], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(store: Path, mountpoint: Path, *args: str | Path) -> Iterator[Path]:
    """Mount *store* at *mountpoint*, made if need be, with *args* after ``mount``; always unmount."""
    mountpoint.mkdir(exist_ok=True)
    try:
        imagefs("--store", store, "mount", *args, mountpoint)
        yield mountpoint
    finally:
        unmount_anyhow(mountpoint)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """Make a folder that every user can enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="imagefs-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for child in folder.iterdir():
            unmount_anyhow(child)
        shutil.rmtree(folder)


def is_alive(pid: int) -> bool:
    """Return whether process *pid* still runs; one that waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    """Return the process IDs of the children of process *pid*, those that wait to be reaped included."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
