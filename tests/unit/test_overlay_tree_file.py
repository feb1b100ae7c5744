"""The tree file: what is written is read back, small pieces at a time, and nothing else is ever served."""

import os
import stat
import struct
from zlib import crc32

import pytest

from imagefs.errors import TreeDamaged
from imagefs.layer.changeset import Changeset
from imagefs.layer.index import INDEX_VERSION
from imagefs.layer.tar import scan
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay import attributes as identity
from imagefs.overlay.attributes import Attributes, NumberKey
from imagefs.overlay.listing import Listing
from imagefs.overlay.numbering import ROOT_INDEX
from imagefs.overlay.record import ENTRY, FOREVER_S, packed, unpacked
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree import ROOT_INODE, InodeNumber, Tree
from imagefs.overlay.tree_file import TREE_VERSION, TreeFile, encode
from tests.support.layers import block, dir_, fifo, file, layer, link, sparse, symlink, whiteout

pytestmark = pytest.mark.timeout(30)

LOWER = layer(
    dir_("d", mode=0o750, uid=5),
    file("d/data", b"x" * 700, mtime_ns=-1, xattrs={"user.a": b"1"}),
    file("d/" + "n" * 255, b""),
    file("twin", b"same"),
    link("twin again", "twin"),
    file("late", b"late"),
    symlink("l", "d/data"),
    block("b", 259, 70_000),
    fifo("p"),
    sparse("hole", 1 << 40, [(5, b"x")]),
    dir_("empty"),
)
KEY, OTHER_KEY = NumberKey(b"k" * 32), NumberKey(b"o" * 32)
STACK = "stack of layers"
UPPER = layer(link("d/late link", "late"), whiteout("p"), file("implied/by/this", b"1"))


def stacked(*layers: bytes) -> tuple[Tree, list[Changeset], list[DiffId]]:
    changesets = [scan([raw]) for raw in layers]
    return resolve(changesets), changesets, [DiffId(Digest.of(raw)) for raw in layers]


def encoded(*layers: bytes, key: NumberKey = KEY) -> bytes:
    tree, _, diff_ids = stacked(*layers)
    return b"".join(encode(tree, diff_ids, stack=STACK, key=key))


def reader(raw: bytes, *, stack: str = STACK, key: NumberKey | None = KEY) -> TreeFile:
    return TreeFile(lambda size, offset: raw[offset : offset + size], len(raw), stack=stack, key=key)


def shown(raw: bytes, *, key: NumberKey = KEY) -> dict[bytes, tuple[Attributes, int]]:
    """Return attributes and node id of every path, each also as its directory's row says it."""
    tree = reader(raw, key=key)
    found: dict[bytes, tuple[Attributes, int]] = {b"": (tree.row(ROOT_INDEX).attributes, ROOT_INDEX)}
    folders = [(b"", ROOT_INDEX)]
    while folders:
        path, index = folders.pop()
        listing = tree.listing(index)
        assert [listing.name(0), listing.name(1)] == [b".", b".."]
        assert listing.ino(0) == tree.row(index).attributes.ino
        for number in range(2, len(listing)):
            child = path + b"/" + listing.name(number) if path else listing.name(number)
            attributes = unpacked(listing.entry(number), ENTRY.size)
            assert (listing.mode(number), listing.ino(number)) == (attributes.mode, attributes.ino)
            assert listing.find(listing.name(number)) == number
            assert struct.unpack_from("<QQQ", listing.entry(number), 8) == (0, FOREVER_S, FOREVER_S)
            found[child] = attributes, listing.node(number)
            if stat.S_ISDIR(attributes.mode):
                folders.append((child, listing.node(number)))
                assert tree.row(listing.node(number)).attributes == attributes
    return found


def by_tree(tree: Tree) -> dict[bytes, tuple[int, int, int, int]]:
    found = {}
    stack = [(b"", ROOT_INODE)]
    while stack:
        path, number = stack.pop()
        inode = tree.inode(number)
        found[path] = inode.entry.mode, inode.nlink, inode.entry.mtime_ns, inode.entry.uid
        if stat.S_ISDIR(inode.entry.mode):
            stack += [(path + b"/" + d.name if path else d.name, InodeNumber(d.inode)) for d in tree.dirents(number)]
    return found


def test_every_path_has_what_the_union_says() -> None:
    tree, _, diff_ids = stacked(LOWER, UPPER)
    found = shown(b"".join(encode(tree, diff_ids, stack=STACK, key=KEY)))
    assert {path: (a.mode, a.nlink, a.mtime_ns, a.uid) for path, (a, _) in found.items()} == by_tree(tree)
    assert found[b"hole"][0].size == 1 << 40
    assert found[b"b"][0].rdev == os.makedev(259, 70_000)


