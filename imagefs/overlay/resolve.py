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

import operator
import stat
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from imagefs.errors import InvalidLayer, printable
from imagefs.layer.changeset import Changeset, Entry
from imagefs.layer.paths import MAX_PATH_BYTES, MAX_PATH_DEPTH
from imagefs.overlay.tree import LAYER_SHIFT, POSITION_MASK, ROOT_INODE, InodeNumber, Names, Places, Tree

_IMPLIED_PLACE = 0
_NAME = operator.itemgetter(0)
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


class _Directory:
    """A directory while the stack is being applied: mutable."""

    __slots__ = ("children", "place")

    def __init__(self, place: int) -> None:
        self.place = place
        self.children: dict[bytes, _Node] = {}


_Node = int | _Directory
"""A directory, or the place (see `overlay.tree`) of an entry that is none, which names share that hard-link to it.
Places are numbers and no objects, because there may be millions."""


def resolve(changesets: Sequence[Changeset], *, below_is_unknown: bool = False, markers: Sequence[Entry] = ()) -> Tree:
    """Return the file tree that applying *changesets* in order would leave on disk.

    With *below_is_unknown*, what they apply to is not known: a hard link to nothing may lead there, and a symlink to
    the same path stands for it.  *markers* are entries that are put above all layers and belong to none.

    *changesets* runs from base to top and may be empty (the tree is then a bare root, mode 0o755).  Inode numbers run
    from 1 (the root) in depth-first name order, so equal inputs give equal trees.

    Time and memory are linear in the number of entries and path components.

    Raises: InvalidLayer, naming the entry, for hard links that cannot be made, and symlinks among parents that lead
    round in a loop or, all in all, take too long to follow.
    """
    union = _Union(below_is_unknown=below_is_unknown)
    for changeset in changesets:
        union.add(changeset)
    union.add_markers(markers)
    return _freeze(union)


@dataclass(frozen=True, slots=True)
class Named:
    """What a path names: the entry at *position* of layer *layer*, or IMPLIED_DIRECTORY of layer -1."""

    entry: Entry
    layer: int
    position: int


def states(changesets: Iterable[Changeset], paths: Sequence[bytes]) -> Iterator[list[Named | None]]:
    """Yield, after each of *changesets* is applied in order, what each of the clean *paths* names, None for nothing.

    Symlinks among a path's parents are followed as they are then, what it names itself is not.

    Raises: as `resolve`.
    """
    union = _Union(below_is_unknown=False)
    for changeset in changesets:
        union.add(changeset)
        yield [union.named(path) for path in paths]


