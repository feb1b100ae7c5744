"""Stores written by released versions: opened, verified, mounted and upgraded by the imagefs of today."""

import json
import tarfile
from pathlib import Path

import pytest

import imagefs as api
from tests.support.commands import imagefs
from tests.support.mounts import mounted, needs_fuse
from tests.support.snapshot import snapshot

pytestmark = needs_fuse
GOLDEN = Path(__file__).parents[1] / "golden"
FILES_1 = {
    "/etc/conf": b"a = 1\n",
    "/etc/os-release": b"ID=golden\n",
    "/usr/bin/alias": b"#!/bin/sh\n",
    "/usr/bin/tool": b"#!/bin/sh\n",
    "/var/cache/old": b"x" * 2000,
}
FILES_2 = {
    "/etc/conf": b"a = 2\n",
    "/usr/bin/alias": b"#!/bin/sh\n",
    "/usr/bin/tool": b"#!/bin/sh\n",
    "/var/cache/new": b"y",
}


@pytest.fixture(params=["0.1", "0.2", "0.3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of the store that the version of the parameter wrote."""
    folder = tmp_path / "store"
    with tarfile.open(GOLDEN / f"{request.param}.tar.gz") as archive:
        archive.extractall(folder, filter="tar")
    folder.chmod(0o700)
    return folder


def files(image: api.Image) -> dict[str, bytes]:
    """Return the content of every regular file of *image* by its path."""
    return {str(path): path.read_bytes() for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()}


def test_an_older_store_shows_the_images_that_were_loaded(store: Path) -> None:
    with api.open_store(store) as opened:
        assert {name for image in opened for name in image.names} == {"golden/app:1", "golden/app:2"}
        assert files(opened["golden/app:1"]) == FILES_1
        assert files(opened["golden/app:2"]) == FILES_2
        tool = opened["golden/app:1"].path("usr/bin/tool").lstat()
        assert (tool.st_mode & 0o7777, tool.st_nlink) == (0o4755, 2)


def test_an_older_store_is_old_and_not_damaged(store: Path) -> None:
    report = imagefs("--store", store, "verify", check=False)
    assert "damaged" not in report.stdout
    assert report.returncode == 0, report.stdout
    assert imagefs("--store", store, "verify", "--repair").returncode == 0
    assert "all is well" in imagefs("--store", store, "verify").stdout


def test_an_older_store_takes_new_names_and_gives_up_images(store: Path) -> None:
    imagefs("--store", store, "tag", "golden/app:1", "golden/app:stable")
    imagefs("--store", store, "rm", "golden/app:2")
    rows = imagefs("--store", store, "ls", "--format", "json").stdout.splitlines()
    assert sorted(json.loads(row)["Tag"] for row in rows) == ["1", "stable"]
    with api.open_store(store) as opened:
        assert files(opened["golden/app:stable"]) == FILES_1


def test_a_mount_of_an_older_store_upgrades_it(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mnt") as top:
        for tag, expected in (("1", FILES_1), ("2", FILES_2)):
            shown = snapshot(top / "golden" / "app" / tag)
            regular = {"/" + path.decode() for path, entry in shown.items() if entry["type"] == "-"}
            assert regular == expected.keys()
            for path, content in expected.items():
                assert (top / "golden" / "app" / tag / path[1:]).read_bytes() == content
    assert "all is well" in imagefs("--store", store, "verify").stdout
