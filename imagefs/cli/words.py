"""Sizes, ages, columns and paths in the words that scripts and eyes are used to, docker's and git's.  Pure."""

from collections.abc import Collection, Iterable, Sequence

_LEAST_COLUMN = 6  # such as 72.9MB
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with what of *known* is nearest to *word*, "" where nothing is near."""
    import difflib  # only on the way to an error

    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


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
