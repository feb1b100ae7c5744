"""The mounted store as a file system of inodes.

Receives a store (and, to mount one image alone, that image); hands on lookup, getattr, readdir, readlink, open and
xattrs by node id.  Knows no kernel protocol; raises the builtin OSErrors that are a file system's own language, and
lets domain errors pass.

A node id is (slot, index), computed and never remembered per file: slot 0 holds the directories of names, a slot
above belongs to one path at which one image is bound, and index is the inode's number in that image's tree.  Inode
numbers as ``stat`` shows them use the image instead of the path, so two tags of one image show equal numbers.
"""

import errno
import os
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from imagefs.errors import BlobNotFound
from imagefs.oci.digest import Digest
from imagefs.overlay.tree import ROOT_INODE, Inode, InodeNumber, Tree
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.view.attributes import ROOT, Attributes, NodeId, StatFs
from imagefs.view.namespace import Directory, ImageRoot, Symlink, namespace
from imagefs.view.opened import OpenedImages, OpenFile

REFRESH_S = 0.2
"""How old the directories of names may be: with the kernel's own caching a change shows within a second."""

_NOT_ASKED_AGAIN = frozenset({b"security.selinux", b"system.posix_acl_access", b"system.posix_acl_default"})
"""`ls -l` asks for these at every entry; "not supported" stops it asking, "no such attribute" does not."""
_SLOT_SHIFT = 32  # an image's tree has fewer inodes than this leaves room for: its indexes count in 32 bits
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Binding:
    """One image at one path; *number* stands for the image in inode numbers."""

    image: Image
    number: int


