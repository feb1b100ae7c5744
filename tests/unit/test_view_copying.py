"""Copies into a folder whose owner exchanges names meanwhile: the interleavings, one by one."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.store.store import Store
from imagefs.view.copying import Copy
from imagefs.view.descent import Descent
from imagefs.view.kept import KeptFiles
from imagefs.view.opened import OpenedImages
from imagefs.view.tree import looked_at, named
from tests.support.images import add_image
from tests.support.layers import dir_, fifo, file, layer, link, symlink

LAYER = layer(
    fifo("pipe", mode=0o666),
    symlink("sym", "target"),
    file("alone", b"content", mode=0o666),
    file("plain", b"content", mode=0o666),
    dir_("dir", mode=0o777),
    file("dir/one", b"1"),
    link("dir/two", "plain"),
)


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file that no copy may touch; checked at the end."""
    path = tmp_path / "secret"
    path.write_text("secret")
    path.chmod(0o600)
    os.utime(path, ns=(1, 1))
    yield path
    status = path.stat()
    assert (path.read_text(), stat.S_IMODE(status.st_mode), status.st_mtime_ns) == ("secret", 0o600, 1)


@contextlib.contextmanager
def copying(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Yield what copies the whole image into ``tmp_path/to``."""
    (tmp_path / "to").mkdir()
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [LAYER], "app:1")
        _, stack = named(store, "app:1")
        tree = looked_at(OpenedImages(store, KeptFiles(), verify=True), stack, passing=False)
        top = os.open(tmp_path / "to", os.O_RDONLY | os.O_DIRECTORY)
        try:
            root = tree.root()
            with Copy(tree, top, archive=os.geteuid() == 0, left_out=lambda *_: None) as copy:
                yield lambda: copy.copy(b"", root, b"")
        finally:
            os.close(top)


def after(monkeypatch: pytest.MonkeyPatch, function: str, name: bytes, attack: Callable[[], None]) -> None:
    """Let *attack* run once, right after ``os.function`` made *name*."""
    original = getattr(os, function)
    attacks = [attack]

    def hooked(*args: object, **keywords: object) -> object:
        result = original(*args, **keywords)
        flags = args[1] if function == "open" else os.O_CREAT
        if name in args and isinstance(flags, int | bytes) and (isinstance(flags, bytes) or flags & os.O_CREAT):
            while attacks:
                attacks.pop()()
        return result

    monkeypatch.setattr(os, function, hooked)


@pytest.mark.parametrize(("function", "name"), [("mknod", "pipe"), ("symlink", "sym")])
@pytest.mark.parametrize("kind", ["symlink", "hard link", "gone"])
def test_a_new_special_file_exchanged_before_its_attributes_are_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: Path, function: str, name: str, kind: str
) -> None:
    target = tmp_path / "to" / name

    def attack() -> None:
        target.unlink()
        if kind == "symlink":
            os.symlink(secret, target) if function != "symlink" else os.link(secret, target)
        elif kind == "hard link":
            os.link(secret, target)

    with copying(tmp_path) as copy:
        after(monkeypatch, function, os.fsencode(name), attack)
        with pytest.raises(OSError, match=r"another process replaced it|No such file") as caught:
            copy()
    assert name in str(caught.value)


def test_a_hard_link_to_a_symlink_of_another_owner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kind is the expected one; only its links give it away."""
    other, target = tmp_path / "other", tmp_path / "to/sym"
    other.symlink_to("somewhere")
    before = other.lstat().st_mtime_ns

    def attack() -> None:
        target.unlink()
        os.link(other, target, follow_symlinks=False)

    with copying(tmp_path) as copy:
        after(monkeypatch, "symlink", b"sym", attack)
        with pytest.raises(OSError, match="another process replaced it"):
            copy()
    assert other.lstat().st_mtime_ns == before


def test_a_file_exchanged_while_it_is_written_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: Path
) -> None:
    target = tmp_path / "to/alone"

    def attack() -> None:
        target.unlink()
        target.symlink_to(secret)

    with copying(tmp_path) as copy:
        after(monkeypatch, "open", b"alone", attack)
        copy()
    assert target.is_symlink()


def test_a_failed_copy_removes_no_file_of_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "to/alone"

    def attack() -> None:
        target.unlink()
        target.write_text("of another process")

    def full(descriptor: int, data: bytes) -> int:
        if not target.exists():
            return write(descriptor, data)
        attack()
        raise OSError(28, "No space left on device")

    write = os.write
    with copying(tmp_path) as copy:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            copy()
    monkeypatch.undo()
    assert target.read_text() == "of another process"


def test_a_directory_exchanged_for_a_symlink_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    target = tmp_path / "to/dir"

    def attack() -> None:
        target.rmdir()
        target.symlink_to(outside)

    with copying(tmp_path) as copy:
        after(monkeypatch, "mkdir", b"dir", attack)
        with pytest.raises(NotADirectoryError):
            copy()
    assert os.listdir(outside) == []
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700


def test_hard_links_stay_hard_links(tmp_path: Path) -> None:
    with copying(tmp_path) as copy:
        copy()
    assert (tmp_path / "to/plain").samefile(tmp_path / "to/dir/two")
    assert (tmp_path / "to/plain").stat().st_nlink == 2


# ---- the way through folders ----


def entered(descent: Descent, path: bytes) -> tuple[int, int]:
    status = os.fstat(descent.enter(path))
    return status.st_dev, status.st_ino


def test_a_descent_leads_where_the_path_leads(tmp_path: Path) -> None:
    paths = [b"/".join([b"a"] * depth) for depth in (1, 2, 40, 100)] + [b"a/aa/b", b"a/a/b/" + b"/".join([b"c"] * 60)]
    for path in paths:
        os.makedirs(os.fsencode(tmp_path) + b"/" + path, exist_ok=True)
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = os.listdir("/proc/self/fd")
    descent = Descent(top)
    try:
        for path in [*paths, b"", *reversed(paths), paths[3], paths[2], paths[3], b"a/a", paths[3]]:
            status = os.stat(os.fsencode(tmp_path) + b"/" + path)
            assert entered(descent, path) == (status.st_dev, status.st_ino)
            assert len(os.listdir("/proc/self/fd")) < len(before) + 40
        descent.close()
        assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(top)


def test_a_deep_tree_costs_one_step_for_each_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 300
    path = b"/".join([b"d"] * depth)
    os.makedirs(os.fsencode(tmp_path) + b"/" + path)
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    descent = Descent(top)
    opens = 0
    original = os.open

    def counted(*args: object, **keywords: object) -> int:
        nonlocal opens
        opens += 1
        return original(*args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", counted)
    for length in [*range(depth), *reversed(range(depth))]:
        descent.enter(path[: 2 * length].rstrip(b"/"))
    monkeypatch.undo()
    descent.close()
    os.close(top)
    assert opens <= 2 * depth


def test_a_folder_that_was_moved_away_does_not_lead_out(tmp_path: Path) -> None:
    path = b"/".join([b"d"] * 100)
    (tmp_path / "top").mkdir()
    (tmp_path / "outside").mkdir()
    os.makedirs(os.fsencode(tmp_path) + b"/top/" + path)
    top = os.open(tmp_path / "top", os.O_RDONLY | os.O_DIRECTORY)
    descent = Descent(top)
    try:
        descent.enter(path)
        (tmp_path / "top" / os.fsdecode(path[:20].rstrip(b"/"))).rename(tmp_path / "outside/d")
        with pytest.raises(OSError, match="another process moved it"):
            descent.enter(b"d")
        descent.close()
    finally:
        os.close(top)
