"""Files that commands write: whole or not at all, and no archive to a terminal."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from imagefs.errors import UsageError


@contextlib.contextmanager
def written(path: Path | None) -> Iterator[IO[bytes]]:
    """Open the file *path*, or standard output for None, to write an archive to it.

    A regular file appears, or takes the place of one that is there, when the context ends without an error; an error
    leaves what was there.

    Raises: UsageError, where it would go to a terminal; OSError.
    """
    if path is None:
        refuse_terminal()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as out:  # a device or pipe
            yield out
        return
    temporary = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        with temporary.open("xb") as out:
            yield out
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def refuse_terminal() -> None:
    """Raise UsageError where standard output is a terminal."""
    if sys.stdout.isatty():
        raise UsageError("refusing to write an archive to a terminal; name a file with --output, or use a pipe")
