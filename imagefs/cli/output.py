"""Files that commands write: whole or not at all, and no archive to a terminal.

The folder of such a file may belong to another user, and root may be the one who writes: hence everything is done
relative to the open folder, and neither a symlink nor a FIFO of another user is followed or written to.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from imagefs.errors import PathUnsafe, UsageError


@contextlib.contextmanager
def written(path: Path | None) -> Iterator[IO[bytes]]:
    """Open the file *path*, or standard output for None, to write an archive to it.

    A regular file appears, or takes the place of one, when the context ends without an error; an error leaves the old
    one.  Only its owner can read it: an archive holds files that an image keeps from ordinary users.  Devices, FIFOs
    and open files such as /dev/stdout are written to as they are.

    Raises: UsageError, where it would go to a terminal; OSError, also for a symlink or FIFO of another user.
    """
    if path is None:
        refuse_terminal()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    from imagefs.store.trusted_path import open_parent, refuse_links_of_others

    folder, name = open_parent(path, refuse_links_of_others)
    try:
        writing = _replaced(folder, name, path) if _is_file_or_missing(folder, name) else _existing(folder, name, path)
        with writing as out:
            yield out
    finally:
        os.close(folder)


def _is_file_or_missing(folder: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def _replaced(folder: int, name: str, path: Path) -> Iterator[IO[bytes]]:
    """Write a new file, which takes the place of *name* in *folder*, at *path*, at the end."""
    from imagefs.store.trusted_path import check_own, failures_named, remove_own

    temporary = f".imagefs-{os.urandom(8).hex()}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with failures_named(path, temporary):
        descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as out:
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            yield out
            out.flush()
            with failures_named(path, temporary):
                check_own(descriptor, temporary, folder)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            remove_own(descriptor, temporary, folder)
            raise


@contextlib.contextmanager
def _existing(folder: int, name: str, path: Path) -> Iterator[IO[bytes]]:
    """Write to *name* in *folder*, at *path*: a device, a FIFO, or an open file of a process."""
    from imagefs.store.trusted_path import is_magic_link, refuse_other_owners

    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    refuse_other_owners(str(path), status)
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    if is_magic_link(status):
        if os.path.samestat(os.stat(name, dir_fd=folder), os.fstat(sys.stdout.fileno())):
            with written(None) as out:
                yield out
            return
        flags = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    with os.fdopen(descriptor, "wb") as out:
        if not flags & os.O_TRUNC and not os.path.samestat(status, os.fstat(descriptor)):
            raise PathUnsafe(str(path), "another process replaced it")
        yield out


def refuse_terminal() -> None:
    """Raise UsageError where standard output is a terminal."""
    if sys.stdout.isatty():
        raise UsageError("refusing to write an archive to a terminal; name a file with --output, or use a pipe")
