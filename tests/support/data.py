"""Where the shared test data is, for tests that can use more than what they make themselves."""

import os
from pathlib import Path

import pytest

_VARIABLE = "IMAGEFS_TEST_DATA"


def data_dir() -> Path | None:
    """Return the folder of real images and tables, or None where this checkout has none beside it."""
    if given := os.environ.get(_VARIABLE):
        candidate = Path(given)
    else:
        candidate = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return candidate if (candidate / "tables").is_dir() else None


needs_data = pytest.mark.skipif(
    data_dir() is None,
    reason=f"no test data: {_VARIABLE} names none, and there is no ../shared/data/tables beside the checkout",
)
