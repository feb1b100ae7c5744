"""What real mounts have in common: the modules that use `driver` run once with each."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.mount.options import DRIVERS
from tests.support.commands import DRIVER_VARIABLE
from tests.support.mounts import unmount_anyhow


@pytest.fixture(scope="module", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let `tests.support.commands.imagefs` mount with this driver."""
    os.environ[DRIVER_VARIABLE] = request.param
    yield request.param
    del os.environ[DRIVER_VARIABLE]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to mount at; whatever is mounted there in the end is unmounted."""
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    unmount_anyhow(path)
