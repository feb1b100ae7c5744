"""``mount -t imagefs``, fstab and ``umount``, for real: mount(8) runs the helper as it is installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.mount.mountinfo import mount_at
from imagefs.store.store import Store
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer
from tests.support.mounts import CHECKOUT, is_mounted, needs_fuse, needs_root, unmount_anyhow

pytestmark = [*needs_fuse, needs_root]

INSTALLER = CHECKOUT / "scripts/install-mount-helper"
HELPERS = (Path("/sbin/mount.imagefs"), Path("/sbin/mount.fuse.imagefs"))
ROUNDS = 200


def run(*argv: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the helper of this checkout and take it away again; put back what was installed before."""
    before = [path.readlink() if path.is_symlink() else None for path in HELPERS]
    venv = tmp_path_factory.mktemp("venv")
    program = venv / "bin/mount.imagefs"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n"
        "from imagefs.mount.helper import entry\nentry()\n"
    )
    program.chmod(0o755)
    installed = run(INSTALLER, venv)
    if installed.returncode != 0 and "something else" in installed.stderr:
        pytest.skip(installed.stderr.strip())
    assert installed.returncode == 0, installed.stderr
    yield
    assert run(INSTALLER, "--uninstall").returncode == 0
    assert not any(path.is_symlink() for path in HELPERS)
    for path, target in zip(HELPERS, before, strict=True):
        if target is not None:
            path.symlink_to(target)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with Store.open(path, create=True) as opened:
        add_image(opened, [layer(dir_("etc"), file("etc/release", b"one\n"), file("run", mode=0o4755))], "alpine:3.19")
    return path


def mount(*args: str | Path, cwd: Path = Path("/"), **env: str) -> subprocess.CompletedProcess[str]:
    return run("mount", *args, cwd=cwd, **env)


def mounts_store(folder: Path) -> bool:
    return sorted(os.listdir(folder)) == ["alpine"]


# ---- installing ----


def test_installing_again_changes_nothing_and_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    before = [path.readlink() for path in HELPERS]
    venv = before[0].parent.parent
    assert run(INSTALLER, venv).returncode == 0
    assert [path.readlink() for path in HELPERS] == before
    assert "install imagefs there" in run(INSTALLER, tmp_path).stderr
    HELPERS[0].unlink()
    HELPERS[0].write_text("#!/bin/sh\n")
    try:
        for argument in (str(venv), "--uninstall"):
            refused = run(INSTALLER, argument)
            assert refused.returncode == 1
            assert "something else" in refused.stderr
        assert HELPERS[1].is_symlink()
    finally:
        HELPERS[0].unlink()
        assert run(INSTALLER, venv).returncode == 0


# ---- types and sources ----


