"""What the layers of two images have in common, and what each of the others does.

Receives the layers of two images; hands on a `LayerShare` for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from imagefs.compare.trees import compare
from imagefs.oci.digest import DiffId
from imagefs.overlay.stored import Stack
from imagefs.view.opened import OpenedImages
from imagefs.view.tree import looked_at


@dataclass(frozen=True, slots=True)
class LayerShare:
    """One layer: in both images, only in the old, or only in the new one.

    *adds* counts the bytes of files that are new in it or have new content; *frees* the bytes of files of lower layers
    that it hides or replaces by those.  A file of which only metadata changes counts in neither.  Both are 0 for a
    layer of both images.
    """

    where: Literal["both", "old", "new"]
    diff_id: DiffId
    adds: int
    frees: int


def layer_shares(images: OpenedImages, old: Stack, new: Stack) -> Iterator[LayerShare]:
    """Yield the layers of both, base first; then, base first, those of *old* alone and those of *new* alone.

    Raises: BlobNotFound, InvalidLayer.
    """
    shared = set(old.diff_ids) & set(new.diff_ids)
    for diff_id in new.diff_ids:
        if diff_id in shared:
            yield LayerShare("both", diff_id, 0, 0)
    for where, stack in (("old", old), ("new", new)):
        for place, diff_id in enumerate(stack.diff_ids):
            if diff_id not in shared:
                adds, frees = _effect(images, stack.diff_ids[:place], stack.diff_ids[: place + 1])
                yield LayerShare("old" if where == "old" else "new", diff_id, adds, frees)


def _effect(images: OpenedImages, below: tuple[DiffId, ...], whole: tuple[DiffId, ...]) -> tuple[int, int]:
    before, after = (looked_at(images, Stack(diff_ids), passing=True) for diff_ids in (below, whole))
    adds = frees = 0
    for change in compare(before, after):
        if change.kind != "C" or {"type", "content"} & set(change.aspects):
            adds += change.bytes_after
            frees += change.bytes_before
    return adds, frees
