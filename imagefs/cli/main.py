"""``imagefs``: options common to all commands, and the last place where errors are caught."""

import argparse
import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from imagefs import __version__
from imagefs.cli.exit_codes import EXIT_CODES
from imagefs.cli.report import report
from imagefs.cli.spelling import ABSENT, command_index, respelled
from imagefs.cli.streams import printable_streams
from imagefs.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE
from imagefs.store.location import default_store_path
from imagefs.text import PrintableFormatter, did_you_mean, printable

COMPLETION_VARIABLE = "_ARGCOMPLETE"
"""The environment variable by which scripts of shells say that they want completions, not a command done."""

_FAMILIES = {
    "pull": ("pull",),
    "tags": ("tags",),
    "search": ("search",),
    "load": ("load",),
    "save": ("save",),
    "ls": ("ls", "images"),
    "images": ("tag", "untag", "rm", "rmi", "exists"),
    "inspect": ("inspect",),
    "history": ("history",),
    "inside": ("cat", "cp", "export"),
    "find": ("find", "tree"),
    "mount": ("mount", "umount", "remount", "mounts"),
    "diff": ("diff",),
    "blame": ("blame",),
    "prune": ("prune", "df"),
    "verify": ("verify",),
    "info": ("info",),
    "init": ("init",),
    "completion": ("completion",),
    "manual": ("manual",),
}
"""The modules of commands, in the order of the help, and the commands of each."""

_UNKNOWN_COMMAND = re.compile(r"argument COMMAND: invalid choice: '(.*)' \(choose from", re.DOTALL)
"""How argparse says it."""


class Parser(argparse.ArgumentParser):
    """A parser, also of each command, whose errors are one sentence; it refuses abbreviated options."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """End the program with *message*; for an unknown command, with the nearest one or what to use instead."""
        unknown = _UNKNOWN_COMMAND.match(message)
        if unknown is not None:
            name = unknown[1]
            message = ABSENT.get(name) or f"there is no command '{name}'{did_you_mean(name, _commands(self))}"
        print(f"{self.prog}: {printable(message, limit=None)}; '{self.prog} --help' says more", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of *parser* by name."""
    return {
        name: command
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, command in action.choices.items()
    }


def _needed(words: Sequence[str]) -> Collection[str] | None:
    """Return the modules that the command line *words* needs; None for all, as for help, and where that is not clear.

    To import all takes longer than most commands run.
    """
    word = next(iter(words[command_index(words) :]), "")
    if word == "--version":
        return ()
    return next(([family] for family, commands in _FAMILIES.items() if word in commands), None)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line *argv* says; what it should not say is its command's error.

    Raises: SystemExit.
    """
    words = respelled(sys.argv[1:] if argv is None else argv)
    if COMPLETION_VARIABLE in os.environ:
        from imagefs.cli.completion import complete

        complete(parser())
    top = parser(_needed(words))
    first = next(iter(words[command_index(words) :]), "")
    options = [option for action in top._actions for option in action.option_strings]
    if first.startswith("-") and first not in options:  # argparse would take its value for the command
        top.error(f"unrecognized arguments: {first}{did_you_mean(first, options)}")
    namespace, unknown = top.parse_known_args(words)
    if unknown:
        command = _commands(top)[namespace.command]
        options = [option for action in command._actions for option in action.option_strings]
        meant = did_you_mean(unknown[0], options) if unknown[0].startswith("-") else ""
        command.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    return namespace


def parser(only: Collection[str] | None = None) -> Parser:
    """Return the parser of the whole command line; its result has ``run``, a function of the parsed namespace.

    With *only*, it knows no other commands than those of these modules.
    """
    top = Parser(
        prog="imagefs",
        description="Pull container images and mount them: every repo/tag is a directory.",
        epilog="'imagefs help COMMAND' tells more about one; 'imagefs image COMMAND' works, too.\n\nexit status:\n"
        + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"imagefs {__version__}")
    top.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="the store; default: $IMAGEFS_STORE, /var/lib/imagefs for root, $XDG_DATA_HOME/imagefs for others",
    )
    top.add_argument(
        "--trust-store",
        action="store_true",
        help="read a store of another user, or one that other users could have changed",
    )
    top.add_argument("--debug", action="store_true", help="say on standard error what is being done")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for family in _FAMILIES if only is None else only:
        importlib.import_module(f"imagefs.cli.{family}").register(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; errors are one sentence on standard error."""
    with printable_streams():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    debug = False
    try:
        namespace = parsed(argv)
        debug = namespace.debug
        _log_to_standard_error(logging.DEBUG if debug else logging.WARNING)
        if namespace.store is None:
            namespace.store = default_store_path()
        status: int = namespace.run(namespace)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us, such as `head`, has seen enough.  Python flushes once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("imagefs: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:  # the last place: nothing may reach the user as a traceback
        if debug:
            traceback.print_exc()
        return report(error)
    return status


def _log_to_standard_error(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("imagefs: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def entry() -> None:
    """Be the ``imagefs`` program."""
    sys.exit(main())
