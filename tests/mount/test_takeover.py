"""A signal goes only to the process that is proven to hold a mount, and a holder leaves no zombies."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import MountError
from imagefs.mount.remount import remount
from imagefs.store.mounts import MountRecord
from imagefs.store.store import Store
from tests.support.commands import imagefs
from tests.support.images import add_image
from tests.support.layers import file, layer
from tests.support.mounts import children, is_alive, is_mounted, needs_fuse, needs_root, unmount_anyhow, wait_until

pytestmark = needs_fuse

_WAITS = """
import signal, sys
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(9))
opened = [open(path, "rb") for path in sys.argv[1:]]
print("ready", flush=True)
sys.stdin.read()
"""


class Bystander:
    """A process of this user that holds no mount, has some files open, and exits with 9 on the signal of `remount`."""

    def __init__(self, *files: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WAITS, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def end(self) -> int:
        """Return its exit status."""
        with self.process:
            self.process.communicate(timeout=20)
        return self.process.returncode


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with Store.open(path, create=True) as opened:
        add_image(opened, [layer(file("one", b"1"))], "app:1")
    return path


@pytest.fixture
def held(store: Path, folder: Path) -> Iterator[Path]:
    imagefs("--store", store, "mount", "-o", "driver=kernel", folder)
    yield folder
    imagefs("--store", store, "umount", folder)


def record(store: Path) -> MountRecord:
    with Store.open(store) as opened:
        (found,) = opened.live_mounts()
        return found


def rewrite(store: Path, **changes: object) -> None:
    """Let the record of the only mount say something else."""
    (path,) = (store / "mounts").iterdir()
    with path.open("r+b") as file:
        content = json.dumps({**json.loads(file.read()), **changes}).encode()
        file.seek(0)
        file.write(content)
        file.truncate()


def test_a_dead_holder_is_told_at_once_and_nobody_else_gets_its_signal(store: Path, held: Path) -> None:
    holder = record(store).pid
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: not is_alive(holder), "the holder dies")
    assert (held / "app/1/one").read_bytes() == b"1"
    with pytest.raises(MountError, match="is dead"):
        remount(held, store=store)
    # The kernel gives the number to a process of the same user that happens to read the record.
    bystander = Bystander(record_path(store))
    rewrite(store, pid=bystander.process.pid)
    with pytest.raises(MountError, match="is dead"):
        remount(held, store=store)
    assert bystander.end() == 0


def record_path(store: Path) -> Path:
    (path,) = (store / "mounts").iterdir()
    return path


@needs_root
def test_a_record_names_only_processes_of_its_own_user(store: Path, held: Path) -> None:
    holder = record(store).pid
    os.chown(record_path(store), 65534, 65534)
    with pytest.raises(MountError, match="is dead"):
        remount(held, store=store)
    assert is_alive(holder)
    os.chown(record_path(store), 0, 0)
    remount(held, store=store)


def test_fifty_takeovers_leave_no_zombie(store: Path, held: Path) -> None:
    holder = record(store).pid
    for number in range(50):
        if number % 5 == 0:  # a tag that goes makes the server begin a helper
            with Store.open(store) as opened:
                add_image(opened, [layer(file("one", str(number).encode()))], "moves:1")
            wait_until(lambda: (held / "moves/1/one").exists(), "the tag is seen")
            wait_until(lambda: len(children(holder)) == 2, "a helper begins") if number else None
        remount(held, store=store)
    wait_until(lambda: all(map(is_alive, children(holder))), "all that ended was reaped")
    assert len(children(holder)) <= 2


def test_a_record_that_cannot_be_believed_is_no_reason_not_to_unmount(store: Path, folder: Path) -> None:
    imagefs("--store", store, "mount", "-o", "driver=kernel", folder)
    try:
        rewrite(store, pid=os.getpid())
        imagefs("--store", store, "umount", folder)
        assert not is_mounted(folder)
    finally:
        unmount_anyhow(folder)
