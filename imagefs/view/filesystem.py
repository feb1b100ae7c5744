"""The mounted store as a file system of inodes.

Receives a store (and, to mount one image alone, that image); hands on lookup, getattr, readdir, readlink, open and
xattrs by node id.  Knows no kernel protocol; raises the builtin OSErrors that are a file system's own language, and
lets domain errors pass.

A node id is (slot, index), computed and never remembered per file.  Slot 0 holds the names outside of images.  What is
just what its layer says has its layer's slot and its place in the layer's changeset, so it is one node, with one page
cache, in all images that have the layer.  Directories, of which a kernel must never see one under two paths, and what
a tree has made different have the slot of their image at its path, and their index in the tree.
"""

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from imagefs.errors import BlobNotFound, LayerIndexDamaged
from imagefs.layer.changeset import Entry
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.attributes import Attributes, attributes, leaf_number
from imagefs.overlay.record import Listing
from imagefs.overlay.tree_file import ROOT_INDEX, Row
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.view.attributes import ROOT, SLOT_SHIFT, NodeId, StatFs
from imagefs.view.kept import KeptFiles
from imagefs.view.live_names import LiveNames, walk
from imagefs.view.namespace import Directory, ImageRoot, Symlink
from imagefs.view.opened import OpenedImages, OpenFile, OpenLayer
from imagefs.view.presentation import Presentation
from imagefs.view.removed import Removed
from imagefs.view.slots import Binding, Slots

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Of listings."""
_MOST_LAYERS = 64
"""At hand for reading, without looking for them first."""

_NOT_ASKED_AGAIN = frozenset({b"security.selinux", b"system.posix_acl_access", b"system.posix_acl_default"})
"""`ls -l` asks for these at every entry; "not supported" stops it asking, "no such attribute" does not."""
_INDEX_MASK = (1 << SLOT_SHIFT) - 1
_BLOCK_BYTES = 4096

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a view of one image has to know of it; *size* is that of its layers in bytes."""

    image: Digest
    diff_ids: tuple[DiffId, ...]
    size: int

    @classmethod
    def of(cls, image: Image) -> Self:
        return cls(image.id, image.diff_ids, image.size)


