"""Mounting and unmounting as a user does it: the program, a kernel, and everything that can go wrong between them."""

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.mount.mountinfo import mount_at
from imagefs.mount.session import mount
from imagefs.store.mounts import MountRecord
from imagefs.store.removal import remove
from imagefs.store.store import Store
from tests.support.commands import imagefs
from tests.support.images import add_image, add_layer
from tests.support.layers import dir_, file, layer, link
from tests.support.mounts import (
    CHECKOUT,
    is_alive,
    is_mounted,
    mounted,
    needs_fuse,
    needs_root,
    public_folder,
    unmount_anyhow,
    wait_until,
)

pytestmark = [*needs_fuse, pytest.mark.usefixtures("driver")]

ONE = layer(
    dir_("etc"), file("etc/release", b"one\n"), file("secret", b"secret\n", mode=0o600), file("run", mode=0o4755)
)
TWO = layer(dir_("etc"), file("etc/release", b"two\n"))
BIG = layer(file("big", bytes(range(256)) * 8192))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with Store.open(path, create=True) as opened:
        add_image(opened, [ONE], "app:1")
        add_image(opened, [ONE, TWO], "app:2")
    return path


def records(store: Path) -> tuple[MountRecord, ...]:
    with Store.open(store) as opened:
        return opened.live_mounts()


def serving_pid(store: Path) -> int:
    (record,) = records(store)
    return record.pid


# ---- what a mount is ----


def test_a_mount_shows_images_and_unmounting_ends_its_process(store: Path, folder: Path) -> None:
    imagefs("--store", store, "mount", folder)
    assert sorted(os.listdir(folder / "app")) == ["1", "2"]
    assert (folder / "app/1/etc/release").read_text() == "one\n"
    assert (folder / "app/2/etc/release").read_text() == "two\n"
    pid = serving_pid(store)
    imagefs("--store", store, "umount", folder)
    assert not is_alive(pid)
    assert records(store) == ()
    assert os.listdir(folder) == []


def test_one_image_is_mounted_alone_and_recorded_as_in_use(store: Path, folder: Path) -> None:
    with mounted(store, folder, "app:2"):
        assert (folder / "etc/release").read_text() == "two\n"
        (record,) = records(store)
        assert (record.mountpoint, record.reference) == (str(folder), "app:2")
        with Store.open(store) as opened:
            assert record.image == opened.image("app:2").id


def test_mounts_are_safe_and_named_by_default(store: Path, folder: Path) -> None:
    with mounted(store, folder):
        found = mount_at(folder)
        assert found is not None
        assert (found.fstype, found.source) == ("fuse.imagefs", str(store))
        assert {"ro", "nosuid", "nodev"} <= set(found.options)
        assert not {"allow_other", "default_permissions"} & set(found.options)
        assert str(folder) in imagefs("mounts").stdout
        assert str(folder) in imagefs("mount").stdout  # as mount(8) and podman do
        listed = [json.loads(line) for line in imagefs("mounts", "--json").stdout.splitlines()]
        assert [one["source"] for one in listed if one["target"] == str(folder)] == [str(store)]


def test_strange_characters_in_the_paths_stay_what_they_are(store: Path, tmp_path: Path) -> None:
    strange = store.rename(tmp_path / "a, b\\c\td\xff\n")
    with mounted(strange, tmp_path / 'm, "n\\o\tp\u00e9\n'):
        found = mount_at(tmp_path / 'm, "n\\o\tp\u00e9\n')
        assert found is not None
        assert found.source == str(strange)


def test_nothing_can_be_written(store: Path, folder: Path) -> None:
    with mounted(store, folder):
        for change in (
            lambda: (folder / "new").touch(),
            lambda: (folder / "app/1/etc/release").write_text("changed"),
            lambda: (folder / "app/1/etc/release").unlink(),
            lambda: (folder / "app/1").rename(folder / "app/3"),
            lambda: os.utime(folder / "app/1"),
            lambda: os.setxattr(folder / "app/1", b"user.x", b""),
        ):
            with pytest.raises(OSError) as caught:
                change()
            assert caught.value.errno == errno.EROFS


