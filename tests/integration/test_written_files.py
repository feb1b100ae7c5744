"""Files that ``export -o``, ``save -o`` and ``cp`` make where another user may have prepared the place."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefs.cli.output import written
from imagefs.store.store import Store
from imagefs.transfer.save import new_folder
from tests.support.commands import imagefs
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer
from tests.support.mounts import needs_root

LAYER = layer(dir_("etc"), file("etc/conf", b"content\n"))
STRANGER = 70003
COMMANDS = {
    "export": ("export", "-o", "TARGET", "app:1"),
    "save": ("save", "-o", "TARGET", "app:1"),
    "save a folder": ("save", "--format", "oci", "-o", "TARGET", "app:1"),
    "cp": ("cp", "app:1:/etc/conf", "TARGET"),
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [LAYER], "app:1")

    def run(kind: str, target: Path | str) -> subprocess.CompletedProcess[str]:
        words = [str(target) if word == "TARGET" else word for word in COMMANDS[kind]]
        return imagefs("--store", tmp_path / "store", *words, check=False)

    return run


def private(path: Path) -> bool:
    return all(
        not entry.stat().st_mode & 0o077
        for entry in (path, *path.rglob("*"))
        if not stat.S_ISLNK(entry.lstat().st_mode)
    )


@pytest.mark.parametrize("kind", ["export", "save", "save a folder"])
def test_archives_are_for_their_owner_only(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], kind: str
) -> None:
    before = os.umask(0)
    try:
        assert run(kind, tmp_path / "made").returncode == 0
    finally:
        os.umask(before)
    assert private(tmp_path / "made")
    assert sorted(os.listdir(tmp_path)) == ["made", "store"]


@needs_root
@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("where", ["target", "folder"])
def test_a_symlink_of_another_user_is_not_followed(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], kind: str, where: str
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("secret")
    trap = tmp_path / "theirs/trap"
    trap.symlink_to(tmp_path / "secret/file" if where == "target" else tmp_path / "secret")
    os.lchown(trap, STRANGER, STRANGER)
    done = run(kind, trap if where == "target" else trap / "new")
    assert done.returncode == 1, done
    assert f"it is a symlink of user {STRANGER}" in done.stderr
    assert str(trap) in done.stderr
    assert [entry.read_text() for entry in (tmp_path / "secret").iterdir()] == ["secret"]
    assert os.listdir(tmp_path / "theirs") == ["trap"]


@pytest.mark.parametrize("kind", ["export", "save", "cp"])
def test_a_symlink_of_ones_own_is_followed(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], kind: str
) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    assert run(kind, tmp_path / "link").returncode == 0
    assert run(kind, tmp_path / "dangling").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_bytes() == (tmp_path / "new").read_bytes() != b"old"


@needs_root
def test_a_hard_link_is_replaced_and_not_written_to(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "secret").write_text("secret")
    for kind in ("export", "save", "cp"):
        os.link(tmp_path / "secret", tmp_path / kind)
        assert run(kind, tmp_path / kind).returncode == 0
    assert (tmp_path / "secret").read_text() == "secret"


@needs_root
@pytest.mark.parametrize("kind", ["export", "save"])
def test_a_fifo_of_another_user_gets_nothing(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], kind: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.chown(tmp_path / "pipe", STRANGER, STRANGER)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    done = run(kind, tmp_path / "pipe")
    assert (done.returncode, f"it belongs to user {STRANGER}" in done.stderr) == (1, True), done.stderr
    assert os.read(reader, 10) == b""
    os.close(reader)


@pytest.mark.parametrize("kind", ["export", "save"])
@pytest.mark.parametrize("target", ["pipe", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_pipes_and_open_files_are_written_to(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], kind: str, target: str
) -> None:
    assert run(kind, tmp_path / "expected").returncode == 0
    words = [target if word == "TARGET" else word for word in COMMANDS[kind]]
    argv = [sys.executable, "-m", "imagefs", "--store", str(tmp_path / "store"), *words]
    if target == "pipe":
        os.mkfifo(tmp_path / "pipe")
        argv[argv.index("pipe")] = str(tmp_path / "pipe")
        with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as cat:
            subprocess.run(argv, check=True, timeout=60)
            output = cat.communicate()[0]
    else:
        output = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=60).stdout
        with (tmp_path / "redirected").open("wb") as out:
            out.write(b"before")
            out.flush()
            subprocess.run(argv, stdout=out, check=True, timeout=60)
        assert (tmp_path / "redirected").read_bytes() == b"before" + output
    assert output == (tmp_path / "expected").read_bytes()


def test_errors_name_the_file_that_the_user_named(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "folder/of").mkdir(parents=True)
    for kind in ("export", "save", "save a folder"):
        done = run(kind, tmp_path / "folder")
        assert done.returncode == 1
        assert f": {tmp_path}/folder\n" in done.stderr, done.stderr
        done = run(kind, tmp_path / "missing/file")
        assert done.stderr == f"imagefs: No such file or directory: {tmp_path}/missing/file\n"


def test_a_file_that_was_exchanged_meanwhile_is_neither_used_nor_removed(tmp_path: Path) -> None:
    for attempt in ("success", "failure"):
        with pytest.raises((OSError, ValueError)) as caught, written(tmp_path / "made") as out:  # noqa: PT012
            out.write(b"content")
            (temporary,) = tmp_path.glob(".imagefs-*.partial")
            temporary.unlink()
            temporary.write_text("of another user")
            if attempt == "failure":
                raise ValueError("the command failed")
        assert isinstance(caught.value, OSError) == (attempt == "success")
        assert temporary.read_text() == "of another user"
        assert not (tmp_path / "made").exists()
        temporary.unlink()


def test_a_folder_that_was_exchanged_meanwhile_is_neither_used_nor_removed(tmp_path: Path) -> None:
    for attempt in ("success", "failure"):
        with pytest.raises((OSError, ValueError)), new_folder(tmp_path / "made") as files:  # noqa: PT012
            (temporary,) = tmp_path.glob(".imagefs-*.partial")
            temporary.rename(tmp_path / "moved")
            temporary.mkdir()
            (temporary / "file").write_text("of another user")
            files.put("blobs/x", 1, [b"x"])
            if attempt == "failure":
                raise ValueError("the command failed")
        assert (temporary / "file").read_text() == "of another user"
        assert (tmp_path / "moved/blobs/x").read_bytes() == b"x"
        assert not (tmp_path / "made").exists()
        for folder in (temporary, tmp_path / "moved"):
            subprocess.run(["rm", "-r", folder], check=True)
