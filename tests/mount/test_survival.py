"""A mount outlives the process that serves it, and images what removes them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.store.mounts import MountRecord
from imagefs.store.removal import remove
from imagefs.store.store import Store
from tests.support.commands import imagefs
from tests.support.images import add_image
from tests.support.layers import Member, dir_, file, layer, symlink, whiteout
from tests.support.mounts import (
    CHECKOUT,
    children,
    is_alive,
    is_mounted,
    mounted,
    needs_fuse,
    unmount_anyhow,
    wait_until,
)
from tests.support.snapshot import snapshot

pytestmark = needs_fuse

CONTENT = bytes(range(256)) * 4096  # a megabyte, so that it is not read at once


def many(count: int, size: int) -> list[Member]:
    folders = [dir_(f"d{number}") for number in range(count // 20)]
    return folders + [
        file(f"d{number % len(folders)}/f{number}", str(number).encode() * size, mtime_ns=number)
        for number in range(count)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with Store.open(path, create=True) as opened:
        add_image(opened, [layer(*many(1000, 700)), layer(file("big", CONTENT), symlink("l", "big"))], "app:1")
    return path


def record(store: Path) -> MountRecord:
    with Store.open(store) as opened:
        (found,) = opened.live_mounts()
        return found


def drop_caches() -> None:
    if os.geteuid() == 0:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")


def kill_server(store: Path) -> None:
    """Kill the process that answers, and wait until another has taken over."""
    before = record(store)
    os.kill(before.server, signal.SIGKILL)
    wait_until(lambda: record(store).starts > before.starts, "another process takes over")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def held(store: Path, folder: Path, log: Path) -> Iterator[Path]:
    """The mount of `store` with the kernel driver; in the end it unmounts cleanly and no process is left."""
    imagefs("--store", store, "mount", "-o", "driver=kernel", "--log-file", log, folder)
    first = record(store)
    yield folder
    processes = [first.pid, record(store).server, *children(first.pid)]
    imagefs("--store", store, "umount", folder)
    for pid in processes:
        wait_until(lambda pid=pid: not is_alive(pid), "its processes end")  # type: ignore[misc]
    with Store.open(store) as opened:
        assert opened.live_mounts() == ()


# ---- who serves dies ----


def test_fifty_deaths_while_tar_reads_change_nothing(store: Path, held: Path) -> None:
    expected = subprocess.run(["tar", "-cf", "-", "-C", held / "app/1", "."], capture_output=True, check=True).stdout
    deaths = 0
    while deaths < 50:
        drop_caches()
        reading = subprocess.Popen(["tar", "-cf", "-", "-C", held / "app/1", "."], stdout=subprocess.PIPE)
        with reading:
            assert reading.stdout is not None
            got = [reading.stdout.read(64 * 1024)]
            for _ in range(8):
                kill_server(store)
                deaths += 1
                got.append(reading.stdout.read(96 * 1024))
            got.append(reading.stdout.read())
        assert reading.returncode == 0
        assert b"".join(got) == expected


def test_files_stay_open_and_directories_current(store: Path, held: Path) -> None:
    with (held / "app/1/big").open("rb", buffering=0) as opened, os.scandir(held / "app/1/d3") as listing:
        assert opened.read(1000) == CONTENT[:1000]
        names = {next(listing).name}
        here = os.open(held / "app/1/d4", os.O_RDONLY)
        before = snapshot(held / "app/1")
        kill_server(store)
        drop_caches()
        assert opened.read() == CONTENT[1000:]
        names |= {entry.name for entry in listing}
        assert len(names) == 20
        assert os.stat("f4", dir_fd=here).st_mtime_ns == 4
        os.close(here)
        assert snapshot(held / "app/1") == before


def test_a_layer_by_itself_stays_what_it_is_after_a_death(store: Path, held: Path) -> None:
    with Store.open(store) as opened:
        image = add_image(opened, [layer(dir_("d"), file("d/x", b"x")), layer(whiteout("d/x"))], "hidden:1")
    top = held / ".imagefs/layers" / image.diff_ids[1].hex
    assert os.listdir(top / "d") == [".wh.x"]
    here = os.open(top / "d", os.O_RDONLY)
    kill_server(store)
    drop_caches()
    assert os.stat(".wh.x", dir_fd=here).st_size == 0
    os.close(here)
    assert os.listdir(top / "d") == [".wh.x"]
    assert os.listdir(held / "hidden/1/d") == []


def test_names_are_live_after_a_death_too(store: Path, held: Path) -> None:
    kill_server(store)
    with Store.open(store) as opened:
        add_image(opened, [layer(file("x", b"new"))], "other:1")
        wait_until((held / "other/1/x").exists, "a new image is seen")
        kill_server(store)
        add_image(opened, [layer(file("x", b"newer"))], "other:1", label="moved")
        wait_until(lambda: (held / "other/1/x").read_bytes() == b"newer", "a moved tag is seen")


def test_a_mount_goes_on_without_its_holder(store: Path, held: Path) -> None:
    found = record(store)
    assert (held / "app/1/l").readlink() == Path("big")
    os.kill(found.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(found.pid), "the holder dies")
    drop_caches()
    assert (held / "app/1/big").read_bytes() == CONTENT
    assert record(store).server == found.server


_DIES_OF_A_NAME = """
import os, sys
from imagefs.mount import kernel
lookup = kernel.Server._lookup
def dies(self, unique, node, raw):
    if b"deadly" in bytes(raw):
        os.abort()
    return lookup(self, unique, node, raw)
