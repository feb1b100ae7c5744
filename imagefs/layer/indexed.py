"""A stored layer's changeset, from its index where that is good, from its tar otherwise.

Receives a store and a diff_id; hands on the `Changeset`.  The index is derived data: missing, damaged or of an older
format, it is made again from the tar, and kept if the store can be written to.  The only module of the package that
knows there is a store.
"""

from collections.abc import Iterator
from pathlib import Path

from imagefs.errors import BlobNotFound, LayerIndexDamaged
from imagefs.layer import index
from imagefs.layer.changeset import Changeset
from imagefs.layer.tar import scan
from imagefs.oci.digest import DiffId
from imagefs.store.store import Store

_CHUNK_BYTES = 1024 * 1024


def stored_changeset(store: Store, diff_id: DiffId, *, mend: bool = True) -> Changeset:
    """Return the changeset of layer *diff_id*; with *mend*, keep an index that had to be made again.

    Raises: BlobNotFound; InvalidLayer, if the tar itself is damaged.
    """
    try:
        return index.decode(store.layer_index(diff_id))
    except LayerIndexDamaged:
        changeset = scan(_chunks(store.layer_path(diff_id), diff_id))
        if mend:
            store.replace_layer_index(diff_id, index.encode(changeset))
        return changeset


def _chunks(path: Path, diff_id: DiffId) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise BlobNotFound("layer", str(diff_id)) from None
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
