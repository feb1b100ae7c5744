"""Inode numbers that say what a thing is, and what common tools make of them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import imagefs, needs, run
from tests.support.data import data_dir
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, link, symlink, whiteout
from tests.support.mounts import mounted, needs_fuse
from tests.support.nasty import nasty_layout
from tests.support.snapshot import differences, snapshot

pytestmark = [*needs_fuse, pytest.mark.usefixtures("driver")]

BASE = layer(
    dir_("bin"),
    file("bin/big", b"x" * 300_000),
    link("bin/big too", "bin/big"),
    dir_("etc"),
    file("etc/conf", b"one\n"),
    file("etc/stays", b"s"),
    dir_("empty"),
    symlink("l", "bin"),
)
TOP = layer(file("etc/conf", b"two\n", mtime_ns=10**18), file("etc/new", b"n"), whiteout("etc/stays"))


@pytest.fixture(scope="module")
def top(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("numbers")
    with Store.open(folder / "store", create=True) as store:
        add_image(store, [BASE], "app:1", "app:same")
        add_image(store, [BASE, TOP], "app:2")
    with mounted(folder / "store", folder / "mnt") as mountpoint:
        yield mountpoint


def numbers(root: Path) -> dict[bytes, int]:
    return {os.fsencode(path.relative_to(root)): path.lstat().st_ino for path in sorted(root.rglob("*"))}


def test_what_is_equal_has_one_number_and_what_differs_another(top: Path) -> None:
    one, two = numbers(top / "app/1"), numbers(top / "app/2")
    assert numbers(top / "app/same") == one
    assert {path for path in one.keys() & two.keys() if one[path] != two[path]} == {b"etc", b"etc/conf"}
    assert len(set(one.values())) == len(one) - 1, "but for the hard link"


def test_two_roots_are_never_one_directory(top: Path) -> None:
    roots = [top / "app/1", top / "app/same", top / "app/2"]
    assert len({root.stat().st_ino for root in roots}) == 3
    with os.scandir(top / "app") as listed:
        assert {entry.name: entry.inode() for entry in listed} == {root.name: root.stat().st_ino for root in roots}


def test_numbers_are_the_same_after_another_load_and_differ_in_another_store(driver: str, tmp_path: Path) -> None:
    layouts = {"nasty": nasty_layout(tmp_path / "nasty")}
    if data := data_dir():
        layouts |= {"small": data / "images" / "small", "alpine": data / "images" / "alpine"}
    found: list[dict[str, dict[bytes, int]]] = []
    for order in (list(layouts), list(layouts)[::-1]):
        store = tmp_path / f"store-{len(found)}"
        for name in order:
            imagefs("--store", store, "load", "-q", layouts[name])
        with mounted(store, tmp_path / f"mnt-{len(found)}") as mountpoint:
            found.append({tag: numbers(mountpoint / tag) for tag in tags(mountpoint)})
    imagefs("--store", store, "rm", *(tag.replace("/", ":") for tag in found[0]))
    for layout in layouts.values():
        imagefs("--store", store, "load", "-q", layout)
    with mounted(store, tmp_path / "mnt-again") as mountpoint:
        found.append({tag: numbers(mountpoint / tag) for tag in tags(mountpoint)})
    one, other, again = found
    assert other == again
    assert one.keys() == other.keys()
    for tag, of_paths in one.items():
        assert of_paths.keys() == other[tag].keys()
        assert set(of_paths.values()).isdisjoint(other[tag].values())
    with mounted(store, tmp_path / "mnt-again") as mountpoint:
        for tag in found[0]:
            paths = [path for path in (mountpoint / tag).rglob("*") if path.is_dir() or path.lstat().st_nlink == 1]
            assert len({path.lstat().st_ino for path in paths}) == len(paths), tag


def tags(mountpoint: Path) -> list[str]:
    return [f"{name}/{tag}" for name in sorted(os.listdir(mountpoint)) for tag in sorted(os.listdir(mountpoint / name))]


def test_du_of_two_tags_counts_what_they_share_once(top: Path) -> None:
    def used(*paths: str) -> list[int]:
        lines = run(["du", "-s", "--block-size=1", *(top / path for path in paths)]).stdout.splitlines()
        return [int(line.split()[0]) for line in lines]

    (alone,) = used("app/1")
    (other,) = used("app/2")
    assert alone > 300_000 < other
    assert used("app/1", "app/2")[0] == alone
    assert used("app/1", "app/2")[1] < 10_000
    assert len(used("app/1", "app/same")) == 2, "a tag with nothing of its own is still listed"


@needs("rsync")
def test_rsync_between_two_tags_sends_what_differs(top: Path) -> None:
    done = run(["rsync", "-naHAX", "--delete", "--itemize-changes", f"{top}/app/2/", f"{top}/app/1/"]).stdout
    assert sorted(line.split()[1] for line in done.splitlines()) == ["etc/conf", "etc/new", "etc/stays"]


@pytest.mark.parametrize("how", ["cp", "tar", "rsync"])
def test_copies_of_two_tags_at_once_are_whole(top: Path, how: str, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    match how:
        case "cp":
            run(["cp", "-a", top / "app/1", top / "app/same", top / "app/2", target])
        case "tar":
            with subprocess.Popen(["tar", "-cC", top / "app", "1", "same", "2"], stdout=subprocess.PIPE) as writing:
                subprocess.run(["tar", "-xpC", target], stdin=writing.stdout, check=True)
            assert writing.returncode == 0
        case "rsync":
            run(["rsync", "-aHX", top / "app/1", top / "app/same", top / "app/2", target])
    for tag in ("1", "same", "2"):
        # Files with several names that both tags have become names of one file in the copy, too.
        found = differences(
            snapshot(top / "app" / tag), snapshot(target / tag), ignore=lambda _, key: key in ("nlink", "mtime_ns")
        )
        assert found == []


def test_git_prints_what_differs(top: Path) -> None:
    done = run(["git", "diff", "--no-index", "--stat", top / "app/1", top / "app/2"], check=False)
    assert done.returncode == 1
    assert "3 files changed, 2 insertions(+), 2 deletions(-)" in done.stdout
    same = run(["git", "diff", "--no-index", top / "app/1", top / "app/same"], check=False)
    assert (same.returncode, same.stdout) == (0, "")
