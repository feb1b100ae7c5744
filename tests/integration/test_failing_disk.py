"""Disks that turn read-only by themselves, and stores in which a folder is where a file belongs."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.cli.main import main
from imagefs.errors import StoreUnusable
from imagefs.oci.manifest import Manifest, parse_manifest
from imagefs.overlay.stored import store_tree
from imagefs.store.store import Store
from tests.support.built_images import image, layout, sha256, write
from tests.support.commands import imagefs, needs, run
from tests.support.images import add_image, documents
from tests.support.layers import file, layer
from tests.support.mounts import mounted, needs_fuse, needs_root, wait_until
from tests.support.registry import Registry

BASE = layer(file("base", b"b" * 3000))
TOP = layer(file("top", b"t" * 3000))
IMAGE = image([BASE, TOP])


def laid_out(folder: Path) -> Path:
    described = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(IMAGE.manifest),
        "size": len(IMAGE.manifest),
    }
    return write(folder / "layout", layout([IMAGE], [described]))


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB that becomes read-only at its first error."""
    top, backing = tmp_path / "disk", tmp_path / "backing"
    top.mkdir()
    backing.touch()
    os.truncate(backing, 16 << 20)
    run(["mkfs.ext4", "-q", "-F", backing])
    run(["mount", "-o", "loop,errors=remount-ro", backing, top])
    yield top
    run(["umount", "-l", top])


def break_disk(top: Path) -> None:
    """Let the disk at *top* report an error to its file system."""
    device = Path(run(["findmnt", "-n", "-o", "SOURCE", top]).stdout.strip()).name
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")


@needs_root
@needs("mkfs.ext4")
def test_a_disk_that_becomes_read_only_by_itself_is_taken_as_such(tmp_path: Path, ext4: Path) -> None:
    store = ext4 / "store"
    imagefs("--store", store, "load", "-q", "--name", "app:1", laid_out(tmp_path))
    (store / "mounts" / "0123456789abcdef").write_bytes(b"{}")  # of a server that died
    break_disk(ext4)
    for args in (("ls",), ("df",), ("verify",), ("verify", "--repair"), ("prune", "-n"), ("diff", "app:1", "app:1")):
        done = imagefs("--store", store, *args, check=False)
        assert (done.returncode, done.stderr) == (0, ""), args
    assert "can only be read" in imagefs("--store", store, "info").stdout
    for args in (("prune", "-a", "-f"), ("prune", "-f"), ("rm", "app:1"), ("untag", "app:1"), ("tag", "app:1", "b:1")):
        done = imagefs("--store", store, *args, check=False)
        assert done.returncode == 7, args
        assert "read-only" in done.stderr, args
        assert done.stderr.count("\n") == 1, args


@needs_root
@needs("mkfs.ext4")
def test_an_open_store_goes_on_when_its_disk_becomes_read_only(ext4: Path) -> None:
    with Store.open(ext4 / "store", create=True) as store:
        add_image(store, [BASE], "app:1")
        break_disk(ext4)
        with store.writing(), store.keeping():
            assert store.image("app:1").diff_ids
        app = store.image("app:1")
        with pytest.raises(StoreUnusable, match="read-only"):
            store.remove_names(app, tags=app.tags, digests=())