def test_what_a_layer_alone_decides_belongs_to_the_layer_and_the_rest_to_the_tree() -> None:
    found = shown(encoded(LOWER, UPPER))
    owners = {path: node >> 32 for path, (_, node) in found.items()}
    assert {path for path, owner in owners.items() if owner == 0} == {
        *(b"", b"d", b"empty", b"implied", b"implied/by"),  # directories
        *(b"late", b"d/late link"),  # another layer gave it a second name
    }
    assert {path for path, owner in owners.items() if owner == 2} == {b"implied/by/this"}
    assert found[b"twin"][1] == found[b"twin again"][1]
    _, (lower, _), _ = stacked(LOWER, UPPER)
    assert lower.entries[found[b"d/data"][1] & 0xFFFFFFFF].path == b"d/data"


def test_numbers_say_what_a_thing_is() -> None:
    found, again = shown(encoded(LOWER, UPPER)), shown(encoded(layer(dir_("z")), LOWER, UPPER, layer(whiteout("z"))))
    assert {path: a.ino for path, (a, _) in found.items()} == {path: a.ino for path, (a, _) in again.items()}
    changed = shown(encoded(LOWER, UPPER, layer(dir_("d", mode=0o750, uid=5), file("d/data", b"y"))))
    assert {path for path, (a, _) in found.items() if changed[path][0].ino != a.ino} == {b"", b"d", b"d/data"}
    numbers = [a.ino for path, (a, _) in found.items() if path not in (b"twin again", b"d/late link")]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) >= identity.RESERVED_NUMBERS


def test_numbers_that_collide_are_told_apart_always_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(self: NumberKey, digest: bytes, attempt: int = 0) -> int:
        return number(self, digest, attempt) % 7 + (1 << 40) + attempt * 100

    number = NumberKey.number
    monkeypatch.setattr(NumberKey, "number", few)
    raw = encoded(LOWER, UPPER)
    numbers = [a.ino for path, (a, _) in shown(raw).items() if path not in (b"twin again", b"d/late link")]
    assert len(set(numbers)) == len(numbers)
    assert encoded(LOWER, UPPER) == raw


def test_a_bare_root_is_a_tree() -> None:
    assert list(shown(encoded())) == [b""]


def test_what_is_no_directory_has_no_listing() -> None:
    tree = reader(encoded(LOWER, UPPER))
    with pytest.raises(NotADirectoryError):
        tree.listing(next(i for i in range(1, tree.rows + 1) if not stat.S_ISDIR(tree.row(i).attributes.mode)))


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_no_flipped_bit_is_ever_served(flip: int) -> None:
    raw = encoded(LOWER, UPPER)
    good = shown(raw)
    noticed = 0
    for at in range(0, len(raw), 3):
        broken = bytearray(raw)
        broken[at] ^= flip
        try:
            assert shown(bytes(broken)) == good  # padding
        except TreeDamaged:
            noticed += 1
    assert noticed > len(raw) / 3 * 0.95


def test_any_cut_and_another_version_are_noticed() -> None:
    raw = encoded(LOWER, UPPER)
    for length in [*range(100), *range(100, len(raw), 97), len(raw) - 1]:
        with pytest.raises(TreeDamaged):
            reader(raw[:length]).row(1)
    trailer = bytearray(raw[-20:])
    struct.pack_into("<I", trailer, 0, TREE_VERSION + 1)
    with pytest.raises(TreeDamaged) as caught:
        reader(raw[:-20] + bytes(trailer))
    assert caught.value.is_outdated


def test_a_tree_of_another_stack_or_key_is_damaged() -> None:
    raw = encoded(LOWER, UPPER)
    with pytest.raises(TreeDamaged, match="other layers"):
        reader(raw, stack=STACK + " ")
    with pytest.raises(TreeDamaged, match="another store"):
        reader(raw, key=OTHER_KEY)
    assert reader(raw, key=None).row(ROOT_INDEX) == reader(raw).row(ROOT_INDEX)


def test_another_key_changes_every_number_and_no_digest() -> None:
    one, other = encoded(LOWER, UPPER), encoded(LOWER, UPPER, key=OTHER_KEY)
    numbers, other_numbers = shown(one), shown(other, key=OTHER_KEY)
    assert numbers.keys() == other_numbers.keys()
    assert {a.ino for a, _ in numbers.values()}.isdisjoint(a.ino for a, _ in other_numbers.values())
    tree, other_tree = reader(one), reader(other, key=OTHER_KEY)
    assert [tree.digest(n) for n in range(1, tree.rows + 1)] == [other_tree.digest(n) for n in range(1, tree.rows + 1)]


def test_rows_that_there_are_none_of_are_damage_and_no_crash() -> None:
    tree = reader(encoded(LOWER))
    for index in (0, tree.rows + 1, 1 << 31):
        with pytest.raises(TreeDamaged):
            tree.row(index)


