"""A disk that is full, read-only or forbidden is said in one sentence, and loses nothing."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.cli.main import main
from imagefs.store.store import Store
from tests.support.built_images import image, layout, sha256, write
from tests.support.commands import imagefs, run
from tests.support.layers import file, layer
from tests.support.mounts import needs_root

SMALL = image([layer(file("small", b"s"))])
BIG = image([layer(file("small", b"s")), layer(file("big", os.urandom(3_000_000)))])


def laid_out(folder: Path, name: str) -> Path:
    made = {"small": SMALL, "big": BIG}[name]
    described = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(made.manifest),
        "size": len(made.manifest),
    }
    return write(folder / name, layout([made], [described]))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    top = tmp_path / "disk"
    top.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", top])
    yield top
    run(["umount", top])


def kept(store: Path) -> list[str]:
    """Return the names of layers and of what is under way."""
    return sorted(path.name for folder in ("layers/sha256", "ingest") for path in (store / folder).iterdir())


@needs_root
def test_a_full_disk_is_named_and_keeps_what_was_there(tmp_path: Path, disk: Path) -> None:
    store = disk / "store"
    imagefs("--store", store, "load", "-q", "--name", "small:1", laid_out(tmp_path, "small"))
    before = kept(store)
    args = ("--store", store, "load", "-q", "--name", "big:1", laid_out(tmp_path, "big"))
    done = imagefs(*args, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("imagefs: No space left on device: ")
    assert str(store) in done.stderr
    assert done.stderr.count("\n") == 1
    assert kept(store) == before
    assert "big" not in imagefs("--store", store, "ls").stdout
    assert imagefs("--store", store, "verify").returncode == 0
    run(["mount", "-o", "remount,size=20m", disk])
    imagefs(*args)
    assert "big" in imagefs("--store", store, "ls").stdout


@needs_root
def test_a_catalog_that_cannot_grow_is_named(tmp_path: Path, disk: Path) -> None:
    store = disk / "store"
    imagefs("--store", store, "load", "-q", "--name", "small:1", laid_out(tmp_path, "small"))
    rest = os.open(disk / "rest", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(rest, bytes(4096))
    os.close(rest)
    done = imagefs("--store", store, "tag", "small:1", "other:1", check=False)
    assert done.returncode in (1, 7)
    assert "disk" in done.stderr or "space" in done.stderr
    (disk / "rest").unlink()
    imagefs("--store", store, "tag", "small:1", "other:1")
    assert imagefs("--store", store, "verify").returncode == 0


@needs_root
def test_a_read_only_store_is_still_of_use(tmp_path: Path, disk: Path) -> None:
    store = disk / "store"
    imagefs("--store", store, "load", "-q", "--name", "small:1", laid_out(tmp_path, "small"))
    run(["mount", "-o", "remount,ro", disk])
    assert "small" in imagefs("--store", store, "ls").stdout
    assert imagefs("--store", store, "diff", "small:1", "small:1").returncode == 0
    assert imagefs("--store", store, "verify").returncode == 0
    for args in (
        ("load", "-q", str(tmp_path / "small")),
        ("tag", "small:1", "x:1"),
        ("rm", "small:1"),
        ("prune", "-f"),
    ):
        done = imagefs("--store", store, *args, check=False)
        assert done.returncode != 0
        assert "read-only" in done.stderr.lower() or "readonly" in done.stderr.lower(), done.stderr
        assert "Traceback" not in done.stderr
    run(["mount", "-o", "remount,rw", disk])
    assert imagefs("--store", store, "verify").returncode == 0


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO])
def test_a_write_that_is_refused_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    store, folder = tmp_path / "store", laid_out(tmp_path, "big")
    Store.open(store, create=True).close()
    written = 0

    def refusing(descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        if written > 1_000_000:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data)

    real = os.write
    monkeypatch.setattr(os, "write", refusing)
    assert main(["--store", str(store), "load", "-q", str(folder)]) == 1
    said = capsys.readouterr().err
    assert os.strerror(number) in said
    assert str(store / "ingest") in said
    assert kept(store) == []
    monkeypatch.undo()
    assert main(["--store", str(store), "load", "-q", str(folder)]) == 0


@needs_root
def test_no_permission_is_said_with_the_place(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "small")
    imagefs("--store", tmp_path / "store", "load", "-q", folder)
    reading: list[str | Path] = ["setpriv", "--reuid=65534", "--clear-groups", "cat", tmp_path / "store/imagefs.json"]
    assert run(reading, check=False).returncode != 0, "a store is for its owner only"