@pytest.mark.parametrize("type_", ["imagefs", "fuse.imagefs"])
def test_a_store_is_mounted_and_unmounted(store: Path, folder: Path, type_: str) -> None:
    done = mount("-t", type_, store, folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mounts_store(folder)
    found = mount_at(folder)
    assert found is not None
    assert (found.fstype, found.source) == ("fuse.imagefs", str(store))
    assert {"ro", "nosuid", "nodev"} <= set(found.options)
    assert run("umount", folder).returncode == 0
    assert not is_mounted(folder)


@pytest.mark.parametrize("source", ["none", "imagefs", ""])
def test_the_default_store_needs_no_home(store: Path, folder: Path, source: str) -> None:
    assert mount("-t", "imagefs", source, folder, IMAGEFS_STORE=str(store)).returncode == 0
    assert mounts_store(folder)
    unmount_anyhow(folder)
    environment = {"PATH": "/usr/bin:/bin:/sbin", "IMAGEFS_STORE": str(store)}
    bare = subprocess.run(["mount", "-t", "imagefs", source, folder], env=environment, check=False)
    assert bare.returncode == 0
    assert mounts_store(folder)


@pytest.mark.parametrize(
    ("source", "options"),
    [("alpine:3.19", "store={store}"), ("none", "store={store},image=alpine:3.19"), ("{store}", "image=alpine:3.19")],
)
def test_one_image_is_mounted_by_name(store: Path, folder: Path, source: str, options: str) -> None:
    done = mount("-t", "imagefs", source.format(store=store), folder, "-o", options.format(store=store))
    assert done.returncode == 0, done.stderr
    assert (folder / "etc/release").read_text() == "one\n"


def test_a_file_called_like_the_image_does_not_mislead(store: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alpine:3.19").mkdir()
    (tmp_path / "nosuch").mkdir()
    done = mount("-t", "imagefs", "alpine:3.19", folder, "-o", f"store={store}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folder / "etc/release").read_text() == "one\n"
    unmount_anyhow(folder)
    failed = mount("-t", "imagefs", "nosuch", folder, "-o", f"store={store}", cwd=tmp_path)
    assert failed.returncode == 32
    assert "no store, and taken as the name of an image: no such image: nosuch" in failed.stderr


# ---- options ----


def test_options_for_mount_and_systemd_are_no_errors(store: Path, folder: Path) -> None:
    options = (
        "nofail,_netdev,user,noauto,x-systemd.automount,comment=a,relatime,nosuid,nodev,noexec,ro,allow_other,uid=5"
    )
    done = mount("-t", "imagefs", store, folder, "-o", options)
    assert done.returncode == 0, done.stderr
    found = mount_at(folder)
    assert found is not None
    assert {"ro", "noexec", "allow_other", "default_permissions"} <= set(found.options)
    assert (folder / "alpine/3.19/run").stat().st_uid == 5


def test_unknown_options_are_named_unless_mount_is_sloppy(store: Path, folder: Path) -> None:
    failed = mount("-t", "imagefs", store, folder, "-o", "alow_other")
    assert failed.returncode == 1
    assert failed.stderr.startswith("mount.imagefs: ")
    assert "did you mean 'allow_other'" in failed.stderr
    assert not is_mounted(folder)
    assert mount("-s", "-t", "imagefs", store, folder, "-o", "alow_other").returncode == 0


def test_set_user_id_and_devices_are_never_respected(store: Path, folder: Path) -> None:
    for type_ in ("fuse.imagefs", "imagefs"):
        assert mount("-t", type_, store, folder, "-o", "dev,suid").returncode == 0
        found = mount_at(folder)
        assert found is not None
        assert {"nosuid", "nodev"} <= set(found.options)
        unmount_anyhow(folder)


def test_fake_mounts_check_and_do_nothing(store: Path, folder: Path) -> None:
    assert mount("-f", "-v", "-t", "imagefs", store, folder).returncode == 0
    assert mount("-f", "-t", "imagefs", store, folder, "-o", "nonsense").returncode == 1
    assert not is_mounted(folder)


def test_remounting_changes_nothing_and_never_to_writable(store: Path, folder: Path) -> None:
    assert mount("-t", "imagefs", store, folder, "-o", "allow_other").returncode == 0
    assert mount("-o", "remount,ro", folder).returncode == 0
    refused = mount("-o", "remount,rw", folder)
    assert refused.returncode == 32
    assert "read-only" in refused.stderr
    assert mounts_store(folder)


# ---- failures ----


def test_a_failure_is_told_once_with_its_status_and_nothing_is_mounted(
    store: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for source, target, said in (
        (tmp_path / "nowhere", folder, "there is no store yet"),
        (store, tmp_path / "missing", "mkdir"),
        (store, tmp_path / "full", "not empty"),
    ):
        failed = mount("-t", "imagefs", source, target)
        assert failed.returncode == 32
        assert failed.stderr.startswith("mount.imagefs: ")
        assert said in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
        assert not is_mounted(target)
    assert mount("-m", "-t", "imagefs", store, tmp_path / "missing").returncode == 0
    assert mounts_store(tmp_path / "missing")
    unmount_anyhow(tmp_path / "missing")


# ---- fstab ----


def test_fstab_lines_are_mounted_by_name_and_all_together(store: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "a store, with space"
    shutil.copytree(store, spaced)
    folders = [tmp_path / name for name in ("by-type", "by-fuse-type", "not-auto", "spaced")]
    for folder in folders:
        folder.mkdir()
    escaped = str(spaced).replace(" ", "\\040")
    fstab = tmp_path / "fstab"
    fstab.write_text(
        f"{store}  {folders[0]}  imagefs       ro,nofail,x-systemd.automount,allow_other  0 0\n"
        f"none     {folders[1]}  fuse.imagefs  ro,_netdev,store={store}                  0 0\n"
        f"{store}  {folders[2]}  imagefs       ro,noauto                                 0 0\n"
        f'none     {folders[3]}  imagefs       ro,store="{escaped}"                      0 0\n'
    )
    try:
        done = mount("-a", "-T", fstab)
        assert done.returncode == 0, done.stderr
        assert [is_mounted(folder) for folder in folders] == [True, True, False, True]
        assert all(mounts_store(folder) for folder in (folders[0], folders[1], folders[3]))
        again = mount("-a", "-T", fstab)
        assert again.returncode == 0, again.stderr
        assert mount("-T", fstab, folders[2]).returncode == 0
        assert mounts_store(folders[2])
    finally:
        for folder in folders:
            unmount_anyhow(folder)


# ---- readiness ----


@pytest.mark.timeout(600)
def test_what_is_mounted_answers_at_once(store: Path, folder: Path) -> None:
    script = f"""
        for round in $(seq {ROUNDS}); do
            mount -t imagefs "$1" "$2" && [ "$(ls "$2")" = alpine ] || {{ echo "failed in round $round"; exit 1; }}
            umount "$2" || exit 1
        done
    """
    done = subprocess.run(["sh", "-c", script, "sh", store, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
