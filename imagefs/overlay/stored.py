"""The union of stored layers: computed, checked, and kept as a tree file.

Receives a store and the diff_ids of layers that it has; hands on the bytes of their tree.  The only module of the
package that knows there is a store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagefs.layer.index import ReadAt
from imagefs.layer.indexed import stored_changeset
from imagefs.oci.digest import DiffId, chain_id
from imagefs.overlay.alone import tree_alone
from imagefs.overlay.attributes import NumberKey
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree_file import TreeFile, encode
from imagefs.store.store import Store


def number_key(store: Store) -> NumberKey:
    """Return the key of the inode numbers in *store*."""
    return NumberKey(store.secret().value)


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers, base first, that make a tree: their union, or with *alone* the only one by itself (`tree_alone`)."""

    diff_ids: tuple[DiffId, ...]
    alone: bool = False

    def __hash__(self) -> int:
        # Asked for at every look at a tree; the text remembers its own.
        return hash(self.diff_ids[-1].hex) if self.diff_ids else 0

    def path(self, store: Store) -> Path:
        """Return where in *store* the tree is, or would be."""
        return store.lone_tree_path(self.diff_ids[0]) if self.alone else store.tree_path(chain_id(self.diff_ids))

    def __str__(self) -> str:
        """Return the name of the stack, to which its tree is bound."""
        return f"layer {self.diff_ids[0]}" if self.alone else f"stack {chain_id(self.diff_ids)}"

    def reader(self, store: Store, read: ReadAt, size: int) -> TreeFile:
        """Return the reader of a tree of this stack that *read* reads from a file of *store* of *size* bytes.

        A process that cannot read the store's secret accepts the numbers in its trees as they are.

        Raises: TreeDamaged.
        """
        key = number_key(store) if store.secret().is_stored else None
        return TreeFile(read, size, stack=str(self), key=key)

    def computed(self, store: Store, *, mend: bool = True) -> Iterator[bytes]:
        """Return the bytes of the tree, in pieces; with *mend*, keep indexes that had to be made again for it.

        Raises, before the first piece: BlobNotFound; InvalidLayer, if the layers form no valid union.
        """
        changesets = [stored_changeset(store, diff_id, mend=mend) for diff_id in self.diff_ids]
        tree = tree_alone(changesets[0]) if self.alone else resolve(changesets)
        return encode(tree, self.diff_ids, stack=str(self), key=number_key(store))

    def keep(self, store: Store) -> None:
        """Compute the tree and keep it in *store*, in place of one that may be there; not for a layer by itself.

        Raises: BlobNotFound, InvalidLayer, OSError.
        """
        assert not self.alone, "see view.opened.make_tree"
        store.replace_tree(chain_id(self.diff_ids), self.computed(store))


def store_tree(store: Store, diff_ids: Sequence[DiffId]) -> None:
    """Keep the tree of *diff_ids* in *store*, and those of their indexes that are missing.

    Raises: BlobNotFound, InvalidLayer, OSError.
    """
    stack = Stack(tuple(diff_ids))
    if not all(path.is_file() for path in (stack.path(store), *map(store.index_path, diff_ids))):
        stack.keep(store)
