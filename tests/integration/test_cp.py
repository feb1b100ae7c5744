"""``cp``: out of an image onto this machine, where neither the image nor what lies there may lead it astray."""

import functools
import os
import random
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from imagefs.errors import InvalidLayer
from imagefs.layer.tar import scan
from imagefs.overlay.resolve import resolve
from imagefs.store.store import Store
from tests.support.commands import imagefs, needs, run, umoci_unpack
from tests.support.images import add_image
from tests.support.layers import char, dir_, fifo, file, layer, link, symlink
from tests.support.mounts import needs_root
from tests.support.nasty import nasty_layout
from tests.support.snapshot import differences, snapshot
from tests.support.stacks import generated

_T = 1_600_000_000_123_456_789
BASE = layer(
    dir_("etc", mode=0o750, mtime_ns=_T),
    file("etc/conf", b"one\n", mode=0o640, uid=33, gid=33, mtime_ns=_T, xattrs={"user.note": b"x"}),
    symlink("etc/abs", "/etc/passwd", mtime_ns=_T),
    symlink("etc/up", "../../../../../../../etc/passwd", mtime_ns=_T),
    dir_("etc/closed", mode=0o500, mtime_ns=_T),
    file("etc/closed/in", b"in\n", mode=0o400, mtime_ns=_T),
    fifo("etc/pipe", mtime_ns=_T),
    char("etc/null", 1, 3, mtime_ns=_T),
    dir_("bin", mtime_ns=_T),
    file("bin/su", b"su", mode=0o4755, mtime_ns=_T),
    link("bin/doas", "bin/su"),
    symlink("lib", "bin", mtime_ns=_T),
    file("odd:name", b"colon", mtime_ns=_T),
)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [BASE], "app:1", "localhost:5000/deep/app:2")
    return tmp_path / "store"


def test_files_and_folders_go_where_docker_cp_puts_them(store_path: Path, tmp_path: Path) -> None:
    def cp(source: str, destination: Path | str) -> None:
        imagefs("--store", store_path, "cp", source, str(destination))

    here = tmp_path / "here"
    here.mkdir()
    cp("app:1:/bin/su", here)
    cp("app:1:bin/su", here / "renamed")
    cp("localhost:5000/deep/app:2:/bin", here)
    cp("app:1:/bin", here / "new")
    cp("app:1:/bin/.", here / "new")
    (here / "content").mkdir()
    cp("app:1:/bin/.", f"{here}/content/")
    cp("app:1:/odd:name", here)
    found = sorted(str(path.relative_to(here)) for path in here.rglob("*"))
    assert found == [
        "bin", "bin/doas", "bin/su", "content", "content/doas", "content/su", "new", "new/doas", "new/su",
        "odd:name", "renamed", "su",
    ]  # fmt: skip
    assert (here / "new/su").stat().st_ino == (here / "new/doas").stat().st_ino
    assert stat.S_IMODE((here / "su").stat().st_mode) == 0o755  # harmless
    assert (here / "su").stat().st_mtime_ns == _T


def test_a_symlink_is_copied_or_followed_inside_the_image(store_path: Path, tmp_path: Path) -> None:
    imagefs("--store", store_path, "cp", "app:1:/lib", tmp_path / "link")
    imagefs("--store", store_path, "cp", "-L", "app:1:/lib", tmp_path / "folder")
    imagefs("--store", store_path, "cp", "app:1:/lib/su", tmp_path / "through")
    assert os.readlink(tmp_path / "link") == "bin"
    assert sorted(os.listdir(tmp_path / "folder")) == ["doas", "su"]
    assert (tmp_path / "through").read_bytes() == b"su"


def test_no_link_on_the_way_is_followed(store_path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "conf").write_text("precious")
    here = tmp_path / "here"
    (here / "etc").mkdir(parents=True)
    (here / "etc/conf").symlink_to(outside / "conf")
    (here / "etc/closed").symlink_to(outside)
    done = imagefs("--store", store_path, "cp", "app:1:/etc", here, check=False)
    assert done.returncode == 1
    assert "Not a directory: etc/closed" in done.stderr
    (here / "etc/closed").unlink()
    imagefs("--store", store_path, "cp", "app:1:/etc", here, check=False)
    assert (outside / "conf").read_text() == "precious"
    assert os.listdir(outside) == ["conf"]
    assert not (here / "etc/conf").is_symlink()
    assert os.readlink(here / "etc/abs") == "/etc/passwd"
    # The folder that the user names may be a link: it is theirs.
    (tmp_path / "mine").symlink_to(outside)
    imagefs("--store", store_path, "cp", "app:1:/bin/su", tmp_path / "mine")
    assert (outside / "su").exists()


