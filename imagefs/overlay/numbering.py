"""The lasting numbers, owners, digests and attributes of a tree's inodes, as `tree_file` writes them.

Receives a `Tree`; hands on what each of its inodes is, by number.  Values are in arrays: a tree may have millions of
inodes.  Entries are taken in the order of their layers, where each is read once, and not kept.
"""

import stat
from array import array
from collections.abc import Iterator, Sequence
from struct import Struct

from imagefs.layer.changeset import Entry
from imagefs.oci.digest import DiffId
from imagefs.overlay.attributes import DIGEST_BYTES, NumberKey, attributes, directory_digest, leaf_digest
from imagefs.overlay.record import ATTRIBUTES, packed, record, unattributed
from imagefs.overlay.tree import LAYER_SHIFT, POSITION_MASK, ROOT_INODE, InodeNumber, Tree

ROOT_INDEX = 1

_INO = Struct("<Q")
_MODE = Struct("<I")
_MODE_AT = 60


def climbs(target: bytes) -> bool:
    """Return whether the symlink text *target* is absolute or has "..", so that it may lead out of the tree."""
    return target.startswith(b"/") or b".." in target.split(b"/")


class Numbering:
    """The inodes of *tree*, whose layers are called *diff_ids*, with inode numbers of *key*."""

    def __init__(self, tree: Tree, diff_ids: Sequence[DiffId], key: NumberKey) -> None:
        self._tree = tree
        self._diff_ids = diff_ids
        self._key = key
        count = len(tree)
        self._attributes = bytearray(count * ATTRIBUTES.size)
        self._digests = bytearray(count * DIGEST_BYTES)
        self._inos = array("Q", bytes(8 * count))
        self._nodes = array("Q", bytes(8 * count))
        self._parents: dict[int, int] = {ROOT_INODE: ROOT_INODE}
        """The directory of each directory."""
        self._climbing_nodes: dict[tuple[int, bytes], int] = {}
        """Nodes of the names of climbing symlinks, by directory."""
        self.own: list[tuple[InodeNumber, int]] = []
        """The inodes that belong to the tree, and in which directory they are (see `Row`), by index less 1."""
        self._taken: set[int] = set()
        # While these are computed only: directories, climbing symlinks, and what belongs to no layer alone.
        directories: dict[int, Entry] = {}
        climbing: set[int] = set()
        owned: set[int] = set()
        for number, place, entry in self._entries():
            self._describe(number, place, entry, directories, climbing, owned)
        names = self._find_owners(climbing, owned)
        self._digest_directories(directories, names)

    def _entries(self) -> Iterator[tuple[int, int, Entry]]:
        """Yield number, place and entry of all inodes, layer by layer in the order of the entries."""
        places, layers = self._tree.places, self._tree.places.layers
        numbers = [array("I", bytes(4 * len(entries))) for entries in layers]
        for number, place in enumerate(self._tree.places_of, 1):
            if place >> LAYER_SHIFT:
                numbers[(place >> LAYER_SHIFT) - 1][place & POSITION_MASK] = number
            else:
                yield number, place, places.own[place]
        substitutes = places.substitutes
        for layer, entries in enumerate(layers):
            first = (layer + 1) << LAYER_SHIFT
            for place, (number, entry) in enumerate(zip(numbers[layer], entries, strict=True), first):
                if number:
                    yield number, place, substitutes.get(place, entry) if substitutes else entry

    def _describe(
        self, number: int, place: int, entry: Entry, directories: dict[int, Entry], climbing: set[int], owned: set[int]
    ) -> None:
        links = self._tree.links[number - 1]
        at = (number - 1) * ATTRIBUTES.size
        self._attributes[at : at + ATTRIBUTES.size] = packed(attributes(entry, ino=0, nlink=links))
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFDIR:
            directories[number] = entry
            return
        # What belongs to no layer is a marker, which is the same wherever it is.
        layer, position = max(0, (place >> LAYER_SHIFT) - 1), place & POSITION_MASK
        digest = leaf_digest(entry, layer=self._diff_ids[layer], position=position)
        self._digests[(number - 1) * DIGEST_BYTES : number * DIGEST_BYTES] = digest
        if kind == stat.S_IFLNK and climbs(entry.target):
            climbing.add(number)
        if not place >> LAYER_SHIFT or links != self._tree.places.links(layer, entry):
            owned.add(number)

    def _find_owners(self, climbing: set[int], owned: set[int]) -> dict[int, bytes]:
        """Give every inode its node, and all but directories their lasting numbers; return the names of directories."""
        tree = self._tree
        names_of_directories: dict[int, bytes] = {}
        for number, place in enumerate(tree.places_of, 1):
            if tree.is_directory(InodeNumber(number)):
                parent = self._parents[number]
                node = self._nodes[number - 1] = self._add(number, self._nodes[parent - 1] or ROOT_INDEX)
                names = tree.names(InodeNumber(number))
                for name, child in zip(names.names, names.numbers, strict=True):
                    if tree.is_directory(InodeNumber(child)):
                        names_of_directories[child] = name
                        self._parents[child] = number
                    elif child in climbing:
                        self._climbing_nodes[number, name] = self._add(child, node)
                continue
            attempt = self._number(number)
            if number in climbing:
                continue
            self._nodes[number - 1] = self._add(number, 0) if attempt or number in owned else place
        return names_of_directories

    def _digest_directories(self, entries: dict[int, Entry], names: dict[int, bytes]) -> None:
        """Compute the digest of every directory, and its lasting number."""
        waiting: list[tuple[int, bytes]] = []  # the way to the current one: paths of all would be too much to keep

        def leave() -> None:
            number, path = waiting.pop()
            children = self._tree.names(InodeNumber(number))
            digests = ((name, self.digest(child)) for name, child in zip(children.names, children.numbers, strict=True))
            digest = directory_digest(entries[number], path, digests)
            self._digests[(number - 1) * DIGEST_BYTES : number * DIGEST_BYTES] = digest

        order = sorted(entries)
        for number in order:
            while waiting and waiting[-1][0] != self._parents[number]:
                leave()
            path = waiting[-1][1] if waiting else b""
            name = names.get(number, b"")
            waiting.append((number, path + b"/" + name if path else name))
        while waiting:
            leave()
        for number in reversed(order):
            self._number(number)

    def _number(self, number: int) -> int:
        """Give inode *number* its lasting number, and return how often that had to be another than the first."""
        attempt = 0
        digest = self.digest(number)
        while (ino := self._key.number(digest, attempt)) in self._taken:
            attempt += 1
        self._taken.add(ino)
        self._inos[number - 1] = ino
        _INO.pack_into(self._attributes, (number - 1) * ATTRIBUTES.size, ino)
        return attempt

    def _add(self, number: int, parent: int) -> int:
        self.own.append((InodeNumber(number), parent))
        return len(self.own)

    def digest(self, number: int) -> bytes:
        """Return the digest of inode *number*."""
        return bytes(self._digests[(number - 1) * DIGEST_BYTES : number * DIGEST_BYTES])

    def packed(self, number: int) -> bytes:
        """Return the packed attributes of inode *number*."""
        return bytes(self._attributes[(number - 1) * ATTRIBUTES.size : number * ATTRIBUTES.size])

    def records(self, directory: InodeNumber) -> list[bytes]:
        """Return the records of *directory*."""
        inos = self._inos
        records = [
            unattributed(b".", inos[directory - 1], stat.S_IFDIR, cookie=1),
            unattributed(b"..", inos[self._parents[directory] - 1], stat.S_IFDIR, cookie=2),
        ]
        names = self._tree.names(directory)
        for cookie, (name, number) in enumerate(zip(names.names, names.numbers, strict=True), 3):
            values = self.packed(number)
            node = self._nodes[number - 1] or self._climbing_nodes[directory, name]
            (mode,) = _MODE.unpack_from(values, _MODE_AT)
            records.append(record(name, node, values, cookie=cookie, ino=inos[number - 1], mode=mode))
        return records
