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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from imagefs.errors import (
    BlobNotFound,
    DerivedDamaged,
    DigestMismatch,
    FileDamaged,
    LayerIndexDamaged,
    TreeDamaged,
    describe,
)
from imagefs.layer.changeset import Entry
from imagefs.layer.extents import Extents
from imagefs.layer.index import IndexFile
from imagefs.layer.indexed import scanned_index, stored_changeset
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.stored import Stack
from imagefs.overlay.tree_file import TreeFile
from imagefs.store.store import Store
from imagefs.view import waiting
from imagefs.view.kept import KeptFile, KeptFiles, nameless
from imagefs.view.open_file import OpenFile
from imagefs.view.waiting import Duration

_Answer = TypeVar("_Answer")
MakeTree = Callable[[Stack], int | None]
"""Computes the tree of a stack; returns the descriptor of a nameless file with it, None if it is in the store."""

_PIECE_BYTES = 1024 * 1024
_FILES_OF_A_LAYER = 2
_BIG_ENTRY_BYTES = 64 * 1024
"""Of the index of a layer: checking less takes less than a tenth of a millisecond."""
_MOST_BIG_ENTRIES = 4
"""In memory.  A sparse file with a million runs takes 24 MB here."""
_HASHED_AT_ONCE_BYTES = 128 * 1024
"""Of a file's content: a fifth of a millisecond."""
_HASHED_BRIEFLY_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


