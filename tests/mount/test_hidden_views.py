"""What a mount shows to who asks for it by name: layers by themselves, documents, where things come from."""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import imagefs, run
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, link, opaque, symlink, whiteout
from tests.support.mounts import mounted, needs_fuse

pytestmark = [*needs_fuse, pytest.mark.usefixtures("driver")]

BASE = layer(
    dir_("etc"),
    file("etc/kept", b"kept"),
    file("etc/gone", b"gone"),
    dir_("var"),
    file("var/old", b"old"),
    symlink("absolute", "/etc/kept"),
    dir_("usr/bin"),
    symlink("usr/bin/absolute", "/etc/kept"),
    symlink("usr/bin/out", "../../../../../etc/kept"),
    symlink("usr/bin/near", "../lib/x"),
    symlink("usr/bin/root", "/"),
)
TOP = layer(
    whiteout("etc/gone"),
    dir_("var"),
    opaque("var"),
    file("var/new", b"new"),
    link("usr/bin/second", "etc/kept"),
)


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hidden") / "store"
    with Store.open(path, create=True) as store:
        add_image(store, [BASE, TOP], "app:1")
        add_image(store, [BASE], "deep/er/app:base")
    return path


@pytest.fixture(scope="module")
def top(driver: str, store_path: Path) -> Iterator[Path]:
    with mounted(store_path, store_path.parent / f"mnt-{driver}") as mountpoint:
        yield mountpoint


def layers_of(store_path: Path, reference: str) -> list[str]:
    with Store.open(store_path) as store:
        return [str(diff_id) for diff_id in store.image(reference).diff_ids]


def test_a_layer_is_shown_by_itself_with_its_markers(top: Path, store_path: Path) -> None:
    base, upper = layers_of(store_path, "app:1")
    names = run(["find", top / ".imagefs/layers" / upper, "-mindepth", "1", "-printf", r"%P %y\n"]).stdout.splitlines()
    assert sorted(names) == [
        "etc d",
        "etc/.wh.gone f",
        "usr d",
        "usr/bin d",
        "usr/bin/second l",
        "var d",
        "var/.wh..wh..opq f",
        "var/new f",
    ]
    shown = top / ".imagefs/layers" / upper.removeprefix("sha256:")
    assert (shown / "var/new").read_bytes() == b"new"
    assert (shown / "etc/.wh.gone").read_bytes() == b""
    assert (shown / "usr/bin/second").readlink() == Path("/etc/kept"), "a hard link to a layer below"
    assert (top / ".imagefs/layers" / base[7:25] / "etc/gone").read_bytes() == b"gone"
    assert (shown / "var/new").stat().st_ino == (top / "app/1/var/new").stat().st_ino


def test_documents_are_shown_byte_for_byte(top: Path, store_path: Path) -> None:
    with Store.open(store_path) as store:
        for reference, path in (("app:1", "app/1"), ("deep/er/app:base", "deep/er/app/base")):
            image = store.image(reference)
            meta = top / ".imagefs/meta" / path
            assert (meta / "manifest.json").read_bytes() == store.document(image.manifest_digest)
            assert (meta / "config.json").read_bytes() == store.document(image.id)
            assert sorted(os.listdir(meta)) == ["config.json", "manifest.json"]
            described = (meta / "config.json").stat()
            assert stat.S_IFMT(described.st_mode) == stat.S_IFREG
            assert described.st_size == len(store.document(image.id))
    with pytest.raises(OSError, match="Read-only") as refused:
        (top / ".imagefs/meta/app/1/config.json").open("ab")
    assert refused.value.errno == errno.EROFS


def test_nobody_who_walks_the_mount_meets_what_is_hidden(top: Path) -> None:
    assert ".imagefs" not in os.listdir(top)
    assert ".imagefs" not in run(["find", top]).stdout
    assert "manifest.json" not in run(["du", "-a", top]).stdout


