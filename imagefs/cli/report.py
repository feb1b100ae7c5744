"""Errors as a user meets them: one sentence on standard error, and an exit status."""

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from imagefs.errors import EXIT_FAILURE, ImagefsError, describe
from imagefs.text import printable

_MESSAGE_CHARACTERS = 4000
"""Longest error message: ours have some hundred characters, what a registry or archive adds has no bound."""

_NO_ROOM = (
    "the operating system refuses more memory or threads; raise the limits (ulimit -v, ulimit -u, or those of the "
    "service or container) and try again"
)

_REFUSALS = ("can't start new thread", "can't allocate lock", "failed to map segment from shared object")
"""The ends of messages of a RuntimeError or ImportError that Python has no class of its own for."""

_One = TypeVar("_One")


def report(error: Exception) -> int:
    """Print *error* as one sentence on standard error and return the exit status it stands for."""
    if isinstance(error, ImagefsError):
        _print(describe(error))
        return error.exit_code
    if isinstance(error, OSError):
        _print(describe(error))
        return EXIT_FAILURE
    if isinstance(error, MemoryError) or str(error).endswith(_REFUSALS):
        _print(_NO_ROOM)
        return EXIT_FAILURE
    _print(f"internal error, please report it with the output of --debug: {describe(error)}")
    return EXIT_FAILURE


def _print(message: str) -> None:
    """Print *message* on one line: a newline that it quotes must not forge another message."""
    print(f"imagefs: {printable(message, limit=_MESSAGE_CHARACTERS)}", file=sys.stderr)


def for_each(ones: Iterable[_One], do: Callable[[_One], object]) -> int:
    """Do it for each; where it fails that is reported and the others are still done.

    Returns the exit status of the first that failed, 0 if none did.
    """
    statuses = []
    for one in ones:
        try:
            do(one)
        except BrokenPipeError:
            raise
        except (ImagefsError, OSError) as error:
            statuses.append(report(error))
    return statuses[0] if statuses else 0
