"""Patterns over paths inside an image, as `pathlib.Path.glob` understands them.

Receives a directory and a pattern; hands on the paths that match.  Knows of paths only what every user of them does.
"""

import fnmatch
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagefs.api.path import ImagePath

_MAGIC = re.compile(r"[*?\[]")
_ANY_DEPTH = "**"


def matching(top: "ImagePath", pattern: str) -> Iterator["ImagePath"]:
    """Yield what is below *top* and matches *pattern*, each once, however many ways lead there.

    Names match in the case they have; dots are like any other character.  ``**`` goes into directories, not through
    symlinks to them; at the end of a pattern it means directories.

    Raises: ValueError, for an empty or absolute pattern, or where ``**`` is not a component by itself.
    """
    if pattern.startswith("/"):
        raise ValueError(f"expected a pattern relative to a directory, found {pattern!r}")
    parts: list[str] = []
    for part in pattern.split("/"):
        if _ANY_DEPTH in part and part != _ANY_DEPTH:
            raise ValueError(f"expected ** as a whole component, found {part!r}")
        if part in ("", ".") or (part == _ANY_DEPTH and parts[-1:] == [_ANY_DEPTH]):
            continue  # any depth below any depth is any depth, and costs a walk for each directory
        parts.append(part)
    if not parts:
        raise ValueError(f"expected a pattern, found {pattern!r}")
    found = _selected(top, parts, only_directories=pattern.endswith("/"))
    return found if parts.count(_ANY_DEPTH) < 2 else _once(found)


def _once(paths: Iterator["ImagePath"]) -> Iterator["ImagePath"]:
    seen: set[ImagePath] = set()
    for path in paths:
        if path not in seen:
            seen.add(path)
            yield path


def _selected(top: "ImagePath", parts: Sequence[str], *, only_directories: bool) -> Iterator["ImagePath"]:
    if not parts:
        if not only_directories or top.is_dir():
            yield top
        return
    part, rest = parts[0], parts[1:]
    if part == _ANY_DEPTH:
        if top.is_dir():
            for directory, _, _ in top.walk():
                yield from _selected(directory, rest, only_directories=only_directories)
    elif not _MAGIC.search(part):
        found = top / part if part == ".." and top.is_dir() else top.child(part)
        if found is not None:
            yield from _selected(found, rest, only_directories=only_directories)
    elif top.is_dir():
        matches = re.compile(fnmatch.translate(part)).match
        for child in top.iterdir():
            if matches(child.name):
                yield from _selected(child, rest, only_directories=only_directories)
