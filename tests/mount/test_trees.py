"""Real mounts, judged by real tools: what the mount shows is what `umoci unpack` leaves on disk."""

import errno
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import imagefs, needs, run, umoci_unpack
from tests.support.data import data_dir
from tests.support.mounts import mounted, needs_fuse
from tests.support.nasty import nasty_layout
from tests.support.snapshot import differences, snapshot

pytestmark = [*needs_fuse, pytest.mark.usefixtures("driver"), pytest.mark.tools, needs("umoci")]
SHOWS_WITHIN_S = 2.0  # a second is promised; another is for a busy machine


@dataclass(frozen=True)
class Mounted:
    """A store with images, where it is mounted, and where each image was unpacked by umoci."""

    store: Path
    top: Path
    unpacked: dict[str, Path]  # by path below the mount


@pytest.fixture(scope="module")
def everything(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    folder = tmp_path_factory.mktemp("trees")
    layouts = {"nasty": (nasty_layout(folder / "nasty"), ["1", "2"])}
    if data := data_dir():
        layouts["alpine"] = (data / "images" / "alpine", ["3.18", "3.20"])
        layouts["small"] = (data / "images" / "small", ["base", "v1", "v2"])
    unpacked = {}
    for name, (layout, tags) in layouts.items():
        imagefs("--store", folder / "store", "load", layout)
        for tag in tags:
            unpacked[f"{name}/{tag}"] = umoci_unpack(layout, tag, folder / f"{name}-{tag}")
    with mounted(folder / "store", folder / "mnt"):
        yield Mounted(folder / "store", folder / "mnt", unpacked)


def test_every_tree_equals_what_umoci_unpacks(everything: Mounted) -> None:
    for name, root in everything.unpacked.items():
        assert differences(snapshot(everything.top / name), snapshot(root)) == [], name


def test_diff_r_prints_the_same_as_on_unpacked_trees(everything: Mounted) -> None:
    pairs = [
        ("nasty/1", "nasty/2"),
        ("nasty/2", "nasty/1"),
        ("alpine/3.18", "alpine/3.20"),
        ("alpine/3.20", "alpine/3.18"),
        ("small/base", "small/v1"),
        ("small/base", "small/v2"),
        ("small/v1", "small/v2"),
        ("small/v2", "small/base"),
        ("small/v2", "small/v1"),
        ("nasty/1", "small/v2"),
        ("small/v2", "alpine/3.20"),
    ]
    for one, other in pairs:
        if not {one, other} <= everything.unpacked.keys():
            continue
        shown = run(["diff", "-r", "--no-dereference", everything.top / one, everything.top / other], check=False)
        unpacked = [everything.unpacked[name] for name in (one, other)]
        expected = run(["diff", "-r", "--no-dereference", *unpacked], check=False)
        # Equal devices and fifos are one file here.  Unpacked, GNU diff takes devices for one file only if their
        # ctimes, the times of unpacking, fall together, and fifos never.
        text = re.sub(r"File .* is a (fifo|\w+ special file) while file .* is a \1\n", "", expected.stdout)
        for name in (one, other):
            text = text.replace(str(everything.unpacked[name]), str(everything.top / name))
        assert shown.stdout == text, (one, other)
        assert shown.returncode == expected.returncode == 1


def test_the_mount_is_read_only_nosuid_nodev(everything: Mounted) -> None:
    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(everything.top) in line)
    options, kind = line.split()[5], line.split(" - ")[1].split()[0]
    assert {"ro", "nosuid", "nodev"} <= set(options.split(","))
    assert kind == "fuse.imagefs"
    with pytest.raises(OSError, match="Read-only"):
        (everything.top / "nasty/1/new").write_text("x")


def test_find_meets_every_image_once(everything: Mounted) -> None:
    found = run(["find", everything.top, "-maxdepth", "1", "-mindepth", "1", "-printf", "%f\n"]).stdout.split()
    assert sorted(found) == sorted({name.split("/")[0] for name in everything.unpacked})
    identity = run(["find", everything.top / ".imagefs/images", "-maxdepth", "1", "-mindepth", "1"]).stdout.split()
    assert len(identity) == len(everything.unpacked)


def test_name_colon_tag_leads_to_the_tag(everything: Mounted) -> None:
    assert os.readlink(everything.top / "nasty:1") == "nasty/1"
    assert (everything.top / "nasty:1" / "etc" / "conf").read_text() == "one\n"


