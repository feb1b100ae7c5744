"""What mount(8) hands its helper, and what is made of it; nothing is mounted here."""

import os
from pathlib import Path

import pytest

from imagefs.errors import InvalidMountOption, MountError, StoreUnusable, UsageError
from imagefs.mount import helper
from imagefs.mount.helper import Meaning, main, meaning, understand
from imagefs.mount.options import MountOptions, parse_options
from imagefs.store.location import default_store_path
from imagefs.store.store import Store

# ---- SPEC ----


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a store below the working directory; the default store is ``/default``."""
    Store.open(tmp_path / "store", create=True).close()
    (tmp_path / "alpine").mkdir()
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("IMAGEFS_STORE", "/default")
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("spec", "options", "expected"),
    [
        ("none", "", Meaning(Path("/default"), None)),
        ("imagefs", "", Meaning(Path("/default"), None)),
        ("", "store=/s", Meaning(Path("/s"), None)),
        ("alpine:3.19", "", Meaning(Path("/default"), "alpine:3.19")),
        ("localhost:5000/a/b@sha256:0", "store=/s", Meaning(Path("/s"), "localhost:5000/a/b@sha256:0")),
        ("{cwd}/store", "", Meaning(Path("{cwd}/store"), None)),
        ("/no/where", "", Meaning(Path("/no/where"), None)),
        ("/etc", "", Meaning(Path("/etc"), None)),
        ("{cwd}/alpine", "", Meaning(Path("/default"), "alpine", doubtful=True)),
        ("{cwd}/none", "", Meaning(Path("/default"), None)),
        ("{cwd}/missing", "", Meaning(Path("{cwd}/missing"), None)),
        ("anything", "image=a:b", Meaning(Path("/default"), "a:b")),
        ("/s", "image=a:b", Meaning(Path("/s"), "a:b")),
        ("{cwd}/alpine", "store=/s,image=a:b", Meaning(Path("/s"), "a:b")),
    ],
)
def test_the_source_means_a_store_or_an_image(store: Path, spec: str, options: str, expected: Meaning) -> None:
    cwd = store.parent
    found = meaning(spec.format(cwd=cwd), parse_options([options]), working_directory=cwd)
    assert found == Meaning(Path(str(expected.store).format(cwd=cwd)), expected.reference, expected.doubtful)


# ---- the command line ----


def test_flags_come_after_the_positionals_and_lists_add_up() -> None:
    request = understand(
        "mount.imagefs", ["store", "/mnt", "-s", "-n", "-v", "-f", "-o", "rw,what", "-o", "uid=1", "-t", "imagefs.x"]
    )
    assert (request.spec, request.mountpoint, request.fake) == ("store", Path("/mnt"), True)
    assert request.options == parse_options(["rw,uid=1"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["store"], "expected SPEC and DIR, found 1"),
        (["a", "b", "c"], "found 3"),
        (["a", "b", "-z"], "-z"),
        (["a", "b", "-o"], "-o"),
        (["a", "b", "-o", "what"], "unknown"),
        (["a", "b", "-N", "/proc/1/fd/3"], "nsenter"),
    ],
)
def test_wrong_usage_is_said(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        understand("mount.imagefs", arguments)


def test_set_user_id_and_devices_are_dropped_and_a_remount_bears_the_kernels_own_words() -> None:
    assert understand("mount.fuse.imagefs", ["a", "/b", "-o", "dev,suid"]).options == MountOptions()
    options = understand("mount.imagefs", ["a", "/b", "-o", "ro,remount,user_id=0,max_read=1"]).options
    assert options.remount


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidMountOption("x", "y"), 1),
        (StoreUnusable("/s", "it is damaged"), 32),
        (MountError("no"), 32),
        (PermissionError(13, "denied"), 2),
        (KeyboardInterrupt(), 8),
        (ValueError("bug"), 4),
    ],
)
def test_exit_statuses_are_those_of_mount(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(helper, "mount", fail)
    assert main("mount.imagefs", ["/s", "/mnt", "-o", "ro"]) == status
    said = capsys.readouterr().err
    assert said.startswith("mount.imagefs: ") or isinstance(error, KeyboardInterrupt)


def test_a_fake_mount_mounts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "mount", None)
    assert main("mount.imagefs", ["/s", "/mnt", "-f", "-o", "rw"]) == 0


def test_help_is_no_error_and_nothing_at_all_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main("mount.imagefs", ["--help"]), main("mount.imagefs", [])) == (0, 1)
    assert "SPEC DIR" in capsys.readouterr().out


# ---- the default store ----


@pytest.mark.parametrize(
    ("euid", "environment", "expected"),
    [
        (0, {}, "/var/lib/imagefs"),
        (0, {"HOME": "/root", "XDG_DATA_HOME": "/data"}, "/var/lib/imagefs"),
        (0, {"IMAGEFS_STORE": "/s"}, "/s"),
        (1000, {"IMAGEFS_STORE": "/s", "HOME": "/h"}, "/s"),
        (1000, {"XDG_DATA_HOME": "/data", "HOME": "/h"}, "/data/imagefs"),
        (1000, {"XDG_DATA_HOME": "relative", "HOME": "/h"}, "/h/.local/share/imagefs"),
        (1000, {"HOME": "/h"}, "/h/.local/share/imagefs"),
    ],
)
def test_the_default_store_follows_user_and_environment(
    euid: int, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    for name in ("IMAGEFS_STORE", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_store_path() == Path(expected)


def test_without_any_home_the_store_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    for name in ("IMAGEFS_STORE", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreUnusable, match="IMAGEFS_STORE"):
        default_store_path()
