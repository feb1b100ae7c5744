"""Programs that copy, count, run and build upon a mounted image get the same from it as from an unpacked one."""

import os
import shutil
import stat
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.built_images import REF_NAME, image, layout, write
from tests.support.commands import imagefs, needs, run, umoci_unpack
from tests.support.data import data_dir
from tests.support.layers import block, char, dir_, fifo, file, layer, link, symlink, whiteout
from tests.support.mounts import is_alive, is_mounted, mounted, needs_fuse, needs_root, unmount_anyhow, wait_until
from tests.support.nasty import BASE, TOP
from tests.support.snapshot import Snapshot, differences, snapshot

pytestmark = [*needs_fuse, needs_root, pytest.mark.tools, needs("umoci")]  # root: devices, owners and capabilities

_T = 1_650_000_000_987_654_321
_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep, struct vfs_cap_data
_BUSYBOX = Path("/bin/busybox")

ODDITIES = layer(
    dir_("odd", mode=0o2775, gid=50, mtime_ns=_T),
    file("odd/capable", b"\x7fELF", mode=0o755, mtime_ns=_T, xattrs={"security.capability": _CAPABILITY}),
    # None is empty: umoci leaves those out, as Go's archive/tar takes an empty pax record for an absent one.
    file("odd/attributed", b"x", mtime_ns=_T, xattrs={"user.a": b"1", "user.b": b"\x00\xff", "trusted.c": b"3" * 900}),
    dir_("odd/attributed folder", mtime_ns=_T, xattrs={"user.folder": b"yes"}),
    symlink("odd/attributed link", "target", mtime_ns=_T, xattrs={"trusted.link": b"yes"}),
    fifo("odd/attributed pipe", mtime_ns=_T, xattrs={"trusted.pipe": b"yes"}),
    file("odd/setuid", b"s", mode=0o6755, uid=3, gid=4, mtime_ns=_T),
    file("odd/setgid", b"s", mode=0o2644, uid=3, gid=4, mtime_ns=_T),
    file("odd/sticky", b"s", mode=0o1600, mtime_ns=_T),
    char("odd/large numbers", 4000, 1_000_000, mode=0o600, uid=5, gid=6, mtime_ns=_T),
    block("odd/disk", 259, 70_000, mode=0o660, mtime_ns=_T),
    link("odd/another disk", "odd/disk"),
    link("odd/another pipe", "odd/attributed pipe"),
    link("odd/another link", "odd/attributed link"),
    *(link(f"odd/tool {number}", "bin/tool") for number in range(3)),
    file("odd/ leading and trailing ", b"1", mtime_ns=_T + 1),
    file("odd/-rf", b"2", mtime_ns=_T + 2),
    file("odd/back\\slash", b"3", mtime_ns=_T + 3),
    file("odd/*?[a]~$(x)`y`'\"", b"4", mtime_ns=_T + 4),
    file("odd/\ttab\rreturn\x1b[31m", b"5", mtime_ns=_T + 5),
    file(b"odd/\x80\xfe\xff", b"6", mtime_ns=_T + 6),
    file("odd/" + "n" * 255, b"7", mtime_ns=_T + 7),
    file("odd/empty", b"", mtime_ns=1),
    file("odd/late", b"", mtime_ns=(1 << 33) * 10**9 + 999_999_999),
    symlink("odd/long", "t/" * 1000, mtime_ns=_T),
    *(dir_("odd/" + "/".join(["deep"] * depth), mode=0o711, mtime_ns=_T + depth) for depth in range(1, 40)),
    whiteout("dev/pipe"),
    dir_("busy", mtime_ns=_T),
    *(file(f"busy/{number:04}", b"%d" % number, mtime_ns=_T + number) for number in range(1500)),
)


@dataclass(frozen=True)
class Mounted:
    """A mounted store, and where each of its images, by their path below the mount, was unpacked by umoci."""

    store: Path
    top: Path
    unpacked: dict[str, Path]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    folder = tmp_path_factory.mktemp("copies")
    built = image([BASE, TOP, ODDITIES])
    odd = write(folder / "odd", layout([built], [built.descriptor(annotations={REF_NAME: "1"})]))
    layouts = {"odd": (odd, ["1"])}
    if data := data_dir():
        layouts["alpine"] = (data / "images" / "alpine", ["3.18", "3.20"])
    unpacked = {}
    for name, (source, tags) in layouts.items():
        imagefs("--store", folder / "store", "load", source)
        for tag in tags:
            unpacked[f"{name}/{tag}"] = umoci_unpack(source, tag, folder / f"{name}-{tag}")
    with mounted(folder / "store", folder / "mnt") as top:
        yield Mounted(folder / "store", top, unpacked)


