"""Who can do what with whose store: real users, and every way in which a store can be open to others."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.errors import StoreUnusable
from imagefs.overlay.stored import store_tree
from imagefs.store import access
from imagefs.store.store import Store
from tests.support.commands import imagefs
from tests.support.images import add_image
from tests.support.layers import file, layer
from tests.support.mounts import CHECKOUT, mounted, needs_fuse, needs_root, public_folder

LAYER = layer(file("shadow", b"secret\n", mode=0o000))
ROOT, USER, MEMBER, STRANGER = 0, 70001, 70002, 70003
GROUP = 70010
_PROGRAM = """
import contextlib, importlib, io, json, os, pkgutil, sqlite3, sys
import imagefs
from imagefs.cli.main import main

# Imported as root: the user may have no access to where Python and imagefs are.
for module in pkgutil.walk_packages(imagefs.__path__, "imagefs."):
    if module.name not in ("imagefs.__main__", "imagefs.api.fsspec"):
        importlib.import_module(module.name)
uid, groups, commands = json.load(sys.stdin)
os.setgroups(groups)
os.setgid(uid)
os.setuid(uid)
results = []
for argv in commands:
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(argv)
        except SystemExit as end:
            status = end.code
        out.flush()
    results.append([status, out.buffer.getvalue().decode(), err.getvalue()])
