"""Images that somebody has entered: their trees, indexes and data, open for reading.

Receives a store and the layers of an image; hands on its tree, its entries and its files' content.  An image is
entered as a whole: all its files are open from then on, so it stays whole for who is inside when it is removed.
Trees and indexes that are missing or damaged are made again.
"""

import contextlib
import errno
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from imagefs.errors import (
    BlobNotFound,
    DerivedDamaged,
    DigestMismatch,
    FileDamaged,
    LayerDamaged,
    LayerIndexDamaged,
    TreeDamaged,
    describe,
)
from imagefs.layer import index
from imagefs.layer.changeset import Entry
from imagefs.layer.extents import Extents
from imagefs.layer.index import IndexFile
from imagefs.layer.indexed import stored_changeset
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.stored import Stack
from imagefs.overlay.tree_file import TreeFile
from imagefs.store.store import Store
from imagefs.view.kept import KeptFile, KeptFiles

_Answer = TypeVar("_Answer")
_PIECE_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


class OpenFile:
    """A regular file being read.  It stays readable when its image is removed.  Thread-safe."""

    __slots__ = ("_diff_id", "_extents", "_offset", "_tar", "size")

    def __init__(self, tar: KeptFile, diff_id: Digest, *, size: int, offset: int, extents: Extents | None) -> None:
        self._tar = tar
        self._diff_id = diff_id
        self._offset = offset
        self._extents = extents
        self.size = size

    @property
    def is_sparse(self) -> bool:
        """Whether there are holes: then it can only be read, and the rest is not for it."""
        return self._extents is not None

    def place(self, offset: int) -> tuple[int, int]:
        """Return (descriptor, position) of byte *offset*."""
        return self._tar.descriptor, self._offset + offset

    def is_at_hand(self, offset: int, size: int) -> bool:
        """Return whether these bytes can be viewed without waiting for the disk, as far as the last of them tells."""
        return self._tar.is_at_hand(self._offset + offset + size - 1)

    def view(self, offset: int, size: int) -> memoryview:
        """Return *size* bytes, all of which the file has, for system calls only; see `KeptFile.view`.

        Raises: LayerDamaged.
        """
        data = self._tar.view(size, self._offset + offset)
        if len(data) < size:
            raise self.damaged(self._offset + offset + size)
        return data

    def read(self, offset: int, size: int) -> bytes:
        """Return up to *size* bytes from byte *offset*; fewer mean end of file and nothing else.

        Raises: LayerDamaged, OSError.
        """
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        if self._extents is None:
            return self._data(self._offset + offset, size)
        return self._with_holes(self._extents, offset, size)

    def _with_holes(self, extents: Extents, offset: int, size: int) -> bytes:
        """Return *size* bytes from byte *offset*, with one read: runs follow each other without gaps in the tar."""
        pieces = []
        for start, length, place in extents.touching(offset, size):
            first, last = max(start, offset), min(start + length, offset + size)
            pieces.append((first - offset, last - first, place + first - start))
        result = bytearray(size)  # holes are zeros
        if pieces:
            begin, end = pieces[0][2], pieces[-1][2] + pieces[-1][1]
            data = self._data(self._offset + begin, end - begin)
            for at, length, place in pieces:
                result[at : at + length] = data[place - begin : place - begin + length]
        return bytes(result)

    def _data(self, offset: int, size: int) -> bytes:
        data = self._tar.read(size, offset)
        if len(data) < size:
            raise self.damaged(offset + size)
        return data

    def damaged(self, position: int) -> LayerDamaged:
        """Return the error that says that there is nothing at *position* of the layer's tar."""
        return LayerDamaged(str(self._diff_id), f"its tar ends before offset {position}")

    def close(self) -> None:
        """Nothing to do: what is read is kept open for others, or closed with the last of them."""


