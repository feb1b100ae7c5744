"""A stored layer's changeset, from its index where that is good, from its tar otherwise.

Receives a store and a diff_id; hands on the `Changeset`.  The index is derived data: missing, damaged or of an older
format, it is made again from the tar, and kept if the store can be written to.  A tar is believed only after all of it
was compared with its diff_id.  The only module of the package that knows there is a store.
"""

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from imagefs.errors import BlobNotFound, InvalidLayer, LayerDamaged, LayerIndexDamaged
from imagefs.layer.changeset import Changeset
from imagefs.layer.index import IndexWriter, decode, read_changeset
from imagefs.layer.tar import Scanner
from imagefs.oci.digest import DiffId
from imagefs.store.content import open_file
from imagefs.store.store import Store

_CHUNK_BYTES = 1024 * 1024


def stored_changeset(store: Store, diff_id: DiffId, *, mend: bool = True) -> Changeset:
    """Return the changeset of layer *diff_id*; with *mend*, keep an index that had to be made again.

    Raises: BlobNotFound; LayerDamaged, InvalidLayer, OSError, where the index must be made again from the tar.
    """
    try:
        return _read(store.index_path(diff_id), diff_id)
    except LayerIndexDamaged:
        pieces = scanned_index(store, diff_id)
        if store.read_only or not mend:
            return decode(b"".join(pieces), diff_id)
        store.replace_layer_index(diff_id, pieces)
        return _read(store.index_path(diff_id), diff_id)


def scanned_index(store: Store, diff_id: DiffId) -> Iterator[bytes]:
    """Return in pieces the index of layer *diff_id*, made from its tar, all of which is read first.

    Raises: BlobNotFound; LayerDamaged, if the tar does not have this diff_id; InvalidLayer, if it has and cannot be
    understood; OSError.
    """
    with _tar(store, diff_id) as tar:
        hasher = diff_id.hasher()
        writer = IndexWriter()
        scanner = Scanner(writer)
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
    return writer.pieces(scanner.finish(), diff_id)


def _tar(store: Store, diff_id: DiffId) -> IO[bytes]:
    try:
        return store.open_layer(diff_id)
    except FileNotFoundError:
        raise BlobNotFound("layer", str(diff_id)) from None


def _read(path: Path, diff_id: DiffId) -> Changeset:
    """Return the changeset of layer *diff_id* in the index at *path*, which stays open as long as the changeset."""
    try:
        descriptor = open_file(path)
    except FileNotFoundError:
        raise LayerIndexDamaged("it is not there") from None
    file = _Opened(descriptor)
    return read_changeset(file.read, os.fstat(descriptor).st_size, diff_id)


class _Opened:
    """An open file, closed with the last reference to it.  Thread-safe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def read(self, size: int, offset: int) -> bytes:
        """Return *size* bytes from byte *offset*, fewer at the end of the file."""
        return os.pread(self._descriptor, size, offset)
