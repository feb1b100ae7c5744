"""What was removed from the store, or replaced there, while it was in use: its files and the nodes known by them."""

import threading
from collections.abc import Iterator, Sequence

from imagefs.overlay.numbering import ROOT_INDEX
from imagefs.store.store import Store
from imagefs.view.attributes import SLOT_SHIFT, NodeId
from imagefs.view.opened import OpenedImages
from imagefs.view.slots import Slots

DOCUMENT_INDEX = 1
"""The index of the only node in the slot of a document."""


class Removed:
    """Files of the store that are gone but in use here: *paths*, and the nodes that are known by them.

    *roots* are the roots of images among those.
    """

    __slots__ = ("_indexes", "paths", "roots", "slots")

    def __init__(
        self, paths: tuple[str, ...], slots: Sequence[int], indexes: range, roots: Sequence[NodeId] = ()
    ) -> None:
        self.paths = paths
        self.roots = roots
        self.slots = slots
        self._indexes = indexes

    def nodes(self) -> Iterator[NodeId]:
        """Yield every node whose content is in these files."""
        for slot in self.slots:
            for index in self._indexes:
                yield NodeId(slot << SLOT_SHIFT | index)


def removed_content(
    paths: set[str], store: Store, images: OpenedImages, slots: Slots, lock: threading.RLock
) -> list[Removed]:
    """Return the trees, layers and documents that were at *paths*; *lock* guards *slots*."""
    found = []
    with lock:
        bindings = slots.bindings()
        documents = slots.documents()
    trees = {images.tree_path(binding.stack): binding for _, binding in bindings}
    for path in paths & trees.keys():
        rows = images.in_tree(trees[path].stack, lambda tree: tree.rows)
        owners = [slot for slot, binding in bindings if binding.stack == trees[path].stack]
        roots = [NodeId(slot << SLOT_SHIFT | ROOT_INDEX) for slot in owners]
        found.append(Removed((path,), owners, range(ROOT_INDEX, rows + 1), roots))
    for diff_id in {diff_id for _, binding in bindings for diff_id in binding.stack.diff_ids}:
        both = images.layer_paths(diff_id)
        if not paths.isdisjoint(both):
            count = images.in_index(diff_id, lambda index_file: index_file.count)
            with lock:
                found.append(Removed(both, [slots.layer(diff_id)], range(count)))
    for slot, document in documents:
        path = str(store.document_path(document.digest))
        if path in paths:
            found.append(Removed((path,), [slot], range(DOCUMENT_INDEX, DOCUMENT_INDEX + 1)))
    return found


def replaced_content(paths: set[str], images: OpenedImages, slots: Slots, lock: threading.RLock) -> list[Removed]:
    """Return the nodes with content in the layers whose tars at *paths* were replaced; *lock* guards *slots*."""
    found = []
    with lock:
        bindings = slots.bindings()
    for diff_id in {diff_id for _, binding in bindings for diff_id in binding.stack.diff_ids}:
        tar, _ = images.layer_paths(diff_id)
        if tar not in paths:
            continue
        count = images.in_index(diff_id, lambda index_file: index_file.count)
        with lock:
            found.append(Removed((tar,), [slots.layer(diff_id)], range(count)))
        for slot, binding in bindings:
            if diff_id in binding.stack.diff_ids:
                rows = images.in_tree(binding.stack, lambda tree: tree.rows)
                found.append(Removed((tar,), [slot], range(ROOT_INDEX, rows + 1)))
    return found