class _Union:
    """The layers applied so far."""

    def __init__(self, *, below_is_unknown: bool) -> None:
        self._below_is_unknown = below_is_unknown
        self.root = _Directory(_IMPLIED_PLACE)
        self.shared: set[int] = set()
        """Places that hard links lead to."""
        self._layers: list[Sequence[Entry]] = []
        self._own = [IMPLIED_DIRECTORY]
        self._substitutes: dict[int, Entry] = {}
        self._link_targets: list[Counter[bytes]] = []
        self.places = Places(self._layers, self._own, self._substitutes, self._link_targets)
        self._symlinks: dict[int, bytes] = {}
        """The target of each symlink, by place."""
        self._steps_left = _MAX_SYMLINK_STEPS
        self._entries = 0
        self._implied = 0
        self._folders: dict[bytes, _Directory] = {}
        """Folders found before, by path as written; good until something on a way to one is replaced."""

    def add(self, changeset: Changeset) -> None:
        """Apply *changeset*, the next layer."""
        self._folders.clear()
        self._layers.append(changeset.entries)
        self._link_targets.append(Counter())
        first = len(self._layers) << LAYER_SHIFT
        self._entries += len(changeset.entries)
        if self._entries > MAX_ENTRIES:
            raise InvalidLayer(
                f"expected at most {MAX_ENTRIES} entries in all layers of an image; build it again with fewer files"
            )
        hidden_targets = self._hide(changeset)
        for place, entry in enumerate(changeset.entries, first):
            self._apply(entry, place, hidden_targets)

    def add_markers(self, markers: Sequence[Entry]) -> None:
        """Apply *markers*, which belong to no layer."""
        for place, entry in enumerate(markers, len(self._own)):
            self._apply(entry, place, {})
        self._own.extend(markers)

    def named(self, path: bytes) -> Named | None:
        """Return what *path* names, None where that is nothing or its parents lead round in a loop."""
        try:
            node = self._find(path, path) if path else self.root
        except _SymlinkLoop:
            return None
        if node is None:
            return None
        place = node.place if isinstance(node, _Directory) else node
        layer = (place >> LAYER_SHIFT) - 1
        return Named(self.places.entry(place), layer, place & POSITION_MASK if layer >= 0 else 0)

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
        doomed: list[tuple[_Directory, bytes]] = []
        for path in changeset.whiteouts:
            folder, _, name = path.rpartition(b"/")
            parent = self._directory_at(folder)
            if parent is not None:
                doomed.append((parent, name))
        emptied = [found for path in changeset.opaques if (found := self._directory_at(path)) is not None]
        for parent, name in doomed:
            parent.children.pop(name, None)
        for directory in emptied:
            directory.children.clear()
        return {
            link.target: node
            for link in links
            if (node := targets[link.target]) is not None and self._find(link.target, link.path) is None
        }

    def _apply(self, entry: Entry, place: int, hidden_targets: dict[bytes, _Node]) -> None:
        """Put *entry*, which is at *place*, where it belongs."""
        folder, _, name = entry.path.rpartition(b"/")
        if not name:
            self.root.place = place
            return
        parent = self._folders.get(folder)
        if parent is None:
            parent = self._folders[folder] = self._make_parents(folder, entry)
        siblings = parent.children
        existing = siblings.get(name)
        kind = stat.S_IFMT(entry.mode)
        node: _Node = place
        if entry.is_hardlink:
            node = self._link_target(entry, place, hidden_targets)
        elif kind == stat.S_IFDIR:
            if isinstance(existing, _Directory):
                existing.place = place
                return
            node = _Directory(place)
        elif kind == stat.S_IFLNK:
            self._symlinks[place] = entry.target
        if existing is not None:
            self._folders.clear()
        siblings[name] = node

    def _link_target(self, entry: Entry, place: int, hidden_targets: dict[bytes, _Node]) -> int:
        """Return the place of what the hard link *entry*, which is at *place*, becomes a name of."""
        self._link_targets[-1][entry.target] += 1
        target = self._find(entry.target, entry.path)
        if target is None:
            target = hidden_targets.get(entry.target)
        if target is None and self._below_is_unknown:
            symlink = entry._replace(mode=stat.S_IFLNK | 0o777, target=b"/" + entry.target, is_hardlink=False)
            self._substitutes[place] = symlink
            self._symlinks[place] = symlink.target
            target = place
        if target is None:
            reason = f"hard link to '{printable(entry.target)}', which does not exist"
            raise InvalidLayer(reason, entry=entry.path)
        if isinstance(target, _Directory):
            reason = f"hard link to '{printable(entry.target)}', which is a directory"
            raise InvalidLayer(reason, entry=entry.path)
        if entry.target == entry.path:
            raise InvalidLayer("hard link to itself", entry=entry.path)
        self.shared.add(target)
        return target

    def _directory_at(self, path: bytes) -> _Directory | None:
        """Return the directory that *path* leads to, symlinks followed; None where there is none."""
        try:
            found = self._walk(path, path)
        except _SymlinkLoop:
            return None  # a loop below hides nothing
        node = found[-1][1] if found else self.root
        return node if isinstance(node, _Directory) else None

    def _make_parents(self, folder: bytes, entry: Entry) -> _Directory:
        """Return *folder*, which is made a directory with all its parents where it is none."""
        parent = self.root
        way = self._walk(folder, entry.path)
        self._check_size(way, entry)
        for name, _ in way:
            node = parent.children.get(name)
            if not isinstance(node, _Directory):  # nothing, or a file, below which no folder was found before
                node = parent.children[name] = self._implied_directory(entry)
            parent = node
        return parent

    def _check_size(self, way: Sequence[tuple[bytes, "_Node | None"]], entry: Entry) -> None:
        """Raise InvalidLayer if symlinks made the *way* to *entry* longer than any path in a layer may be."""
        if len(way) > MAX_PATH_DEPTH or sum(len(name) + 1 for name, _ in way) > MAX_PATH_BYTES:
            raise InvalidLayer(
                f"its parents lead to a folder below more than {MAX_PATH_DEPTH} others or {MAX_PATH_BYTES} bytes of"
                " names; build the image again with a flatter tree",
                entry=entry.path,
            )

    def _implied_directory(self, entry: Entry) -> _Directory:
        """Return a new directory that no layer mentions, for *entry* to be in."""
        self._implied += 1
        limit = FREE_IMPLIED_DIRECTORIES + self._entries
        if self._implied > limit:
            raise InvalidLayer(
                f"expected at most {limit} directories that no layer mentions ({FREE_IMPLIED_DIRECTORIES} and one for"
                " each entry); build the image again from archives that list their directories",
                entry=entry.path,
            )
        return _Directory(_IMPLIED_PLACE)

    def _find(self, path: bytes, named: bytes) -> _Node | None:
        """Return what *path* names, its parents' symlinks followed but not its own; None where there is nothing.

        *named* is the entry that errors name.
        """
        folder, _, name = path.rpartition(b"/")
        found = self._walk(folder, named)
        parent = found[-1][1] if found else self.root
        return parent.children.get(name) if isinstance(parent, _Directory) else None

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
            node = parent.children.get(name) if isinstance(parent, _Directory) else None
            target = self._symlinks.get(node) if isinstance(node, int) else None
            if target is None:
                way.append((name, node))
                continue
            links += 1
            if links > _MAX_SYMLINKS:
                raise _SymlinkLoop("too many levels of symbolic links", entry=named)
            if target.startswith(b"/"):
                way.clear()
            steps = target.split(b"/")
            self._steps_left -= len(steps)
            if self._steps_left < 0:
                raise InvalidLayer("the symbolic links among parents take too long to follow", entry=named)
            names.extend(steps[::-1])
        return way


