"""What every test may count on: a profile for generated tests, and that no test is skipped in silence."""

import os

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