class OpenedImages:
    """The images of *store* that are in use.  Thread-safe."""

    def __init__(self, store: Store, files: KeptFiles, *, verify: bool = False, make: "MakeTree | None" = None) -> None:
        """With *verify*, no content of a file is handed on before all of it was compared with its digest, once.

        *make* makes trees; default: `make_tree`, in the calling thread.
        """
        self._verify = verify
        self._make = make or partial(make_tree, store)
        self._verified: dict[DiffId, bytearray] = {}
        self._store = store
        self._files = files
        self._making = threading.Lock()
        self._big_entries_lock = threading.Lock()
        self._big_entries: dict[tuple[DiffId, int], tuple[Entry, int]] = {}
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
        path = self.tree_path(stack)
        return self._files.has(path) or Path(path).exists()

    def layer_paths(self, diff_id: DiffId) -> tuple[str, str]:
        """Return where the tar and the index of layer *diff_id* are, or would be."""
        paths = self._layer_paths.get(diff_id)
        if paths is None:
            paths = str(self._store.layer_path(diff_id)), str(self._store.index_path(diff_id))
            self._layer_paths[diff_id] = paths
        return paths

    def in_tree(self, stack: Stack, ask: Callable[[TreeFile], _Answer]) -> _Answer:
        """Return what *ask* returns of the tree of *stack*; a damaged one is made again, once.

        Raises: BlobNotFound, InvalidLayer; whatever *ask* raises.
        """
        file = self._tree(stack)
        try:
            return ask(file.reader)
        except FileNotFoundError:
            pass  # closed, and removed since then
        except TreeDamaged as error:
            _log_damage(self.tree_path(stack), error)
        file = waiting.do(("tree", stack), partial(self._make_tree, stack, file), Duration.LONG)
        return ask(file.reader)

    def _tree(self, stack: Stack) -> KeptFile:
        """Return the file of the tree of *stack*; its reader is a `TreeFile`."""
        path = self.tree_path(stack)
        if self._files.has(path):
            file = self._files.get(path)
            if file.reader is not None:
                return file
        return waiting.do(("enter", stack), partial(self._enter, stack), Duration.BRIEF)

    def _enter(self, stack: Stack) -> KeptFile:
        path = self.tree_path(stack)
        file: KeptFile | None = None
        try:
            file = self._files.get(path)
            file.reader = self._reader(file, stack)
        except FileNotFoundError:
            pass
        except TreeDamaged as error:
            _log_damage(path, error)
        else:
            return file
        return waiting.do(("tree", stack), partial(self._make_tree, stack, file), Duration.LONG)

    def _make_tree(self, stack: Stack, useless: KeptFile | None) -> KeptFile:
        """Make the tree of *stack* in place of the *useless* one, unless another thread has done so."""
        path = self.tree_path(stack)
        with self._making:
            if self._files.has(path):
                file = self._files.get(path)
                if file is not useless and file.reader is not None:
                    return file
            self._files.drop(path)
            descriptor = self._make(stack)
            file = self._files.get(path) if descriptor is None else self._files.adopt(path, descriptor)
            file.reader = self._reader(file, stack)
            return file

    def enter_passing(self, stack: Stack) -> None:
        """Make the tree of *stack*, which no image in the store has, and keep it outside of the store.

        Raises: BlobNotFound, InvalidLayer.
        """
        if not self.has_tree(stack):
            self._files.put(self.tree_path(stack), stack.computed(self._store))

    def _reader(self, file: KeptFile, stack: Stack) -> TreeFile:
        tree = stack.reader(self._store, file.read, file.size())
        if _FILES_OF_A_LAYER * len(stack.diff_ids) <= self._files.limit // 2:
            for diff_id in stack.diff_ids:
                for path in self.layer_paths(diff_id):
                    with contextlib.suppress(FileNotFoundError):  # a read of the layer reports it
                        self._files.get(path)
        return tree

    def in_index(self, diff_id: DiffId, ask: Callable[[IndexFile], _Answer]) -> _Answer:
        """Return what *ask* returns of the index of layer *diff_id*; a damaged one is made again, once.

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
        return ask(waiting.do(("index", diff_id), partial(self._make_index, diff_id), Duration.LONG))

    def _make_index(self, diff_id: DiffId) -> IndexFile:
        _, path = self.layer_paths(diff_id)
        with self._making:
            self._files.drop(path)
            if self._store.read_only:
                file = self._files.put(path, scanned_index(self._store, diff_id))
            else:
                stored_changeset(self._store, diff_id)
                file = self._files.get(path)
            reader = file.reader = IndexFile(file.read, diff_id)
            return reader

    def document(self, digest: Digest) -> OpenFile:
        """Return the manifest or config *digest*, open for reading, its content verified when it was opened.

        Raises: BlobNotFound, DigestMismatch.
        """
        path = str(self._store.document_path(digest))
        try:
            file = self._files.get(path)
        except FileNotFoundError:
            raise BlobNotFound("document", str(digest)) from None
        document: OpenFile | None = file.reader
        return document or waiting.do(digest, partial(_verified_document, file, digest), Duration.BRIEF)

    def entry(self, diff_id: DiffId, position: int) -> tuple[Entry, int]:
        """Return the entry at *position* of layer *diff_id*, and how many names the layer gives it.

        Raises: BlobNotFound, InvalidLayer, LayerIndexDamaged.
        """
        return self.in_index(diff_id, lambda index_file: self._entry(diff_id, index_file, position))

    def _entry(self, diff_id: DiffId, index_file: IndexFile, position: int) -> tuple[Entry, int]:
        if index_file.part_bytes(position) <= _BIG_ENTRY_BYTES:
            return index_file.entry(position)
        entry = self._big_entries.get((diff_id, position))
        if entry is None:
            key = ("entry", diff_id, position)
            entry = waiting.do(key, partial(self._load, diff_id, index_file, position), Duration.BRIEF)
        return entry

    def _load(self, diff_id: DiffId, index_file: IndexFile, position: int) -> tuple[Entry, int]:
        """Load an entry that takes long to read and check, and keep it in memory."""
        entry, links = index_file.entry(position)
        if entry.extents is not None:
            entry.extents.prepare()
        with self._big_entries_lock:
            self._big_entries[diff_id, position] = entry, links
            while len(self._big_entries) > _MOST_BIG_ENTRIES:
                del self._big_entries[next(iter(self._big_entries))]
        return entry, links

    def layer(self, diff_id: DiffId) -> "OpenLayer":
        """Return layer *diff_id*, open for reading files of it.

        Raises: BlobNotFound, InvalidLayer.
        """
        index_file = self.in_index(diff_id, lambda index_file: index_file)
        try:
            tar = self._files.get(self.layer_paths(diff_id)[0])
        except FileNotFoundError:
            raise BlobNotFound("layer", str(diff_id)) from None
        verified = self._verified.setdefault(diff_id, bytearray(index_file.count)) if self._verify else None
        return OpenLayer(diff_id, tar, index_file, partial(self._entry, diff_id, index_file), verified)

    def open_marker(self, diff_id: DiffId) -> OpenFile:
        """Return the content of a whiteout of layer *diff_id*: there is none.

        Raises: BlobNotFound, InvalidLayer.
        """
        return OpenFile(self.layer(diff_id).tar, diff_id, size=0, offset=0, extents=None)

    def open(self, diff_id: DiffId, position: int) -> OpenFile:
        """Return the regular file at *position* of layer *diff_id*, which has content of its own.

        Raises: OSError(ENXIO), if it is something else; BlobNotFound, InvalidLayer, LayerIndexDamaged.
        """
        return self.in_index(diff_id, lambda _: self.layer(diff_id).open(position))


@dataclass(frozen=True, slots=True)
class OpenLayer:
    """A layer whose files are being read: its data and its index."""

    diff_id: DiffId
    tar: KeptFile
    index_file: IndexFile
    entry: Callable[[int], tuple[Entry, int]]
    verified: bytearray | None
    """Where files must be compared with their digests first: 1 for each that was."""

    def open(self, position: int) -> OpenFile:
        """Return the regular file at *position*.

        Raises: OSError(ENXIO), if it is something else; LayerIndexDamaged; FileDamaged.
        """
        file = self._open(position)
        if self.verified is not None and not self.verified[position]:
            duration = Duration.BRIEF if file.size <= _HASHED_BRIEFLY_BYTES else Duration.LONG
            if file.size <= _HASHED_AT_ONCE_BYTES:
                duration = Duration.NONE
            waiting.do(("content", self.diff_id, position), partial(self._verify, file, position), duration)
        return file

    def _verify(self, file: OpenFile, position: int) -> None:
        assert self.verified is not None
        entry, _ = self.entry(position)
        if entry.sha256 and _content_digest(file) != entry.sha256:
            raise FileDamaged(str(self.diff_id), entry.path)
        self.verified[position] = 1

    def _open(self, position: int) -> OpenFile:
        mode, size, offset = self.index_file.location(position)
        if not stat.S_ISREG(mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        extents: Extents | None = None
        if offset is None:
            entry, _ = self.entry(position)
            offset, extents = entry.offset, entry.extents
        return OpenFile(self.tar, self.diff_id, size=size, offset=offset, extents=extents)


def _log_damage(path: str, error: DerivedDamaged) -> None:
    _log.log(logging.INFO if error.is_outdated else logging.WARNING, "%s: %s", path, describe(error))


def make_tree(store: Store, stack: Stack) -> int | None:
    """Compute the tree of *stack*, as `MakeTree`.

    The tree of an image, which is missing only after an upgrade or damage, goes into *store*.  That of a layer by
    itself does not: whoever may look at a mount could fill the disk of the store's owner.

    Raises: BlobNotFound, InvalidLayer, OSError.
    """
    if not stack.alone and not store.read_only:
        try:
            stack.keep(store)
            return None
        except OSError as error:
            _log.warning("%s cannot be kept: %s", stack.path(store), describe(error))
    return nameless(stack.computed(store))


def _verified_document(file: KeptFile, digest: Digest) -> OpenFile:
    size = file.size()
    actual = Digest.of(file.read(size, 0), digest.algorithm)
    if actual != digest:
        raise DigestMismatch("document", str(digest), str(actual))
    document = file.reader = OpenFile(file, digest, size=size, offset=0, extents=None)
    return document


def _content_digest(file: OpenFile) -> bytes:
    hasher = hashlib.sha256()
    offset = 0
    while piece := file.read(offset, _PIECE_BYTES):
        hasher.update(piece)
        offset += len(piece)
    return hasher.digest()
