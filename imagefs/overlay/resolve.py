"""Apply changesets in order and say what tree that leaves.

Receives changesets, base first; hands on one immutable `Tree`.  Pure: no file, no clock, no network.

The rules, and where implementations disagree, the one chosen and why (each has a test of its own):

* **Whiteouts and opaque directories hide what lies below, never their own layer**, wherever they stand in the tar.
  They are sets and are applied before the layer's entries.  (layer.md, "Whiteouts"; several extractors get this wrong.)
* **A whiteout removes the lower directory itself**, also where the same layer puts children into it: the directory is
  then a new one.  Extractors that see the children first keep the old directory's attributes; order must not matter.
* **Markers create nothing**: an opaque marker in a directory that nothing else mentions is no directory, as with umoci.
* **A directory over a directory** keeps the lower children and takes the upper attributes, all of them (xattrs too).
  Any other meeting replaces the lower subtree.
* **A parent that no layer mentions** is a directory, mode 0755, owner 0:0, time 0.
* **A parent that is a symlink is followed, inside the image**, as umoci and containerd do (``/lib -> usr/lib`` below,
  ``lib/x`` above adds usr/lib/x).  Extractors that unpack each layer into a folder of its own, docker's and podman's,
  make a directory of it; that loses the symlink and, with merged-usr images, the whole library folder.  An *entry* for
  the symlink's own name always replaces it.  Nothing leads out of the root: ``..`` stops there and absolute targets
  begin there.  A dangling target's folders are made.  A loop is an InvalidLayer.
* **A parent that is a file** becomes a directory, as with umoci.
* **A hard link binds to what its target names at that position** of its layer, in this layer or below; where the
  target is hidden by a whiteout of the same layer, to what was there below (a rename written as link and whiteout).
  Its own attributes do not count.  A link to a symlink is a second name of the symlink.  A target that is missing, a
  directory, or the link itself is an InvalidLayer: link(2) fails there in every extractor.
* **Duplicates in one layer**: the last one wins, as on disk.

Source: OCI image-spec, layer.md, "Applying Changesets" and "Whiteouts".
"""

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from imagefs.errors import InvalidLayer, printable
from imagefs.layer.changeset import Changeset, Entry
from imagefs.layer.paths import MAX_PATH_BYTES, MAX_PATH_DEPTH
from imagefs.overlay.tree import ROOT_INODE, Dirent, Inode, InodeNumber, Tree

IMPLIED_LAYER = -1
_MAX_SYMLINKS = 255  # as umoci's path joiner; a chain this long is a loop or an attack
_MAX_SYMLINK_STEPS = 10_000_000
"""Path components that all symlinks followed for one image may add up to, a second's work: ten for each of a million
entries.  A hostile layer can make every one of its entries cost half a million."""
MAX_ENTRIES = 1 << 22
"""Of all layers of one image: twice what the biggest known images have; two gigabytes of work for whoever makes it."""

FREE_IMPLIED_DIRECTORIES = 1 << 14
"""An image may imply as many directories as it has entries, and this many more.  Archivers that write no directories
imply at most about one for each file, while a few bytes of a hostile path imply one each."""
IMPLIED_DIRECTORY = Entry(
    path=b"",
    mode=stat.S_IFDIR | 0o755,
    uid=0,
    gid=0,
    mtime_ns=0,
    size=0,
    target=b"",
    is_hardlink=False,
    rdev=(0, 0),
    xattrs=(),
    offset=0,
    extents=None,
    sha256=b"",
)


class _SymlinkLoop(InvalidLayer):
    """Symlinks lead round and round."""


class _Node:
    """An inode while the stack is being applied: mutable, and shared by the names that hard-link to it."""

    __slots__ = ("children", "entry", "layer", "position")

    def __init__(self, entry: Entry, layer: int, position: int) -> None:
        self.entry = entry
        self.layer = layer
        self.position = position
        self.children: dict[bytes, _Node] | None = {} if stat.S_ISDIR(entry.mode) else None


def resolve(changesets: Sequence[Changeset], *, below_is_unknown: bool = False) -> Tree:
    """Return the file tree that applying *changesets* in order would leave on disk.

    With *below_is_unknown*, what they apply to is not known: a hard link to nothing may lead there, and a symlink to
    the same path stands for it.

    *changesets* runs from base to top and may be empty (the tree is then a bare root, mode 0o755).  Inode numbers run
    from 1 (the root) in depth-first name order, so equal inputs give equal trees.

    Time and memory are linear in the number of entries and path components.

    Raises: InvalidLayer, naming the entry, for hard links that cannot be made, and symlinks among parents that lead
    round in a loop or, all in all, take too long to follow.
    """
    union = _Union(below_is_unknown=below_is_unknown)
    for layer, changeset in enumerate(changesets):
        union.add(changeset, layer)
    return _freeze(union.root)


