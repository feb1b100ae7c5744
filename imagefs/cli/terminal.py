"""What is for eyes only: colours, and tables that fit, on a terminal and nowhere else.

Pipes and files get plain text, never cut.  ``NO_COLOR`` (no-color.org) and ``TERM=dumb`` are respected.
"""

import os
import shutil
import sys
from collections.abc import Sequence

from imagefs.cli.words import columns

_WHOLE = frozenset({"IMAGE ID", "IMAGE", "DIFF ID", "LAYER"})
"""Headings of what is typed again, and so of little use when cut."""
_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}


def styled(text: str, style: str) -> str:
    """Return *text* for standard output, in *style* where that is a terminal with colours."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[m"


def print_table(rows: Sequence[Sequence[str]], *, heading: bool = True) -> None:
    """Print *rows* as aligned columns, with *heading* the first of them as one; a terminal's width is kept to."""
    if not rows:
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    whole = {number for number, cell in enumerate(rows[0]) if cell in _WHOLE} if heading else set()
    lines = columns(rows, width=width, whole=whole).split("\n")
    if heading:
        lines[0] = styled(lines[0], "bold")
    print("\n".join(lines))
