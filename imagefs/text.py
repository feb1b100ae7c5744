r"""Text for people: printable text, JSON, sizes, ages, columns and quoted paths.  Pure; imports no other module.

What an image, archive, registry or store says is hostile: its control characters, C1 controls, bidirectional marks and
invisible characters can make a terminal show what is not so, or obey.  `str.isprintable` decides: it is false for
every character of the Unicode categories Cc, Cf, Cs, Co, Cn, Zl, Zp and Zs, except the ASCII space.  Each function
here that returns text escapes such characters in its own notation:

* `printable`: Python's escapes, in one line; for messages, cells of tables and log lines.
* `printable_lines`: the same, but newlines and tabs stay; the last defense of standard output.
* `path_text`: C's escapes in double quotes, as git quotes paths; unambiguous.
* `json_text`: ``\uXXXX``, so that a JSON parser reads equal values.

Source: Unicode 15, 4.5; CVE-2021-42574 (bidirectional text); ECMA-48 for C0 and C1 controls.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from types import TracebackType

_LINE_CHARACTERS = 4000
"""Longest log line: the longest message of imagefs has some hundred characters, hostile ones have no bound."""
_LONG_WORD = 8
"""Letters from which on a word may have two slips."""
_LEAST_LETTERS = 3  # with one slip, fewer may be any name
_LEAST_COLUMN = 6  # such as 72.9MB
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def printable(value: str | bytes, *, limit: int | None = 200) -> str:
    """Return *value* as one line that is safe to print, of at most *limit* characters.

    Characters that are not printable, newlines among them, and undecodable bytes are escaped.
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    safe = text if text.isprintable() else "".join(c if c.isprintable() else _python_escape(c) for c in text)
    return safe if limit is None or len(safe) <= limit else safe[: limit - 1] + "…"


def printable_lines(text: str) -> str:
    """Return *text* safe to print: as `printable`, but newlines and tabs stay, and nothing is cut."""
    if text.isprintable() or text == "\n":
        return text
    return "\n".join("\t".join(printable(cell, limit=None) for cell in line.split("\t")) for line in text.split("\n"))


def _python_escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()


def json_text(value: object, *, indent: int | None = None, compact: bool = False) -> str:
    """Return *value* as JSON that is safe to print, in one line unless there is an *indent*.

    Printable characters stand for themselves, others are escaped; undecodable bytes of a path are lone surrogates.
    """
    import json  # not needed by commands that print none

    separators = (",", ":") if compact else None
    return printable_json(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators))


def printable_json(document: str) -> str:
    """Return the JSON *document* safe to print, with equal values and, but for carriage returns, equal white space."""
    lines = document.replace("\r", "").split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_json_escaped, line)) for line in lines)


def _json_escaped(char: str) -> str:
    if char.isprintable() or char == "\t":  # a tab stands between values: inside strings JSON allows none
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


class PrintableFormatter(logging.Formatter):
    """Formats log records so that no value in a message can forge a line or reach a terminal raw."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is logging's
        """Return the line of *record*, without its traceback."""
        return printable(super().formatMessage(record), limit=_LINE_CHARACTERS)

    def formatException(  # noqa: N802  # the name is logging's
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """Return the lines of a traceback."""
        return printable_lines(super().formatException(ei))


def size(count: int) -> str:
    """Return *count* bytes in decimal units with up to three significant digits: ``0B``, ``1.09kB``, ``72.9MB``.

    Source: docker/go-units, HumanSizeWithPrecision.
    """
    value = float(count)
    unit = 0
    while value >= 1000 and unit < len(_SIZE_UNITS) - 1:
        value /= 1000
        unit += 1
    digits = f"{value:.3g}"
    # %.3g writes 1e+03 for a value that rounds up to a thousand; %g of that is what Go's %.4g-with-3 gives too.
    return f"{float(digits):g}{_SIZE_UNITS[unit]}"


def signed_size(count: int) -> str:
    """Return a growth of *count* bytes, which may be negative, like `size`: ``+1.09kB``, ``-3B``, ``0B``."""
    return size(count) if count == 0 else f"{'+' if count > 0 else '-'}{size(abs(count))}"


def age(seconds: int) -> str:
    """Return how long ago *seconds* is, in docker's words: ``About an hour``, ``3 weeks``.

    Source: docker/go-units, HumanDuration.
    """
    minutes, hours = seconds // 60, round(seconds / 3600)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours <= 1 else f"{hours} hours"
    for limit, unit_hours, word in (
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // unit_hours} {word}"
    return f"{hours // 24 // 365} years"


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\a": "\\a", '"': '\\"', "\\": "\\\\"}


def path_text(path: bytes, *, root: str = "/") -> str:
    """Return *path*, behind *root*, that of an image, so that a line or a terminal can hold it.

    As git does: where there is anything but printable UTF-8, in double quotes with C's escapes, else as it is.
    """
    text = root + path.decode("utf-8", "surrogateescape")
    if text.isprintable() and not set(text) & _ESCAPES.keys():
        return text
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the one of *names* that *word* may be a slip for, "" where none is near.

    Near is a name that *word* abbreviates, as ``--form`` does ``--format``, or one edit away; in long words, two.
    """
    candidates = list(names)
    letters = len(word.lstrip("-"))
    if letters < _LEAST_LETTERS:
        return ""
    limit = 2 if letters >= _LONG_WORD else 1
    distances = {name: _edits(word.lower(), name.lower()) for name in candidates if abs(len(name) - len(word)) <= limit}
    nearest = min(distances, key=lambda name: distances[name], default=None)
    if nearest is None or distances[nearest] > limit:
        nearest = next((name for name in candidates if word.startswith("--") and name.startswith(word)), None)
    return f"; did you mean {nearest}?" if nearest is not None else ""


def _edits(one: str, other: str) -> int:
    """Return how many letters to add, leave out, replace or swap with the next make *one* *other*.

    A digit for another character counts twice: ``-printf`` is no slip for ``-print0``.
    """
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            replaced = 0 if a == b else 2 if a.isdigit() or b.isdigit() else 1
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + replaced))
            if i > 1 and j > 1 and (a, b) == (other[j - 2], one[i - 2]):
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


def columns(rows: Sequence[Sequence[str]], *, width: int | None = None, whole: Collection[int] = ()) -> str:
    """Return *rows*, the first of which may be a heading, as lines of aligned columns three spaces apart.

    Where lines would be longer than *width*, columns come nearer to each other, and the widest are cut, as far as they
    can be: those numbered in *whole*, counted from 0, only when the others are as narrow as that.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = 3
    if width is not None and sum(widths) + gap * (len(widths) - 1) > width:
        gap = 1
        every = range(len(widths))
        for cut, least in (
            ([number for number in every if number not in whole], _LEAST_COLUMN),
            (every, _LEAST_COLUMN),
            (every, 2),
        ):
            while sum(widths) + gap * (len(widths) - 1) > width:
                widest = max(cut, key=lambda number: widths[number], default=None)
                if widest is None or widths[widest] <= least:
                    break
                widths[widest] -= 1
    return "\n".join(
        (" " * gap).join(_cut(cell, at).ljust(at) for cell, at in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
