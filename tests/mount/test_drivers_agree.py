"""One store mounted twice, with each of the drivers: whoever looks cannot tell which is which."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagefs.mount.options import DRIVERS
from tests.support.built_images import REF_NAME, image, layout, write
from tests.support.commands import imagefs
from tests.support.data import data_dir
from tests.support.layers import block, char, dir_, fifo, file, layer, link, sparse, symlink
from tests.support.mounts import mounted, needs_fuse
from tests.support.nasty import nasty_layout

pytestmark = needs_fuse

_T = 1_650_000_000_987_654_321
EXTREMES = layer(
    file("early", b"", mtime_ns=-(1 << 33) * 10**9 + 1),
    file("before the epoch", b"", mtime_ns=-1),
    file("late", b"", mtime_ns=(1 << 34) * 10**9 - 1),
    file("foreign", b"", uid=4_294_967_294, gid=4_294_967_293, mode=0o7777, mtime_ns=_T),
    file("none", b"", mode=0, mtime_ns=_T),
    sparse("terabytes", 1 << 45, [(1, b"x"), (1 << 44, b"y" * 5000)]),
    sparse("hole", 12_345, []),
    *(file(f"sizes/{size}", bytes(size), mtime_ns=_T + size) for size in (1, 511, 512, 513, 4095, 4096, 4097, 65_537)),
    char("char", 4095, 1_048_575, mtime_ns=_T),
    block("block", 259, 70_000, mtime_ns=_T),
    char("zero", 0, 0, mtime_ns=_T),
    fifo("pipe", mtime_ns=_T, xattrs={"trusted.pipe": b"p"}),
    symlink("symlink", "x" * 4095, mtime_ns=_T),
    symlink("bytes", b"/\xff\xfe\n", mtime_ns=_T, xattrs={"trusted.link": b"l"}),
    file(
        "attributed",
        b"",
        xattrs={
            "user.empty": b"",
            "user.bytes": bytes(range(256)),
            "user.long": b"v" * 60_000,
            "trusted.t": b"t",
            "security.s": b"s",
            **{f"user.{number}": b"%d" % number for number in range(100)},
        },
    ),
    dir_("folder", mode=0o3770, mtime_ns=_T, xattrs={"user.folder": b"f"}),
    *(file(f"folder/{number}", b"%d" % number, mtime_ns=number) for number in range(3000)),
    *(link(f"name {number}", "early") for number in range(50)),
    file(b"\x01\x7f\x80\xff", b""),
    file("n" * 255, b""),
)

OF_ITS_MOUNT = {"st_ino"} | {f"st_{which}time{unit}" for which in "amc" for unit in ("", "_ns")}
"""What a directory of names, above images, has of its own mount: it is as old as that, and numbered as it is met."""


@dataclass(frozen=True)
class Both:
    """The same store under two mounts, and where in it the images begin."""

    tops: tuple[bytes, bytes]
    images: frozenset[bytes]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("agree")
    store = folder / "store"
    built = image([EXTREMES])
    extremes = write(folder / "extremes", layout([built], [built.descriptor(annotations={REF_NAME: "1"})]))
    images = {"nasty/1", "nasty/2", "extremes/1", "extremes/same", "deep/er/nasty/1", "localhost:5000/nasty/2"}
    for source in (nasty_layout(folder / "nasty"), extremes):
        imagefs("--store", store, "load", source)
    for one, other in (("extremes:1", "extremes:same"), ("nasty:1", "deep/er/nasty:1")):
        imagefs("--store", store, "tag", one, other)
    imagefs("--store", store, "tag", "nasty:2", "localhost:5000/nasty:2")
    if data := data_dir():
        for name, tags in {"alpine": ["3.18", "3.20"], "small": ["base", "v1", "v2"]}.items():
            imagefs("--store", store, "load", data / "images" / name)
            images |= {f"{name}/{tag}" for tag in tags}
    assert DRIVERS == ("kernel", "fusepy")
    with (
        mounted(store, folder / "kernel", "-o", "driver=kernel") as kernel,
        mounted(store, folder / "fusepy", "-o", "driver=fusepy") as fusepy,
    ):
        yield Both((os.fsencode(kernel), os.fsencode(fusepy)), frozenset(map(os.fsencode, images)))


def kind(entry: os.DirEntry[bytes]) -> str:
    """Return the type that a listing gives of *entry*, without lstat where it gives one."""
    if entry.is_symlink():
        return "symlink"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "special"


def listed(folder: bytes) -> dict[bytes, str]:
    """Return the names in *folder* and the types that the listing gives them."""
    with os.scandir(folder) as entries:
        kinds = {entry.name: kind(entry) for entry in entries}
    assert sorted(kinds) == sorted(os.listdir(folder))
    return kinds


def paths(both: Both) -> Iterator[tuple[bytes, bool]]:
    """Yield the path below the mounts, and whether it is inside an image, of everything; all listings must agree."""
    folders: list[tuple[bytes, bool]] = [(b"", False)]
    yield b"", False
    while folders:
        folder, inside = folders.pop()
        ours, theirs = (listed(os.path.join(top, folder)) for top in both.tops)
        assert ours == theirs, folder
        for name in sorted(ours):
            path = os.path.join(folder, name)
            within = inside or path in both.images
            yield path, within
            if stat.S_ISDIR(os.lstat(os.path.join(both.tops[0], path)).st_mode):
                folders.append((path, within))


def status(path: bytes) -> dict[str, int]:
    """Return all that lstat(2) says of *path*, but the number of the device, which every mount has of its own."""
    found = os.lstat(path)
    names = [name for name in dir(found) if name.startswith("st_") and name != "st_dev"]
    return {name: getattr(found, name) for name in names}


def test_lstat_says_the_same_of_every_entry(both: Both) -> None:
    seen_inside = 0
    met: set[bytes] = set()
    for path, inside in paths(both):
        ours, theirs = (status(os.path.join(top, path)) for top in both.tops)
        if not inside:
            ours, theirs = ({name: shown[name] for name in shown.keys() - OF_ITS_MOUNT} for shown in (ours, theirs))
        assert ours == theirs, path
        seen_inside += inside
        met.add(path)
    assert {"st_ino", "st_mtime_ns", "st_blocks", "st_rdev", "st_nlink", "st_blksize"} <= status(both.tops[0]).keys()
    assert both.images <= met
    assert seen_inside > 6000


def test_what_is_not_listed_is_found_by_both(both: Both) -> None:
    for name in (b"nasty:1", b"extremes:same"):
        assert {os.readlink(os.path.join(top, name)) for top in both.tops} == {name.replace(b":", b"/")}
    ours, theirs = (sorted(os.listdir(os.path.join(top, b".imagefs/images"))) for top in both.tops)
    assert ours == theirs
    for name in ours:
        one, other = (os.path.join(top, b".imagefs/images", name) for top in both.tops)
        assert status(one) == status(other)
        assert listed(one) == listed(other)


def test_symlinks_lead_to_the_same(both: Both) -> None:
    links = 0
    for path, _ in paths(both):
        one, other = (os.path.join(top, path) for top in both.tops)
        if os.path.islink(one):
            assert os.readlink(one) == os.readlink(other), path
            links += 1
        else:
            for place in (one, other):
                with pytest.raises(OSError, match="Invalid argument"):
                    os.readlink(place)
    assert links > 5


def attributes(path: bytes) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    assert len(names) == len(set(names))
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def refusal(path: bytes, name: str) -> int | None:
    try:
        os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        return error.errno
    return None


def test_extended_attributes_are_the_same(both: Both) -> None:
    attributed = 0
    for path, _ in paths(both):
        one, other = (os.path.join(top, path) for top in both.tops)
        ours = attributes(one)
        assert ours == attributes(other), path
        attributed += bool(ours)
        if path.count(b"/") < 4:
            for name in ("user.none", "trusted.none", "security.selinux", "security.capability", "user." + "n" * 250):
                assert refusal(one, name) == refusal(other, name), (path, name)
    assert attributed >= 5


def test_listings_give_the_inode_numbers_that_lstat_gives(both: Both) -> None:
    for path, inside in paths(both):
        if not inside or not os.path.isdir(one := os.path.join(both.tops[0], path)) or os.path.islink(one):
            continue
        numbers = []
        for top in both.tops:
            with os.scandir(os.path.join(top, path)) as entries:
                numbers.append({entry.name: entry.inode() for entry in entries})
        assert numbers[0] == numbers[1], path
        assert numbers[0] == {name: os.lstat(os.path.join(one, name)).st_ino for name in numbers[0]}, path


def test_small_files_hold_the_same(both: Both) -> None:
    for path, _ in paths(both):
        one, other = (os.path.join(top, path) for top in both.tops)
        found = os.lstat(one)
        if stat.S_ISREG(found.st_mode) and found.st_size < 1_000_000:
            assert Path(os.fsdecode(one)).read_bytes() == Path(os.fsdecode(other)).read_bytes(), path


def test_statvfs_says_the_same(both: Both) -> None:
    ours, theirs = (os.statvfs(top) for top in both.tops)
    differing = {"f_fsid"}  # made from the device
    assert {name: getattr(ours, name) for name in dir(ours) if name.startswith("f_") and name not in differing} == {
        name: getattr(theirs, name) for name in dir(theirs) if name.startswith("f_") and name not in differing
    }


def test_whatever_is_refused_is_refused_alike(both: Both) -> None:
    def number(top: bytes, path: bytes, flags: int) -> int | None:
        try:
            os.close(os.open(os.path.join(top, path), flags | os.O_NONBLOCK))
        except OSError as error:
            return error.errno
        return None

    for path in (
        *(b"nasty", b"nasty/none", b"nasty/1/etc", b"nasty/1/etc/conf", b"nasty/1/etc/conf/below", b"nasty/1/none"),
        *(b"nasty/1/dev/null", b"nasty/1/bin/dangling", b"extremes/1/none", b"extremes/1/" + b"n" * 256),
    ):
        for flags in (
            *(os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_NOFOLLOW),
            *(os.O_RDONLY | os.O_CREAT, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_PATH),
        ):
            ours, theirs = (number(top, path, flags) for top in both.tops)
            assert ours == theirs, (path, oct(flags))