def test_binding_puts_slots_in_place_of_owners_and_shows_what_is_asked() -> None:
    tree = reader(encoded(LOWER, UPPER))
    listing = tree.listing(ROOT_INDEX)
    before = [listing.node(number) for number in range(len(listing))]
    listing = tree.listing(ROOT_INDEX)
    listing.finish(lambda page, is_first: page.bind([70, 71, 72], None, first=2 if is_first else 0))
    after = [listing.node(number) for number in range(len(listing))]
    assert after[:2] == before[:2] == [0, 0]
    assert after[2:] == [(70 + (node >> 32)) << 32 | node & 0xFFFFFFFF for node in before[2:]]
    other = tree.listing(ROOT_INDEX)

    def adjust(a: Attributes) -> Attributes:
        return Attributes(a.ino, a.mode, a.nlink, 9, 8, a.size, a.blocks, a.mtime_ns, a.rdev)

    other.finish(lambda page, is_first: page.bind([70, 71, 72], adjust, first=2 if is_first else 0))
    for number in range(2, len(other)):
        one, two = (unpacked(which.entry(number), ENTRY.size) for which in (listing, other))
        assert (two.uid, two.gid, two.ino, two.mode) == (9, 8, one.ino, one.mode)


def test_attributes_survive_being_packed() -> None:
    for mtime_ns in (0, -1, -(10**9), 1, (1 << 62)):
        attributes = Attributes(2**64 - 1, 0o104755, 3, 2**32 - 1, 7, 2**63 - 1, 9, mtime_ns, 0)
        assert unpacked(packed(attributes)) == attributes


def test_names_are_found_in_byte_order_and_absent_ones_are_not() -> None:
    names = [*sorted(b"%d" % number for number in range(500)), b"\xff", b"\xff\xff"]
    raw = encoded(layer(*(file(name) for name in names)))
    listing: Listing = reader(raw).listing(ROOT_INDEX)
    assert [listing.name(number) for number in range(2, len(listing))] == names
    for name in (b"", b".", b"..", b"500", b"0 ", b"\xfe", b"\xff\xff\xff"):
        assert listing.find(name) is None


def test_no_number_is_given_twice_among_a_million_entries() -> None:
    # Numbers are what is asked about, so they are made as the tree makes them, without the time to make the tree.
    entry = scan([LOWER]).entries[1]
    layer_id = DiffId(Digest.of(b"layer"))
    found = set()
    for number in range(1_000_000):
        one = entry._replace(path=b"folder%d/%d" % (number % 997, number), mtime_ns=number % 3)
        found.add(KEY.number(identity.leaf_digest(one, layer=layer_id, position=number)))
    assert len(found) == 1_000_000
    assert min(found) >= identity.RESERVED_NUMBERS


