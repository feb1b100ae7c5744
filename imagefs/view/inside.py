"""What is inside of images: everything whose content and attributes never change.

Receives a store and node ids whose slot is above 0; hands on listings, attributes, texts of symlinks, content and
extended attributes.  Knows nothing of the names of images.
"""

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from imagefs.errors import BlobNotFound, LayerIndexDamaged
from imagefs.layer.changeset import Entry
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.attributes import Attributes, attributes, leaf_digest
from imagefs.overlay.listing import Listing, Page
from imagefs.overlay.numbering import ROOT_INDEX, climbs
from imagefs.overlay.stored import Stack, number_key
from imagefs.overlay.tree_file import Row, TreeFile
from imagefs.store.store import Store
from imagefs.view import provenance
from imagefs.view.attributes import SLOT_SHIFT, NodeId
from imagefs.view.kept import KeptFiles
from imagefs.view.namespace import Document
from imagefs.view.open_file import OpenFile
from imagefs.view.opened import MakeTree, OpenedImages, OpenLayer
from imagefs.view.presentation import Presentation
from imagefs.view.removed import DOCUMENT_INDEX, Removed, removed_content, replaced_content
from imagefs.view.slots import Binding, Owner, Slots
from imagefs.view.symlinks import Seen, rewritten

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Of listings."""
_MOST_LAYERS = 64
"""At hand for reading, without looking for them first."""

_NOT_ASKED_AGAIN = frozenset(
    {b"security.selinux", b"system.nfs4_acl", b"system.posix_acl_access", b"system.posix_acl_default"}
)
"""`ls -l` asks for these at every entry; "not supported" stops it asking, "no such attribute" does not."""
_INDEX_MASK = (1 << SLOT_SHIFT) - 1

_Answer = TypeVar("_Answer")


class Inside:
    """The images of *store* by node id.  Thread-safe.

    Methods raise OSError(ESTALE) inside an image that was removed and that nobody had entered.
    """

    def __init__(
        self,
        store: Store,
        slots: Slots,
        lock: threading.RLock,
        files: KeptFiles,
        presentation: Presentation,
        is_in_store: Callable[[Digest], bool],
        *,
        verify: bool,
        make: MakeTree | None,
    ) -> None:
        """Number what is found in *slots*, which *lock* guards; *verify* and *make* as in `OpenedImages`.

        *is_in_store* tells whether an image in the store needs a layer or document.
        """
        self._store = store
        self._slots = slots
        self._lock = lock
        self._files = files
        self._key = number_key(store)
        self._images = OpenedImages(store, files, verify=verify, make=make)
        self._is_in_store = is_in_store
        self._presentation = presentation
        self._listings: OrderedDict[NodeId, Listing] = OrderedDict()
        self._listed_bytes = 0
        self._layers: dict[int, OpenLayer] = {}
        self._layers_changed_ns = 0

    # ---- names and attributes ----

    def root(self, path: bytes, digest: Digest, stack: Stack) -> NodeId:
        """Return the root of the image or layer *digest*, which consists of *stack*, at *path*."""
        return NodeId(self._slots.binding(path, digest, stack) << SLOT_SHIFT | ROOT_INDEX)

    def document(self, document: Document) -> NodeId:
        """Return the node of *document*, the same wherever it is found."""
        return NodeId(self._slots.document(document) << SLOT_SHIFT | DOCUMENT_INDEX)

    def is_document(self, node: NodeId) -> bool:
        """Return whether *node* is a document: then it is a file."""
        slot, _ = _split(node)
        return slot > 0 and isinstance(self._slots.what(slot), Document)

    def check(self, node: NodeId) -> None:
        """Enter the image that *node* is of.

        Raises: BlobNotFound, InvalidLayer, where it cannot be shown.
        """
        self._row(*_split(node))

    def attributes(self, node: NodeId) -> Attributes:
        """Return the attributes of *node*."""
        slot, index = _split(node)
        found = self._slots.what(slot)
        if isinstance(found, Binding):
            row = self._row(slot, index)
            shown = row.attributes
            if index == ROOT_INDEX:
                shown = replace(shown, ino=self._key.root_number(row.digest, found.path))
            if self._presentation.rewrites_symlinks and stat.S_ISLNK(shown.mode) and row.parent:
                shown = replace(shown, size=len(self._rewritten(found, row)))
        elif isinstance(found, Document):
            shown = self._document_attributes(found)
        else:
            entry, links = self._entry(found, index)
            shown = attributes(entry, ino=self._leaf_number(node, found, entry), nlink=links)
        return self._presentation.apply(shown)

    def _leaf_number(self, node: NodeId, diff_id: DiffId, entry: Entry) -> int:
        """Return the inode number of *node*, which is just what *entry* of layer *diff_id* says.

        Without the store's secret, the number in stored trees cannot be computed, so it is looked up in one of them.
        """
        number = None if self._store.secret().is_stored else self._number_in_trees(node, diff_id, entry.path)
        return number or self._key.number(leaf_digest(entry, layer=diff_id, position=_split(node)[1]))

    def _number_in_trees(self, node: NodeId, diff_id: DiffId, path: bytes) -> int | None:
        with self._lock:
            bindings = self._slots.bindings()
        *folders, name = path.split(b"/")
        for slot, binding in bindings:
            if diff_id not in binding.stack.diff_ids or not self._images.has_tree(binding.stack):
                continue
            listing = self.listing(NodeId(slot << SLOT_SHIFT | ROOT_INDEX))
            for folder in folders:
                number = listing.find(folder)
                if number is None or not stat.S_ISDIR(listing.mode(number)):
                    break
                listing = self.listing(NodeId(listing.node(number)))
            else:
                number = listing.find(name)
                if number is not None and listing.node(number) == node:
                    return listing.ino(number)
        return None

    def listed_number(self, node: NodeId) -> int:
        """Return a number to list *node*, a root or document, with: its own, unless that would cost making a tree."""
        slot, index = _split(node)
        found = self._slots.what(slot)
        if isinstance(found, Document):
            return self._key.document_number(found.digest)
        if not isinstance(found, Binding) or not self._images.has_tree(found.stack):
            return node
        return self._key.root_number(self._row(slot, index).digest, found.path)

    def listing(self, node: NodeId) -> Listing:
        """Return the records of directory *node*.

        Raises: NotADirectoryError.
        """
        with self._lock:
            listing = self._listings.get(node)
            if listing is not None:
                self._listings.move_to_end(node)
                return listing
        slot, index = _split(node)
        binding = self._slots.what(slot)
        if not isinstance(binding, Binding):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        try:
            listing = self._unbound_listing(binding, index)
        except NotADirectoryError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        listing.finish(self._finisher(slot, index, binding))
        with self._lock:
            if node not in self._listings:
                self._listings[node] = listing
                self._listed_bytes += listing.kept_bytes
            while self._listed_bytes > MAX_KEPT_BYTES and len(self._listings) > 1:
                _, dropped = self._listings.popitem(last=False)
                self._listed_bytes -= dropped.kept_bytes
        return listing

    def _unbound_listing(self, binding: Binding, index: int) -> Listing:
        # Each page is read through `_in_tree`, which makes the tree again if that page is damaged.
        records, size = self._in_tree(binding, lambda tree: tree.listing_size(index))
        return Listing(records, lambda number: self._in_tree(binding, lambda tree: tree.page(index, number)), size)

    def _finisher(self, slot: int, index: int, binding: Binding) -> Callable[[Page, bool], None]:
        """Return the function that turns a page of directory *index* in a tree into what is shown of it."""
        with self._lock:
            owners = [slot, *(self._slots.layer(diff_id) for diff_id in binding.stack.diff_ids)]
        root: int | None = None
        if index == ROOT_INDEX:
            root = self._key.root_number(self._row(slot, index).digest, binding.path)
        adjust = None if self._presentation.changes_nothing else self._presentation.apply

        def finish(page: Page, is_first: bool) -> None:
            if root is not None and is_first:
                page.set_ino(0, root)
            page.bind(owners, adjust, first=2 if is_first else 0)
            if self._presentation.rewrites_symlinks:
                self._resize_symlinks(binding, slot, page, first=2 if is_first else 0)

        return finish

    # ---- symlinks ----

    def readlink(self, node: NodeId) -> bytes:
        """Return the text of symlink *node*: verbatim, unless the presentation rewrites it.

        Raises: OSError(EINVAL).
        """
        slot, index = _split(node)
        found = self._slots.what(slot)
        if isinstance(found, Binding):
            row = self._row(slot, index)
            if stat.S_ISLNK(row.attributes.mode):
                return self._rewritten(found, row) if self._presentation.rewrites_symlinks else self._text(found, row)
        elif not isinstance(found, Document):
            entry, _ = self._entry(found, index)
            if stat.S_ISLNK(entry.mode):
                return entry.target
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def _text(self, binding: Binding, row: Row) -> bytes:
        assert row.layer is not None
        entry, _ = self._entry(binding.stack.diff_ids[row.layer], row.position)
        return b"/" + entry.target if entry.is_hardlink else entry.target  # see `alone`

    def _rewritten(self, binding: Binding, row: Row) -> bytes:
        text = self._text(binding, row)
        if not climbs(text):
            return text

        def look(directory: int, name: bytes) -> Seen:
            listing = self._unbound_listing(binding, directory)
            number = listing.find(name)
            if number is None:
                return Seen()
            owner, index = listing.owner(number)  # not bound: 0 is the tree, others count its layers
            mode = listing.mode(number)
            if stat.S_ISDIR(mode):
                return Seen(directory=index)
            if not stat.S_ISLNK(mode):
                return Seen()
            if owner == 0:
                return Seen(target=self._text(binding, self._in_tree(binding, lambda tree: tree.row(index))))
            return Seen(target=self._entry(binding.stack.diff_ids[owner - 1], index)[0].target)

        return rewritten(text, self._in_tree(binding, lambda tree: tree.way(row)), look)

    def _resize_symlinks(self, binding: Binding, slot: int, page: Page, *, first: int) -> None:
        for number in range(first, len(page)):
            owner, index = page.owner(number)
            if owner == slot and stat.S_ISLNK(page.mode(number)):
                page.set_size(number, len(self._rewritten(binding, self._row(slot, index))))

    # ---- content ----

    def open(self, node: NodeId) -> OpenFile:
        """Return the regular file *node*, open for reading.

        Raises: IsADirectoryError; OSError(ENXIO) for what has no content of its own here, such as a device;
        BlobNotFound.
        """
        slot, index = _split(node)
        at_hand = self._at_hand(slot, lambda layer: layer.open(index))
        if at_hand is not None:
            return at_hand
        found = self._slots.what(slot)
        if isinstance(found, Document):
            return self._of(found, partial(self._images.document, found.digest))
        if isinstance(found, Binding):
            row = self._row(slot, index)
            if stat.S_ISDIR(row.attributes.mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if row.layer is None:
                return self._images.open_marker(found.stack.diff_ids[0])
            found, index = found.stack.diff_ids[row.layer], row.position
        return self._of(found, partial(self._images.open, found, index))

    # ---- extended attributes ----

    def listxattr(self, node: NodeId) -> tuple[bytes, ...]:
        """Return the names of the extended attributes of *node* to be listed, sorted."""
        slot, index = _split(node)
        if self._at_hand(slot, lambda layer: not layer.index_file.has_xattrs(index)):  # nearly always, and often asked
            return ()
        behind = self._behind(slot, index)
        names = (name for name, _ in behind[1].xattrs) if behind is not None else ()
        return tuple(name for name in names if name not in provenance.NAMES)

    def getxattr(self, node: NodeId, name: bytes) -> bytes:
        """Return the value of the extended attribute *name* of *node*.

        Raises: OSError(ENODATA), or EOPNOTSUPP for those of `_NOT_ASKED_AGAIN`.
        """
        behind = self._behind(*_split(node))
        if behind is not None:
            if name in provenance.NAMES:
                value = provenance.provenance(name, *behind)
            else:
                value = next((value for known, value in behind[1].xattrs if known == name), None)
            if value is not None:
                return value
        raise absent_xattr(name)

    # ---- what is removed ----

    def removed(self) -> list[Removed]:
        """Return what was removed from the store while it was in use here."""
        paths = set(self._files.removed())
        return removed_content(paths, self._store, self._images, self._slots, self._lock) if paths else []

    def replaced(self, *, thoroughly: bool) -> list[Removed]:
        """Read from now on from the layers that replaced damaged ones, and return the nodes with content in those.

        Unless *thoroughly*, looks no further than whether any layer came since the last call.
        """
        changed_ns = self._store.layers_changed_ns()
        if changed_ns == self._layers_changed_ns and not thoroughly:
            return []
        self._layers_changed_ns = changed_ns
        paths = set(self._files.replaced())
        if not paths:
            return []
        self._layers = {}
        return replaced_content(paths, self._images, self._slots, self._lock)

    def give_up(self, removed: Removed) -> None:
        """Close what was *removed*: nobody knows a node of it any more."""
        for path in removed.paths:
            self._files.drop(path)
        self._layers = {}
        with self._lock:
            for node in [node for node in self._listings if node >> SLOT_SHIFT in removed.slots]:
                self._listed_bytes -= self._listings.pop(node).kept_bytes

    # ---- what it rests on ----

    def _at_hand(self, slot: int, ask: Callable[[OpenLayer], _Answer]) -> _Answer | None:
        """Return what *ask* returns of the layer that has *slot*; None if none has, or it must be made again first."""
        layer = self._layers.get(slot)
        try:
            if layer is None:
                found = self._slots.what(slot)
                if isinstance(found, Binding | Document):
                    return None
                if len(self._layers) >= _MOST_LAYERS:
                    self._layers = {}
                layer = self._layers[slot] = self._images.layer(found)
            return ask(layer)
        except (LayerIndexDamaged, BlobNotFound):
            return None

    def _row(self, slot: int, index: int) -> Row:
        binding = self._slots.what(slot)
        assert isinstance(binding, Binding)
        return self._in_tree(binding, lambda tree: tree.row(index))

    def _in_tree(self, binding: Binding, ask: Callable[[TreeFile], _Answer]) -> _Answer:
        return self._of(binding, partial(self._images.in_tree, binding.stack, ask))

    def _behind(self, slot: int, index: int) -> tuple[DiffId, Entry] | None:
        """Return the layer and the entry behind a node; None where there is none, as for an implied directory."""
        found = self._slots.what(slot)
        if isinstance(found, Document):
            return None
        if isinstance(found, Binding):
            row = self._row(slot, index)
            if row.layer is None:
                return None
            found, index = found.stack.diff_ids[row.layer], row.position
        return found, self._entry(found, index)[0]

    def _entry(self, diff_id: DiffId, position: int) -> tuple[Entry, int]:
        return self._of(diff_id, lambda: self._images.entry(diff_id, position))

    def _document_attributes(self, document: Document) -> Attributes:
        size = self._of(document, lambda: self._images.document(document.digest)).size
        blocks = -(-size // 512)
        number = self._key.document_number(document.digest)
        return Attributes(number, stat.S_IFREG | 0o444, 1, 0, 0, size, blocks, document.mtime_ns, 0)

    def _of(self, wanted: Owner, ask: Callable[[], _Answer]) -> _Answer:
        """Return what *ask* returns; where *wanted* is no more, but somebody is still in it, say that it is stale."""
        try:
            return ask()
        except BlobNotFound:
            digest = wanted.digest if isinstance(wanted, Binding | Document) else wanted
            if self._is_in_store(digest):
                raise
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None


def absent_xattr(name: bytes) -> OSError:
    """Return the error that says that *name* is not there."""
    number = errno.EOPNOTSUPP if name in _NOT_ASKED_AGAIN else errno.ENODATA
    return OSError(number, os.strerror(number))


def _split(node: NodeId) -> tuple[int, int]:
    return node >> SLOT_SHIFT, node & _INDEX_MASK
