"""A secret of one store, from which others cannot tell what this store computes with it.

It is made once, by the first process that needs it, and stays; only the store's owner can read it.  What depends on it
can be computed again, so a damaged secret is replaced.
"""

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from imagefs.store.content import fsync_directory, locked_temporary

SECRET_BYTES = 32
_TRIES = 3
"""A file system may show every file as readable by others; then no attempt succeeds."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Secret:
    """Random bytes that belong to a store or, unless *is_stored*, only to this process and its successors."""

    value: bytes = field(repr=False)
    is_stored: bool

    @classmethod
    def of_process(cls) -> "Secret":
        """Return a new secret that no store has."""
        return cls(os.urandom(SECRET_BYTES), is_stored=False)


def read_secret(path: Path) -> Secret | None:
    """Return the secret at *path*; None where there is none, or one that others could read or that is damaged.

    Raises: OSError, such as PermissionError where this process may not read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # ELOOP: a symlink
            return None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & _OTHERS or status.st_size != SECRET_BYTES:
            return None
        value = os.read(descriptor, SECRET_BYTES)
    finally:
        os.close(descriptor)
    return Secret(value, is_stored=True) if len(value) == SECRET_BYTES else None


def make_secret(path: Path, *, ingest_folder: Path) -> Secret:
    """Return the secret at *path*, made durable there if there is no good one; all processes get the same.

    Raises: OSError.
    """
    for _ in range(_TRIES):
        temporary, descriptor = locked_temporary(ingest_folder)
        try:
            os.write(descriptor, os.urandom(SECRET_BYTES))
            os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)  # the first process wins
            fsync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)
        if (secret := read_secret(path)) is not None:
            return secret
        path.unlink(missing_ok=True)
    raise OSError(errno.EPERM, "other users can read it", str(path))
