"""What every test may count on: bounded memory, an end in time, and that no test is skipped in silence."""

import logging
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY_BYTES = 4 << 30
"""Of this process, and of each that it starts: several times what any test needs, threads' stacks included.  Where a
limit against hostile input is missing, a test fails with a MemoryError before the machine is in trouble."""
UNIT_TIMEOUT_S = 60
"""The slowest unit test takes 15 seconds on a busy machine."""
UNIT = Path(__file__).parent / "unit"

# Where all that tests need was installed, only the absence of the extra test data (not part of a clone) excuses a skip.
NO_SKIP = os.environ.get("IMAGEFS_TESTS_NO_SKIP") == "1"
EXCUSED = "no test data"


def pytest_configure() -> None:
    # Not RLIMIT_AS: servers map whole layers, which takes addresses and no memory.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if UNIT in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(UNIT_TIMEOUT_S))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if EXCUSED not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped where nothing may be skipped: {reason}"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Leave the root logger as it was: a command in this process adds a handler whose stream is closed later."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
