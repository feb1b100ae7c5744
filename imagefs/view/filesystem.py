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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.attributes import Attributes
from imagefs.overlay.listing import Listing
from imagefs.overlay.stored import Stack
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.view.attributes import ROOT, SLOT_SHIFT, NodeId, StatFs
from imagefs.view.inside import Inside, absent_xattr
from imagefs.view.kept import KeptFiles
from imagefs.view.live_names import LiveNames, walk
from imagefs.view.namespace import Directory, Document, Found, ImageRoot, LayerRoot, Leaf, Symlink
from imagefs.view.open_file import OpenFile
from imagefs.view.opened import MakeTree
from imagefs.view.presentation import Presentation
from imagefs.view.removed import Removed
from imagefs.view.slots import Slots

_LAST_NAME = (1 << SLOT_SHIFT) - 1
_BLOCK_BYTES = 4096


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
        verify: bool = False,
        make: MakeTree | None = None,
    ) -> None:
        """Show *store*, or its one *image*, as *presentation* asks; *slots* and *files* may be a predecessor's.

        *make* makes trees, see `OpenedImages`.  With *verify*, a file's content is compared with its digest before any
        of it is shown for the first time.

        Raises: BlobNotFound, InvalidLayer, where *image* cannot be shown.
        """
        self._store = store
        self._files = files or KeptFiles()
        self._presentation = presentation or Presentation()
        self._lock = threading.RLock()
        self._slots = slots or Slots()
        self._names = LiveNames(store)
        self._inside = Inside(
            store, self._slots, self._lock, self._files, self._presentation, self._names.has, verify=verify, make=make
        )
        self._departed_from: Directory | None = None
        self._single = image
        if image is not None:
            self._single_root = self._inside.root(b"", image.image, Stack(image.diff_ids))
            self._inside.check(self._single_root)  # what cannot be shown fails now, not at first look

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
        if isinstance(found, Symlink) and found.name is not None:
            name = found.name
        return self._named(path + b"/" + name if path else name, found)

    def getattr(self, node: NodeId) -> Attributes:
        """Return the attributes of *node*."""
        if self.is_lasting(node):
            return self._inside.attributes(self._own(node))
        return self._presentation.apply(self._name_attributes(node))

    def is_lasting(self, node: NodeId) -> bool:
        """Return whether *node* is inside an image: what is known of it, and of names in it, never changes."""
        return node > _LAST_NAME or (node == ROOT and self._single is not None)

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
        return [(name, child, self._listed_mode(child), self._listed_number(child)) for name, child in named]

    def _listed_mode(self, node: NodeId) -> int:
        return stat.S_IFREG if self._inside.is_document(node) else stat.S_IFDIR

    def _listed_number(self, node: NodeId) -> int:
        return self._inside.listed_number(node) if self.is_lasting(node) else node

    def listing(self, node: NodeId) -> Listing:
        """Return the records of directory *node*, which is inside an image.

        Raises: NotADirectoryError.
        """
        return self._inside.listing(self._own(node))

    def readlink(self, node: NodeId) -> bytes:
        """Return the text of symlink *node*.

        Raises: OSError(EINVAL).
        """
        if self.is_lasting(node):
            return self._inside.readlink(self._own(node))
        found = self._resolve(self._slots.path(node))
        if not isinstance(found, Symlink):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return found.target

    # ---- content ----

    def open(self, node: NodeId) -> OpenFile:
        """Return the regular file *node*, open for reading.

        Raises: IsADirectoryError; OSError(ENXIO) for what has no content of its own here, such as a device;
        BlobNotFound.
        """
        if not self.is_lasting(node):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return self._inside.open(self._own(node))

    def listxattr(self, node: NodeId) -> tuple[bytes, ...]:
        """Return the names of the extended attributes of *node* that are to be listed, sorted."""
        return self._inside.listxattr(self._own(node)) if self.is_lasting(node) else ()

    def getxattr(self, node: NodeId, name: bytes) -> bytes:
        """Return the value of the extended attribute *name* of *node*, also of those that are not listed.

        Raises: OSError(ENODATA), or EOPNOTSUPP for what is better not asked again.
        """
        if not self.is_lasting(node):
            raise absent_xattr(name)
        return self._inside.getxattr(self._own(node), name)

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
            if not isinstance(found, Leaf) or _digest(found) != binding.digest:
                folder, _, name = binding.path.rpartition(b"/")
                with self._lock:
                    gone.add((NodeId(self._slots.name(folder)), name))
        return gone

    def removed(self) -> list[Removed]:
        """Return what was removed from the store while it was in use here."""
        # An image mounted alone is in use for as long as it is mounted.
        return self._inside.removed() if self._single is None else []

    def replaced(self, *, thoroughly: bool) -> list[Removed]:
        """Return the files whose damaged layer was replaced by a mended one, which is read from now on.

        Unless *thoroughly*, looks no further than whether any layer came since the last call.
        """
        return self._inside.replaced(thoroughly=thoroughly)

    def give_up(self, removed: Removed) -> None:
        """Close what was *removed*: nobody knows a node of it any more."""
        self._inside.give_up(removed)

    def _own(self, node: NodeId) -> NodeId:
        """Return *node*, or for the root of a single image's view that image's root."""
        return self._single_root if node == ROOT else node

    # ---- names outside of images ----

    def _resolve(self, path: bytes, max_age_s: float | None = None) -> Directory | Symlink:
        """Return what *path*, which once was a directory of names or a symlink there, is now.

        Raises: FileNotFoundError.
        """
        found = walk(self._names.now(max_age_s=max_age_s), path)
        if not isinstance(found, Directory | Symlink):
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

    def _named(self, path: bytes, found: Found) -> NodeId:
        """Return the node of what was *found* at *path*; the same whenever that is there."""
        with self._lock:
            match found:
                case ImageRoot(image):
                    return self._inside.root(path, image.id, Stack(image.diff_ids))
                case LayerRoot(diff_id):
                    return self._inside.root(path, diff_id, Stack((diff_id,), alone=True))
                case Document():
                    return self._inside.document(found)
                case _:
                    return NodeId(self._slots.name(path))

    def _name_attributes(self, index: int) -> Attributes:
        found = self._resolve(self._slots.path(index))
        if isinstance(found, Symlink):
            mode, nlink, size = stat.S_IFLNK | 0o777, 1, len(found.target)
        else:
            # A changed time tells a kernel that remembers the names in a directory that they may have changed, too.
            mode, nlink, size = stat.S_IFDIR | 0o555, 2 + len(found.listed), 0
        return Attributes(index, mode, nlink, os.getuid(), os.getgid(), size, 0, self._names.changed_ns, 0)


def _digest(leaf: Leaf) -> Digest:
    """Return what `Binding.digest` is of the binding of *leaf*."""
    match leaf:
        case ImageRoot(image):
            return image.id
        case LayerRoot(diff_id):
            return diff_id
        case _:
            return leaf.digest
