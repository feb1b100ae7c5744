"""A mount goes on where the disk of its store fails."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.store.mounts import MountRecord
from imagefs.store.store import Store
from tests.support.commands import DRIVER_VARIABLE, imagefs, needs, run
from tests.support.images import add_image
from tests.support.layers import file, layer
from tests.support.mounts import children, is_alive, is_mounted, needs_fuse, needs_root, wait_until
from tests.support.status import status

pytestmark = [*needs_fuse, needs_root, needs("mkfs.ext4")]

_DISK_BYTES = 8 << 20


class Disk:
    """An ext4 file system that turns read-only at its first error."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        image = folder / "disk.img"
        with image.open("wb") as content:
            content.truncate(_DISK_BYTES)
        run(["mkfs.ext4", "-q", image])
        run(["mount", "-o", "loop,errors=remount-ro", image, self.path])
        self._device = Path(run(["findmnt", "-no", "SOURCE", self.path]).stdout.strip()).name

    def fail(self) -> None:
        """Have an error turn the disk read-only."""
        Path(f"/sys/fs/ext4/{self._device}/trigger_fs_error").write_text("test")
        with pytest.raises(OSError, match="Read-only"):
            (self.path / "written").touch()

    def close(self) -> None:
        run(["umount", "-l", self.path])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.close()


@pytest.fixture
def store(disk: Disk) -> Path:
    path = disk.path / "store"
    with Store.open(path, create=True) as opened:
        add_image(opened, [layer(file("one", b"1"))], "app:1")
        add_image(opened, [layer(file("two", b"2"))], "app:2")
    return path


def record(store: Path) -> MountRecord:
    with Store.open(store) as opened:
        (found,) = opened.live_mounts()
        return found


def servers(holder: int) -> list[int]:
    """Return the children of *holder* that handle the signal of a takeover, as no helper does."""
    bit = 1 << (signal.SIGUSR2 - 1)
    found = []
    for pid in children(holder):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [pid] if int(status(pid).get("SigCgt", "0"), 16) & bit else []
    return found


def test_ten_deaths_and_a_takeover_after_the_disk_turned_read_only(
    disk: Disk, store: Path, folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    imagefs("--store", store, "mount", "-o", "driver=kernel", "--log-file", log, folder)
    first = record(store)
    disk.fail()
    for number in range(10):
        wait_until(lambda: len(servers(first.pid)) == 1, "its helpers have begun")
        (server,) = servers(first.pid)
        os.kill(server, signal.SIGKILL)
        assert (folder / f"app/{1 + number % 2}").is_dir()
        wait_until(lambda before=server: servers(first.pid) not in ([], [before]), "another takes over")  # type: ignore[misc]
    imagefs("--store", store, "remount", folder)
    assert (folder / "app/1/one").read_bytes() == b"1"
    assert is_alive(first.pid)
    imagefs("--store", store, "umount", folder)
    wait_until(lambda: not is_alive(first.pid), "its holder ends")
    text = log.read_text()
    assert "cannot be written: Read-only file system" in text
    assert "cannot be removed: Read-only file system" in text
    assert "Traceback" not in text


def test_a_mount_ends_without_a_traceback_after_the_disk_turned_read_only(
    disk: Disk, store: Path, folder: Path, tmp_path: Path, driver: str
) -> None:
    assert os.environ[DRIVER_VARIABLE] == driver
    log = tmp_path / "log"
    imagefs("--store", store, "mount", "--log-file", log, folder)
    holder = record(store).pid
    disk.fail()
    assert (folder / "app/2/two").read_bytes() == b"2"
    imagefs("--store", store, "umount", folder)
    wait_until(lambda: not is_alive(holder), "its process ends")
    assert not is_mounted(folder)
    assert "cannot be removed: Read-only file system" in log.read_text()
    assert "Traceback" not in log.read_text()
