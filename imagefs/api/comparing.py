"""What makes one image another, as values.

Receives two images; hands on their differences one by one.  What a difference is, `compare.trees` decides.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from imagefs.api.image import Image
from imagefs.api.path import ImagePath
from imagefs.compare.trees import ASPECTS, compare
from imagefs.errors import PathNotFound, UsageError, printable

_IGNORABLE = ASPECTS[1:]
_KINDS: dict[str, Literal["added", "deleted", "changed"]] = {"A": "added", "D": "deleted", "C": "changed"}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: *path* was added, deleted, or changed in *aspects*.

    *aspects* are of type, content, target, device, mode, owner, times, xattrs, in this order.  *old* is None for what
    was added, *new* for what was deleted.
    """

    kind: Literal["added", "deleted", "changed"]
    path: str
    aspects: tuple[str, ...]
    old: ImagePath | None
    new: ImagePath | None


def diff(old: Image, new: Image, *, path: str | bytes | None = None, ignore: Collection[str] = ()) -> Iterator[Change]:
    """Yield what makes *new* another tree than *old*, in the order of ``diff -r``, without reading files.

    *path* limits it to what is there on the two sides.  *ignore* says which aspects are no change: all but ``type``.
    The images may be of different stores.

    Raises: UsageError, for an unknown aspect; PathNotFound, where neither has *path*; while iterating, BlobNotFound,
    InvalidLayer.
    """
    for aspect in ignore:
        if aspect not in _IGNORABLE:
            raise UsageError(f"expected some of {', '.join(_IGNORABLE)} to ignore, found '{printable(aspect)}'")
    before, after = old.tree(), new.tree()
    at = None
    if path is not None:
        where = bytes(old.path(path))[1:]
        sides = before.find(where), after.find(where)
        if sides == (None, None):
            raise PathNotFound(where, f"{old.reference} and {new.reference}")
        at = where, sides[0][1] if sides[0] else None, sides[1][1] if sides[1] else None
    return (
        Change(
            _KINDS[change.kind],
            str(old.path(change.path)),
            change.aspects,
            ImagePath(old, change.path, change.old) if change.old is not None else None,
            ImagePath(new, change.path, change.new) if change.new is not None else None,
        )
        for change in compare(before, after, at=at, ignore=ignore)
    )