class Filesystem:
    """Everything a mounted store shows.  Thread-safe.

    Names and paths are bytes.  Methods that take a node raise FileNotFoundError where that is a name that is gone, and
    OSError(ESTALE) inside an image that was removed.
    """

    def __init__(self, store: Store, image: Image | None) -> None:
        self._store = store
        self._images = OpenedImages(store)
        self._lock = threading.RLock()
        self._paths: list[bytes] = [b""]  # paths of name directories and symlinks; slot 0, index - 1
        self._path_nodes: dict[bytes, NodeId] = {b"": ROOT}
        self._bindings: list[_Binding | None] = [None]  # by slot
        self._slots: dict[tuple[bytes, Digest], int] = {}
        self._image_numbers: dict[Digest, int] = {}
        self._names = Directory()
        self._generation = -1
        self._checked_s = float("-inf")
        self._bytes = 0
        self._mounted_ns = time.time_ns()
        self._single = image
        if image is not None:
            self._single_root = self._bound(b"", image)
            self._bytes = image.size
            self._images.tree(image)  # an image that cannot be shown fails the mount, not the first look

    @classmethod
    def for_store(cls, store: Store) -> Self:
        """Return the view of the whole of *store*: every ``repo/tag`` a directory."""
        return cls(store, None)

    @classmethod
    def for_image(cls, store: Store, image: Image) -> Self:
        """Return the view whose root is the root of *image*.

        Raises: BlobNotFound, InvalidLayer.
        """
        return cls(store, image)

    def close(self) -> None:
        """Close the store.  Open files stay readable until they are closed themselves."""
        self._store.close()

    # ---- names and attributes ----

    def lookup(self, parent: NodeId, name: bytes) -> NodeId:
        """Return the node that *name* leads to in directory *parent*.

        Raises: FileNotFoundError, NotADirectoryError.
        """
        slot, index = self._split(parent)
        if slot:
            number = self._tree(slot).lookup(index, name)
            if number is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return _node(slot, number)
        path = self._paths[index - 1]
        directory = self._resolve(path)
        if not isinstance(directory, Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        found = directory.resolve(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._named(path + b"/" + name if path else name, found)

    def getattr(self, node: NodeId) -> Attributes:
        """Return the attributes of *node*."""
        slot, index = self._split(node)
        if slot:
            return _attributes(self._tree(slot).inode(index), _node(self._binding(slot).number, index))
        found = self._resolve(self._paths[index - 1])
        if isinstance(found, Symlink):
            return self._name_attributes(node, stat.S_IFLNK | 0o777, 1, len(found.target))
        assert isinstance(found, Directory)
        folders = sum(1 for _ in found.listed)
        return self._name_attributes(node, stat.S_IFDIR | 0o555, 2 + folders, 0)

    def is_lasting(self, node: NodeId) -> bool:
        """Return whether *node* is inside an image: what is known of it, and of names in it, never changes."""
        return self._split(node)[0] != 0

    def inode_number(self, node: NodeId) -> int:
        """Return the number that `getattr` shows for *node*, without resolving any image."""
        slot, index = self._split(node)
        return _node(self._binding(slot).number, index) if slot else node

    def readdir(self, node: NodeId) -> Sequence[tuple[bytes, NodeId, int]]:
        """Return (name, node, st_mode) for everything listed in directory *node*, in byte order, without "." and "..".

        Raises: NotADirectoryError.
        """
        slot, index = self._split(node)
        if slot:
            tree = self._tree(slot)
            return [
                (dirent.name, _node(slot, dirent.inode), tree.inode(dirent.inode).entry.mode)
                for dirent in tree.dirents(index)
            ]
        path = self._paths[index - 1]
        directory = self._resolve(path)
        if not isinstance(directory, Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return [
            (name, self._named(path + b"/" + name if path else name, child), stat.S_IFDIR)
            for name, child in directory.listed.items()
        ]

    def readlink(self, node: NodeId) -> bytes:
        """Return the text of symlink *node*, verbatim.

        Raises: OSError(EINVAL).
        """
        slot, index = self._split(node)
        if slot:
            entry = self._tree(slot).inode(index).entry
            if stat.S_ISLNK(entry.mode):
                return entry.target
        elif isinstance(found := self._resolve(self._paths[index - 1]), Symlink):
            return found.target
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    # ---- content ----

    def open(self, node: NodeId) -> OpenFile:
        """Return the regular file *node*, open for reading; the caller closes it.

        Raises: IsADirectoryError; OSError(ENXIO) for what has no content of its own here, such as a device;
        BlobNotFound.
        """
        slot, index = self._split(node)
        if not slot:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        inode = self._tree(slot).inode(index)
        if stat.S_ISDIR(inode.entry.mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(inode.entry.mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return OpenFile(self._store, self._binding(slot).image.diff_ids[inode.layer], inode.entry)

    def listxattr(self, node: NodeId) -> tuple[bytes, ...]:
        """Return the names of the extended attributes of *node*, sorted."""
        slot, index = self._split(node)
        if not slot:
            return ()
        return tuple(name for name, _ in self._tree(slot).inode(index).entry.xattrs)

    def getxattr(self, node: NodeId, name: bytes) -> bytes:
        """Return the value of the extended attribute *name* of *node*.

        Raises: OSError(ENODATA), or EOPNOTSUPP for those of `_NOT_ASKED_AGAIN`.
        """
        slot, index = self._split(node)
        if slot:
            for known, value in self._tree(slot).inode(index).entry.xattrs:
                if known == name:
                    return value
        number = errno.EOPNOTSUPP if name in _NOT_ASKED_AGAIN else errno.ENODATA
        raise OSError(number, os.strerror(number))

    def statfs(self) -> StatFs:
        """Return the size of what is mounted: as on any read-only file system, full."""
        with self._lock:
            if self._single is None:
                self._refresh()
            blocks = -(-self._bytes // _BLOCK_BYTES)
        return StatFs(bsize=_BLOCK_BYTES, blocks=blocks, bfree=0, bavail=0, files=0, ffree=0, namemax=255)

    # ---- inside ----

    def _split(self, node: NodeId) -> tuple[int, InodeNumber]:
        """Return (slot, index) of *node*; the root of a single image's view is that image's root."""
        if node == ROOT and self._single is not None:
            node = self._single_root
        return node >> _SLOT_SHIFT, InodeNumber(node & ((1 << _SLOT_SHIFT) - 1))

    def _binding(self, slot: int) -> _Binding:
        binding = self._bindings[slot]
        assert binding is not None
        return binding

    def _tree(self, slot: int) -> Tree:
        image = self._binding(slot).image
        try:
            return self._images.tree(image)
        except BlobNotFound:
            # Somebody is still in a folder of an image that is no more; damage is for those that are.
            if any(known.id == image.id for known in self._store.images()):
                raise
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def _refresh(self) -> None:
        """Bring the directories of names up to date, if they could be older than REFRESH_S."""
        now_s = time.monotonic()
        if now_s - self._checked_s < REFRESH_S:
            return
        generation = self._store.generation()
        if generation != self._generation:
            images = self._store.images()
            self._names = namespace(images)
            self._bytes = sum(image.size for image in images)
            self._images.forget_except(images)
            self._generation = generation
        self._checked_s = now_s

    def _resolve(self, path: bytes) -> Directory | Symlink:
        """Return what *path*, which once was a directory of names or a symlink there, is now.

        Raises: FileNotFoundError.
        """
        with self._lock:
            self._refresh()
            found: Directory | ImageRoot | Symlink | None = self._names
        for name in path.split(b"/") if path else ():
            found = found.resolve(name) if isinstance(found, Directory) else None
        if found is None or isinstance(found, ImageRoot):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return found

    def _named(self, path: bytes, found: Directory | ImageRoot | Symlink) -> NodeId:
        """Return the node of what was *found* at *path*."""
        if isinstance(found, ImageRoot):
            return self._bound(path, found.image)
        with self._lock:
            node = self._path_nodes.get(path)
            if node is None:
                self._paths.append(path)
                node = self._path_nodes[path] = NodeId(len(self._paths))
            return node

    def _bound(self, path: bytes, image: Image) -> NodeId:
        """Return the root node of *image* at *path*; the same whenever that image is there."""
        with self._lock:
            slot = self._slots.get((path, image.id))
            if slot is None:
                number = self._image_numbers.setdefault(image.id, len(self._image_numbers) + 1)
                slot = self._slots[path, image.id] = len(self._bindings)
                self._bindings.append(_Binding(image, number))
            return _node(slot, ROOT_INODE)

    def _name_attributes(self, node: NodeId, mode: int, nlink: int, size: int) -> Attributes:
        return Attributes(
            ino=node,
            mode=mode,
            nlink=nlink,
            uid=os.getuid(),
            gid=os.getgid(),
            size=size,
            blocks=0,
            mtime_ns=self._mounted_ns,
            rdev=0,
        )


def _node(slot: int, number: int) -> NodeId:
    return NodeId(slot << _SLOT_SHIFT | number)


def _attributes(inode: Inode, ino: int) -> Attributes:
    entry = inode.entry
    stored = entry.size if entry.extents is None else sum(length for _, length in entry.extents)
    return Attributes(
        ino=ino,
        mode=entry.mode,
        nlink=inode.nlink,
        uid=entry.uid,
        gid=entry.gid,
        size=len(entry.target) if stat.S_ISLNK(entry.mode) else entry.size,
        blocks=-(-stored // 512),
        mtime_ns=entry.mtime_ns,
        rdev=os.makedev(*entry.rdev) if entry.rdev != (0, 0) else 0,
    )