kernel.Server._lookup = dies
from imagefs.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_who_would_only_die_again_is_not_started_for_ever(store: Path, folder: Path, log: Path) -> None:
    mount: list[str | Path] = ["mount", "-o", "driver=kernel", "--log-file", log, folder]
    subprocess.run([sys.executable, "-c", _DIES_OF_A_NAME, "--store", store, *mount], cwd=CHECKOUT, check=True)
    try:
        holder = record(store).pid
        assert (folder / "app/1/big").stat().st_size == len(CONTENT)
        with pytest.raises(OSError, match=r"Transport endpoint|Software caused|Input/output|not connected"):
            (folder / "app/1/deadly").stat()
        wait_until(lambda: not is_alive(holder), "the holder gives up")
        assert not is_mounted(folder)
        assert "die again and again" in log.read_text().splitlines()[-1]
    finally:
        unmount_anyhow(folder)


# ---- who serves is replaced ----


def test_the_installed_version_takes_over_while_files_are_open(store: Path, held: Path) -> None:
    before = record(store)
    with (held / "app/1/big").open("rb", buffering=0) as opened:
        assert opened.read(1000) == CONTENT[:1000]
        imagefs("--store", store, "remount", held)
        after = record(store)
        assert (after.pid, after.starts) == (before.pid, before.starts + 1)
        assert not is_alive(before.server)
        assert b"resume" in Path(f"/proc/{after.pid}/cmdline").read_bytes()
        drop_caches()
        assert opened.read() == CONTENT[1000:]
    kill_server(store)
    imagefs("--store", store, "remount", held)
    assert len(os.listdir(held / "app/1/d1")) == 20


def test_what_cannot_be_taken_over_is_told(store: Path, held: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    failed = imagefs("--store", store, "remount", tmp_path / "nothing", held, check=False)
    assert failed.returncode == 8
    assert "not mounted there" in failed.stderr
    assert record(store).starts == 2
    with mounted(store, tmp_path / "portable", "-o", "driver=fusepy"):
        failed = imagefs("--store", store, "remount", tmp_path / "portable", check=False)
        assert failed.returncode == 8
        assert "unmount and mount it again" in failed.stderr
    wait_until(lambda: len(list((store / "mounts").iterdir())) == 1, "the process of the other mount ends")
    path = record_path(store)
    said = json.loads(path.read_text())
    path.chmod(0o600)
    path.write_text(json.dumps({**said, "format": 999}))
    failed = imagefs("--store", store, "remount", held, check=False)
    assert failed.returncode == 8
    assert "another" not in failed.stderr
    assert "unmount and mount it again" in failed.stderr


def record_path(store: Path) -> Path:
    (path,) = (store / "mounts").iterdir()
    return path


# ---- images are removed ----


def holds(pid: int, path: Path) -> bool:
    links = [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
    return any(str(link).startswith(str(path)) for link in links)


@pytest.mark.parametrize("disturb", [lambda _: None, kill_server])
def test_a_removed_image_stays_while_it_is_used_and_then_frees_its_space(
    store: Path, held: Path, disturb: Callable[[Path], None]
) -> None:
    with Store.open(store) as opened:
        image = add_image(opened, [layer(file("etc/one", b"1"), file("etc/data", CONTENT))], "gone:1")
        path = opened.layer_path(image.diff_ids[0])
        wait_until((held / "gone/1/etc").exists, "the image is seen")
        assert (held / "gone/1/etc/one").read_bytes() == b"1"
        with (held / "gone/1/etc/data").open("rb", buffering=0) as reading:
            remove(opened, "gone:1")
            disturb(store)
            wait_until(lambda: not (held / "gone/1").exists(), "the removed image is gone")
            time.sleep(1.5)
            drop_caches()
            assert reading.read() == CONTENT
            assert holds(record(store).server, path)
        wait_until(lambda: not holds(record(store).server, path), "its file is given up")
        wait_until(
            lambda: not any(holds(pid, path) for pid in (record(store).pid, *children(record(store).pid))),
            "by all processes of the mount",
        )
        assert snapshot(held / "app/1")


def test_nothing_is_asked_of_the_disk_or_the_processor_when_nobody_looks(store: Path, held: Path) -> None:
    assert len(os.listdir(held / "app/1")) > 10
    time.sleep(1)

    def ticks() -> int:
        fields = [
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            for pid in (record(store).pid, record(store).server)
        ]
        return sum(int(field[11]) + int(field[12]) for field in fields)

    before = ticks()
    time.sleep(2)
    assert ticks() - before <= 1