print(json.dumps(results))
"""


def run_as(uid: int, *commands: list[str], groups: tuple[int, ...] = ()) -> list[tuple[int, str, str]]:
    """Run imagefs command lines as user *uid*; return exit status, output and errors of each."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps([uid, groups, commands]),
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(status, out, err) for status, out, err in json.loads(done.stdout)]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of root that every user can pass."""
    with public_folder() as folder:
        yield folder


def fill(path: Path) -> None:
    with Store.open(path, create=True) as store:
        store_tree(store, add_image(store, [LAYER], "app:1").diff_ids)


def store_of(kind: str, folder: Path) -> Path:
    """Make a store: of root, of a user, or of a user and readable for a group."""
    path = folder / kind.removesuffix("'s")
    fill(path)
    if kind != "root's":
        for entry in (path, *path.rglob("*")):
            os.chown(entry, USER, USER, follow_symlinks=False)
    if kind == "group's":
        ((status, _, error),) = run_as(USER, ["--store", str(path), "init", "--group", str(GROUP)], groups=(GROUP,))
        assert status == 0, error
    return path


YES, REFUSED, DENIED = "yes", "refused", "denied by the kernel"
# By store and user: can it list and read, can it change, can it read with --trust-store.  README has the same table.
TABLE = {
    ("root's", ROOT): (YES, YES, YES),
    ("root's", USER): (DENIED, DENIED, DENIED),
    ("root's", MEMBER): (DENIED, DENIED, DENIED),
    ("root's", STRANGER): (DENIED, DENIED, DENIED),
    ("user's", ROOT): (REFUSED, REFUSED, YES),
    ("user's", USER): (YES, YES, YES),
    ("user's", MEMBER): (DENIED, DENIED, DENIED),
    ("user's", STRANGER): (DENIED, DENIED, DENIED),
    ("group's", ROOT): (REFUSED, REFUSED, YES),
    ("group's", USER): (YES, YES, YES),
    ("group's", MEMBER): (YES, REFUSED, YES),
    ("group's", STRANGER): (DENIED, DENIED, DENIED),
}


def verdict(result: tuple[int, str, str]) -> str:
    status, _, error = result
    if status == 0:
        return YES
    assert error.startswith("imagefs: "), error
    assert error.count("\n") == 1, error
    return DENIED if "ermission denied" in error else REFUSED


@needs_root
@pytest.mark.parametrize(("kind", "uid"), TABLE)
def test_each_user_can_do_what_the_table_says(open_folder: Path, kind: str, uid: int) -> None:
    path = store_of(kind, open_folder)
    before = fixed(path)
    reading: list[list[str]] = [["ls"], ["cat", "app:1", "shadow"], ["verify"]]
    changing: list[list[str]] = [["tag", "app:1", "other:1"], ["prune", "-f"], ["verify", "--repair"], ["rm", "app:1"]]
    read, change, trusted = TABLE[kind, uid]
    # By itself, --trust-store never lets a user change the store of another.
    for options, can_read, can_change in (([], read, change), (["--trust-store"], trusted, change)):
        commands = [["--store", str(path), *options, *command] for command in (*reading, *changing)]
        results = run_as(uid, *commands, groups=() if uid == STRANGER else (GROUP,))
        verdicts = [verdict(result) for result in results]
        assert verdicts[:3] == [can_read] * 3, results
        assert (results[1][1] == "secret\n") == (can_read == YES)
        if change != YES:
            assert YES not in (verdicts[3], verdicts[4], verdicts[6]), results
            assert fixed(path) == before
            continue
        assert verdicts[3:] == [can_change] * 4, results
        run_as(uid, ["--store", str(path), "tag", "other:1", "app:1"])
    assert {one.st_uid for one in statuses(path)} == {ROOT if kind == "root's" else USER}


def fixed(path: Path) -> dict[Path, tuple[int, ...]]:
    """Return what a reader must not change."""
    found = {entry: entry.lstat() for entry in (path, *path.rglob("*"))}
    return {entry: (one.st_ino, one.st_mode, one.st_uid, one.st_size, one.st_mtime_ns) for entry, one in found.items()}


@needs_root
@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
@pytest.mark.parametrize("group", [None, GROUP])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int, group: int | None) -> None:
    before = os.umask(umask)
    try:
        with Store.open(tmp_path / "new/store", create=True) as store:
            store.set_group(group)
            add_image(store, [LAYER], "app:1")
            with store.new_layer() as ingest, store.writing():
                ingest.write(b"")
            store.sweep()
        path = tmp_path / "new/store"
        modes = {(stat.S_ISDIR(one.st_mode), oct(stat.S_IMODE(one.st_mode))) for one in statuses(path)}
        expected = {(True, "0o700"), (False, "0o600")} if group is None else {(True, "0o2750"), (False, "0o640")}
        assert modes - {(False, "0o600")} == expected - {(False, "0o600")}
        private = {one.name for one in path.rglob("*") if stat.S_IMODE(one.stat().st_mode) == 0o600}
        assert group is None or private <= {"secret", "reserve"}
        if group is not None:
            assert {one.st_gid for one in statuses(path)} - {0} == {GROUP}
    finally:
        os.umask(before)
        (tmp_path / "new").chmod(0o700)
    assert not (tmp_path / "new").stat().st_mode & 0o022


def statuses(path: Path) -> list[os.stat_result]:
    return [entry.lstat() for entry in (path, *path.rglob("*"))]


def in_store(tmp_path: Path) -> Path:
    fill(tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750, 0o710, 0o701, 0o2750])
def test_a_folder_open_to_others_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = in_store(tmp_path)
    path.chmod(mode)
    with pytest.raises(StoreUnusable, match=f"'chmod -R go= {path}'"):
        Store.open(path)
    Store.open(path, trust=True).close()
    subprocess.run(["chmod", "-R", "go=", path], check=True)
    Store.open(path).close()


def test_an_empty_folder_becomes_private_with_the_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o777)
    assert stat.S_IMODE(in_store(tmp_path).stat().st_mode) == 0o700


def test_wide_modes_inside_of_a_private_store_are_mended(tmp_path: Path) -> None:
    """Those of 0.3, which trusted in the folder alone."""
    path = in_store(tmp_path)
    for entry in set(path.rglob("*")) - {path / "secret"}:
        entry.chmod(0o777 if entry.is_dir() else 0o444 if entry.parent.name == "sha256" else 0o644)
    Store.open(path).close()
    assert not [entry for entry in path.rglob("*") if entry.is_dir() and entry.stat().st_mode & 0o077]
    assert not [entry for entry in path.iterdir() if entry.stat().st_mode & 0o077]
    assert imagefs("--store", path, "verify").returncode == 0


@pytest.mark.parametrize("name", ["layers", "layers/sha256", "ingest", "mounts", "catalog.sqlite", "imagefs.json"])
def test_a_symlink_in_a_store_is_refused_with_the_command_that_removes_it(tmp_path: Path, name: str) -> None:
    path = in_store(tmp_path)
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    for trust in (False, True):
        with pytest.raises(StoreUnusable, match=f"'{name}' in it is no .*'rm {path / name}'"):
            Store.open(path, trust=trust)


@pytest.mark.parametrize("suffix", [".tar", ".index", ".tree"])
def test_content_that_is_a_symlink_is_not_shown(tmp_path: Path, suffix: str) -> None:
    path = in_store(tmp_path)
    (content,) = path.rglob(f"*{suffix}")
    content.rename(tmp_path / "elsewhere")
    content.symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    done = imagefs("--store", path, "cat", "app:1", "shadow", check=False)
    # An index and a tree are made again from the tar.
    assert (done.returncode, done.stdout) == ((7, "") if suffix == ".tar" else (0, "secret\n"))
    assert content.is_symlink() == (suffix == ".tar")
    assert (tmp_path / "elsewhere").read_bytes() == before


@pytest.mark.parametrize("kind", ["symlink", "hard link"])
def test_nothing_that_waits_in_a_new_folder_is_written_to(tmp_path: Path, kind: str) -> None:
    """Another user may have written to the folder before it became private."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "store").mkdir()
    trap = tmp_path / f"store/.imagefs-{'0' * 16}"
    trap.symlink_to(tmp_path / "precious") if kind == "symlink" else os.link(tmp_path / "precious", trap)
    Store.open(tmp_path / "store", create=True).close()
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "store/imagefs.json").is_symlink()