class OpenedImages:
    """The images of *store* that are in use.  Thread-safe."""

    def __init__(self, store: Store, files: KeptFiles, *, verify: bool = False) -> None:
        """With *verify*, no content of a file is handed on before all of it was compared with its digest, once."""
        self._verify = verify
        self._verified: dict[DiffId, bytearray] = {}
        self._store = store
        self._files = files
        self._lock = threading.RLock()
        self._tree_paths: dict[Stack, str] = {}
        self._layer_paths: dict[DiffId, tuple[str, str]] = {}

    def tree_path(self, stack: Stack) -> str:
        """Return where the tree of *stack* is, or would be."""
        path = self._tree_paths.get(stack)
        if path is None:
            path = self._tree_paths[stack] = str(stack.path(self._store))
        return path

    def has_tree(self, stack: Stack) -> bool:
        """Return whether the tree of *stack* is there and need not be made."""
        return Path(self.tree_path(stack)).exists()

    def layer_paths(self, diff_id: DiffId) -> tuple[str, str]:
        """Return where the tar and the index of layer *diff_id* are, or would be."""
        paths = self._layer_paths.get(diff_id)
        if paths is None:
            paths = str(self._store.layer_path(diff_id)), str(self._store.index_path(diff_id))
            self._layer_paths[diff_id] = paths
        return paths

    def in_tree(self, stack: Stack, ask: Callable[[TreeFile], _Answer]) -> _Answer:
        """Return what *ask* returns of the tree of *stack*; what is found damaged is made again, once.

        Raises: BlobNotFound, InvalidLayer; whatever *ask* raises.
        """
        path = self.tree_path(stack)
        try:
            file = self._files.get(path)
            if file.reader is None:
                file.reader = self._entered(file, stack)
            return ask(file.reader)
        except FileNotFoundError:
            pass
        except TreeDamaged as error:
            _log_damage(path, error)
        with self._lock:
            file = self._tree_again(path, stack)
            file.reader = self._entered(file, stack)
        return ask(file.reader)

    def enter_passing(self, stack: Stack) -> None:
        """Make the tree of *stack*, which no image in the store has, and keep it outside of the store.

        Raises: BlobNotFound, InvalidLayer.
        """
        if not self.has_tree(stack):
            self._files.put(self.tree_path(stack), b"".join(stack.computed(self._store)))

    def _entered(self, file: KeptFile, stack: Stack) -> TreeFile:
        tree = stack.reader(self._store, file.read, file.size())
        for diff_id in stack.diff_ids:
            for path in self.layer_paths(diff_id):
                with contextlib.suppress(FileNotFoundError):  # told to who reads from it
                    self._files.get(path)
        return tree

    def _tree_again(self, path: str, stack: Stack) -> KeptFile:
        self._files.drop(path)
        if not self._store.read_only:
            try:
                stack.keep(self._store)
                return self._files.get(path)
            except OSError as error:
                _log.warning("%s cannot be kept: %s", path, describe(error))
        return self._files.put(path, b"".join(stack.computed(self._store)))

    def in_index(self, diff_id: DiffId, ask: Callable[[IndexFile], _Answer]) -> _Answer:
        """Return what *ask* returns of the index of layer *diff_id*; what is found damaged is made again, once.

        Raises: BlobNotFound; InvalidLayer, if the tar is damaged, too; whatever *ask* raises.
        """
        _, path = self.layer_paths(diff_id)
        try:
            file = self._files.get(path)
            if file.reader is None:
                file.reader = IndexFile(file.read, diff_id)
            return ask(file.reader)
        except FileNotFoundError:
            pass
        except LayerIndexDamaged as error:
            _log_damage(path, error)
        with self._lock:
            self._files.drop(path)
            changeset = stored_changeset(self._store, diff_id)
            read_only = self._store.read_only
            file = self._files.put(path, index.encode(changeset, diff_id)) if read_only else self._files.get(path)
            file.reader = IndexFile(file.read, diff_id)
        return ask(file.reader)

    def document(self, digest: Digest) -> OpenFile:
        """Return the manifest or config *digest*, open for reading, what it holds being what it should.

        Raises: BlobNotFound, DigestMismatch.
        """
        path = str(self._store.document_path(digest))
        try:
            file = self._files.get(path)
        except FileNotFoundError:
            raise BlobNotFound("document", str(digest)) from None
        size = file.size()
        actual = Digest.of(file.read(size, 0), digest.algorithm)
        if actual != digest:
            raise DigestMismatch("document", str(digest), str(actual))
        return OpenFile(file, digest, size=size, offset=0, extents=None)

    def entry(self, diff_id: DiffId, position: int) -> tuple[Entry, int]:
        """Return the entry at *position* of layer *diff_id*, and how many names the layer gives it.

        Raises: BlobNotFound, InvalidLayer, LayerIndexDamaged.
        """
        return self.in_index(diff_id, lambda index_file: index_file.entry(position))

    def layer(self, diff_id: DiffId) -> "OpenLayer":
        """Return layer *diff_id*, open for reading files of it.

        Raises: BlobNotFound, InvalidLayer.
        """
        index_file = self.in_index(diff_id, lambda index_file: index_file)
        try:
            tar = self._files.get(self.layer_paths(diff_id)[0])
        except FileNotFoundError:
            raise BlobNotFound("layer", str(diff_id)) from None
        if not self._verify:
            return OpenLayer(diff_id, tar, index_file)
        return OpenLayer(diff_id, tar, index_file, self._verified.setdefault(diff_id, bytearray(index_file.count)))

    def open_marker(self, diff_id: DiffId) -> OpenFile:
        """Return the content of a whiteout of layer *diff_id*: there is none.

        Raises: BlobNotFound, InvalidLayer.
        """
        return OpenFile(self.layer(diff_id).tar, diff_id, size=0, offset=0, extents=None)

    def open(self, diff_id: DiffId, position: int) -> OpenFile:
        """Return the regular file at *position* of layer *diff_id*, which has content of its own.

        Raises: OSError(ENXIO), if it is something else; BlobNotFound, InvalidLayer, LayerIndexDamaged.
        """
        layer = self.layer(diff_id)
        return self.in_index(diff_id, lambda index_file: replace(layer, index_file=index_file).open(position))


