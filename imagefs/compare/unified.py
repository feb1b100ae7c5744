"""The lines in which two versions of a text file differ.

Receives two open files; hands on lines of a unified diff.  The only module here that reads contents.
"""

import difflib
from collections.abc import Iterator

from imagefs.view.open_file import OpenFile

MAX_TEXT_BYTES = 1024 * 1024
"""Longest file that is compared by lines: difflib takes time in proportion to the product of the two lengths."""
_MOST_LINES = 20_000
_LOOKED_AT_BYTES = 8000
"""A NUL byte among these makes a file binary, as with git and diff."""


def unified(old: OpenFile, new: OpenFile, *, old_label: bytes, new_label: bytes) -> Iterator[bytes]:
    """Yield the lines, each with its end, of the unified diff of two files that differ.

    Files that are binary or too long give one line that says so.

    Raises: LayerDamaged, OSError.
    """
    heads = [file.read(0, _LOOKED_AT_BYTES) for file in (old, new)]
    if any(b"\0" in head for head in heads):
        yield b"Binary files " + old_label + b" and " + new_label + b" differ\n"
        return
    texts = [file.read(0, MAX_TEXT_BYTES + 1) for file in (old, new)]
    lines = [_lines(text) if len(text) <= MAX_TEXT_BYTES else [] for text in texts]
    if any(len(text) > MAX_TEXT_BYTES for text in texts) or sum(map(len, lines)) > _MOST_LINES:
        limit = f" differ; they are longer than the {MAX_TEXT_BYTES} bytes or {_MOST_LINES} lines compared as text\n"
        yield b"Files " + old_label + b" and " + new_label + limit.encode()
        return
    ends = b"\n\\ No newline at end of file\n"
    # latin-1 makes every byte one character and back.
    before, after = ([line.decode("latin-1") for line in some] for some in lines)
    for line in difflib.unified_diff(before, after, old_label.decode("latin-1"), new_label.decode("latin-1")):
        raw = line.encode("latin-1")
        yield raw if raw.endswith(b"\n") else raw + ends


def _lines(text: bytes) -> list[bytes]:
    """Return *text* in lines with their ends; only a newline ends one, as with diff."""
    *whole, rest = text.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])
