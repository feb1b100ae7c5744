"""mountinfo as kernels write it."""

from pathlib import Path

import pytest

from imagefs.mount import mountinfo
from imagefs.mount.mountinfo import Mount, MountIdentity, mount_at, mount_with, parse

TEXT = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
40 22 0:40 / /mnt/a\040b\134c\012d\011\043 ro,nosuid shared:5 master:1 - fuse.imagefs /st\040ore,x ro,user_id=0
41 22 0:41 / /mnt/x rw - autofs systemd-1 rw,fd=1
42 41 0:42 / /mnt/x ro,nodev - fuse.imagefs none ro
43 22 0:43 / /mnt/bytes rw - fuse m\377 rw
not a line at all
44 22 0:44 / /mnt/short rw - ext4
45 22 0:45 / /mnt/short rw - ext4 source
x 22 0:46 / /mnt/x rw - ext4 source rw
"""


def test_fields_are_found_whatever_optional_ones_come_between_and_escapes_are_undone() -> None:
    assert parse(TEXT)[1] == Mount(
        identity=MountIdentity(40, "0:40"),
        source="/st ore,x",
        target="/mnt/a b\\c\nd\t#",
        fstype="fuse.imagefs",
        options=("ro", "nosuid", "user_id=0"),
    )


def test_lines_of_an_unknown_form_are_left_out_and_bytes_survive() -> None:
    found = parse(TEXT)
    assert [mount.fstype for mount in found] == ["ext4", "fuse.imagefs", "autofs", "fuse.imagefs", "fuse"]
    assert found[-1].source == "m\udcff"


@pytest.mark.parametrize(
    ("fstype", "is_fuse", "is_imagefs"),
    [
        ("fuse.imagefs", True, True),
        ("fuse", True, False),
        ("fuseblk", True, False),
        ("fuse.sshfs", True, False),
        ("fusectl", False, False),
        ("ext4", False, False),
    ],
)
def test_kinds_are_told_apart(fstype: str, is_fuse: bool, is_imagefs: bool) -> None:
    mount = Mount(MountIdentity(1, "0:1"), "s", "/t", fstype, ())
    assert (mount.is_fuse, mount.is_imagefs) == (is_fuse, is_imagefs)


def test_of_several_mounts_at_one_place_the_last_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(TEXT)
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "mountinfo")
    found = mount_at(Path("/mnt/x"))
    assert found is not None
    assert found.is_imagefs
    assert mount_at(Path("/mnt")) is None
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "absent")
    assert mount_at(Path("/mnt/x")) is None


def test_the_kernel_reuses_a_mount_id_so_the_device_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(TEXT)
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "mountinfo")
    mount = mount_with(MountIdentity(42, "0:42"))
    assert mount is not None
    assert mount.target == "/mnt/x"
    assert mount_with(MountIdentity(42, "0:41")) is None
    assert mount_with(MountIdentity(41, "0:42")) is None