def test_what_is_not_copied_is_said(store_path: Path, tmp_path: Path) -> None:
    done = imagefs("--store", store_path, "cp", "app:1:/etc", tmp_path / "etc", check=False)
    assert done.returncode == 1
    assert done.stderr == "imagefs: not copied: /etc/null: it is a device, which only --archive copies\n"
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o750
    assert (tmp_path / "etc").stat().st_mtime_ns == _T
    assert stat.S_IMODE((tmp_path / "etc/closed").stat().st_mode) == 0o500
    assert (tmp_path / "etc/conf").stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    ("source", "destination", "said", "status"),
    [
        ("app", "x", "expected REF:PATH such as alpine:3.20:/etc", 2),
        ("app:1:", "x", "expected REF:PATH", 2),
        ("app:1:/nothing", "x", "no such file or directory in app:1: /nothing", 7),
        ("app:3:/etc", "x", "no such image: app:3", 7),
        ("app:1:/etc", "file", "Not a directory: ", 1),
        ("app:1:/bin/su", "missing/", "No such file or directory", 1),
        ("app:1:/bin/su", "missing/x", "No such file or directory", 1),
        ("app:1:/etc/conf", "folder", "Is a directory: conf", 1),
    ],
)
def test_wrong_copies_are_refused(
    store_path: Path, tmp_path: Path, source: str, destination: str, said: str, status: int
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder/conf").mkdir(parents=True)
    done = imagefs("--store", store_path, "cp", source, f"{tmp_path}/{destination}", check=False)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert (tmp_path / "file").read_text() == "x"


def test_a_dash_gives_a_tar(store_path: Path, tmp_path: Path) -> None:
    def names(source: str) -> list[str]:
        argv = [sys.executable, "-m", "imagefs", "--store", str(store_path), "cp", source, "-"]
        (tmp_path / "out.tar").write_bytes(subprocess.run(argv, check=True, capture_output=True).stdout)
        with tarfile.open(tmp_path / "out.tar") as archive:
            return archive.getnames()

    assert names("app:1:/bin") == ["bin", "bin/doas", "bin/su"]
    assert names("app:1:/bin/.") == ["doas", "su"]
    assert names("app:1:bin/su") == ["su"]


def test_damage_leaves_no_half_file(store_path: Path, tmp_path: Path) -> None:
    with Store.open(store_path) as store:
        tar = store.layer_path(store.image("app:1").diff_ids[0])
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes().replace(b"one\n", b"0ne\n"))
    done = imagefs("--store", store_path, "cp", "app:1:/etc", tmp_path / "etc", check=False)
    assert done.returncode == 7
    assert "is not what was stored" in done.stderr
    assert not (tmp_path / "etc/conf").exists()


@pytest.mark.tools
@needs("umoci")
@needs_root
def test_an_archive_copy_equals_what_umoci_unpacks(tmp_path: Path) -> None:
    layout = nasty_layout(tmp_path / "nasty")
    imagefs("--store", tmp_path / "store", "load", "-q", layout)
    started_ns = time.time_ns() - 10**9
    for tag in ("1", "2"):
        imagefs("--store", tmp_path / "store", "cp", "-a", f"nasty:{tag}:/", tmp_path / f"ours-{tag}")
        unpacked = snapshot(umoci_unpack(layout, tag, tmp_path / f"theirs-{tag}"))
        # Times of directories that no layer mentions are when umoci made them.
        implied = {
            path for path, one in unpacked.items() if one["type"] == "d" and int(str(one["mtime_ns"])) > started_ns
        }
        ignore = functools.partial(_is_time_of, implied)
        assert differences(snapshot(tmp_path / f"ours-{tag}"), unpacked, ignore=ignore) == []


def _is_time_of(paths: set[bytes], path: bytes, key: str) -> bool:
    return key == "mtime_ns" and path in paths


@needs_root
def test_a_copy_of_any_stack_equals_the_export_of_it(tmp_path: Path) -> None:
    chance = random.Random(77)
    names: list[str] = []
    with Store.open(tmp_path / "store", create=True) as store:
        while len(names) < 12:
            layers = generated(chance)
            try:
                resolve([scan([raw]) for raw in layers])
            except InvalidLayer:
                continue  # hard links to nothing
            names.append(f"stack:{len(names)}")
            add_image(store, layers, names[-1])
    for number, name in enumerate(names):
        copied, unpacked = tmp_path / f"copied{number}", tmp_path / f"unpacked{number}"
        imagefs("--store", tmp_path / "store", "cp", "-a", f"{name}:/", copied)
        unpacked.mkdir()
        imagefs("--store", tmp_path / "store", "export", "-o", tmp_path / "flat.tar", name)
        run(["tar", "--numeric-owner", "-xpf", tmp_path / "flat.tar", "-C", unpacked])
        assert differences(snapshot(copied), snapshot(unpacked)) == [], name
