"""One image's file tree, as it would be on disk: inodes by number, names in directories.

Receives what `resolve` computed; hands on answers to the questions a file system is asked.  Immutable and therefore
thread-safe; knows no file, no store and no kernel.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NewType

from imagefs.layer.changeset import Entry

InodeNumber = NewType("InodeNumber", int)
ROOT_INODE = InodeNumber(1)


@dataclass(frozen=True, slots=True)
class Inode:
    """One file, directory, link or device of a tree.

    *entry* holds its attributes and, for a regular file, where its data is in the tar of layer *layer* (0 is the base;
    -1 for a directory that no layer mentions, only implies); *position* is where it stands in that layer's changeset.
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


class Tree:
    """Inodes 1 (the root) to n; directories list their dirents in byte order of the names, without "." and ".."."""

    __slots__ = ("_directories", "_inodes")

    def __init__(self, inodes: Sequence[Inode], directories: dict[InodeNumber, tuple[Dirent, ...]]) -> None:
        self._inodes = tuple(inodes)
        self._directories = directories

    def __len__(self) -> int:
        return len(self._inodes)

    def mapped(self, change: Callable[[Inode], Inode]) -> "Tree":
        """Return this tree with what *change* returns in place of each inode."""
        return Tree([change(inode) for inode in self._inodes], self._directories)

    def inode(self, number: InodeNumber) -> Inode:
        """Return inode *number*, which must be one that this tree handed out."""
        return self._inodes[number - 1]

    def dirents(self, directory: InodeNumber) -> tuple[Dirent, ...]:
        """Return the names in *directory*.

        Raises: NotADirectoryError.
        """
        try:
            return self._directories[directory]
        except KeyError:
            raise NotADirectoryError from None

    def lookup(self, directory: InodeNumber, name: bytes) -> InodeNumber | None:
        """Return what *name* leads to in *directory*, None where there is no such name.

        Raises: NotADirectoryError.
        """
        dirents = self.dirents(directory)
        position = bisect.bisect_left(dirents, name, key=_name)
        if position < len(dirents) and dirents[position].name == name:
            return dirents[position].inode
        return None


def _name(dirent: Dirent) -> bytes:
    return dirent.name
