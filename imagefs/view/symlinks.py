"""Texts of symlinks, rewritten so that whoever follows them stays inside the image.

Receives a symlink's text, the directories it is in, and how to look around; hands on the text to show.  What is inside
the image leads where it would lead with the image as root directory: absolute targets begin at the image's root and
``..`` stops there.  Knows neither stores nor kernels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MOST_FOLLOWED = 40
"""Symlinks on one way, as in Linux (MAXSYMLINKS)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a name in a directory leads to: a directory's index, or a symlink's text; neither for anything else."""

    directory: int | None = None
    target: bytes | None = None


def rewritten(target: bytes, way: Sequence[int], look: Callable[[int, bytes], Seen]) -> bytes:
    """Return the text to show for a symlink to *target*.

    *way* holds the indexes of the directories it is in, from the root down; *look* says what a name in one of them is.
    A relative target that stays inside is shown as it is.
    """
    is_absolute = target.startswith(b"/")
    to_root = b"../" * (len(way) - 1)
    found = _way_out(target, way[:1] if is_absolute else way, look)
    if found is None:
        return (to_root + target.lstrip(b"/")).rstrip(b"/") or b"." if is_absolute else target
    return (to_root + b"/".join(found)).rstrip(b"/") or b"."


def _way_out(target: bytes, way: Sequence[int], look: Callable[[int, bytes], Seen]) -> list[bytes] | None:
    """Return the names that lead from the root to *target*, if a ".." of it was stopped at the root; else None."""
    stack: list[tuple[bytes, int | None]] = [(b"", index) for index in way]
    names = target.split(b"/")[::-1]  # the next is the last
    stopped = False
    followed = 0
    own = len(names)
    while names:
        is_own = len(names) <= own
        name = names.pop()
        own = min(own, len(names))
        if name in (b"", b"."):
            continue
        if name == b"..":
            if len(stack) > 1:
                stack.pop()
            else:
                stopped = stopped or is_own
            continue
        directory = stack[-1][1]
        seen = look(directory, name) if directory is not None else Seen()
        if seen.target is None or not names:
            stack.append((name, seen.directory))
            continue
        followed += 1
        if followed > _MOST_FOLLOWED:
            stack.append((name, None))
            continue
        if seen.target.startswith(b"/"):
            del stack[1:]
        names += seen.target.split(b"/")[::-1]
    return [name for name, _ in stack[1:]] if stopped else None