def test_owners_and_permissions_are_shown_as_asked(store: Path, folder: Path) -> None:
    with mounted(store, folder, "-o", "uid=1234,gid=2345,umask=027", "app:1"):
        shown = (folder / "run").stat()
        assert (shown.st_uid, shown.st_gid, stat.S_IMODE(shown.st_mode)) == (1234, 2345, 0o4750)


# ---- a living store ----


def test_images_come_move_and_go_in_a_live_mount(store: Path, folder: Path) -> None:
    with mounted(store, folder), Store.open(store) as opened:
        with pytest.raises(FileNotFoundError):
            (folder / "other/1").stat()
        add_image(opened, [TWO], "other:1")
        wait_until((folder / "other/1/etc/release").exists, "a new image is seen")
        with (folder / "app/1/etc/release").open() as before:
            add_image(opened, [TWO], "app:1", label="moved")
            wait_until(lambda: (folder / "app/1/etc/release").read_text() == "two\n", "a moved tag is seen")
            assert before.read() == "one\n"
        assert not (folder / "app/1/secret").exists()
        remove(opened, "app:2")
        wait_until(lambda: not (folder / "app/2").exists(), "a removed image is gone")


def test_an_open_file_stays_readable_after_its_image_is_removed(store: Path, folder: Path) -> None:
    with Store.open(store) as opened, mounted(store, folder):
        add_image(opened, [BIG], "big:1")
        wait_until((folder / "big/1/big").exists, "the new image is seen")
        with (folder / "big/1/big").open("rb", buffering=0) as held:
            assert held.read(10) == bytes(range(10))
            remove(opened, "big:1")
            wait_until(lambda: not (folder / "big/1").exists(), "the removed image is gone")
            assert held.read() == (bytes(range(256)) * 8192)[10:]


def test_damage_is_an_input_output_error_and_is_logged(store: Path, folder: Path, tmp_path: Path) -> None:
    with Store.open(store) as opened:
        add_image(opened, [BIG], "big:1")
        path = opened.layer_path(add_layer(opened, BIG))
    path.chmod(0o600)
    os.truncate(path, 100_000)
    log = tmp_path / "log"
    with mounted(store, folder, "--log-file", log):
        with pytest.raises(OSError) as caught:
            (folder / "big/1/big").read_bytes()
        assert caught.value.errno == errno.EIO
        assert "damaged" in log.read_text()
        assert (folder / "app/1/etc/release").read_text() == "one\n"


# ---- refusals ----


def test_a_mended_layer_reaches_a_live_mount(store: Path, folder: Path, driver: str) -> None:
    other = BIG.replace(bytes(range(64)), bytes(64))
    with Store.open(store) as opened:
        whole = add_image(opened, [BIG], "mended:1")
        # Directories beside a second layer make a node of its own of the same file.
        add_image(opened, [BIG, layer(link("hard", "big"))], "mended:2")
        path = opened.layer_path(whole.diff_ids[0])
    good = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(other)
    with mounted(store, folder), (folder / "mended/1/big").open("rb", buffering=0) as reading:
        files = [folder / "mended" / name for name in ("1/big", "2/big", "2/hard")]
        for name in files:
            assert name.read_bytes() == bytes(range(256)).replace(bytes(range(64)), bytes(64)) * 8192
        assert os.pread(reading.fileno(), 64, 0) == bytes(64)
        mended = path.with_name("mended")
        mended.write_bytes(good)
        mended.replace(path)
        for name in files:
            wait_until(lambda name=name: name.read_bytes() == bytes(range(256)) * 8192, "the mended content is shown")  # type: ignore[misc]
        if driver == "kernel":  # with libfuse, what is open stays as it was opened
            assert os.pread(reading.fileno(), 64, 0) == bytes(range(64))


