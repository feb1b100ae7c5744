"""Digests and checksums, field by field: no change to anything goes unnoticed."""

import hashlib
import stat
import struct
from collections.abc import Iterator
from zlib import crc32

import pytest

from imagefs.errors import LayerIndexDamaged
from imagefs.layer.changeset import Entry
from imagefs.layer.extents import Extents
from imagefs.layer.index import IndexFile, decode, encode
from imagefs.layer.tar import scan
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.attributes import directory_digest, leaf_digest
from imagefs.overlay.numbering import climbs
from tests.support.layers import dir_, file, layer, link, opaque, sparse, symlink, whiteout

LAYER = DiffId(Digest.of(b"layer"))
ENTRY = Entry(
    path=b"some/path",
    mode=stat.S_IFREG | 0o644,
    uid=1,
    gid=2,
    mtime_ns=1_600_000_000_123_456_789,
    size=10,
    target=b"target",
    is_hardlink=False,
    rdev=(3, 4),
    xattrs=((b"user.a", b"value"),),
    offset=512,
    extents=None,
    sha256=bytes(range(32)),
)
CHANGES: dict[str, dict[str, object]] = {
    "path": {"path": b"some/bath"},
    "file type": {"mode": stat.S_IFIFO | 0o644},
    "permission": {"mode": stat.S_IFREG | 0o640},
    "set-user-ID": {"mode": stat.S_IFREG | 0o4644},
    "uid": {"uid": 0},
    "gid": {"gid": 0},
    "owner and group exchanged": {"uid": 2, "gid": 1},
    "nanosecond": {"mtime_ns": 1_600_000_000_123_456_788},
    "size": {"size": 11},
    "target": {"target": b"tarred"},
    "major": {"rdev": (5, 4)},
    "minor": {"rdev": (3, 5)},
    "name of an attribute": {"xattrs": ((b"user.b", b"value"),)},
    "value of an attribute": {"xattrs": ((b"user.a", b"valve"),)},
    "bound of an attribute": {"xattrs": ((b"user.av", b"alue"),)},
    "no attributes": {"xattrs": ()},
    "bound of path and target": {"path": b"some/patht", "target": b"arget"},
    "first byte of the content": {"sha256": b"\1" + bytes(range(1, 32))},
    "last byte of the content": {"sha256": bytes(range(31)) + b"\0"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_an_entry_changes_its_digest(change: str) -> None:
    before = leaf_digest(ENTRY, layer=LAYER, position=0)
    assert leaf_digest(ENTRY._replace(**CHANGES[change]), layer=LAYER, position=0) != before  # type: ignore[arg-type]


def test_where_an_entry_is_stored_does_not_count() -> None:
    before = leaf_digest(ENTRY, layer=LAYER, position=0)
    assert leaf_digest(ENTRY._replace(offset=1024), layer=LAYER, position=0) == before
    assert leaf_digest(ENTRY, layer=DiffId(Digest.of(b"another")), position=7) == before
    assert leaf_digest(ENTRY._replace(extents=Extents.of([(0, 10)])), layer=LAYER, position=0) == before


def test_content_that_was_not_hashed_is_known_by_its_layer_and_place() -> None:
    huge = ENTRY._replace(sha256=b"")
    before = leaf_digest(huge, layer=LAYER, position=0)
    assert leaf_digest(huge, layer=LAYER, position=1) != before
    assert leaf_digest(huge, layer=DiffId(Digest.of(b"another")), position=0) != before


@pytest.mark.parametrize("change", [change for change in CHANGES if "content" not in change and "path" not in change])
def test_any_change_of_a_directory_changes_its_digest(change: str) -> None:
    entry = ENTRY._replace(mode=stat.S_IFDIR | 0o755)
    changes = {**CHANGES[change]}
    if "mode" in changes:
        changes["mode"] = stat.S_IFDIR | 0o4711
    children = [(b"a", b"1" * 32), (b"b", b"2" * 32)]
    before = directory_digest(entry, b"path", children)
    assert directory_digest(entry._replace(**changes), b"path", children) != before  # type: ignore[arg-type]


def test_any_change_in_a_directory_changes_its_digest() -> None:
    children = [(b"a", b"1" * 32), (b"b", b"2" * 32)]
    digests = [
        directory_digest(ENTRY, b"path", children),
        directory_digest(ENTRY, b"bath", children),
        directory_digest(ENTRY, b"path", children[:1]),
        directory_digest(ENTRY, b"path", [(b"a", b"1" * 32), (b"c", b"2" * 32)]),
        directory_digest(ENTRY, b"path", [(b"a", b"2" * 32), (b"b", b"1" * 32)]),
        directory_digest(ENTRY, b"path", [(b"a", b"1" * 31 + b"2"), (b"b", b"2" * 32)]),
    ]
    assert len(set(digests)) == len(digests)


# ---- the index ----

CHANGESET = scan(
    [
        layer(
            dir_("d", xattrs={"user.a": b"v"}),
            file("d/f", b"content", uid=5, gid=6, mtime_ns=7),
            symlink("d/s", "f"),
            link("d/l", "d/f"),
            link("d/m", "d/f"),
            sparse("hole", 100, [(10, b"x")]),
            whiteout("gone"),
            opaque("d"),
        )
    ]
)
RAW = encode(CHANGESET, LAYER)
RECORDS_AT = 84
RECORD = 116


def index_file(raw: bytes) -> IndexFile:
    return IndexFile(lambda size, offset: raw[offset : offset + size], LAYER)


def flipped(raw: bytes, positions: Iterator[int] | range) -> Iterator[bytes]:
    for at in positions:
        for bit in (1, 0x80):
            changed = bytearray(raw)
            changed[at] ^= bit
            yield bytes(changed)


def test_the_layout_is_the_one_that_these_tests_flip() -> None:
    first = struct.unpack_from("<IIIIIIqQQQIIIII32sII", RAW, RECORDS_AT)
    assert first[0] == stat.S_IFDIR | 0o755
    assert first[-1] == crc32(RAW[RECORDS_AT : RECORDS_AT + RECORD - 4])


def test_any_flipped_bit_of_the_header_is_noticed_without_reading_the_rest() -> None:
    for raw in flipped(RAW, range(RECORDS_AT)):
        with pytest.raises(LayerIndexDamaged):
            index_file(raw)


def test_any_flipped_bit_of_a_record_is_noticed_when_it_is_read_alone() -> None:
    for number in range(len(CHANGESET.entries)):
        start = RECORDS_AT + number * RECORD
        for raw in flipped(RAW, range(start, start + RECORD)):
            file_ = index_file(raw)
            for read in (file_.entry, file_.location, file_.has_xattrs):
                with pytest.raises(LayerIndexDamaged):
                    read(number)


def test_any_flipped_bit_of_the_part_of_an_entry_is_noticed_when_it_is_read_alone() -> None:
    heap_at = RECORDS_AT + len(CHANGESET.entries) * RECORD + 2 * 4
    for number in range(len(CHANGESET.entries)):
        fields = struct.unpack_from("<IIIIIIqQQQIIIII32sII", RAW, RECORDS_AT + number * RECORD)
        start = heap_at + fields[9]
        for raw in flipped(RAW, range(start, start + sum(fields[10:14]))):
            with pytest.raises(LayerIndexDamaged):
                index_file(raw).entry(number)


def test_an_entry_knows_how_many_names_its_layer_gives_it() -> None:
    file_ = index_file(RAW)
    assert [file_.entry(number)[1] for number in range(file_.count)] == [1, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("change", [1, -1])
def test_parts_that_do_not_follow_each_other_are_damage(change: int) -> None:
    raw = bytearray(RAW[:-32])
    start = RECORDS_AT + 2 * RECORD
    (heap_at,) = struct.unpack_from("<Q", raw, start + 48)
    struct.pack_into("<Q", raw, start + 48, heap_at + change)
    struct.pack_into("<I", raw, start + RECORD - 4, crc32(raw[start : start + RECORD - 4]))
    changeset = decode(bytes(raw) + hashlib.sha256(raw).digest(), LAYER)
    with pytest.raises(LayerIndexDamaged):
        tuple(changeset.entries)


# ---- symlinks that climb ----


@pytest.mark.parametrize(
    "target", [b"..", b"../x", b"a/..", b"a/../../x", b"a/b/../c", b"/", b"/x", b"./../x", b"a//../x"]
)
def test_targets_that_may_lead_out_of_their_directory_climb(target: bytes) -> None:
    assert climbs(target)


@pytest.mark.parametrize("target", [b"x", b"a/x", b"...", b"..a", b"a/..b", b"a/b..", b".", b"./a", b"a/./b"])
def test_targets_that_stay_below_their_directory_do_not_climb(target: bytes) -> None:
    assert not climbs(target)
