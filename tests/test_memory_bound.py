"""The memory of a test process, and of what it starts, is bounded."""

import resource
import subprocess
import sys

import pytest

from tests.conftest import MEMORY_BYTES

ALLOCATE = f"bytearray({MEMORY_BYTES + (1 << 20)})"


def test_no_test_takes_more_memory_than_the_bound() -> None:
    assert 0 < resource.getrlimit(resource.RLIMIT_DATA)[0] <= MEMORY_BYTES
    with pytest.raises(MemoryError):
        bytearray(MEMORY_BYTES + (1 << 20))


def test_no_process_that_a_test_starts_takes_more() -> None:
    done = subprocess.run([sys.executable, "-c", ALLOCATE], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MemoryError" in done.stderr
