"""What is for eyes only: colors, and tables that fit, on a terminal and nowhere else.

Pipes and files get plain text, never cut.  ``NO_COLOR`` (no-color.org) and ``TERM=dumb`` are respected.
"""

import os
import shutil
import sys
from collections.abc import Sequence

from imagefs.cli.streams import unescaped
from imagefs.text import columns, printable, printable_lines

_WHOLE = frozenset({"IMAGE ID", "IMAGE", "DIFF ID", "LAYER"})
"""Headings of what is typed again, and so of little use when cut."""
_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}


def print_styled(text: str, style: str | None) -> None:
    """Print the line *text*, in *style* where standard output is a terminal with colors."""
    if (
        style is None
        or not sys.stdout.isatty()
        or os.environ.get("NO_COLOR")
        or os.environ.get("TERM", "dumb") == "dumb"
    ):
        print(text)
    else:
        print(f"\x1b[{_STYLES[style]}m{printable_lines(text)}\x1b[m", file=unescaped(sys.stdout))


def print_status(text: str) -> None:
    """Show *text* in place of the last status, in the last line of a terminal at standard error; "" removes it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{printable(text)}", end="", file=unescaped(sys.stderr), flush=True)


def print_table(rows: Sequence[Sequence[str]], *, heading: bool = True) -> None:
    """Print *rows* as aligned columns, with *heading* the first of them as one; a terminal's width is kept to."""
    if not rows:
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    whole = {number for number, cell in enumerate(rows[0]) if cell in _WHOLE} if heading else set()
    cells = [[printable(cell, limit=None) for cell in row] for row in rows]
    lines = columns(cells, width=width, whole=whole).split("\n")
    for number, line in enumerate(lines):
        print_styled(line, "bold" if heading and number == 0 else None)
