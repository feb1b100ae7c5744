"""A stored layer's changeset, from its index where that is good, from its tar otherwise.

Receives a store and a diff_id; hands on the `Changeset`.  The index is derived data: missing, damaged or of an older
format, it is made again from the tar, and kept if the store can be written to.  A tar is believed only after all of it
was compared with its diff_id.  The only module of the package that knows there is a store.
"""

from pathlib import Path
from typing import IO

from imagefs.errors import BlobNotFound, InvalidLayer, LayerDamaged, LayerIndexDamaged
from imagefs.layer import index
from imagefs.layer.changeset import Changeset
from imagefs.layer.tar import Scanner
from imagefs.oci.digest import DiffId
from imagefs.store.store import Store

_CHUNK_BYTES = 1024 * 1024


def stored_changeset(store: Store, diff_id: DiffId, *, mend: bool = True) -> Changeset:
    """Return the changeset of layer *diff_id*; with *mend*, keep an index that had to be made again.

    Raises: BlobNotFound; LayerDamaged, InvalidLayer, OSError, where the index must be made again from the tar.
    """
    try:
        return index.decode(store.layer_index(diff_id), diff_id)
    except LayerIndexDamaged:
        changeset = scanned_changeset(store, diff_id)
        if mend:
            store.replace_layer_index(diff_id, index.encode(changeset, diff_id))
        return changeset


def scanned_changeset(store: Store, diff_id: DiffId) -> Changeset:
    """Return the changeset of layer *diff_id*, from its tar, all of which is read.

    Raises: BlobNotFound; LayerDamaged, if the tar does not have this diff_id; InvalidLayer, if it has and cannot be
    understood; OSError.
    """
    with _tar(store.layer_path(diff_id), diff_id) as tar:
        hasher = diff_id.hasher()
        scanner = Scanner()
        invalid: InvalidLayer | None = None
        while chunk := tar.read(_CHUNK_BYTES):
            hasher.update(chunk)
            if invalid is None:
                try:
                    scanner.feed(chunk)
                except InvalidLayer as error:
                    invalid = error
    if hasher.hexdigest() != diff_id.hex:
        raise LayerDamaged(str(diff_id), f"its content has {diff_id.algorithm}:{hasher.hexdigest()}")
    if invalid is not None:
        raise invalid
    return scanner.finish()


def _tar(path: Path, diff_id: DiffId) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise BlobNotFound("layer", str(diff_id)) from None
