"""The processes that parse images have no privileges left and reach nothing but the store."""

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefs.layer.scan_process import ScanProcess
from imagefs.oci.digest import DiffId, Digest
from imagefs.store.mounts import MountRecord
from imagefs.store.removal import remove
from imagefs.store.store import Store
from tests.support.commands import imagefs
from tests.support.images import add_image
from tests.support.layers import file, layer
from tests.support.mounts import CHECKOUT, children, mounted, needs_fuse, needs_root, public_folder, wait_until
from tests.support.status import CAPABILITY_SETS, capabilities, status

NOBODY = 65534
DAC_READ_SEARCH, SYS_ADMIN = 1 << 2, 1 << 21
NO_CAPABILITY = dict.fromkeys(CAPABILITY_SETS, 0)


def with_fuse(test: Callable[..., None]) -> Callable[..., None]:
    """Mark *test* as one that makes a real mount."""
    for mark in needs_fuse:
        test = mark(test)
    return test


needs_landlock = pytest.mark.skipif(
    ctypes.CDLL(None).syscall(444, None, 0, 1) < 2, reason="this kernel has no Landlock, or one that forbids to rename"
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with Store.open(path, create=True) as opened:
        for folder in "ab":
            members = [file(f"{folder}/{name}", name.encode() * 9) for name in "xyz"]
            add_image(opened, [layer(*members)], f"{folder}:1")
    return path


def record(store: Path) -> MountRecord:
    with Store.open(store) as opened:
        (found,) = opened.live_mounts()
        return found


# ---- real processes ----


@with_fuse
@needs_root
def test_whoever_parses_for_a_mount_of_root_has_no_privileges(store: Path, folder: Path) -> None:
    with mounted(store, folder, "-o", "driver=kernel"):
        for name in "ab":  # two directories read in a row begin one helper, a removed tag the other
            directory = folder / f"{name}/1/{name}"
            assert [(directory / entry).read_bytes() for entry in os.listdir(directory)]
        found = record(store)
        with Store.open(store) as opened:
            remove(opened, "b:1")
        wait_until(lambda: len(children(found.pid)) >= 2, "a helper begins")
        assert found.server in children(found.pid)
        for pid in children(found.pid):
            with contextlib.suppress(FileNotFoundError):  # a helper that has just ended
                wait_until(lambda pid=pid: status(pid)["NoNewPrivs"] == "1", "it gives up its privileges")  # type: ignore[misc]
                assert capabilities(pid) == NO_CAPABILITY
        assert capabilities(found.pid)["CapEff"] & SYS_ADMIN
        imagefs("--store", store, "remount", folder)
        assert capabilities(record(store).server) == NO_CAPABILITY
        imagefs("--store", store, "umount", folder)


@with_fuse
@needs_root
def test_libfuse_keeps_only_what_it_unmounts_with(store: Path, folder: Path) -> None:
    with mounted(store, folder, "-o", "driver=fusepy"):
        pid = record(store).pid
        assert {*capabilities(pid).values()} == {0, SYS_ADMIN}
        assert capabilities(pid)["CapBnd"] == 0
        assert status(pid)["NoNewPrivs"] == "1"
        imagefs("--store", store, "umount", folder)


def test_the_process_that_scans_has_no_privileges(tmp_path: Path) -> None:
    data = layer(file("one", b"1"))
    path = tmp_path / "layer.tar"
    path.write_bytes(data)
    with ScanProcess(path, DiffId(Digest.of(data))) as process:
        process.grown(512)
        pid = process._process.pid
        wait_until(lambda: status(pid)["NoNewPrivs"] == "1", "it gives up its privileges")
        effective = {name: mask for name, mask in capabilities(pid).items() if os.geteuid() == 0 or name != "CapBnd"}
        assert {*effective.values()} == {0}
        process.grown(len(data) - 512)
        assert b"".join(process.finish())


# ---- what is left to a confined process ----

_CONFINED = """
import encodings.idna, json, os, socket, sys
from pathlib import Path
from imagefs.confinement import confine
attempts, folder = sys.argv[1], Path(sys.argv[2])
results = {}
confine(folder)
exec(attempts)
print(json.dumps(results))
"""
_TRY = """
def attempt(name, function):
    try:
        function()
        results[name] = None
    except OSError as error:
        results[name] = error.errno
"""


def confined(folder: Path, attempts: str, *, groups: list[int] | None = None) -> dict[str, object]:
    """Return what *attempts* put into ``results`` in a process that is confined to *folder*."""
    done = subprocess.run(
        [sys.executable, "-c", _CONFINED, _TRY + attempts, str(folder)],
        cwd=CHECKOUT,
        extra_groups=groups,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, object] = json.loads(done.stdout)
    return results


@needs_landlock
def test_only_the_folder_is_reachable(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "a").mkdir(parents=True)
    (inside / "b").mkdir()
    (inside / "a/file").write_text("content")
    (tmp_path / "secret").write_text("secret")
    (inside / "link").symlink_to(tmp_path / "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        results = confined(
            inside,
            f"""
attempt("read", lambda: (folder / "a/file").read_text())
attempt("rename", lambda: (folder / "a/file").rename(folder / "b/file"))
attempt("write", lambda: (folder / "b/file").write_text("new"))
attempt("make", lambda: (folder / "c").mkdir())
attempt("secret", lambda: (folder.parent / "secret").read_text())
attempt("link", lambda: (folder / "link").read_text())
attempt("above", lambda: os.listdir(folder.parent))
attempt("write above", lambda: (folder.parent / "new").write_text(""))
attempt("proc", lambda: open("/proc/self/environ").read())
attempt("program", lambda: os.execv("/bin/true", ["true"]))
attempt("connect", lambda: socket.create_connection({server.getsockname()!r}, timeout=5))
attempt("signal", lambda: os.kill(os.getppid(), 0))
""",
        )
    allowed = {name for name, number in results.items() if number is None}
    newer = {"connect", "signal"}  # with ABI 4 and 6
    assert allowed - newer == {"read", "rename", "write", "make"}
    abi = ctypes.CDLL(None).syscall(444, None, 0, 1)
    assert allowed & newer == {name for name, since in (("connect", 4), ("signal", 6)) if abi < since}
    assert not (tmp_path / "new").exists()


@needs_root
def test_root_becomes_the_owner_of_the_folder_and_keeps_no_capability() -> None:
    with public_folder() as shared:
        folder = shared / "of another user"
        folder.mkdir(mode=0o700)
        (folder / "file").write_text("content")
        for path in (folder, folder / "file"):
            os.chown(path, NOBODY, NOBODY)
        (folder / "file").chmod(0o600)
        results = confined(
            folder,
            """
attempt("read", lambda: (folder / "file").read_text())
results["ids"] = [os.getresuid(), os.getresgid(), os.getgroups()]
import ctypes
results["dumpable"] = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
""",
        )
        assert results["read"] is None
        assert results["ids"] == [[NOBODY] * 3, [NOBODY] * 3, []]
        assert results["dumpable"] == 0


_OWN_CAPABILITIES = """
from imagefs.confinement import _capabilities
results["permitted"] = _capabilities()
attempt("read", lambda: (folder / "file").read_text())
"""


@needs_root
@pytest.mark.parametrize(("mode", "kept"), [(0o755, 0), (0o700, DAC_READ_SEARCH)])
def test_a_folder_below_a_closed_one_stays_reachable(mode: int, kept: int) -> None:
    with public_folder() as shared:
        closed = shared / "closed"
        folder = closed / "store"
        folder.mkdir(parents=True)
        (folder / "file").write_text("content")
        os.chown(closed, NOBODY, NOBODY)  # root without capabilities is a stranger there
        closed.chmod(mode)
        results = confined(folder, _OWN_CAPABILITIES)
        assert results == {"permitted": kept, "read": None}


@needs_root
def test_root_keeps_no_groups_and_cannot_be_looked_into(tmp_path: Path) -> None:
    look = """
import ctypes
results["dumpable"] = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
results["groups"] = os.getgroups()
"""
    assert confined(tmp_path, look)["dumpable"] == 0
    with public_folder() as shared:
        os.chown(shared, NOBODY, NOBODY)
        assert confined(shared, look, groups=[4])["groups"] == []
