"""What every test may count on: a profile for generated tests, and that no test is skipped in silence."""

import logging
import os
from collections.abc import Iterator

import pytest

# Where all that tests need was installed, only the absence of the extra test data (not part of a clone) excuses a skip.
NO_SKIP = os.environ.get("IMAGEFS_TESTS_NO_SKIP") == "1"
EXCUSED = "no test data"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if EXCUSED not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped where nothing may be skipped: {reason}"


@pytest.fixture(autouse=True)
def no_handlers_left() -> Iterator[None]:
    """Take from the root logger what a command in this process gave it: the stream that it writes to is closed then."""
    root = logging.getLogger()
    level, before = root.level, set(root.handlers)
    yield
    for handler in set(root.handlers) - before:
        if not type(handler).__module__.startswith("_pytest."):
            root.removeHandler(handler)
    root.setLevel(level)
