"""The units of systemd: as closed as what they do allows."""

import os
import sys
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import needs, run
from tests.support.mounts import CHECKOUT, is_mounted, needs_root, unmount_anyhow

UNITS = CHECKOUT / "scripts/systemd"
_HIDING = {
    *("ProtectSystem", "ProtectHome", "ProtectProc", "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateUsers"),
    *("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups"),
    *("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "TemporaryFileSystem", "RootDirectory"),
}
"""Settings that give a unit a mount namespace of its own.  Source: systemd.exec(5)."""


def settings(unit: Path) -> list[tuple[str, str]]:
    """Return the settings of *unit* in their order."""
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


@pytest.mark.parametrize("unit", ["mnt-images.mount", "user/imagefs.service"])
def test_units_that_mount_do_not_hide_the_mount(unit: str) -> None:
    assert not {name for name, _ in settings(UNITS / unit)} & _HIDING


@needs("systemd-analyze")
@pytest.mark.parametrize(("unit", "most_exposure"), [("imagefs-prune.service", 15), ("mnt-images.mount", 48)])
def test_units_leave_little_exposed(unit: str, most_exposure: int, tmp_path: Path) -> None:
    installed = tmp_path / unit
    installed.write_text((UNITS / unit).read_text().replace("@PREFIX@", "/usr"))
    run(["systemd-analyze", "security", "--offline=true", f"--threshold={most_exposure}", "--no-pager", str(installed)])


@needs_root
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no /dev/fuse")
def test_a_mount_needs_no_more_than_its_unit_leaves(tmp_path: Path) -> None:
    (bounding,) = [value for name, value in settings(UNITS / "mnt-images.mount") if name == "CapabilityBoundingSet"]
    words = ",".join(f"+{word.removeprefix('CAP_').lower()}" for word in bounding.split())
    confined = ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set=-all,{words}"]
    store, folder = tmp_path / "store", tmp_path / "mnt"
    folder.mkdir()
    Store.open(store, create=True).close()
    program = [*confined, sys.executable, "-m", "imagefs", "--store", str(store)]
    run([*program, "mount", str(folder)])
    try:
        assert os.listdir(folder) == []
        run([*program, "remount", str(folder)])
        assert os.listdir(folder) == []
        run([*program, "umount", str(folder)])
        assert not is_mounted(folder)
    finally:
        unmount_anyhow(folder)