@dataclass(frozen=True, slots=True)
class OpenLayer:
    """A layer whose files are being read: its data and its index."""

    diff_id: DiffId
    tar: KeptFile
    index_file: IndexFile
    verified: bytearray | None = None
    """Where files must be compared with their digests first: 1 for each that was."""

    def open(self, position: int) -> OpenFile:
        """Return the regular file at *position*.

        Raises: OSError(ENXIO), if it is something else; LayerIndexDamaged; FileDamaged.
        """
        file = self._open(position)
        if self.verified is not None and not self.verified[position]:
            entry, _ = self.index_file.entry(position)
            if entry.sha256 and _content_digest(file) != entry.sha256:
                raise FileDamaged(str(self.diff_id), entry.path)
            self.verified[position] = 1
        return file

    def _open(self, position: int) -> OpenFile:
        mode, size, offset = self.index_file.location(position)
        if not stat.S_ISREG(mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        extents: Extents | None = None
        if offset is None:
            entry, _ = self.index_file.entry(position)
            offset, extents = entry.offset, entry.extents
        return OpenFile(self.tar, self.diff_id, size=size, offset=offset, extents=extents)


def _log_damage(path: str, error: DerivedDamaged) -> None:
    _log.log(logging.INFO if error.is_outdated else logging.WARNING, "%s: %s", path, describe(error))


def _content_digest(file: OpenFile) -> bytes:
    hasher = hashlib.sha256()
    offset = 0
    while piece := file.read(offset, _PIECE_BYTES):
        hasher.update(piece)
        offset += len(piece)
    return hasher.digest()
