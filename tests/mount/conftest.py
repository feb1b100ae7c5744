"""What real mounts have in common: the modules that use `driver` run once with each."""

import os
from collections.abc import Iterator

import pytest

from imagefs.mount.options import DRIVERS
from tests.support.commands import DRIVER_VARIABLE


@pytest.fixture(scope="module", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let `tests.support.commands.imagefs` mount with this driver."""
    os.environ[DRIVER_VARIABLE] = request.param
    yield request.param
    del os.environ[DRIVER_VARIABLE]