@dataclass(frozen=True, slots=True)
class Named:
    """What a path names: the entry at *position* of layer *layer*, or IMPLIED_DIRECTORY of layer IMPLIED_LAYER."""

    entry: Entry
    layer: int
    position: int


def states(changesets: Iterable[Changeset], paths: Sequence[bytes]) -> Iterator[list[Named | None]]:
    """Yield, after each of *changesets* is applied in order, what each of the clean *paths* names, None for nothing.

    Symlinks among a path's parents are followed as they are then, what it names itself is not.

    Raises: as `resolve`.
    """
    union = _Union(below_is_unknown=False)
    for layer, changeset in enumerate(changesets):
        union.add(changeset, layer)
        yield [union.named(path) for path in paths]


class _Union:
    """The layers applied so far."""

    def __init__(self, *, below_is_unknown: bool) -> None:
        self._below_is_unknown = below_is_unknown
        self.root = _Node(IMPLIED_DIRECTORY, IMPLIED_LAYER, 0)
        self._steps_left = _MAX_SYMLINK_STEPS
        self._entries = 0
        self._implied = 0
        self._folders: dict[bytes, dict[bytes, _Node]] = {}
        """Children of folders found before, by path as written; good until something on a way to one is replaced."""

    def add(self, changeset: Changeset, layer: int) -> None:
        """Apply *changeset*, which is layer *layer*."""
        self._folders.clear()
        self._entries += len(changeset.entries)
        if self._entries > MAX_ENTRIES:
            raise InvalidLayer(
                f"expected at most {MAX_ENTRIES} entries in all layers of an image; build it again with fewer files"
            )
        hidden_targets = self._hide(changeset)
        for position, entry in enumerate(changeset.entries):
            self._apply(entry, layer, position, hidden_targets)

    def named(self, path: bytes) -> Named | None:
        """Return what *path* names, None where that is nothing or its parents lead round in a loop."""
        try:
            node = self._find(path, path) if path else self.root
        except _SymlinkLoop:
            return None
        return None if node is None else Named(node.entry, node.layer, node.position)

    def _hide(self, changeset: Changeset) -> dict[bytes, _Node]:
        """Take away what the layer's markers hide.

        Returns, by path, the nodes among them that hard links of the layer name as their targets.
        """
        if not changeset.whiteouts and not changeset.opaques:
            return {}
        links = [entry for entry in changeset.entries if entry.is_hardlink]
        targets = {link.target: self._find(link.target, link.path) for link in links}
        # All places are found before the first is changed: a marker behind a symlink must not depend on whether
        # another marker took that symlink away.
        doomed: list[tuple[dict[bytes, _Node], bytes]] = []
        for path in changeset.whiteouts:
            folder, _, name = path.rpartition(b"/")
            parent = self._directory_at(folder)
            if parent is not None:
                doomed.append((parent, name))
        emptied = [children for path in changeset.opaques if (children := self._directory_at(path)) is not None]
        for children, name in doomed:
            children.pop(name, None)
        for children in emptied:
            children.clear()
        return {
            link.target: node
            for link in links
            if (node := targets[link.target]) is not None and self._find(link.target, link.path) is None
        }

    def _apply(self, entry: Entry, layer: int, position: int, hidden_targets: dict[bytes, _Node]) -> None:
        """Put the entry at *position* of layer *layer* where it belongs."""
        folder, _, name = entry.path.rpartition(b"/")
        if not name:
            self.root.entry, self.root.layer, self.root.position = entry, layer, position
            return
        siblings = self._folders.get(folder)
        if siblings is None:
            siblings = self._folders[folder] = self._make_parents(folder, entry)
        existing = siblings.get(name)
        if entry.is_hardlink:
            target = self._find(entry.target, entry.path) or hidden_targets.get(entry.target)
            if target is None and self._below_is_unknown:
                symlink = replace(entry, mode=stat.S_IFLNK | 0o777, target=b"/" + entry.target, is_hardlink=False)
                target = _Node(symlink, layer, position)
            if target is None:
                reason = f"hard link to '{printable(entry.target)}', which does not exist"
                raise InvalidLayer(reason, entry=entry.path)
            if target.children is not None:
                reason = f"hard link to '{printable(entry.target)}', which is a directory"
                raise InvalidLayer(reason, entry=entry.path)
            if entry.target == entry.path:
                raise InvalidLayer("hard link to itself", entry=entry.path)
            if existing is not None:
                self._folders.clear()
            siblings[name] = target
        elif existing is not None and existing.children is not None and stat.S_ISDIR(entry.mode):
            existing.entry, existing.layer, existing.position = entry, layer, position
        else:
            if existing is not None:
                self._folders.clear()
            siblings[name] = _Node(entry, layer, position)

    def _directory_at(self, path: bytes) -> dict[bytes, _Node] | None:
        """Return the children of the directory that *path* leads to, symlinks followed; None where there is none."""
        try:
            found = self._walk(path, path)
        except _SymlinkLoop:
            return None  # a loop below hides nothing
        node = found[-1][1] if found else self.root
        return node.children if node is not None else None

    def _make_parents(self, folder: bytes, entry: Entry) -> dict[bytes, _Node]:
        """Return the children of *folder*, which is made a directory with all its parents where it is none."""
        assert self.root.children is not None
        children = self.root.children
        way = self._walk(folder, entry.path)
        self._check_size(way, entry)
        for name, _ in way:
            node = children.get(name)
            if node is None or node.children is None:
                if node is not None:
                    self._folders.clear()
                node = children[name] = self._implied_directory(entry)
            assert node.children is not None
            children = node.children
        return children

    def _check_size(self, way: Sequence[tuple[bytes, _Node | None]], entry: Entry) -> None:
        """Raise InvalidLayer if symlinks made the *way* to *entry* longer than any path in a layer may be."""
        if len(way) > MAX_PATH_DEPTH or sum(len(name) + 1 for name, _ in way) > MAX_PATH_BYTES:
            raise InvalidLayer(
                f"its parents lead to a folder below more than {MAX_PATH_DEPTH} others or {MAX_PATH_BYTES} bytes of"
                " names; build the image again with a flatter tree",
                entry=entry.path,
            )

    def _implied_directory(self, entry: Entry) -> _Node:
        """Return a new directory that no layer mentions, for *entry* to be in."""
        self._implied += 1
        limit = FREE_IMPLIED_DIRECTORIES + self._entries
        if self._implied > limit:
            raise InvalidLayer(
                f"expected at most {limit} directories that no layer mentions ({FREE_IMPLIED_DIRECTORIES} and one for"
                " each entry); build the image again from archives that list their directories",
                entry=entry.path,
            )
        return _Node(IMPLIED_DIRECTORY, IMPLIED_LAYER, 0)

    def _find(self, path: bytes, named: bytes) -> _Node | None:
        """Return what *path* names, its parents' symlinks followed but not its own; None where there is nothing.

        *named* is the entry that errors name.
        """
        folder, _, name = path.rpartition(b"/")
        found = self._walk(folder, named)
        parent = found[-1][1] if found else self.root
        if parent is None or parent.children is None:
            return None
        return parent.children.get(name)

    def _walk(self, path: bytes, named: bytes) -> list[tuple[bytes, _Node | None]]:
        """Return the way from the root to where *path* leads, symlinks followed inside the root.

        The way is a list of names, each with what is there now: None for a name that is not there (yet).  *named* is
        the entry that errors name.
        """
        way: list[tuple[bytes, _Node | None]] = []
        if not path:
            return way
        names = path.split(b"/")[::-1]  # a stack: the next name is the last
        links = 0
        while names:
            name = names.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":  # only ever out of a symlink's target: paths of entries are clean
                if way:
                    way.pop()
                continue
            parent = way[-1][1] if way else self.root
            node = parent.children.get(name) if parent is not None and parent.children is not None else None
            if node is None or not stat.S_ISLNK(node.entry.mode):
                way.append((name, node))
                continue
            links += 1
            if links > _MAX_SYMLINKS:
                raise _SymlinkLoop("too many levels of symbolic links", entry=named)
            target = node.entry.target
            if target.startswith(b"/"):
                way.clear()
            steps = target.split(b"/")
            self._steps_left -= len(steps)
            if self._steps_left < 0:
                raise InvalidLayer("the symbolic links among parents take too long to follow", entry=named)
            names.extend(steps[::-1])
        return way