# ---- copies ----


def rsync(source: Path, target: Path) -> None:
    run(["rsync", "-aHAX", "--numeric-ids", f"{source}/", f"{target}/"])


def cp(source: Path, target: Path) -> None:
    run(["cp", "-a", f"{source}/.", target])


def tar(source: Path, target: Path) -> None:
    options = (
        "--xattrs --xattrs-include='*' --numeric-owner --warning=no-timestamp"  # some are very old or of the future
    )
    script = f'tar {options} -C "$1" -cf - . | tar {options} -p -C "$2" -xf -'
    done = run(["bash", "-o", "pipefail", "-c", script, "bash", source, target])
    assert done.stderr == ""


def lost_by_tar(tree: Snapshot) -> set[tuple[bytes, str]]:
    """Return what of *tree* GNU tar does not tell, from whatever file system: that devices and fifos are links."""
    special = [path for path, described in tree.items() if str(described["type"]) in "bcp"]
    return {(path, key) for path in special for key in ("nlink", "same as")}


@pytest.mark.parametrize("copy", [pytest.param(rsync, marks=needs("rsync")), cp, tar])
def test_a_copy_of_a_mounted_image_equals_what_umoci_unpacks(
    copy: Callable[[Path, Path], None], everything: Mounted, tmp_path: Path
) -> None:
    for number, (name, root) in enumerate(everything.unpacked.items()):
        target = tmp_path / str(number)
        target.mkdir()
        copy(everything.top / name, target)
        lost = lost_by_tar(snapshot(root)) if copy is tar else set()
        found = differences(snapshot(target), snapshot(root), ignore=lambda *where, lost=lost: where in lost)
        assert found == [], name


@needs("rsync")
def test_rsync_finds_nothing_to_do_between_an_image_and_its_unpacked_tree(everything: Mounted) -> None:
    for name, root in everything.unpacked.items():
        options = ["-aHAX", "--numeric-ids", "--checksum", "--dry-run", "--delete", "--itemize-changes"]
        done = run(["rsync", *options, f"{everything.top / name}/", f"{root}/"])
        # The root has no entry of its own in most layers, and of time and mode of what was not said judges differ.
        assert [line for line in done.stdout.splitlines() if not line.endswith(" ./")] == [], name


def test_copying_reads_attributes_and_links_as_the_image_has_them(everything: Mounted) -> None:
    odd = everything.top / "odd/1/odd"
    assert os.getxattr(odd / "capable", "security.capability") == _CAPABILITY
    assert os.getxattr(odd / "attributed link", "trusted.link", follow_symlinks=False) == b"yes"
    assert run(["getcap", odd / "capable"]).stdout.split()[-1] == "cap_net_bind_service=ep"
    assert len({os.lstat(odd / f"tool {number}").st_ino for number in range(3)}) == 1
    assert (odd / "large numbers").stat().st_rdev == os.makedev(4000, 1_000_000)
    assert os.readlink(odd / "long") == "t/" * 1000


# ---- counts ----


def found(root: Path, *what: str, form: str = "x") -> str:
    """Return what find prints; xdev, so that another mount below would be missed."""
    return run(["find", root, "-xdev", *what, "-printf", form]).stdout


def du(root: Path, *options: str) -> int:
    """Return the sum of du over the files and symlinks below *root*, in bytes; of directories file systems differ."""
    script = 'find "$0" -xdev "(" -type f -o -type l ")" -print0 | du --files0-from=- -c -B1 "$@" | tail -n 1'
    return int(run(["bash", "-o", "pipefail", "-c", script, root, *options]).stdout.split()[0])


def test_find_counts_the_entries_of_every_type_that_umoci_unpacks(everything: Mounted) -> None:
    for name, root in everything.unpacked.items():
        top = everything.top / name
        assert Counter(found(top, form="%y")) == Counter(found(root, form="%y")), name
        assert len(found(top)) == sum(1 for _ in root.rglob("*")) + 1
        lines = [run(["sh", "-c", 'find "$0" -xdev | wc -l', place]).stdout for place in (top, root)]
        assert lines[0] == lines[1], name