@needs_root
@pytest.mark.parametrize("name", ["layers", "catalog.sqlite", "trees/sha256"])
def test_a_part_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    path = in_store(tmp_path)
    os.chown(path / name, STRANGER, STRANGER)
    with pytest.raises(StoreUnusable, match=f"'{name}' in it belongs to user {STRANGER}; 'chown -R 0 {path}'"):
        Store.open(path)


@needs_root
def test_root_refuses_a_place_that_others_can_exchange(tmp_path: Path) -> None:
    def owned(folder: Path) -> None:
        os.chown(folder, STRANGER, STRANGER)

    def writable(folder: Path) -> None:
        folder.chmod(0o777)

    def linked(folder: Path) -> None:
        folder.rename(tmp_path / "target")
        folder.symlink_to(tmp_path / "target")
        os.lchown(folder, STRANGER, STRANGER)

    attacks: list[tuple[str, Callable[[Path], None], str]] = [
        ("owned", owned, f"belongs to user {STRANGER}"),
        ("writable", writable, "can be written to by other users"),
        ("linked", linked, f"belongs to user {STRANGER}"),
    ]
    for name, attack, reason in attacks:
        folder = tmp_path / name
        folder.mkdir()
        Store.open(folder / "store", create=True).close()
        attack(folder)
        for path, create in ((folder / "store", False), (folder / "new", True)):
            with pytest.raises(StoreUnusable, match=f"'{folder}' above it {reason}.*--trust-store"):
                Store.open(path, create=create)
        assert not (folder / "new").exists()
        Store.open(folder / "store", trust=True).close()
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    Store.open(sticky / "store", create=True).close()


@needs_root
def test_a_folder_of_another_user_does_not_become_roots_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", STRANGER, STRANGER)
    for trust in (False, True):
        with pytest.raises(StoreUnusable, match=f"the folder belongs to user {STRANGER}"):
            Store.open(tmp_path / "store", create=True, trust=trust)
    assert not list((tmp_path / "store").iterdir())