def test_the_first_error_of_a_failing_disk_is_the_one_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every write fails from the one of the first layer on, also those of the clean-up."""
    store = tmp_path / "store"
    Store.open(store, create=True).close()
    is_broken = False

    def failing(*_args: object, **_options: object) -> int:
        nonlocal is_broken
        is_broken = True
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def once_broken(real: object, name: str) -> object:
        def call(*args: object, **options: object) -> object:
            if is_broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(args[0]))
            return real(*args, **options)  # type: ignore[operator]

        assert callable(real), name
        return call

    with Registry() as registry:
        registry.put("team/app", IMAGE, "1")
        monkeypatch.setattr(os, "write", failing)
        for name in ("unlink", "utime", "open"):
            monkeypatch.setattr(os, name, once_broken(getattr(os, name), name))
        monkeypatch.setattr(Path, "touch", once_broken(Path.touch, "touch"))
        assert main(["--store", str(store), "pull", "-q", f"{registry.host}/team/app:1"]) == 1
        monkeypatch.undo()
    message = capsys.readouterr().err
    assert message.startswith(f"imagefs: Input/output error: {store}/"), message
    assert "sweep-wanted" not in message


def test_a_sweep_leaves_a_request_only_to_a_writer(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True) as store, Store.open(tmp_path / "store") as other:
        with other.writing():
            assert store.sweep() is None
            assert (store.path / "sweep-wanted").exists()
        assert not (store.path / "sweep-wanted").exists()


def test_an_image_loaded_under_a_second_manifest_leaves_no_document(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        first = add_image(store, [BASE], "app:1")
        store_tree(store, first.diff_ids)
        manifest, config = documents([BASE])
        second = parse_manifest(manifest.raw + b"\n")
        assert isinstance(second, Manifest)
        with store.writing():
            again = store.add_image(manifest=second, config=config, references=())
        assert again == first
        assert not store.document_path(second.digest).exists()
        assert imagefs("--store", store.path, "verify").stdout == "1 image checked: all is well\n"
        store.document_path(first.manifest_digest).unlink()
        with store.writing():
            assert store.add_image(manifest=second, config=config, references=()).manifest_digest == second.digest
        assert imagefs("--store", store.path, "verify").stdout == "1 image checked: all is well\n"


KINDS = ["layers/sha256/*.tar", "layers/sha256/*.index", "trees/sha256/*.tree", "blobs/sha256/*"]


def with_folders(store: Path, pattern: str, *, empty: bool) -> list[Path]:
    """Put a folder in place of each file of *pattern*, and return their paths."""
    paths = sorted(store.glob(pattern))
    assert paths
    for path in paths:
        path.unlink()
        path.mkdir()
        if not empty:
            (path / "notes").write_text("mine")
    return paths


@pytest.mark.parametrize("pattern", KINDS)
@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("command", [("verify", "--repair"), ("pull", "-q", "{reference}")], ids=["verify", "pull"])
def test_a_folder_in_place_of_a_file_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pattern: str, empty: bool, command: tuple[str, ...]
) -> None:
    store = tmp_path / "store"
    with Registry() as registry:
        registry.put("team/app", IMAGE, "1")
        reference = f"{registry.host}/team/app:1"
        assert main(["--store", str(store), "pull", "-q", reference]) == 0
        before = {path: path.read_bytes() for path in store.glob(pattern)}
        with_folders(store, pattern, empty=empty)
        assert main(["--store", str(store), "verify"]) == 7
        assert main(["--store", str(store), *(word.format(reference=reference) for word in command)]) == 0
    assert {path: path.read_bytes() for path in before} == before
    aside = [path for path in store.rglob("*.damaged-*") if path.is_dir()]
    assert len(aside) == (0 if empty else len(before))
    assert all((path / "notes").read_text() == "mine" for path in aside)
    capsys.readouterr()
    assert main(["--store", str(store), "verify"]) == 0
    assert "damaged " not in capsys.readouterr().out


@pytest.mark.parametrize("pattern", KINDS[1:3])
def test_an_image_is_read_although_a_folder_is_in_place_of_what_is_derived(tmp_path: Path, pattern: str) -> None:
    store = tmp_path / "store"
    with Store.open(store, create=True) as opened:
        add_image(opened, [BASE, TOP], "app:1")
    assert imagefs("--store", store, "cat", "app:1", "top").stdout == "t" * 3000
    with_folders(store, pattern, empty=False)
    assert imagefs("--store", store, "cat", "app:1", "top").stdout == "t" * 3000


@pytest.mark.fuse
@needs_fuse[1]
def test_a_layer_that_verify_mends_is_shown_by_a_live_mount(tmp_path: Path) -> None:
    store, mountpoint = tmp_path / "store", tmp_path / "mnt"
    with Registry() as registry:
        registry.put("team/app", IMAGE, "1")
        reference = f"{registry.host}/team/app:1"
        imagefs("--store", store, "pull", "-q", reference)
        with Store.open(store) as opened:
            tar = opened.layer_path(opened.image(reference).diff_ids[1])
        tar.chmod(0o600)
        tar.write_bytes(tar.read_bytes().replace(b"tttt", b"tttT", 1))
        with mounted(store, mountpoint):
            top = mountpoint / registry.host / "team/app/1/top"
            assert top.read_bytes() != b"t" * 3000
            imagefs("--store", store, "verify", "--repair")
            wait_until(lambda: top.read_bytes() == b"t" * 3000, "the mended content is shown")
