"""Image trees in memory, made when first entered.

Receives a store and the image somebody entered; hands on its `Tree` and open layers.  Bounds what is kept: trees that
have not been used for long are dropped and made again.
"""

import os
import threading
from collections import OrderedDict

from imagefs.errors import BlobNotFound, LayerDamaged
from imagefs.layer.changeset import Entry
from imagefs.layer.indexed import stored_changeset
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree import Tree
from imagefs.store.catalog import Image
from imagefs.store.store import Store

MAX_KEPT_INODES = 1_000_000
"""How many inodes all kept trees may have together, beyond the one in use: some 600 MB."""


class OpenFile:
    """A regular file being read.

    It holds its layer's tar open, so it stays readable when the image is removed.  Thread-safe until `close`.
    """

    __slots__ = ("_descriptor", "_diff_id", "_entry")

    def __init__(self, store: Store, diff_id: DiffId, entry: Entry) -> None:
        self._entry = entry
        self._diff_id = diff_id
        try:
            self._descriptor = os.open(store.layer_path(diff_id), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobNotFound("layer", str(diff_id)) from None

    def read(self, offset: int, size: int) -> bytes:
        """Return up to *size* bytes from byte *offset*; fewer mean end of file and nothing else.

        Raises: LayerDamaged, OSError.
        """
        size = min(size, self._entry.size - offset)
        if size <= 0:
            return b""
        if self._entry.extents is None:
            return self._data(self._entry.offset + offset, size)
        result = bytearray(size)  # holes are zeros
        position = self._entry.offset
        for start, length in self._entry.extents:
            first, last = max(start, offset), min(start + length, offset + size)
            if first < last:
                result[first - offset : last - offset] = self._data(position + first - start, last - first)
            if start >= offset + size:
                break
            position += length
        return bytes(result)

    def _data(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size:  # a signal may cut a read short; only nothing at all means the end
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                raise LayerDamaged(str(self._diff_id), offset + size)
            data += more
        return data

    def close(self) -> None:
        os.close(self._descriptor)


class OpenedImages:
    """The trees of the images in use.  Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._trees: OrderedDict[Digest, Tree] = OrderedDict()

    def tree(self, image: Image) -> Tree:
        """Return the tree of *image*, resolving its layers if it is not among those kept.

        Raises: BlobNotFound, InvalidLayer.
        """
        # One lock for all: two threads resolving at once would take turns at the interpreter anyway.
        with self._lock:
            tree = self._trees.get(image.id)
            if tree is None:
                tree = resolve([stored_changeset(self._store, diff_id) for diff_id in image.diff_ids])
                self._trees[image.id] = tree
                while len(self._trees) > 1 and sum(map(len, self._trees.values())) - len(tree) > MAX_KEPT_INODES:
                    self._trees.popitem(last=False)
            self._trees.move_to_end(image.id)
            return tree

    def forget_except(self, images: tuple[Image, ...]) -> None:
        """Drop the trees of images other than *images*."""
        kept = {image.id for image in images}
        with self._lock:
            for image_id in [known for known in self._trees if known not in kept]:
                del self._trees[image_id]
