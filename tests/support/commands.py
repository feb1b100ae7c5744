"""Running imagefs and its judges as a user would: as programs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

DRIVER_VARIABLE = "IMAGEFS_TEST_DRIVER"


def imagefs(
    *args: str | Path, env: Mapping[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the imagefs of this checkout; with *check* fail with what it said.

    Where ``IMAGEFS_TEST_DRIVER`` names a driver, mounts are made with that.
    """
    driver = os.environ.get(DRIVER_VARIABLE)
    if driver and "mount" in args:
        after = args.index("mount") + 1
        args = (*args[:after], "-o", f"driver={driver}", *args[after:])
    return run([sys.executable, "-m", "imagefs", *args], env=env, check=check)


def run(
    argv: list[str | Path], *, env: Mapping[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run *argv* with *env* on top of ours."""
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env={**os.environ, **(env or {})},
        timeout=240,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"{argv} exited {done.returncode}: {done.stdout}{done.stderr}")
    return done


def needs(program: str) -> pytest.MarkDecorator:
    """Skip, saying so, where *program* is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def umoci_unpack(layout: Path, tag: str, target: Path) -> Path:
    """Unpack the image *tag* of an OCI layout with umoci and return its root file system."""
    run(["umoci", "unpack", "--image", f"{layout}:{tag}", target])
    return target / "rootfs"