def _freeze(union: _Union) -> Tree:
    """Number the nodes depth first in name order and count their names; takes *union* apart."""
    places = array("q", [union.root.place])
    links = array("I", [2])
    shared = union.shared
    numbers: dict[int, int] = {}  # of shared places
    directories: dict[InodeNumber, Names] = {}

    def numbered(directory: _Directory, own: int) -> Iterator[tuple[_Directory, int]]:
        """Give every child its number as it is met, and yield the directories among them for descending."""
        children = sorted(directory.children.items(), key=_NAME)
        directory.children = {}
        found = array("I")
        for _, node in children:
            if isinstance(node, int):
                number = numbers.get(node) if node in shared else None
                if number is None:
                    places.append(node)
                    links.append(1)
                    number = len(places)
                    if node in shared:
                        numbers[node] = number
                else:
                    links[number - 1] += 1
                found.append(number)
            else:
                places.append(node.place)
                links.append(2)
                links[own - 1] += 1
                number = len(places)
                found.append(number)
                yield node, number
        directories[InodeNumber(own)] = Names(tuple(map(_NAME, children)), found)

    # An explicit stack: a layer may nest directories deeper than Python likes to recurse.
    stack = [numbered(union.root, ROOT_INODE)]
    while stack:
        child = next(stack[-1], None)
        if child is None:
            stack.pop()
        else:
            stack.append(numbered(*child))
    return Tree(union.places, places, links, directories)
