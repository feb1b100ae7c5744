"""The union of a stored image's layers: computed, checked, and kept as a tree file.

Receives a store and the diff_ids of layers that it has; hands on the bytes of their tree.  The only module of the
package that knows there is a store.
"""

from collections.abc import Iterator, Sequence

from imagefs.layer.indexed import stored_changeset
from imagefs.oci.digest import DiffId, chain_id
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree_file import encode
from imagefs.store.store import Store


def computed_tree(store: Store, diff_ids: Sequence[DiffId]) -> Iterator[bytes]:
    """Return the bytes of the tree of *diff_ids*, base first, in pieces.

    Raises, before the first piece: BlobNotFound; InvalidLayer, if the layers form no valid union.
    """
    changesets = [stored_changeset(store, diff_id) for diff_id in diff_ids]
    return encode(resolve(changesets), changesets, diff_ids)


def store_tree(store: Store, diff_ids: Sequence[DiffId]) -> None:
    """Compute the tree of *diff_ids* and keep it in *store*, unless it is there.

    Raises: BlobNotFound, InvalidLayer, OSError.
    """
    name = chain_id(diff_ids)
    if not store.tree_path(name).exists():
        store.replace_tree(name, computed_tree(store, diff_ids))
