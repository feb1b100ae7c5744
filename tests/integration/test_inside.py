"""``cat`` and ``export``: what is in an image, without a mount, judged by umoci and tar."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import imagefs, needs, run, umoci_unpack
from tests.support.data import data_dir
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, link, symlink
from tests.support.mounts import needs_root
from tests.support.nasty import nasty_layout
from tests.support.snapshot import differences, snapshot

BASE = layer(
    dir_("etc"),
    file("etc/conf", b"one\n"),
    link("etc/same", "etc/conf"),
    symlink("abs", "/etc/conf"),
    symlink("out", "../../../../etc/conf"),
    symlink("loop", "loop"),
    symlink("lib", "/etc"),
)
TOP = layer(file("etc/conf", b"two\n"), file("etc/binary", bytes(range(256)) * 9000))


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [BASE, TOP], "app:1")
    return tmp_path / "store"


def test_files_are_printed_and_symlinks_stay_inside(store_path: Path) -> None:
    assert imagefs("--store", store_path, "cat", "app:1", "etc/conf", "/etc/same").stdout == "two\none\n"
    assert imagefs("--store", store_path, "cat", "app:1", "abs", "out", "lib/conf").stdout == "two\n" * 3
    assert imagefs("--store", store_path, "cat", "app:1@layer:1", "etc/conf").stdout == "one\n"
    raw = subprocess.run(
        [sys.executable, "-m", "imagefs", "--store", store_path, "cat", "app:1", "etc/binary"],
        check=True,
        capture_output=True,
    )
    assert raw.stdout == bytes(range(256)) * 9000


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("etc/cnf", "no such file or directory in app:1: /etc/cnf; did you mean /etc/conf?"),
        ("etc", "Is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("etc/conf/below", "no such file or directory in app:1"),
    ],
)
def test_what_cannot_be_printed_is_said_and_the_rest_is_printed(store_path: Path, path: str, said: str) -> None:
    done = imagefs("--store", store_path, "cat", "app:1", path, "etc/conf", check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert done.stdout == "two\n"


def test_what_was_changed_in_the_store_is_not_printed(store_path: Path) -> None:
    with Store.open(store_path) as store:
        tar = store.layer_path(store.image("app:1").diff_ids[1])
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes().replace(b"two\n", b"2wo\n"))
    done = imagefs("--store", store_path, "cat", "app:1", "etc/conf", check=False)
    assert (done.returncode, done.stdout) == (7, "")
    assert "is not what was stored" in done.stderr


def test_an_export_is_the_same_each_time_and_leaves_nothing_half(store_path: Path, tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        imagefs("--store", store_path, "export", "-o", tmp_path / name, "app:1")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with Store.open(store_path) as store:
        store.layer_path(store.image("app:1").diff_ids[1]).unlink()
    done = imagefs("--store", store_path, "export", "-o", tmp_path / "three.tar", "app:1", check=False)
    assert done.returncode == 7
    assert not (tmp_path / "three.tar").exists()


@pytest.mark.tools
@needs("umoci")
@needs_root
def test_an_export_unpacks_to_what_umoci_unpacks(tmp_path: Path) -> None:
    layouts = {"nasty": (nasty_layout(tmp_path / "nasty"), ["1", "2"])}
    if data := data_dir():
        layouts["alpine"] = (data / "images" / "alpine", ["3.20"])
        layouts["small"] = (data / "images" / "small", ["base", "v1", "v2"])
    started_ns = time.time_ns() - 10**9
    for name, (layout, tags) in layouts.items():
        imagefs("--store", tmp_path / "store", "load", "-q", layout)
        for tag in tags:
            imagefs("--store", tmp_path / "store", "export", "-o", tmp_path / "flat.tar", f"{name}:{tag}")
            ours = tmp_path / f"ours-{name}-{tag}"
            ours.mkdir()
            run(["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tmp_path / "flat.tar", "-C", ours])
            unpacked = snapshot(umoci_unpack(layout, tag, tmp_path / f"{name}-{tag}"))

            def touched(path: bytes, key: str, unpacked: object = unpacked) -> bool:
                described = unpacked[path]  # type: ignore[index]  # a snapshot
                return key == "mtime_ns" and described["type"] == "d" and int(described["mtime_ns"]) > started_ns

            assert differences(snapshot(ours), unpacked, ignore=touched) == [], (name, tag)
