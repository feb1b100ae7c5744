"""Which layers made a path of an image what it is.

Receives a store, an image and paths; hands on `Touch` values, newest first.  Layers are told apart by what the union
is after each of them, so whatever makes a path change is found: entries, hard links, whiteouts and opaque directories,
also of parents, and parents that become something else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from imagefs.compare.trees import differing
from imagefs.layer.changeset import Changeset, Entry
from imagefs.layer.indexed import stored_changeset
from imagefs.oci.config import ImageConfig
from imagefs.oci.digest import DiffId
from imagefs.overlay.resolve import Named, states
from imagefs.store.store import Store

Action = Literal["added", "changed", "metadata", "rewritten", "removed"]
"""*metadata*: only that changed; *rewritten*: the layer has it again, the same as before."""


@dataclass(frozen=True, slots=True)
class Touch:
    """What one layer did to a path.

    *number* counts layers from 1, the base.  *aspects* (of `compare.ASPECTS`) are what it changed; *how* says how a
    path was removed, or what it was linked to.  *size* is that of the file in the end, 0 of everything else.
    *created_by* is the instruction that made the layer, "" where the image's history does not tell.
    """

    number: int
    diff_id: DiffId
    action: Action
    aspects: tuple[str, ...]
    how: str
    size: int
    created_by: str


def blame(store: Store, config: ImageConfig, paths: Sequence[bytes]) -> list[list[Touch]]:
    """Return for each of the clean *paths* the layers of the image of *config* that touched it, newest first.

    Symlinks among the parents of a path are followed, as they were at each layer; what it names itself is not.  Time
    and memory are those of computing the image's tree.

    Raises: BlobNotFound, InvalidLayer.
    """
    found: list[list[Touch]] = [[] for _ in paths]
    before: list[Named | None] = [None] * len(paths)
    made_by = [step.created_by for step, diff_id in config.steps() if diff_id is not None]
    made_by = made_by or [""] * len(config.diff_ids)
    changesets: list[Changeset] = []
    named_paths = frozenset(paths)

    def applied() -> Iterator[Changeset]:
        for diff_id in config.diff_ids:
            changesets.append(stored_changeset(store, diff_id))
            yield changesets[-1]
            changesets.clear()

    for place, after in enumerate(states(applied(), paths)):
        changeset = changesets[0]
        said = {entry.path: entry for entry in changeset.entries if entry.path in named_paths}
        for touches, path, old, new in zip(found, paths, before, after, strict=True):
            told = _told(path, old, new, said.get(path), changeset)
            if told is not None:
                action, aspects, how = told
                size = new.entry.size if new is not None else 0
                touch = Touch(place + 1, config.diff_ids[place], action, aspects, how, size, made_by[place])
                touches.insert(0, touch)
        before = after
    return found


def _told(
    path: bytes, old: Named | None, new: Named | None, said: Entry | None, changeset: Changeset
) -> tuple[Action, tuple[str, ...], str] | None:
    how = f"hard link to {said.target.decode(errors='backslashreplace')}" if said and said.is_hardlink else ""
    if new is None:
        return None if old is None else ("removed", (), _removed_by(path, changeset))
    if old is None:
        return "added", (), how
    if (old.layer, old.position) == (new.layer, new.position) and said is None:
        return None
    aspects = tuple(differing(old.entry, new.entry, are_same=(old.layer, old.position) == (new.layer, new.position)))
    if not aspects:
        return "rewritten", (), how
    return ("changed" if {"type", "content", "target", "device"} & set(aspects) else "metadata"), aspects, how


def _removed_by(path: bytes, changeset: Changeset) -> str:
    if path in changeset.whiteouts:
        return "whiteout"
    parent = path
    while parent:
        parent = parent.rpartition(b"/")[0]
        if parent in changeset.opaques:
            return f"opaque directory /{parent.decode(errors='backslashreplace')}"
        if parent and parent in changeset.whiteouts:
            return f"whiteout of /{parent.decode(errors='backslashreplace')}"
    return "a parent was hidden or became something else"
