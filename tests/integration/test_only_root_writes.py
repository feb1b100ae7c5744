"""No helper of mount(8) leads to a file that another user can write to: root runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mounts import CHECKOUT, needs_root

pytestmark = needs_root
HELPERS = (Path("/sbin/mount.imagefs"), Path("/sbin/mount.fuse.imagefs"))
STRANGER = 70003


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment as small as can be: an interpreter, a package and the helper."""
    venv = tmp_path / "folder/venv"
    packages = venv / "lib/python{}.{}/site-packages".format(*sys.version_info[:2])
    (packages / "imagefs").mkdir(parents=True)
    (packages / "imagefs/__init__.py").touch()
    (venv / "bin").mkdir()
    base = Path(sys.executable).resolve()
    (venv / "bin/python").symlink_to(base)
    (venv / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    program = venv / "bin/mount.imagefs"
    program.write_text(f"#!{venv}/bin/python\n")
    program.chmod(0o755)
    return venv


def judged(program: Path) -> subprocess.CompletedProcess[str]:
    argv = [CHECKOUT / "scripts/only_root_writes", program]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def owned(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def writable(path: Path) -> None:
    path.chmod(0o777)


def test_an_environment_of_root_is_accepted(venv: Path) -> None:
    done = judged(venv / "bin/mount.imagefs")
    assert (done.returncode, done.stdout) == (0, ""), done


@pytest.mark.parametrize("change", [owned, writable])
@pytest.mark.parametrize(
    "part", ["folder", "venv", "venv/bin", "bin/mount.imagefs", "pyvenv.cfg", "lib", "imagefs", "imagefs/__init__.py"]
)
def test_any_part_that_another_user_can_change_is_named(venv: Path, part: str, change: Callable[[Path], None]) -> None:
    places = {"folder": venv.parent, "venv": venv, "venv/bin": venv / "bin"}
    path = places.get(part) or next(path for path in sorted(venv.rglob("*")) if str(path).endswith(f"/{part}"))
    change(path)
    before = [helper.readlink() if helper.is_symlink() else None for helper in HELPERS]
    argv = [CHECKOUT / "scripts/install-mount-helper", venv]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert str(path) in done.stderr
    assert "scripts/install" in done.stderr
    assert [helper.readlink() if helper.is_symlink() else None for helper in HELPERS] == before


def test_a_package_outside_of_the_environment_is_judged(venv: Path, tmp_path: Path) -> None:
    """As that of `pip install --editable`."""
    (package,) = venv.glob("lib/*/site-packages/imagefs")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    package.rename(checkout / "imagefs")
    (package.parent / "editable.pth").write_text(f"{checkout}\n")
    assert judged(venv / "bin/mount.imagefs").returncode == 0
    owned(checkout / "imagefs/__init__.py")
    assert judged(venv / "bin/mount.imagefs").stdout.startswith(f"{checkout}/imagefs/__init__.py belongs to user")


def test_an_interpreter_of_another_user_does_not_run(venv: Path, tmp_path: Path) -> None:
    trap = tmp_path / "folder/python"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    trap.chmod(0o755)
    owned(trap)
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to(trap)
    assert judged(venv / "bin/mount.imagefs").returncode == 1
    assert not (tmp_path / "ran").exists()


def test_installing_into_a_folder_of_another_user_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    owned(tmp_path)
    argv: list[str | Path] = [CHECKOUT / "scripts/install", "--prefix", tmp_path / "prefix"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--no-mount-helper" in done.stderr
    assert not list(tmp_path.rglob("lib"))
