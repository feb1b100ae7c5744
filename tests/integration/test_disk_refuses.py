"""A disk that is full, read-only or forbidden is said in one sentence, and loses nothing."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.cli.main import main
from imagefs.errors import StoreFull
from imagefs.store.reserve import RESERVE_BYTES
from imagefs.store.store import Store
from tests.support.built_images import image, layout, sha256, write
from tests.support.commands import imagefs, run
from tests.support.images import add_image
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


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of some megabytes, of each of two file systems."""
    top = tmp_path / "disk"
    top.mkdir()
    if request.param == "tmpfs":
        run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", top])
    elif shutil.which("mkfs.ext4"):
        backing = tmp_path / "backing"
        backing.touch()
        os.truncate(backing, 16 << 20)
        run(["mkfs.ext4", "-q", "-F", backing])
        run(["mount", "-o", "loop", backing, top])
    else:
        pytest.skip("mkfs.ext4 is not installed")
    yield top
    run(["umount", top])


def fill(disk: Path) -> None:
    """Leave 0 bytes free."""
    rest = os.open(disk / "rest", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (1 << 20, 4096, 512, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(rest, bytes(size))
        os.fsync(rest)
    os.close(rest)
    for number in range(10_000):  # and no space for a name in a folder either
        try:
            (disk / f"file-{number:0200}").write_bytes(b"x")
        except OSError:
            break
    assert os.statvfs(disk).f_bavail == 0


@needs_root
@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("prune", "-a", "-f"), []),
        (("rm", "app:0"), ["app:1", "app:2"]),
        (("rm", "app:0", "app:1", "app:2"), []),
        (("untag", "app:0"), ["app:1", "app:2"]),
    ],
    ids=["prune", "rm", "rm-all", "untag"],
)
def test_a_full_disk_can_be_emptied(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], names: list[str]
) -> None:
    store = small_disk / "store"
    many = [layer(file(f"layer-{number}", b"x")) for number in range(127)]
    with Store.open(store, create=True) as opened:
        for number in range(3):
            add_image(opened, [*many, layer(file("own", b"%d" % number))], f"app:{number}")
    fill(small_disk)
    assert main(["--store", str(store), *command]) == 0, capsys.readouterr().err
    with Store.open(store) as opened:
        assert sorted(tag.familiar for image in opened.images() for tag in image.tags) == names
        assert opened.catalog_problems() == ()
    for path in small_disk.glob("file-*"):
        path.unlink()
    (small_disk / "rest").unlink()
    with Store.open(store) as opened, opened.writing():
        assert (store / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES


@needs_root
def test_leftovers_of_a_store_without_a_reserve_make_space_for_prune(small_disk: Path) -> None:
    store = small_disk / "store"
    with Store.open(store, create=True) as opened:
        add_image(opened, [layer(file("a", b"a"))], "app:1")
    (store / "ingest" / "0123456789abcdef").write_bytes(bytes(200_000))  # of a writer that was killed
    (store / "reserve").unlink()
    fill(small_disk)
    assert main(["--store", str(store), "prune", "-a", "-f"]) == 0
    with Store.open(store) as opened:
        assert opened.images() == ()


@needs_root
def test_a_full_disk_is_emptied_although_another_process_takes_the_reserve(small_disk: Path) -> None:
    """The command fails with one sentence then, and the next one works once there is space."""
    store = small_disk / "store"
    with Store.open(store, create=True) as opened:
        app = add_image(opened, [layer(file("a", b"a"))], "app:1")
        fill(small_disk)
        (store / "reserve").unlink()
        fill(small_disk)
        with pytest.raises(StoreFull, match="disk is full"):
            opened.remove_names(app, tags=app.tags, digests=())
        (small_disk / "rest").unlink()
        assert opened.remove_names(app, tags=app.tags, digests=())


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
