"""What a person reads of an error that is no fault of imagefs."""

import pytest

from imagefs.cli.report import report
from imagefs.errors import EXIT_FAILURE


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("can't allocate lock"),
        ImportError("/usr/lib/x.so: failed to map segment from shared object"),
    ],
)
def test_missing_memory_and_threads_are_no_internal_error(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error) == EXIT_FAILURE
    assert capsys.readouterr().err.startswith("imagefs: the operating system refuses more memory or threads; raise")


def test_anything_unforeseen_is_an_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(RuntimeError("odd")) == EXIT_FAILURE
    assert "internal error, please report it" in capsys.readouterr().err
