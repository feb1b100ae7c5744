"""An image, or its first layers, as a tree to look around in without a mount.

Receives a store and an image; hands on things by path, listings, entries and contents.  The tree that was stored at
pull is used, and made again where it is missing or damaged.  Knows no node ids.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from imagefs.errors import InvalidReference, printable
from imagefs.layer.changeset import Entry
from imagefs.oci.digest import DiffId
from imagefs.overlay.attributes import Attributes
from imagefs.overlay.listing import Listing
from imagefs.overlay.numbering import ROOT_INDEX
from imagefs.overlay.resolve import IMPLIED_DIRECTORY
from imagefs.overlay.stored import Stack
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.view.open_file import OpenFile
from imagefs.view.opened import OpenedImages

_AT_LAYER = re.compile(r"(?P<image>.+)@layer:(?P<count>[0-9]{1,6})")
_MOST_FOLLOWED = 40
"""Symlinks on the way to one path, as in Linux (MAXSYMLINKS)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thing is from: the entry at *position* of *layer*; two things of one place are the same thing."""

    layer: DiffId
    position: int


@dataclass(frozen=True, slots=True)
class Thing:
    """What a name leads to; *place* is None for a directory that no layer mentions.

    *index* is that of its row in the tree, 0 where it has none.  *attributes* has everything that ``stat`` shows.
    """

    attributes: Attributes
    place: Place | None
    index: int

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.attributes.mode)


class ImageTree:
    """The tree of *stack*, looked at through *images*.  Methods raise BlobNotFound and InvalidLayer."""

    def __init__(self, images: OpenedImages, stack: Stack) -> None:
        self._images = images
        self.stack = stack
        self._counterparts: tuple[ImageTree, dict[int, int]] | None = None

    def root(self) -> Thing:
        """Return the root directory."""
        return self._of_row(ROOT_INDEX)

    def digest(self, index: int) -> bytes:
        """Return the digest of what has row *index* of the tree, and of all that is in it."""
        return self._images.in_tree(self.stack, lambda tree: tree.digest(index))

    def listing(self, directory: Thing) -> Listing:
        """Return the records of *directory*."""
        index = directory.index
        records, size = self._images.in_tree(self.stack, lambda tree: tree.listing_size(index))
        return Listing(
            records, lambda number: self._images.in_tree(self.stack, lambda tree: tree.page(index, number)), size
        )

    def thing(self, listing: Listing, number: int) -> Thing:
        """Return what record *number* of *listing* leads to."""
        owner, index = listing.owner(number)
        if owner == 0:
            return self._of_row(index)
        return Thing(listing.attributes(number), Place(self.stack.diff_ids[owner - 1], index), 0)

    def counterparts(self, other: "ImageTree") -> dict[int, int]:
        """Return, by owner in a listing of *other*, what owner the same layer is in one of this."""
        if self._counterparts is None or self._counterparts[0] is not other:
            places = {diff_id: owner for owner, diff_id in enumerate(self.stack.diff_ids, 1)}
            same = {owner: places[id_] for owner, id_ in enumerate(other.stack.diff_ids, 1) if id_ in places}
            self._counterparts = other, same
        return self._counterparts[1]

    def _of_row(self, index: int) -> Thing:
        row = self._images.in_tree(self.stack, lambda tree: tree.row(index))
        place = None if row.layer is None else Place(self.stack.diff_ids[row.layer], row.position)
        return Thing(row.attributes, place, index)

    def entry(self, thing: Thing) -> Entry:
        """Return the entry behind *thing*."""
        if thing.place is None:
            return IMPLIED_DIRECTORY
        return self._images.entry(thing.place.layer, thing.place.position)[0]

    def open(self, thing: Thing) -> OpenFile:
        """Return the regular file *thing*, open for reading."""
        assert thing.place is not None
        return self._images.open(thing.place.layer, thing.place.position)

    def walk(
        self, top: tuple[bytes, Thing] | None = None, *, depth: int | None = None
    ) -> Iterator[tuple[bytes, Thing]]:
        """Yield (path, thing) of all below *top*, a directory with its path, the root where none is given.

        A directory comes before what is in it, names in byte order.  *depth* says how many levels to go down.
        """
        # An explicit stack: a layer may nest directories deeper than Python likes to recurse.
        stack = [self.children(*(top or (b"", self.root())))]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                continue
            yield found
            if found[1].is_directory and (depth is None or len(stack) < depth):
                stack.append(self.children(*found))

    def children(self, path: bytes, directory: Thing) -> Iterator[tuple[bytes, Thing]]:
        """Yield (path, thing) of what is in *directory*, which is at *path*, in byte order of the names."""
        listing = self.listing(directory)
        prefix = path + b"/" if path else b""
        for number in range(2, len(listing)):
            yield prefix + listing.name(number), self.thing(listing, number)

    def find(self, path: bytes, *, follow: bool = False) -> tuple[bytes, Thing] | None:
        """Return what *path* leads to, and its path without symlinks; None where it leads nowhere.

        Symlinks among its parents are followed inside the image, what it names itself only with *follow*.
        """
        way: list[tuple[bytes, Thing]] = [(b"", self.root())]
        names = path.split(b"/")[::-1]
        followed = 0
        while names:
            name = names.pop()
            if not way[-1][1].is_directory:  # also for "." and "..", as Linux has it
                return None
            if name in (b"", b"."):
                continue
            if name == b"..":
                way = way[:-1] or way
                continue
            listing = self.listing(way[-1][1])
            number = listing.find(name)
            if number is None:
                return None
            thing = self.thing(listing, number)
            if stat.S_ISLNK(thing.attributes.mode) and (follow or any(names)):
                followed += 1
                if followed > _MOST_FOLLOWED:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), printable(path))
                entry = self.entry(thing)
                if entry.target.startswith(b"/"):
                    del way[1:]
                names += entry.target.split(b"/")[::-1]
                continue
            way.append((name, thing))
        return b"/".join(name for name, _ in way[1:]), way[-1][1]


def named(store: Store, text: str) -> tuple[Image, Stack]:
    """Return the image that *text* names, and its layers: all, or with ``@layer:N`` behind the name the first N.

    Raises: ImageNotFound, InvalidReference.
    """
    match = _AT_LAYER.fullmatch(text)
    if match is None:
        image = store.image(text)
        return image, Stack(image.diff_ids)
    image = store.image(match["image"])
    count = int(match["count"])
    if count > len(image.diff_ids):
        raise InvalidReference(text, f"the image has {len(image.diff_ids)} layers, counted from the base as layer:1")
    return image, Stack(image.diff_ids[:count])


def looked_at(images: OpenedImages, stack: Stack, *, passing: bool) -> ImageTree:
    """Return the tree of *stack*; that of one that is only *passing*, no image's, is not kept in the store."""
    if passing:
        images.enter_passing(stack)
    return ImageTree(images, stack)
