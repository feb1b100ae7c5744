"""One image's file tree, as it would be on disk: inodes by number, names in directories.

Receives what `resolve` computed; hands on answers to the questions a file system is asked.  Immutable and therefore
thread-safe; knows no file, no store and no kernel.

A tree may have millions of inodes, so it holds numbers in arrays, and each name once.  Entries stay with their layers:
an inode has a *place*, its layer counted from 1 in the high half and its position there in the low half.  Layer 0 is
for entries of the tree's own.
"""

import bisect
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NewType

from imagefs.layer.changeset import Entry

InodeNumber = NewType("InodeNumber", int)
ROOT_INODE = InodeNumber(1)

LAYER_SHIFT = 32
POSITION_MASK = (1 << LAYER_SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Inode:
    """One file, directory, link or device of a tree.

    *entry* holds its attributes and, for a regular file, where its data is in the tar of layer *layer* (0 is the base;
    -1 for an entry that no layer has); *position* is where it stands in that layer's changeset, 0 where there is none.
    *nlink* counts the names that lead to it; for a directory, as on ext4, 2 and one for each child directory.
    """

    entry: Entry
    layer: int
    position: int
    nlink: int


@dataclass(frozen=True, slots=True)
class Dirent:
    """A name in a directory, and the number of the inode it leads to."""

    name: bytes
    inode: InodeNumber


@dataclass(frozen=True, slots=True)
class Names:
    """The names in a directory in byte order, and for each of them the number of its inode."""

    names: tuple[bytes, ...]
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class Places:
    """The entries that places stand for: those of each layer, and *own* ones of the tree.

    *substitutes* go, by place, before the entries of layers.
    """

    layers: Sequence[Sequence[Entry]]
    own: Sequence[Entry]
    substitutes: Mapping[int, Entry]
    link_targets: Sequence[Mapping[bytes, int]]
    """For each layer, how many of its hard links name each path."""

    def links(self, layer: int, entry: Entry) -> int:
        """Return how many names *layer* gives its *entry*: itself, and the hard links that name it.

        That is the link count in every image where no other layer, and no curiosity such as a duplicate, changes it.
        """
        targets = self.link_targets[layer]
        return 1 + targets.get(entry.path, 0) if targets else 1

    def entry(self, place: int) -> Entry:
        """Return the entry at *place*."""
        substitute = self.substitutes.get(place)
        if substitute is not None:
            return substitute
        layer, position = place >> LAYER_SHIFT, place & POSITION_MASK
        return self.layers[layer - 1][position] if layer else self.own[position]


class Tree:
    """Inodes 1 (the root) to n; directories list their names in byte order, without "." and ".."."""

    __slots__ = ("_directories", "links", "places", "places_of")

    def __init__(
        self, places: Places, places_of: "array[int]", links: "array[int]", directories: dict[InodeNumber, Names]
    ) -> None:
        self.places = places
        self.places_of = places_of
        """The place of each inode, by number less 1."""
        self.links = links
        """The link count of each inode, by number less 1."""
        self._directories = directories

    def __len__(self) -> int:
        return len(self.places_of)

    def inode(self, number: InodeNumber) -> Inode:
        """Return inode *number*, which must be one that this tree handed out."""
        entry = self.places.entry(self.places_of[number - 1])
        return Inode(entry, *self.place(number), self.links[number - 1])

    def place(self, number: InodeNumber) -> tuple[int, int]:
        """Return layer and position of inode *number*, as `Inode` has them."""
        place = self.places_of[number - 1]
        layer = (place >> LAYER_SHIFT) - 1
        return layer, place & POSITION_MASK if layer >= 0 else 0

    def is_directory(self, number: InodeNumber) -> bool:
        """Return whether inode *number* is a directory."""
        return number in self._directories

    def names(self, directory: InodeNumber) -> Names:
        """Return the names in *directory*.

        Raises: NotADirectoryError.
        """
        try:
            return self._directories[directory]
        except KeyError:
            raise NotADirectoryError from None

    def dirents(self, directory: InodeNumber) -> tuple[Dirent, ...]:
        """Return the names in *directory* with their inodes.

        Raises: NotADirectoryError.
        """
        names = self.names(directory)
        return tuple(Dirent(name, InodeNumber(number)) for name, number in zip(names.names, names.numbers, strict=True))

    def lookup(self, directory: InodeNumber, name: bytes) -> InodeNumber | None:
        """Return what *name* leads to in *directory*, None where there is no such name.

        Raises: NotADirectoryError.
        """
        names = self.names(directory)
        position = bisect.bisect_left(names.names, name)
        if position < len(names.names) and names.names[position] == name:
            return InodeNumber(names.numbers[position])
        return None