class Reads:
    """The bytes of a file, and how many were read."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.bytes = 0

    def __call__(self, size: int, offset: int) -> bytes:
        self.bytes += size
        return self.raw[offset : offset + size]


@pytest.mark.parametrize("count", [125, 126, 127, 128, 253, 254, 255, 1000])
def test_pages_of_a_directory_show_what_one_would(count: int) -> None:
    names = sorted(b"%d" % number * (1 + number % 5) for number in range(count))
    listing = reader(encoded(layer(*(file(name) for name in names)))).listing(ROOT_INDEX)
    assert len(listing) == count + 2
    assert [listing.name(number) for number in range(2, count + 2)] == names
    assert list(listing.nodes()) == names
    assert [numbers for *_, numbers in listing.nodes().values()] == list(range(2, count + 2))
    for number, name in enumerate(names, 2):
        assert listing.find(name) == number
        assert listing.find(name + b"\0") is None
    assert listing.find(b"") is listing.find(b"\xff") is None
    whole = b"".join(listing.cut(0, 1 << 30))
    for size in (4096, 100_000):
        at, pieces = 0, []
        while piece := b"".join(listing.cut(at, size)):
            assert len(piece) <= size
            pieces.append(piece)
            at = _cookie_of_last(piece)
        assert b"".join(pieces) == whole


def _cookie_of_last(piece: bytes) -> int:
    at = cookie = 0
    while at < len(piece):
        _, cookie, length, _ = struct.unpack_from("<QQII", piece, at + 128)
        at += 152 + length + -length % 8
    return cookie


def test_a_name_among_many_is_found_without_reading_all_of_them() -> None:
    raw = encoded(layer(*(file(b"name%06d" % number) for number in range(20_000))))
    reads = Reads(raw)
    tree = TreeFile(reads, len(raw), stack=STACK, key=KEY)
    listing = tree.listing(ROOT_INDEX)
    number = listing.find(b"name013579")
    assert number is not None
    assert listing.name(number) == b"name013579"
    assert reads.bytes < len(raw) // 8
    reads.bytes = 0
    assert listing.find(b"name000001") == 3
    assert listing.find(b"name019999") == 20_001
    assert b"".join(listing.cut(10_000, 32768))
    assert reads.bytes < len(raw) // 8
    assert listing.kept_bytes < len(raw)


def test_every_flipped_byte_of_a_paged_listing_is_noticed() -> None:
    raw = encoded(layer(*(file(b"%d" % number) for number in range(400))))
    whole = reader(raw).listing(ROOT_INDEX)
    size = reader(raw).row(ROOT_INDEX).listing_bytes
    expected = list(whole.nodes().items()), b"".join(whole.cut(0, 1 << 30))
    for at in range(0, size, 97):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        try:
            listing = reader(bytes(damaged)).listing(ROOT_INDEX)
            shown_now = list(listing.nodes().items()), b"".join(listing.cut(0, 1 << 30))
        except TreeDamaged:
            continue
        assert shown_now == expected  # padding between pages


TRAILER_BYTES = 8 * 3 + 32 + 16 + 4 + 4 + 8 + 4


def test_every_flipped_bit_of_the_trailer_is_noticed_on_opening() -> None:
    raw = encoded(LOWER)
    tree = reader(raw)
    # The trailer follows the rows, which follow the listings.
    rows_at = struct.unpack_from("<Q", raw, len(raw) - TRAILER_BYTES + 16)[0]
    assert struct.unpack_from("<QQ", raw, len(raw) - TRAILER_BYTES) == (tree.inodes, tree.rows)
    assert rows_at < len(raw) - TRAILER_BYTES
    for at in range(len(raw) - TRAILER_BYTES, len(raw)):
        for bit in range(8):
            broken = bytearray(raw)
            broken[at] ^= 1 << bit
            with pytest.raises(TreeDamaged):
                reader(bytes(broken))


def test_a_tree_made_of_indexes_of_another_version_is_outdated() -> None:
    trailer = bytearray(encoded(LOWER)[-TRAILER_BYTES:-4])
    assert struct.unpack_from("<II", trailer, len(trailer) - 16) == (TREE_VERSION, INDEX_VERSION)
    struct.pack_into("<I", trailer, len(trailer) - 12, INDEX_VERSION + 1)
    raw = encoded(LOWER)[:-TRAILER_BYTES] + trailer + crc32(trailer).to_bytes(4, "little")
    with pytest.raises(TreeDamaged) as caught:
        reader(raw)
    assert caught.value.is_outdated


@pytest.mark.parametrize("surplus", [b"\0", bytes(8), bytes(4096)])
def test_a_tree_with_bytes_before_its_beginning_is_damaged(surplus: bytes) -> None:
    with pytest.raises(TreeDamaged, match="add up"):
        reader(surplus + encoded(LOWER))


def test_every_flipped_byte_of_a_table_of_pages_is_noticed() -> None:
    raw = encoded(layer(*(file(b"%d" % number) for number in range(400))))
    row = reader(raw).row(ROOT_INDEX)
    pages = -(-row.records // 128)
    assert pages == 4
    end = row.listing_at + row.listing_bytes
    for at in range(end - pages * 16, end):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        for page in range(pages):
            with pytest.raises(TreeDamaged):
                reader(bytes(damaged)).page(ROOT_INDEX, page)


@pytest.mark.parametrize(("size", "blocks"), [(0, 0), (1, 1), (511, 1), (512, 1), (513, 2)])
def test_part_of_a_block_takes_a_block(size: int, blocks: int) -> None:
    (entry,) = scan([layer(file("f", b"x" * size))]).entries
    assert identity.attributes(entry, ino=1, nlink=1).blocks == blocks


def test_no_number_is_one_of_those_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [bytes([number]) * 32 for number in range(200)]
    monkeypatch.setattr(identity, "RESERVED_NUMBERS", 1 << 63)
    assert all(KEY.number(digest) >= 1 << 63 for digest in digests)
    number = KEY.number(digests[0])
    monkeypatch.setattr(identity, "RESERVED_NUMBERS", number)
    assert KEY.number(digests[0]) == number
    monkeypatch.setattr(identity, "RESERVED_NUMBERS", number + 1)
    assert KEY.number(digests[0]) != number


def test_one_tree_at_two_paths_has_roots_of_two_numbers() -> None:
    digest = bytes(32)
    assert KEY.root_number(digest, b"app/1") != KEY.root_number(digest, b"app/2")
    assert KEY.root_number(digest, b"app/1") != KEY.root_number(b"1" * 32, b"app/1")
    assert KEY.root_number(digest, b"app/1") == KEY.root_number(digest, b"app/1")