def test_find_by_type_mode_owner_links_and_size_finds_the_same(everything: Mounted) -> None:
    for name, root in everything.unpacked.items():
        for what in (
            ("-perm", "-4000"),
            ("-perm", "/7000"),
            ("-type", "f", "-links", "+1"),
            ("-type", "f", "-empty"),
            ("-type", "d", "-empty"),
            ("-uid", "+0"),
            ("-size", "+10k", "-type", "f"),
            ("-newermt", "2022-01-01"),
            ("-type", "d", "-links", "2"),
        ):
            below = ("-mindepth", "1", *what)
            shown = found(everything.top / name, *below, form="%P\\0").split("\0")
            expected = found(root, *below, form="%P\\0").split("\0")
            assert sorted(shown) == sorted(expected), (name, what)


def test_sizes_are_those_of_the_unpacked_tree_with_hard_links_counted_once(everything: Mounted) -> None:
    for name, root in everything.unpacked.items():
        top = everything.top / name
        sizes = [sorted(found(place, "-type", "f", form="%s\n").split()) for place in (top, root)]
        assert sizes[0] == sizes[1], name
        assert du(top, "--apparent-size") == du(root, "--apparent-size"), name
        assert du(top, "--apparent-size", "-l") == du(root, "--apparent-size", "-l"), name


