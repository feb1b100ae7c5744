"""The secret of a store: one for all processes, for the owner only, durable before it is used."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagefs.store.secret import SECRET_BYTES, Secret
from imagefs.store.store import Store
from tests.support.images import add_image
from tests.support.layers import file, layer
from tests.support.mounts import CHECKOUT, needs_root

PROCESSES = 6
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a store as versions before 0.4 left it: without a secret."""
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [layer(file("f", b"x"))], "app:1")
    assert not (tmp_path / "store/secret").exists()
    return tmp_path / "store"


def secret_of(folder: Path) -> Secret:
    with Store.open(folder) as store:
        return store.secret()


def test_a_secret_is_made_once_for_the_owner_only(folder: Path) -> None:
    before = os.umask(0)
    try:
        first = secret_of(folder)
    finally:
        os.umask(before)
    assert first.is_stored
    assert len(first.value) == SECRET_BYTES
    assert (folder / "secret").read_bytes() == first.value
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600
    assert secret_of(folder) == first
    assert os.listdir(folder / "ingest") == []
    with Store.open(folder) as store:
        assert list(store.foreign_files()) == []


def test_two_stores_have_two_secrets(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Store.open(tmp_path / name, create=True).close()
    assert secret_of(tmp_path / "one") != secret_of(tmp_path / "two")


def test_a_secret_is_in_no_text(folder: Path) -> None:
    secret = secret_of(folder)
    assert secret.value.hex() not in repr(secret)
    assert repr(secret.value) not in repr(secret)


@pytest.mark.parametrize("before", [None, b"too short"], ids=["missing", "damaged"])
def test_processes_that_begin_together_get_one_secret(folder: Path, before: bytes | None) -> None:
    if before is not None:
        (folder / "secret").write_bytes(before)
    program = (
        "import sys, pathlib\nfrom imagefs.store.store import Store\nstore = Store.open(pathlib.Path(sys.argv[1]))\n"
        "print(flush=True)\nsys.stdin.read()\nprint(store.secret().value.hex())\n"
    )
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", program, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        for _ in range(PROCESSES)
    ]
    for process in begun:
        assert process.stdout is not None
        process.stdout.readline()
    for process in begun:
        assert process.stdin is not None
        process.stdin.close()
    secrets = set()
    for process in begun:
        with process:
            assert process.stdout is not None
            secrets.add(process.stdout.read().strip())
    if before is None:
        assert secrets == {secret_of(folder).value.hex()}
    else:
        assert secret_of(folder).value.hex() in secrets
    assert os.listdir(folder / "ingest") == []


def test_a_secret_is_durable_before_it_is_there_and_its_name_before_it_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recorded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            what = os.readlink(f"/proc/self/fd/{args[0]}") if name in ("write", "fsync") else str(args[-1])
            where = "file" if "/ingest/" in what else str(Path(what).relative_to(folder.parent))
            calls.append(f"{name} {where}")
            return real(*args, **kwargs)

        return call

    with Store.open(folder) as store:
        for name in ("write", "fsync", "link", "rename", "replace"):
            monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
        store.secret()
    assert calls == ["write file", "fsync file", "link store/secret", "fsync store"]


def short(path: Path) -> None:
    path.write_bytes(b"x" * (SECRET_BYTES - 1))
    path.chmod(0o600)


def long(path: Path) -> None:
    path.write_bytes(b"x" * (SECRET_BYTES + 1))
    path.chmod(0o600)


def readable_by_others(path: Path) -> None:
    path.write_bytes(b"x" * SECRET_BYTES)
    path.chmod(0o640)


def link_to_a_public_file(path: Path) -> None:
    target = path.parent.parent / "public"
    target.write_bytes(b"x" * SECRET_BYTES)
    target.chmod(0o600)
    path.symlink_to(target)


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("damage", [short, long, readable_by_others, link_to_a_public_file, pipe])
def test_a_secret_that_is_none_is_replaced(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / "secret")
    secret = secret_of(folder)
    assert secret.is_stored
    assert secret.value.strip(b"x")
    assert not (folder / "secret").is_symlink()
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600
    assert secret_of(folder) == secret
    if damage is link_to_a_public_file:
        assert (folder.parent / "public").read_bytes() == b"x" * SECRET_BYTES


def test_where_none_can_be_made_the_process_has_one_of_its_own(folder: Path) -> None:
    (folder / "secret").mkdir()
    with Store.open(folder) as store:
        secret = store.secret()
        assert not secret.is_stored
        assert store.secret() == secret
    substitute = Secret.of_process()
    with Store.open(folder) as store:
        assert store.secret(substitute=substitute) == substitute
    assert secret_of(folder) not in (secret, substitute)


def test_a_store_opened_for_reading_is_not_written_to(folder: Path) -> None:
    with Store.open(folder) as store:
        store.read_only = True
        assert not store.secret().is_stored
    assert not (folder / "secret").exists()
    stored = secret_of(folder)
    with Store.open(folder) as store:
        store.read_only = True
        assert store.secret() == stored


@needs_root
def test_another_user_gets_a_secret_of_the_process(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        stored = store.secret()
        child = os.fork()
        if child == 0:
            store.path.chmod(0o755)  # so that only the mode of the file keeps others out
            os.chdir(store.path)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            reader = Store(Path("."), store._catalog, read_only=True)
            secret = reader.secret()
            os._exit(0 if not secret.is_stored and secret.value != stored.value else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