@needs_root
def test_a_group_that_could_change_a_shared_store_is_refused(open_folder: Path) -> None:
    path = store_of("group's", open_folder)
    (path / "layers/sha256").chmod(0o2770)
    for uid in (USER, MEMBER):
        ((status, _, error),) = run_as(uid, ["--store", str(path), "ls"], groups=(GROUP,))
        assert (status, f"'chmod -R g-w,o= {path}'" in error) == (7, True), error
    run_as(USER, ["--store", str(path), "init", "--private"], groups=(GROUP,))


@needs_root
def test_sharing_is_for_members_and_can_be_ended(open_folder: Path) -> None:
    path = store_of("user's", open_folder)
    share = ["--store", str(path), "init", "--group", str(GROUP)]
    ((status, _, error),) = run_as(USER, share)
    assert (status, f"no member of group {GROUP}" in error) == (7, True), error
    listing = ["--store", str(path), "ls"]
    assert [status for status, *_ in run_as(USER, share, listing, groups=(GROUP,))] == [0, 0]
    assert run_as(MEMBER, listing, groups=(GROUP,))[0][0] == 0
    assert [status for status, *_ in run_as(USER, ["--store", str(path), "init", "--private"], listing)] == [0, 0]
    assert run_as(MEMBER, listing, groups=(GROUP,))[0][0] != 0
    assert all(not one.st_mode & 0o077 for one in statuses(path))


def test_an_unknown_group_is_named(tmp_path: Path) -> None:
    done = imagefs("--store", tmp_path / "store", "init", "--group", "no-such-group", check=False)
    assert (done.returncode, "there is no group 'no-such-group'" in done.stderr) == (2, True)
    assert not (tmp_path / "store").exists()


def test_a_store_that_is_written_to_is_not_shared_meanwhile(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True) as store, store.writing():
        done = imagefs("--store", store.path, "init", "--private", check=False)
    assert (done.returncode, "another process writes to it" in done.stderr) == (7, True)


@needs_root
@pytest.mark.fuse
@needs_fuse[1]
def test_a_mount_of_another_users_store_needs_the_option(open_folder: Path) -> None:
    path = store_of("user's", open_folder)
    point = open_folder / "point"
    point.mkdir()
    done = imagefs("--store", path, "mount", point, check=False)
    assert done.returncode == 7, done.stderr
    assert f"it belongs to user {USER}" in done.stderr
    with mounted(path, point, "-o", "trust-store"):
        assert (point / "app/1/shadow").read_text() == "secret\n"
    assert {one.st_uid for one in statuses(path)} == {USER}


def test_every_file_of_a_store_is_judged(tmp_path: Path) -> None:
    """A file that a later version adds must not be forgotten in `imagefs.store.access`."""
    path = in_store(tmp_path)
    with Store.open(path) as store:
        store.sweep()
    names = {str(entry.relative_to(path)) for entry in path.rglob("*") if entry.parent.name != "sha256"}
    assert names <= {*access._FOLDERS, *access._FILES, "secret"}


def test_a_store_of_another_group_than_its_mark_names_is_refused(tmp_path: Path) -> None:
    path = in_store(tmp_path)
    path.chmod(0o2750)
    group = path.stat().st_gid
    top = os.open(path, os.O_RDONLY)
    try:
        assert access.check_access(top, path, group, trust=False)
        with pytest.raises(StoreUnusable, match=f"chgrp -R {group + 1} "):
            access.check_access(top, path, group + 1, trust=False)
    finally:
        os.close(top)


@pytest.mark.parametrize("group", [None, os.getgid()])
def test_a_store_is_closed_while_its_group_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int | None
) -> None:
    path = in_store(tmp_path)
    access.share(path, os.getgid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o2750
    real, modes = access._give_file, set()

    def give_file(folder: int, name: str, group: int | None, mode: int) -> None:
        modes.add(stat.S_IMODE(path.stat().st_mode))
        real(folder, name, group, mode)

    monkeypatch.setattr(access, "_give_file", give_file)
    access.share(path, group)
    assert modes == {0o700}
