"""Root mounts in a folder of another user: whatever that user swaps, the mount and its end stay where they belong."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imagefs.errors import MountError
from imagefs.mount import device
from imagefs.mount.mountinfo import Mount, MountIdentity, mount_at, mounts
from imagefs.mount.mountpoint import open_mountpoint, open_without_links
from imagefs.mount.options import MountOptions
from tests.support.commands import imagefs, run
from tests.support.mounts import is_mounted, needs_fuse, needs_root, unmount_anyhow

pytestmark = [*needs_fuse, needs_root]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder with another file system mounted on it, which nobody may detach or cover."""
    path = tmp_path / "victim"
    path.mkdir()
    run(["mount", "-t", "tmpfs", "victim", path])
    yield path
    for mount in mounts():
        if Path(mount.target).is_relative_to(path):
            unmount_anyhow(path)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """An empty folder below one whose owner is another user."""
    owned = tmp_path / "owned"
    (owned / "mnt").mkdir(parents=True)
    yield owned / "mnt"
    for mount in reversed(mounts()):
        if Path(mount.target).is_relative_to(tmp_path) and mount.is_imagefs:
            unmount_anyhow(Path(mount.target))


@contextlib.contextmanager
def opened_mountpoint(target: Path, tmp_path: Path) -> Iterator[int]:
    folder = open_mountpoint(target, store=tmp_path / "store", nonempty=False)
    try:
        yield folder
    finally:
        os.close(folder)


def mount_on(folder: int, target: Path) -> device.Mounted:
    return device.mount(folder, target, source="none", options=MountOptions())


def only_mount(folder: Path) -> Mount:
    mount = mount_at(folder)
    assert mount is not None
    assert mount.is_imagefs
    return mount


def test_a_folder_swapped_for_a_symlink_after_the_check_is_not_followed(
    target: Path, victim: Path, tmp_path: Path
) -> None:
    with opened_mountpoint(target, tmp_path) as folder:
        target.rename(target.with_name("moved"))
        target.symlink_to(victim)
        mounted = mount_on(folder, target)
    assert only_mount(target.with_name("moved")).identity == mounted.identity
    visible = mount_at(victim)
    assert visible is not None
    assert visible.fstype == "tmpfs"
    device.detach(mounted)
    assert not is_mounted(target.with_name("moved"))
    assert is_mounted(victim)
    os.close(mounted.device)


def test_symlinks_on_the_way_are_not_followed(target: Path, victim: Path, tmp_path: Path) -> None:
    (victim / "mnt").mkdir()
    target.parent.rename(tmp_path / "moved")
    target.parent.symlink_to(victim)
    with pytest.raises(MountError, match="cannot mount at"):
        open_mountpoint(target, store=tmp_path / "store", nonempty=False)
    with pytest.raises(NotADirectoryError):
        open_without_links(target)
    (tmp_path / "moved/mnt").rmdir()
    (tmp_path / "moved/mnt").symlink_to(victim)
    with pytest.raises(MountError, match="not a folder"):
        open_mountpoint(tmp_path / "moved/mnt", store=tmp_path / "store", nonempty=True)


def test_a_failed_mount_leaves_nothing(target: Path, tmp_path: Path) -> None:
    before = mounts()
    with opened_mountpoint(target, tmp_path) as folder:
        target.rmdir()
        descriptors = os.listdir("/proc/self/fd")
        with pytest.raises(MountError, match="failed: No such file"):
            mount_on(folder, target)
        assert os.listdir("/proc/self/fd") == descriptors
    assert mounts() == before


def test_another_mount_at_the_same_place_is_left_alone(target: Path, tmp_path: Path) -> None:
    with opened_mountpoint(target, tmp_path) as folder:
        first = mount_on(folder, target)
        device.unmount(only_mount(target), lazy=True)
        second = mount_on(folder, target)  # the kernel may give it the same identity
    for lazy in (False, True):
        with pytest.raises(FileNotFoundError):
            device.unmount(replace(only_mount(target), identity=MountIdentity(1, "0:1")), lazy=lazy)
    device.detach(first)
    assert only_mount(target).identity == second.identity
    os.close(first.device)
    os.close(second.device)


def test_a_mount_covered_by_another_is_detached_by_nobody_else(target: Path, victim: Path, tmp_path: Path) -> None:
    with opened_mountpoint(target, tmp_path) as folder:
        mounted = mount_on(folder, target)
    run(["mount", "--bind", victim, target])
    device.detach(mounted)  # what is on top has another identity, so nothing happens
    visible = mount_at(target)
    assert visible is not None
    assert visible.fstype == "tmpfs"
    run(["umount", target])
    assert only_mount(target).identity == mounted.identity
    os.close(mounted.device)


def test_the_end_of_a_mount_follows_its_folder(target: Path, tmp_path: Path) -> None:
    with opened_mountpoint(target, tmp_path) as folder:
        mounted = mount_on(folder, target)
    target.parent.rename(tmp_path / "moved")
    device.detach(mounted)
    assert not is_mounted(tmp_path / "moved/mnt")
    os.close(mounted.device)


def test_a_library_that_mounts_by_path_gets_no_path_that_others_can_change(target: Path, tmp_path: Path) -> None:
    os.chown(target.parent, 65534, 65534)
    store = tmp_path / "store"
    run(["mkdir", store])
    failed = imagefs("--store", store, "mount", "-o", "driver=fusepy", target, check=False)
    assert failed.returncode == 8
    assert "other users can change" in failed.stderr
    assert "driver=kernel" in failed.stderr