def _freeze(root: _Node) -> Tree:
    """Number the nodes depth first in name order and count their names."""
    numbers: dict[_Node, InodeNumber] = {root: ROOT_INODE}
    order: list[_Node] = [root]
    links: list[int] = [2]
    directories: dict[InodeNumber, tuple[Dirent, ...]] = {}

    def numbered(directory: _Node) -> Iterator[_Node]:
        """Give every child its number as it is met, and yield the directories among them for descending."""
        assert directory.children is not None
        dirents = []
        for name, node in sorted(directory.children.items()):
            number = numbers.get(node)
            if number is None:
                number = numbers[node] = InodeNumber(len(order) + 1)
                order.append(node)
                links.append(0)
            if node.children is None:
                links[number - 1] += 1
            else:
                links[number - 1] = 2
                links[numbers[directory] - 1] += 1
            dirents.append(Dirent(name, number))
            if node.children is not None:
                yield node
        directories[numbers[directory]] = tuple(dirents)

    # An explicit stack: a layer may nest directories deeper than Python likes to recurse.
    stack = [numbered(root)]
    while stack:
        directory = next(stack[-1], None)
        if directory is None:
            stack.pop()
        else:
            stack.append(numbered(directory))
    inodes = [Inode(node.entry, node.layer, node.position, nlink) for node, nlink in zip(order, links, strict=True)]
    return Tree(inodes, directories)