def test_du_of_a_mounted_image_is_what_its_files_take_in_blocks_of_512(everything: Mounted) -> None:
    # A disk gives out larger blocks; what is stored in a tar takes these.  No file here is sparse.
    for name, root in everything.unpacked.items():
        files = {}
        for path in root.rglob("*"):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                files[status.st_ino] = -(-status.st_size // 512) * 512
        assert du(everything.top / name) == sum(files.values()), name
        whole = int(run(["du", "-s", "-B1", everything.top / name]).stdout.split()[0])
        assert whole == sum(files.values()), name


def test_two_tags_of_one_image_are_each_found_whole(everything: Mounted, tmp_path: Path) -> None:
    store = tmp_path / "store"
    imagefs("--store", store, "load", everything.top.parent / "odd")
    imagefs("--store", store, "tag", "odd:1", "other:1")
    imagefs("--store", store, "tag", "odd:1", "odd:same")
    tags = ["odd/1", "odd/same", "other/1"]
    unpacked = snapshot(everything.unpacked["odd/1"])
    lost = lost_by_tar(unpacked)
    with mounted(store, tmp_path / "mnt") as top:
        expected = sorted(found(everything.unpacked["odd/1"], "-mindepth", "1", form="%P\\0").split("\0"))
        for tag in tags:
            assert sorted(found(top / tag, "-mindepth", "1", form="%P\\0").split("\0")) == expected
        within = Counter(found(everything.unpacked["odd/1"], "-mindepth", "1", form="%y"))
        above = Counter("ddd" + "ddd")  # the mount, two repositories; the three images themselves
        assert Counter(found(top, form="%y")) == above + Counter({kind: 3 * count for kind, count in within.items()})
        # One image, so one set of inodes, as with hard links: the same file is known as the same under each tag.
        assert len({(top / tag / "odd/capable").stat().st_ino for tag in tags}) == 1
        assert run(["diff", "-r", "--no-dereference", *(top / tag / "odd" for tag in tags[1:])]).stdout == ""
        copy = tmp_path / "copy"
        copy.mkdir()
        tar(top, copy)
        for tag in tags:
            # All names of an inode are links to each other in the copy, over the tags.
            assert (
                differences(snapshot(copy / tag), unpacked, ignore=lambda *where: where in lost or where[1] == "nlink")
                == []
            ), tag


# ---- a root file system ----


def is_static(program: Path) -> bool:
    """Return whether *program* is an ELF executable that needs no interpreter."""
    if not program.is_file() or (raw := program.read_bytes())[:5] != b"\x7fELF\x02":
        return False
    (headers,) = struct.unpack_from("<Q", raw, 32)
    size, count = struct.unpack_from("<HH", raw, 54)
    kinds = [struct.unpack_from("<I", raw, headers + number * size)[0] for number in range(count)]
    return 3 not in kinds  # PT_INTERP


needs_busybox = pytest.mark.skipif(not is_static(_BUSYBOX), reason="busybox-static is not installed")


@pytest.fixture(scope="module")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the image bb:1, in which busybox is everything."""
    folder = tmp_path_factory.mktemp("busybox")
    base = layer(
        dir_("bin"),
        file("bin/busybox", _BUSYBOX.read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "ls", "find", "wc", "id", "sha256sum")),
        dir_("dev"),
        char("dev/null", 1, 3, mode=0o666),
        dir_("etc"),
        file("etc/release", b"below\n"),
    )
    above = layer(
        file("etc/release", b"above\n"), symlink("etc/absolute", "/etc/release"), link("bin/again", "bin/busybox")
    )
    built = image([base, above])
    source = write(folder / "bb", layout([built], [built.descriptor(annotations={REF_NAME: "1"})]))
    imagefs("--store", folder / "store", "load", source)
    return folder / "store"


def inside(root: Path, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(["chroot", root, "/bin/sh", "-c", f"PATH=/bin; {script}"], check=check)


@needs_busybox
def test_a_shell_runs_in_a_mounted_image(busybox: Path, tmp_path: Path) -> None:
    with mounted(busybox, tmp_path / "mnt") as top:
        root = top / "bb/1"
        assert inside(root, "cat /etc/absolute; ls /; find /bin -type l | wc -l").stdout == "above\nbin\ndev\netc\n7\n"
        assert inside(root, "cat /bin/again | sha256sum").stdout == inside(root, "sha256sum </bin/busybox").stdout
        refused = inside(root, "echo x > /etc/new", check=False)
        assert (refused.returncode, "Read-only file system" in refused.stderr) == (1, True)


@needs_busybox
def test_devices_of_an_image_work_only_when_root_asks_for_them(busybox: Path, tmp_path: Path) -> None:
    with mounted(busybox, tmp_path / "mnt", "bb:1") as top:
        refused = inside(top, "echo x > /dev/null", check=False)
        assert (refused.returncode, "ermission denied" in refused.stderr) == (1, True)
    with mounted(busybox, tmp_path / "mnt", "-o", "suid,dev", "bb:1") as top:
        assert inside(top, "echo x > /dev/null; cat /dev/null").stdout == ""


# ---- a layer below others ----


@dataclass(frozen=True)
class Overlaid:
    """An image mounted alone, below an overlay of the kernel's with an empty upper directory."""

    store: Path
    lower: Path
    upper: Path
    merged: Path


@pytest.fixture
def overlaid(everything: Mounted, tmp_path: Path) -> Iterator[Overlaid]:
    if shutil.which("modprobe"):
        run(["modprobe", "overlay"], check=False)
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no overlayfs")
    if run(["stat", "-f", "-c", "%T", tmp_path]).stdout == "overlayfs\n":
        pytest.skip("the folder of the tests is on an overlayfs itself, which cannot hold the upper layer of another")
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    merged = tmp_path / "merged"
    with mounted(everything.store, tmp_path / "lower", "odd:1") as lower:
        options = f"lowerdir={lower},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
        run(["mount", "-t", "overlay", "overlay", "-o", options, merged])
        try:
            yield Overlaid(everything.store, lower, tmp_path / "upper", merged)
        finally:
            unmount_anyhow(merged)


def serving_pid(overlaid: Overlaid) -> int:
    with Store.open(overlaid.store) as store:
        (pid,) = [record.pid for record in store.live_mounts() if record.mountpoint == str(overlaid.lower)]
    return pid


def change_much(root: Path) -> None:
    """Do to the tree at *root* whatever may be done to one, to files big and small, plain and odd."""
    with (root / "etc/conf").open("a") as appended:
        appended.write("and more\n")
    with (root / "bin/tool").open("r+b") as changed:  # has other names
        changed.seek(20_000)
        changed.write(b"in the middle")
    os.truncate(root / "odd/setuid", 0)
    (root / "odd/attributed").chmod(0o600)
    os.chown(root / "odd/setgid", 77, 88)
    os.setxattr(root / "odd/capable", "user.added", b"1")
    os.removexattr(root / "odd/attributed", "user.b")
    os.utime(root / "odd/empty", ns=(5, 5))
    (root / "odd/-rf").unlink()
    (root / "odd/another disk").unlink()
    (root / "odd/attributed pipe").unlink()
    shutil.rmtree(root / "odd/deep")
    shutil.rmtree(root / "opt")
    (root / "opt").mkdir()
    (root / "opt/all").write_text("a file where a folder was\n")
    (root / "odd/sticky").rename(root / "odd/renamed")
    (root / "odd/back\\slash").rename(root / "swap/inside")
    run(["mv", root / "etc", root / "moved"])  # rename(2) of a folder from below may be refused; mv then copies
    (root / "paws").unlink()
    (root / "paws").mkdir()
    (root / "new").write_text("new\n")
    os.link(root / "moved/early", root / "linked")
    (root / "new link").symlink_to("new")
    for number in range(0, 1500, 7):
        (root / f"busy/{number:04}").unlink()
    for number in range(3, 1500, 7):
        (root / f"busy/{number:04}").write_bytes(b"rewritten %d" % number)


def without_times_of_today(tree: Snapshot) -> Snapshot:
    """Leave times out that nobody set: those of what was just changed."""
    return {
        path: {key: value for key, value in described.items() if key != "mtime_ns" or int(str(value)) < 1_700_000_000e9}
        for path, described in tree.items()
    }


def test_an_overlay_shows_what_the_image_below_it_holds(overlaid: Overlaid, everything: Mounted) -> None:
    assert differences(snapshot(overlaid.merged), snapshot(everything.unpacked["odd/1"])) == []


def test_files_of_an_overlay_are_changed_and_the_image_below_stays_as_it_is(
    overlaid: Overlaid, everything: Mounted, tmp_path: Path
) -> None:
    unpacked = everything.unpacked["odd/1"]
    judge = tmp_path / "judge"
    run(["cp", "-a", unpacked, judge])
    change_much(overlaid.merged)
    change_much(judge)
    # Copying up breaks hard links: the other names keep the old content, unless the overlay has an index.
    others = {b"bin/same", b"late link", *(b"odd/tool %d" % number for number in range(3))}
    ignore = {"nlink", "same as"}
    assert (
        differences(
            without_times_of_today(snapshot(overlaid.merged)),
            without_times_of_today(snapshot(judge)),
            ignore=lambda path, key: key in ignore or (path in others and key in {"sha256", "mtime_ns"}),
        )
        == []
    )
    assert differences(snapshot(overlaid.lower), snapshot(unpacked)) == []
    assert (overlaid.upper / "moved/conf").read_bytes() == b"two\nand more\n"


def test_files_held_open_across_their_copying_up_keep_their_bytes(overlaid: Overlaid) -> None:
    path = overlaid.merged / "bin/tool"
    before = path.read_bytes()
    with path.open("rb", buffering=0) as held:
        assert held.read(10) == before[:10]
        with path.open("r+b") as changed:
            changed.write(b"CHANGED")
        assert path.read_bytes() == b"CHANGED" + before[7:]
        assert held.read() == before[10:]
    assert (overlaid.lower / "bin/tool").read_bytes() == before


def test_overlay_and_mount_are_taken_away_one_after_the_other(overlaid: Overlaid) -> None:
    pid = serving_pid(overlaid)
    change_much(overlaid.merged)
    run(["umount", overlaid.merged])
    imagefs("--store", overlaid.store, "umount", overlaid.lower)
    assert not is_mounted(overlaid.lower)
    assert not is_alive(pid)
    assert os.listdir(overlaid.lower) == []


def test_an_overlay_outlives_the_mount_below_it_and_takes_its_process_along(
    overlaid: Overlaid, everything: Mounted
) -> None:
    # An overlay has mounts of its own of what is below it, so that one is not busy; its process must go on serving.
    pid = serving_pid(overlaid)
    done = imagefs("--store", overlaid.store, "umount", overlaid.lower)
    assert "goes on for who still has it, such as an overlayfs" in done.stderr
    assert not is_mounted(overlaid.lower)
    assert differences(snapshot(overlaid.merged), snapshot(everything.unpacked["odd/1"])) == []
    assert is_alive(pid)
    run(["umount", overlaid.merged])
    wait_until(lambda: not is_alive(pid), "the serving process ends")


@needs_busybox
def test_a_shell_runs_and_writes_in_an_overlay_of_two_mounted_tags(
    overlaid: Overlaid, busybox: Path, tmp_path: Path
) -> None:
    run(["umount", overlaid.merged])
    with mounted(busybox, tmp_path / "system", "bb:1") as system:
        options = f"lowerdir={system}:{overlaid.lower},upperdir={overlaid.upper},workdir={tmp_path / 'work'}"
        run(["mount", "-t", "overlay", "overlay", "-o", options, overlaid.merged])
        try:
            script = "cat /etc/release /etc/conf; echo new > /etc/release; cat /etc/release; ls /bin | wc -l"
            assert inside(overlaid.merged, script).stdout == "above\ntwo\nnew\n13\n"
            assert (system / "etc/release").read_text() == "above\n"
        finally:
            unmount_anyhow(overlaid.merged)