def test_attributes_that_ls_asks_for_everywhere_are_not_supported(everything: Mounted) -> None:
    path = everything.top / "nasty/1/etc/conf"
    assert os.getxattr(path, "user.note") == b"hello\x00\xff"
    for name, number in (("user.none", errno.ENODATA), ("security.selinux", errno.EOPNOTSUPP)):
        with pytest.raises(OSError) as caught:
            os.getxattr(path, name)
        assert caught.value.errno == number


def test_random_reads_give_the_bytes_that_are_there(everything: Mounted) -> None:
    chance = random.Random(7)
    for name, root in everything.unpacked.items():
        for path in root.rglob("*"):
            if path.is_symlink() or not path.is_file() or chance.random() > 0.3:
                continue
            content = path.read_bytes()
            with open(everything.top / name / path.relative_to(root), "rb", buffering=0) as file:
                for _ in range(8):
                    offset, size = chance.randrange(len(content) + 5), chance.randrange(200_000)
                    assert os.pread(file.fileno(), size, offset) == content[offset : offset + size]


def happens(condition: Callable[[], bool]) -> bool:
    """Return whether *condition* comes true within SHOWS_WITHIN_S."""
    deadline_s = time.monotonic() + SHOWS_WITHIN_S
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


def test_new_moved_and_removed_tags_show_within_a_second(everything: Mounted) -> None:
    tag = everything.top / "live" / "now"
    assert not tag.exists()
    imagefs("--store", everything.store, "tag", "nasty:1", "live:now")
    assert happens(tag.is_dir)
    assert (tag / "etc/conf").read_text() == "one\n"
    imagefs("--store", everything.store, "tag", "nasty:2", "live:now")
    assert happens(lambda: (tag / "etc/conf").read_text() == "two\n")
    imagefs("--store", everything.store, "rm", "live:now")
    assert happens(lambda: not tag.exists())
    assert "live" not in os.listdir(everything.top)


def test_a_removed_images_open_file_stays_readable(everything: Mounted, tmp_path: Path) -> None:
    nasty_layout(tmp_path / "gone")
    own = tmp_path / "own"
    imagefs("--store", own, "load", tmp_path / "gone")
    with (
        mounted(own, tmp_path / "mnt"),
        open(tmp_path / "mnt/gone/1/bin/tool", "rb", buffering=0) as file,
    ):
        assert file.read(10) == b"#!/bin/sh\n"
        imagefs("--store", own, "rm", "gone:1", "gone:2")
        assert happens(lambda: not (tmp_path / "mnt/gone").exists())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == (b"#!/bin/sh\n" * 5000)[10:]
        assert list((own / "layers").rglob("*.tar")) == []


def test_a_single_image_is_pinned_by_its_mount(tmp_path: Path) -> None:
    imagefs("--store", tmp_path / "store", "load", nasty_layout(tmp_path / "one"))
    with mounted(tmp_path / "store", tmp_path / "mnt", "one:2"):
        assert (tmp_path / "mnt/etc/conf").read_text() == "two\n"
        refused = imagefs("--store", tmp_path / "store", "rm", "one:2", check=False)
        assert refused.returncode == 7
        assert str(tmp_path / "mnt") in refused.stderr
        assert imagefs("--store", tmp_path / "store", "rm", "-f", "one:2").stdout.startswith(
            "Untagged: one:2\nDeleted: "
        )


def test_uid_gid_and_umask_present_files_as_asked(tmp_path: Path) -> None:
    imagefs("--store", tmp_path / "store", "load", nasty_layout(tmp_path / "one"))
    options = "uid=77,gid=88,umask=0022"
    with mounted(tmp_path / "store", tmp_path / "mnt", "-o", options, "one:1"):
        status = (tmp_path / "mnt/tmp").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (77, 88, 0o1755)


@needs("skopeo")
def test_exec_and_mmap_work_from_the_mount(everything: Mounted) -> None:
    if "alpine/3.20" not in everything.unpacked:
        pytest.skip("no test data: there is no real image to run a program from")
    done = subprocess.run(
        ["chroot", everything.top / "alpine/3.20", "/bin/busybox", "echo", "it runs"], capture_output=True, check=True
    )
    assert done.stdout == b"it runs\n"