def test_failure_to_start_is_told_and_leaves_nothing(store: Path, folder: Path) -> None:
    failed = imagefs("--store", store, "mount", "nosuch:1", folder, check=False)
    assert (failed.returncode, failed.stdout) == (7, "")
    assert "no such image: nosuch:1" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert not is_mounted(folder)
    assert records(store) == ()


def test_a_missing_store_is_told(tmp_path: Path, folder: Path) -> None:
    failed = imagefs("--store", tmp_path / "nowhere", "mount", folder, check=False)
    assert failed.returncode == 7
    assert "imagefs pull" in failed.stderr


def test_a_missing_libfuse_is_told_with_what_to_install(store: Path, folder: Path) -> None:
    env = {"FUSE_LIBRARY_PATH": "/nonexistent/libfuse.so"}
    failed = imagefs("--store", store, "mount", "-o", "driver=fusepy", folder, env=env, check=False)
    assert failed.returncode == 8
    assert "libfuse2" in failed.stderr


@needs_root
def test_what_the_system_says_of_a_failure_reaches_the_caller(store: Path, folder: Path, driver: str) -> None:
    without_privilege = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    failed = subprocess.run(
        [
            *without_privilege,
            sys.executable,
            "-m",
            "imagefs",
            "--store",
            store,
            "mount",
            "-o",
            f"driver={driver}",
            folder,
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 8
    assert "failed: Operation not permitted" in failed.stderr
    assert not is_mounted(folder)


def test_unfit_mountpoints_are_refused_with_the_way_out(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter").touch()
    (tmp_path / "link-to-store").symlink_to(store)
    for mountpoint, said in {
        "missing": "mkdir",
        "file": "not a folder",
        "full": "letter",
        ".": "would hide the store",
        "store": "inside the store",
        "store/mounts": "inside the store",
        "link-to-store/mounts": "inside the store",
    }.items():
        failed = imagefs("--store", store, "mount", tmp_path / mountpoint, check=False)
        assert failed.returncode == 8
        assert said in failed.stderr
    with mounted(store, tmp_path / "full", "-o", "nonempty"):
        assert os.listdir(tmp_path / "full") == ["app"]


def test_mounting_twice_is_refused(store: Path, folder: Path) -> None:
    with mounted(store, folder):
        failed = imagefs("--store", store, "mount", folder, check=False)
        assert failed.returncode == 8
        assert "already mounted" in failed.stderr


@pytest.mark.parametrize("options", ["rw", "remount,ro", "driver=other", "image=app:1"])
def test_options_that_cannot_be_meant_are_refused(store: Path, folder: Path, options: str) -> None:
    failed = imagefs("--store", store, "mount", "-o", options, "app:2", folder, check=False)
    assert failed.returncode == 2
    assert not is_mounted(folder)


# ---- the serving process ----


def test_the_caller_need_not_wait_for_files_it_passed_on(store: Path, folder: Path) -> None:
    reading, writing = os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-m", "imagefs", "--store", str(store), "mount", str(folder)],
            pass_fds=[writing],
            cwd=CHECKOUT,
            check=True,
        )
        os.close(writing)
        assert os.read(reading, 1) == b"", "the serving process holds the caller's pipe open"
    finally:
        os.close(reading)
    process = Path(f"/proc/{serving_pid(store)}")
    assert (process / "cwd").readlink() == Path("/")
    assert {(process / "fd" / number).readlink() for number in "012"} == {Path(os.devnull)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts(store: Path, folder: Path, number: signal.Signals) -> None:
    imagefs("--store", store, "mount", folder)
    pid = serving_pid(store)
    os.kill(pid, number)
    wait_until(lambda: not is_alive(pid), "the serving process ends")
    assert not is_mounted(folder)
    assert records(store) == ()


def test_after_a_sudden_death_the_next_mount_says_what_to_do(store: Path, folder: Path) -> None:
    imagefs("--store", store, "mount", folder)
    (record,) = records(store)
    for pid in (record.pid, record.server):  # the one that holds the mount first, or it would begin another
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not is_alive(pid), "the process dies")  # type: ignore[misc]
    wait_until(lambda: records(store) == (), "its record dies with its last thread")
    failed = imagefs("--store", store, "mount", folder, check=False)
    assert failed.returncode == 8
    assert "has died" in failed.stderr
    assert f"umount {folder}" in failed.stderr or f"-u {folder}" in failed.stderr
    imagefs("--store", store, "umount", folder)
    with mounted(store, folder):
        assert os.listdir(folder) == ["app"]


def test_in_the_foreground_it_serves_until_unmounted(store: Path, folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "imagefs", "--store", store, "mount", "-f", folder], cwd=CHECKOUT
    ) as run:
        wait_until(lambda: is_mounted(folder), "it is mounted")
        assert os.listdir(folder) == ["app"]
        imagefs("--store", store, "umount", folder)
        assert run.wait(20) == 0


def test_the_python_function_mounts_too(store: Path, folder: Path) -> None:
    mount(store, folder, reference="app:1")
    try:
        assert (folder / "etc/release").read_text() == "one\n"
    finally:
        unmount_anyhow(folder)


# ---- unmounting ----


def test_a_busy_mount_names_who_uses_it_and_goes_lazily(store: Path, folder: Path) -> None:
    imagefs("--store", store, "mount", folder)
    pid = serving_pid(store)
    with (folder / "app/1/etc/release").open() as held:
        failed = imagefs("--store", store, "umount", folder, check=False)
        assert failed.returncode == 8
        assert f"(pid {os.getpid()})" in failed.stderr
        assert "-l" in failed.stderr
        imagefs("--store", store, "umount", "-l", folder)
        assert not is_mounted(folder)
        assert held.read() == "one\n"
    wait_until(lambda: not is_alive(pid), "the serving process ends with the last open file")


def test_only_imagefs_mounts_are_unmounted(store: Path, folder: Path) -> None:
    for target, said in ((folder, "nothing is mounted"), (Path("/proc"), "not one of imagefs")):
        failed = imagefs("--store", store, "umount", target, check=False)
        assert failed.returncode == 8
        assert said in failed.stderr


# ---- other users ----


def as_nobody(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_root
def test_other_users_get_in_only_when_asked_and_then_as_far_as_permissions_allow(store: Path) -> None:
    with public_folder() as shared:
        with mounted(store, shared / "private", "app:1"):
            assert "Permission denied" in as_nobody("ls", shared / "private").stderr
        with mounted(store, shared / "open", "-o", "allow_other", "app:1"):
            assert as_nobody("cat", shared / "open/etc/release").stdout == "one\n"
            assert "Permission denied" in as_nobody("cat", shared / "open/secret").stderr


_AS_USER = """
set -eu
[ -z "$DEVICE" ] || mount --bind "$DEVICE" /dev/fuse
# The capability lets the user read the interpreter and the checkout, wherever they are.
exec setpriv --reuid nobody --regid nogroup --clear-groups \\
    --inh-caps +dac_read_search --ambient-caps +dac_read_search sh -eu -c "$1"
"""


@needs_root
def test_an_ordinary_user_mounts_and_unmounts(store: Path, driver: str) -> None:
    with public_folder() as shared:
        subprocess.run(["cp", "-r", str(store), str(shared / "store")], check=True)
        (shared / "mnt").mkdir()
        subprocess.run(["chown", "-R", "nobody:nogroup", str(shared)], check=True)
        device = ""
        if Path("/dev/fuse").stat().st_mode & 0o006 != 0o006:
            device = str(shared / "fuse")
            os.mknod(device, stat.S_IFCHR | 0o666, Path("/dev/fuse").stat().st_rdev)
            Path(device).chmod(0o666)
        script = """
            ! "$PYTHON" -m imagefs mount -o allow_other mnt-missing
            grep -q '^user_allow_other' /etc/fuse.conf || ! "$PYTHON" -m imagefs mount -o allow_other "$MNT"
            ! "$PYTHON" -m imagefs mount -o suid "$MNT"
            "$PYTHON" -m imagefs mount -o "driver=$DRIVER" "$MNT"
            cat "$MNT/app/2/etc/release"
            "$PYTHON" -m imagefs mounts
            "$PYTHON" -m imagefs umount "$MNT"
            ls "$MNT"
            "$PYTHON" -m imagefs mounts
        """
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", _AS_USER, "sh", script],
            env={
                "PATH": os.environ["PATH"],
                "DEVICE": device,
                "PYTHON": sys.executable,
                "MNT": str(shared / "mnt"),
                "DRIVER": driver,
                "IMAGEFS_STORE": str(shared / "store"),
            },
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("two\nSOURCE")
        # The table names every mount of this machine, whoever made it: only ours is asked after.
        before, after = done.stdout.split("SOURCE")[1:]
        assert f" {shared / 'mnt'} " in before
        assert f" {shared / 'mnt'} " not in after
        if not any(line.startswith("user_allow_other") for line in Path("/etc/fuse.conf").read_text().splitlines()):
            assert "user_allow_other" in done.stderr
        assert "only root" in done.stderr


# ---- what gets lost on the way through a FUSE library ----


@pytest.fixture
def curiosities(folder: Path) -> Iterator[Path]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_filesystem", folder, "uid=0"],
        cwd=CHECKOUT,
        stderr=subprocess.DEVNULL,
    ) as serving:
        wait_until(lambda: is_mounted(folder), "it is mounted")
        yield folder
        unmount_anyhow(folder)
        assert serving.wait(20) == 0


@needs_root
def test_nothing_is_lost_between_the_view_and_stat(curiosities: Path) -> None:
    plain = (curiosities / "plain").stat()
    assert plain.st_mtime_ns == plain.st_ctime_ns == plain.st_atime_ns == 1_700_000_000_123_456_789
    assert plain.st_ino > 1 << 40
    assert (curiosities / "old").stat().st_mtime_ns == -1_500_000_000
    assert (curiosities / "late").stat().st_mtime_ns == (1 << 33) * 10**9 + 1
    assert (curiosities / "foreign").stat().st_gid == 4_000_000_001
    assert stat.S_IMODE((curiosities / "setuid").stat().st_mode) == 0o6755
    assert (curiosities / "device").stat().st_rdev == os.makedev(259, 70_000)
    assert stat.S_ISFIFO((curiosities / "fifo").stat().st_mode)
    assert os.fsencode((curiosities / "link").readlink()) == b"/absolute/\xff"
    assert (curiosities / "big").stat().st_blocks == 2048
    assert (curiosities / "big").read_bytes() == bytes(range(256)) * 4096


@needs_root
def test_names_are_bytes_and_listings_complete(curiosities: Path) -> None:
    names = os.listdir(os.fsencode(curiosities))
    assert {b"not-utf8-\xff\xfe", b"line\nbreak", b"broken"} <= set(names)
    assert len(os.listdir(curiosities / "folder")) == 3000
    assert (curiosities / os.fsdecode(b"not-utf8-\xff\xfe")).read_bytes() == b"bytes"
    with os.scandir(curiosities) as entries:
        for entry in entries:
            if not entry.is_dir():
                assert entry.inode() == entry.stat(follow_symlinks=False).st_ino


@needs_root
def test_extended_attributes_arrive_whole_and_absent_ones_are_told(curiosities: Path) -> None:
    path = os.fsencode(curiosities / "attributed")
    assert {os.fsencode(name) for name in os.listxattr(path)} == {b"user.empty", b"user.bytes", b"user.\xff"}
    assert os.getxattr(path, b"user.empty") == b""
    assert os.getxattr(path, b"user.bytes") == b"\x00\xff"
    with pytest.raises(OSError) as caught:
        os.getxattr(path, b"user.none")
    assert caught.value.errno == errno.ENODATA


@needs_root
def test_what_fails_unforeseen_is_an_input_output_error_and_the_mount_lives_on(curiosities: Path) -> None:
    with pytest.raises(OSError) as caught:
        (curiosities / "broken").read_bytes()
    assert caught.value.errno == errno.EIO
    assert (curiosities / "plain").read_text() == "hello\n"