class Filesystem:
    """Everything a mounted store shows.  Thread-safe.

    Names and paths are bytes.  Methods that take a node raise FileNotFoundError where that is a name that is gone, and
    OSError(ESTALE) inside an image that was removed and that nobody had entered.
    """

    def __init__(
        self,
        store: Store,
        image: Shown | None = None,
        *,
        presentation: Presentation | None = None,
        slots: Slots | None = None,
        files: KeptFiles | None = None,
    ) -> None:
        """Show *store*, or its one *image*, as *presentation* asks; *slots* and *files* may be a predecessor's.

        Raises: BlobNotFound, InvalidLayer, where *image* cannot be shown.
        """
        self._store = store
        self._files = files or KeptFiles()
        self._images = OpenedImages(store, self._files)
        self._presentation = presentation or Presentation()
        self._lock = threading.RLock()
        self._slots = slots or Slots()
        self._listings: OrderedDict[NodeId, Listing] = OrderedDict()
        self._listed_bytes = 0
        self._layers: dict[int, OpenLayer] = {}
        self._names = LiveNames(store)
        self._departed_from: Directory | None = None
        self._single = image
        if image is not None:
            self._single_root = self._bound(b"", image.image, image.diff_ids)
            self._row(self._single_root >> SLOT_SHIFT, ROOT_INDEX)  # what cannot be shown fails now, not at first look

    @classmethod
    def for_store(cls, store: Store) -> Self:
        """Return the view of the whole of *store*: every ``repo/tag`` a directory."""
        return cls(store)

    @classmethod
    def for_image(cls, store: Store, image: Image) -> Self:
        """Return the view whose root is the root of *image*.

        Raises: BlobNotFound, InvalidLayer.
        """
        return cls(store, Shown.of(image))

    def close(self) -> None:
        """Close the store and what is in use of it.  Open files stay readable as long as somebody holds them."""
        self._files.close()
        self._store.close()

    # ---- names and attributes ----

    def lookup(self, parent: NodeId, name: bytes) -> NodeId:
        """Return the node that *name* leads to in directory *parent*.

        Raises: FileNotFoundError, NotADirectoryError.
        """
        if self.is_lasting(parent):
            listing = self.listing(parent)
            number = listing.find(name)
            if number is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return NodeId(listing.node(number))
        path, directory = self._directory(parent)
        # An image that was just pulled is there at once: only that a name is there is taken from memory.
        found = directory.resolve(name) or self._directory(parent, max_age_s=0.0)[1].resolve(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._named(path + b"/" + name if path else name, found)

    def getattr(self, node: NodeId) -> Attributes:
        """Return the attributes of *node*."""
        slot, index = self._split(node)
        if slot == 0:
            return self._name_attributes(index)
        found = self._slots.what(slot)
        if isinstance(found, Binding):
            shown = self._row(slot, index).attributes
        else:
            entry, links = self._entry(found, index)
            ino = leaf_number(entry, layer=found, position=index)
            shown = attributes(entry, ino=ino, nlink=links)
        return self._presentation.apply(shown)

    def is_lasting(self, node: NodeId) -> bool:
        """Return whether *node* is inside an image: what is known of it, and of names in it, never changes."""
        return node > _INDEX_MASK or (node == ROOT and self._single is not None)

    def readdir(self, node: NodeId) -> Sequence[tuple[bytes, NodeId, int, int]]:
        """Return (name, node, st_mode, st_ino) for everything listed in directory *node*, without "." and "..".

        In byte order.  To list names must not cost making trees: where an image has none yet, another number is shown.

        Raises: NotADirectoryError.
        """
        if self.is_lasting(node):
            listing = self.listing(node)
            numbers = range(2, len(listing))
            return [(listing.name(n), NodeId(listing.node(n)), listing.mode(n), listing.ino(n)) for n in numbers]
        path, directory = self._directory(node)
        named = ((name, self._named(path + b"/" + name if path else name, it)) for name, it in directory.listed.items())
        return [(name, child, stat.S_IFDIR, self._listed_number(child)) for name, child in named]

    def _listed_number(self, node: NodeId) -> int:
        slot, index = self._split(node)
        binding = self._slots.what(slot) if slot else None
        if not isinstance(binding, Binding) or not self._images.has_tree(binding.diff_ids):
            return node
        return self._row(slot, index).attributes.ino

    def listing(self, node: NodeId) -> Listing:
        """Return the records of directory *node*, which is inside an image.

        Raises: NotADirectoryError.
        """
        with self._lock:
            listing = self._listings.get(node)
            if listing is not None:
                self._listings.move_to_end(node)
                return listing
        slot, index = self._split(node)
        binding = self._slots.what(slot)
        if not isinstance(binding, Binding):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        try:
            listing = self._images.in_tree(binding.diff_ids, lambda tree: tree.listing(index))
        except NotADirectoryError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        except BlobNotFound as error:
            raise self._stale(error, binding) from None
        with self._lock:
            owners = [slot, *(self._slots.layer(diff_id) for diff_id in binding.diff_ids)]
            listing.bind(owners, None if self._presentation.changes_nothing else self._presentation.apply)
            self._listings[node] = listing
            self._listed_bytes += len(listing.records)
            while self._listed_bytes > MAX_KEPT_BYTES and len(self._listings) > 1:
                _, dropped = self._listings.popitem(last=False)
                self._listed_bytes -= len(dropped.records)
        return listing

    def readlink(self, node: NodeId) -> bytes:
        """Return the text of symlink *node*, verbatim.

        Raises: OSError(EINVAL).
        """
        slot, index = self._split(node)
        if slot == 0:
            found = self._resolve(self._slots.path(index))
            if isinstance(found, Symlink):
                return found.target
        else:
            entry = self._entry_of(slot, index)
            if entry is not None and stat.S_ISLNK(entry.mode):
                return entry.target
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    # ---- content ----

    def open(self, node: NodeId) -> OpenFile:
        """Return the regular file *node*, open for reading.

        Raises: IsADirectoryError; OSError(ENXIO) for what has no content of its own here, such as a device;
        BlobNotFound.
        """
        slot, index = self._split(node)
        at_hand = self._at_hand(slot, lambda layer: layer.open(index))
        if at_hand is not None:
            return at_hand
        found = self._slots.what(slot) if slot else None
        if isinstance(found, Binding):
            row = self._row(slot, index)
            if row.layer is None or stat.S_ISDIR(row.attributes.mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            diff_id, index = found.diff_ids[row.layer], row.position
        elif found is None:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        else:
            diff_id = found
        try:
            return self._images.open(diff_id, index)
        except BlobNotFound as error:
            raise self._stale(error, diff_id) from None

    def listxattr(self, node: NodeId) -> tuple[bytes, ...]:
        """Return the names of the extended attributes of *node*, sorted."""
        slot, index = self._split(node)
        if self._at_hand(slot, lambda layer: not layer.index_file.has_xattrs(index)):  # nearly always, and often asked
            return ()
        entry = self._entry_of(slot, index) if slot else None
        return tuple(name for name, _ in entry.xattrs) if entry is not None else ()

    def getxattr(self, node: NodeId, name: bytes) -> bytes:
        """Return the value of the extended attribute *name* of *node*.

        Raises: OSError(ENODATA), or EOPNOTSUPP for those of `_NOT_ASKED_AGAIN`.
        """
        slot, index = self._split(node)
        entry = self._entry_of(slot, index) if slot else None
        for known, value in entry.xattrs if entry is not None else ():
            if known == name:
                return value
        number = errno.EOPNOTSUPP if name in _NOT_ASKED_AGAIN else errno.ENODATA
        raise OSError(number, os.strerror(number))

    def statfs(self) -> StatFs:
        """Return the size of what is mounted: as on any read-only file system, full."""
        if self._single is None:
            self._names.now()
        size = self._names.bytes if self._single is None else self._single.size
        blocks = -(-size // _BLOCK_BYTES)
        return StatFs(bsize=_BLOCK_BYTES, blocks=blocks, bfree=0, bavail=0, files=0, ffree=0, namemax=255)

    # ---- what is removed ----

    def departed(self) -> set[tuple[NodeId, bytes]] | None:
        """Return (directory, name) of every image ever given out at a name that no longer leads to it.

        None where nothing can have changed since this was last asked.
        """
        if self._single is not None:
            return None
        names = self._names.now()
        if names is self._departed_from:
            return None
        self._departed_from = names
        with self._lock:
            bindings = self._slots.bindings()
        gone = set()
        for _, binding in bindings:
            found = walk(names, binding.path)
            if not isinstance(found, ImageRoot) or found.image.id != binding.image:
                folder, _, name = binding.path.rpartition(b"/")
                with self._lock:
                    gone.add((NodeId(self._slots.name(folder)), name))
        return gone

    def removed(self) -> list[Removed]:
        """Return what was removed from the store while it was in use here."""
        paths = set(self._files.removed() if self._single is None else ())
        if not paths:
            return []  # an image mounted alone is in use for as long as it is mounted
        found = []
        with self._lock:
            bindings = self._slots.bindings()
        trees = {self._images.tree_path(binding.diff_ids): binding for _, binding in bindings}
        for path in paths & trees.keys():
            rows = self._images.in_tree(trees[path].diff_ids, lambda tree: tree.rows)
            slots = [slot for slot, binding in bindings if binding.diff_ids == trees[path].diff_ids]
            roots = [NodeId(slot << SLOT_SHIFT | ROOT_INDEX) for slot in slots]
            found.append(Removed((path,), slots, range(ROOT_INDEX, rows + 1), roots))
        layers = {diff_id for _, binding in bindings for diff_id in binding.diff_ids}
        for diff_id in layers:
            both = self._images.layer_paths(diff_id)
            if not paths.isdisjoint(both):
                count = self._images.in_index(diff_id, lambda index_file: index_file.count)
                with self._lock:
                    found.append(Removed(both, [self._slots.layer(diff_id)], range(count)))
        return found

    def give_up(self, removed: Removed) -> None:
        """Close what was *removed*: nobody knows a node of it any more."""
        for path in removed.paths:
            self._files.drop(path)
        self._layers = {}
        with self._lock:
            for node in [node for node in self._listings if node >> SLOT_SHIFT in removed.slots]:
                self._listed_bytes -= len(self._listings.pop(node).records)

    # ---- inside ----

    def _split(self, node: NodeId) -> tuple[int, int]:
        """Return (slot, index) of *node*; the root of a single image's view is that image's root."""
        if node == ROOT and self._single is not None:
            node = self._single_root
        return node >> SLOT_SHIFT, node & _INDEX_MASK

    def _at_hand(self, slot: int, ask: Callable[[OpenLayer], _Answer]) -> _Answer | None:
        """Return what *ask* returns of the layer that has *slot*; None if none has, or it must be made again first."""
        layer = self._layers.get(slot)
        try:
            if layer is None:
                found = self._slots.what(slot) if slot else None
                if found is None or isinstance(found, Binding):
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
        try:
            return self._images.in_tree(binding.diff_ids, lambda tree: tree.row(index))
        except BlobNotFound as error:
            raise self._stale(error, binding) from None

    def _entry_of(self, slot: int, index: int) -> Entry | None:
        """Return the entry behind a node; None for a directory that no layer mentions."""
        found = self._slots.what(slot)
        if isinstance(found, Binding):
            row = self._row(slot, index)
            if row.layer is None:
                return None
            return self._entry(found.diff_ids[row.layer], row.position)[0]
        return self._entry(found, index)[0]

    def _entry(self, diff_id: DiffId, position: int) -> tuple[Entry, int]:
        try:
            return self._images.entry(diff_id, position)
        except BlobNotFound as error:
            raise self._stale(error, diff_id) from None

    def _stale(self, error: BlobNotFound, wanted: Binding | DiffId) -> BaseException:
        """Return what to raise for *error*: itself, or that somebody is still in an image that is no more."""
        if isinstance(wanted, Binding):
            is_there = any(image.id == wanted.image for image in self._store.images())
        else:
            is_there = any(wanted in image.diff_ids for image in self._store.images())
        return error if is_there else OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    # ---- names outside of images ----

    def _resolve(self, path: bytes, max_age_s: float | None = None) -> Directory | Symlink:
        """Return what *path*, which once was a directory of names or a symlink there, is now.

        Raises: FileNotFoundError.
        """
        found = walk(self._names.now(max_age_s=max_age_s), path)
        if found is None or isinstance(found, ImageRoot):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return found

    def _directory(self, node: NodeId, *, max_age_s: float | None = None) -> tuple[bytes, Directory]:
        """Return the path of *node*, and the directory of names that is there now.

        Raises: FileNotFoundError, NotADirectoryError.
        """
        path = self._slots.path(node)
        directory = self._resolve(path, max_age_s)
        if not isinstance(directory, Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return path, directory

    def _named(self, path: bytes, found: Directory | ImageRoot | Symlink) -> NodeId:
        """Return the node of what was *found* at *path*."""
        with self._lock:
            if isinstance(found, ImageRoot):
                return self._bound(path, found.image.id, found.image.diff_ids)
            return NodeId(self._slots.name(path))

    def _bound(self, path: bytes, image: Digest, diff_ids: tuple[DiffId, ...]) -> NodeId:
        """Return the root node of *image* at *path*; the same whenever that image is there."""
        return NodeId(self._slots.binding(path, image, diff_ids) << SLOT_SHIFT | ROOT_INDEX)

    def _name_attributes(self, index: int) -> Attributes:
        found = self._resolve(self._slots.path(index))
        if isinstance(found, Symlink):
            mode, nlink, size = stat.S_IFLNK | 0o777, 1, len(found.target)
        else:
            # A changed time tells a kernel that remembers the names in a directory that they may have changed, too.
            mode, nlink, size = stat.S_IFDIR | 0o555, 2 + len(found.listed), 0
        shown = Attributes(index, mode, nlink, os.getuid(), os.getgid(), size, 0, self._names.changed_ns, 0)
        return self._presentation.apply(shown)
