"""``mount.imagefs`` and ``mount.fuse.imagefs``: what mount(8) runs for a line of fstab.

Receives ``SPEC DIR [-sfnv] [-o OPTS] [-t TYPE] [-N NAMESPACE]``; hands on a mount, an exit status of mount(8), and
sentences on standard error, for mount itself prints none.

What SPEC means:

* ``none``, ``imagefs`` or nothing: the default store, or that of ``-o store=``.
* an absolute path that is a store: that store.
* anything else: an image of that store, to be shown alone.  ``-o image=`` says so beyond doubt.

There is a trap: where a file or folder in the working directory is called like SPEC, mount(8) turns SPEC into that
file's absolute path.  So an existing absolute path below the working directory that is no store is taken as if the
relative name had been given.

SPEC is also what mountinfo shows as the mount's source, for by that ``mount -a`` knows what is mounted already.
"""

import getopt
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imagefs.errors import EXIT_FAILURE, EXIT_USAGE, ImagefsError, MountError, UsageError, describe, printable
from imagefs.mount.mountinfo import mount_at
from imagefs.mount.mountpoint import canonical
from imagefs.mount.options import MountOptions, parse_options
from imagefs.mount.session import mount
from imagefs.store.layout import is_store
from imagefs.store.location import default_store_path

# The exit statuses of mount(8).
OK = 0
USAGE = 1
SYSTEM_ERROR = 2
BUG = 4
INTERRUPTED = 8
MOUNT_FAILURE = 32

EXIT_STATUSES: tuple[tuple[int, str], ...] = (
    (OK, "success"),
    (USAGE, "wrong usage"),
    (SYSTEM_ERROR, "the operating system refused"),
    (BUG, "a failure that should not be"),
    (INTERRUPTED, "interrupted"),
    (MOUNT_FAILURE, "mounting failed: no such store or image, or no FUSE"),
)
"""What they mean here; printed in the manual."""

_DEFAULT_STORE_SPECS = ("", "none", "imagefs")
_USAGE = "usage: {program} SPEC DIR [-sfnv] [-o OPTIONS] [-t TYPE]"


class _WrongUsage(UsageError):
    """The command line is not what mount(8) would write."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What SPEC and the options ask to be shown: *store*, or its one image *reference*."""

    store: Path
    reference: str | None
    doubtful: bool = False
    """Whether *reference* is only a guess, made from a path."""


@dataclass(frozen=True, slots=True)
class Request:
    """One command line, understood."""

    spec: str
    mountpoint: Path
    options: MountOptions
    fake: bool


def meaning(spec: str, options: MountOptions, *, working_directory: Path) -> Meaning:
    """Return what *spec* means, as the module's documentation says.

    Raises: StoreUnusable, where there is no default store.
    """
    store = options.store or default_store_path()
    if options.image is not None:
        if options.store is None and spec.startswith("/"):
            store = Path(spec)
        return Meaning(store, options.image)
    if spec in _DEFAULT_STORE_SPECS:
        return Meaning(store, None)
    if not spec.startswith("/"):
        return Meaning(store, spec)
    path = Path(spec)
    if is_store(path) or not path.exists() or not path.is_relative_to(working_directory):
        return Meaning(path, None)
    name = str(path.relative_to(working_directory))
    return Meaning(store, None) if name in _DEFAULT_STORE_SPECS else Meaning(store, name, doubtful=True)


def understand(program: str, arguments: Sequence[str]) -> Request:
    """Return what *arguments* ask for; *program* is the name it was called by.

    Raises: UsageError.
    """
    try:
        flags, positionals = getopt.gnu_getopt(list(arguments), "sfnvho:t:N:", ["help", "version"])
    except getopt.GetoptError as error:
        raise _WrongUsage(f"{error.msg}; {_USAGE.format(program=program)}") from None
    if len(positionals) != 2:
        raise _WrongUsage(f"expected SPEC and DIR, found {len(positionals)} words; {_USAGE.format(program=program)}")
    given = dict(flags)
    if "-N" in given:
        raise _WrongUsage("mounting in another namespace is not supported; run it there, with nsenter --mount")
    texts = [value for flag, value in flags if flag == "-o"]
    # With remount, mount adds the options the mount already has, in the kernel's words.
    remount = parse_options(texts, ignore_unknown=True).remount
    options = parse_options(texts, ignore_unknown="-s" in given or remount)
    # mount keeps these two to itself, and mount.fuse adds them to everything: here they are nobody's wish.
    options = replace(options, suid=False, dev=False)
    return Request(positionals[0], Path(positionals[1]), options, fake="-f" in given)


def run(program: str, arguments: Sequence[str]) -> int:
    """Do what mount(8) asks, and return its exit status.  *program* is the name the helper was called by.

    Raises: UsageError, MountError, StoreError, OSError.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_USAGE.format(program=program))
        return OK if arguments else USAGE
    request = understand(program, arguments)
    asked = meaning(request.spec, request.options, working_directory=Path.cwd())
    if request.options.remount:
        return _remount(request)
    if request.fake:
        return OK
    try:
        mount(
            asked.store,
            request.mountpoint,
            reference=asked.reference,
            options=request.options,
            source=request.spec or None,
        )
    except MountError as error:
        if asked.doubtful and error.exit_code != MountError.exit_code:  # the image, not the mounting
            raise MountError(f"{request.spec} is no store, and taken as the name of an image: {error}") from error
        raise
    return OK


def _remount(request: Request) -> int:
    target = canonical(request.mountpoint)
    mounted = mount_at(target)
    if mounted is None or not mounted.is_imagefs:
        raise MountError(f"cannot remount {target}: imagefs is not mounted there")
    if request.options.read_write:
        raise MountError(f"cannot remount {target} for writing: imagefs is read-only")
    return OK


def main(program: str, arguments: Sequence[str]) -> int:
    """Run, turn errors into a sentence on standard error, and return the exit status for mount(8)."""
    try:
        return run(program, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        print(f"{program}: {printable(describe(error), limit=2000)}", file=sys.stderr)
        if isinstance(error, ImagefsError):
            return (
                USAGE
                if error.exit_code == EXIT_USAGE
                else SYSTEM_ERROR
                if error.exit_code == EXIT_FAILURE
                else MOUNT_FAILURE
            )
        return SYSTEM_ERROR if isinstance(error, OSError) else BUG


def entry() -> None:
    """Be the helper program; its name is that by which it was called."""
    sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