def test_a_moved_tag_has_other_documents_at_once(driver: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [BASE], "app:1")
        with mounted(tmp_path / "store", tmp_path / "mnt") as mountpoint:
            path = mountpoint / ".imagefs/meta/app/1/config.json"
            first = path.read_bytes()
            with path.open("rb") as still_open:
                moved = add_image(store, [BASE, TOP], "app:1")
                deadline = 40
                while path.read_bytes() == first and deadline:
                    time.sleep(0.05)
                    deadline -= 1
                assert path.read_bytes() == store.document(moved.id)
                if driver == "kernel":  # libfuse 2 has one file a path
                    assert still_open.read() == first


def test_every_entry_says_where_it_comes_from(top: Path, store_path: Path) -> None:
    base, upper = (diff_id.encode() for diff_id in layers_of(store_path, "app:1"))
    image = top / "app/1"
    for path, origin in (("etc/kept", base), ("var/new", upper), ("etc", base), ("var", upper)):
        assert os.getxattr(image / path, "user.imagefs.layer") == origin
    assert os.getxattr(image / "var/new", "user.imagefs.sha256") == hashlib.sha256(b"new").hexdigest().encode()
    assert os.listxattr(image / "var/new") == []
    for path, name in (("etc", "user.imagefs.sha256"), ("usr", "user.imagefs.layer")):
        with pytest.raises(OSError, match="No data"):  # a directory has no content; no layer mentions usr
            os.getxattr(image / path, name)
    with pytest.raises(OSError, match="No data"):
        os.getxattr(top / "app", "user.imagefs.layer")
    if os.geteuid() == 0:  # Linux lets nobody ask a symlink for an attribute of users
        assert os.getxattr(image / "absolute", "trusted.imagefs.layer", follow_symlinks=False) == base


def test_an_image_cannot_say_itself_where_it_comes_from(driver: str, tmp_path: Path) -> None:
    lying = layer(file("a", b"a", xattrs={"user.imagefs.sha256": b"00", "user.other": b"1"}))
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [lying], "app:1")
    with mounted(tmp_path / "store", tmp_path / "mnt") as mountpoint:
        path = mountpoint / "app/1/a"
        assert os.getxattr(path, "user.imagefs.sha256") == hashlib.sha256(b"a").hexdigest().encode()
        assert os.listxattr(path) == ["user.other"]


def test_symlinks_are_kept_by_default_and_rewritten_when_asked(top: Path, driver: str, store_path: Path) -> None:
    kept = top / "app/1"
    assert os.readlink(kept / "usr/bin/absolute") == "/etc/kept"
    with mounted(store_path, store_path.parent / f"rewritten-{driver}", "-o", "symlinks=rewrite") as mountpoint:
        for image in (mountpoint / "app/1", mountpoint / "deep/er/app/base"):
            shown = {name: os.readlink(image / name) for name in ("absolute", "usr/bin/absolute", "usr/bin/out")}
            assert shown == {
                "absolute": "etc/kept",
                "usr/bin/absolute": "../../etc/kept",
                "usr/bin/out": "../../etc/kept",
            }
            assert os.readlink(image / "usr/bin/near") == "../lib/x"
            assert os.readlink(image / "usr/bin/root") == "../.."
            for path in ("absolute", "usr/bin/absolute", "usr/bin/out"):
                assert (image / path).read_bytes() == b"kept"
                assert (image / path).lstat().st_size == len(os.readlink(image / path))
            listed = run(["ls", "-l", image / "usr/bin"]).stdout
            assert "absolute -> ../../etc/kept" in listed
    with mounted(store_path, store_path.parent / f"one-{driver}", "-o", "symlinks=rewrite,image=app:1") as mountpoint:
        assert (mountpoint / "usr/bin/absolute").read_bytes() == b"kept"


def test_an_unknown_way_to_show_symlinks_is_refused(store_path: Path, tmp_path: Path) -> None:
    done = imagefs("--store", store_path, "mount", "-o", "symlinks=follow", tmp_path, check=False)
    assert done.returncode != 0
    assert "symlinks=follow" in done.stderr
    assert "expected keep or rewrite" in done.stderr
