"""Errors as a user meets them: one sentence on standard error, and an exit status."""

import sys

from imagefs.errors import EXIT_FAILURE, ImagefsError, describe


def report(error: Exception) -> int:
    """Print *error* as one sentence on standard error and return the exit status it stands for."""
    if isinstance(error, ImagefsError):
        print(f"imagefs: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError):
        print(f"imagefs: {describe(error)}", file=sys.stderr)
        return EXIT_FAILURE
    print(f"imagefs: internal error, please report it with the output of --debug: {describe(error)}", file=sys.stderr)
    return EXIT_FAILURE
