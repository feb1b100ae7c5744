"""The layer index: what is written is read back, and nothing else is."""

import functools
import hashlib
import stat
import struct

import pytest

from imagefs.errors import LayerIndexDamaged
from imagefs.layer import index
from imagefs.layer.changeset import Changeset, Entry
from imagefs.layer.extents import Extents
from imagefs.layer.index import IndexFile, decode, encode
from imagefs.layer.tar import scan
from imagefs.oci.digest import DiffId, Digest
from tests.support.layers import block, dir_, fifo, file, layer, link, opaque, sparse, symlink, whiteout

pytestmark = pytest.mark.timeout(20)


@functools.cache
def nasty() -> Changeset:
    """Return a layer of extremes; made within a test, which ends in time where a hole is hashed without end."""
    return scan(
        [
            layer(
                dir_("", mode=0o700),
                file("f", b"x", uid=2**32 - 1, mtime_ns=-1, xattrs={"user.a": b"\0", "user.b": b""}),
                file(b"\xff\n", xattrs={"user.a": b"v" * 65536}),
                symlink("s", "/t"),
                link("h", "f"),
                fifo("p"),
                block("b", 2**32 - 1, 2**32 - 1),
                sparse("hole", 2**63 - 1, [(5, b"x"), (2**62, b"y")]),
                sparse("all hole", 7, []),
                whiteout("gone"),
                whiteout("d/gone"),
                opaque("d"),
                opaque(),
            )
        ]
    )


LAYER, OTHER = (DiffId(Digest.of(name)) for name in (b"layer", b"another layer"))


def sealed(raw: bytes) -> bytes:
    return raw + hashlib.sha256(raw).digest()


def test_every_kind_of_entry_is_read_back() -> None:
    assert decode(encode(nasty(), LAYER), LAYER) == nasty()


def test_an_empty_changeset_is_read_back() -> None:
    empty = Changeset((), frozenset(), frozenset())
    assert decode(encode(empty, LAYER), LAYER) == empty


def test_equal_changesets_give_equal_bytes() -> None:
    paths = [b"%d" % i for i in range(100)]
    first = Changeset((), frozenset(paths), frozenset(reversed(paths)))
    assert encode(first, LAYER) == encode(Changeset((), frozenset(reversed(paths)), frozenset(paths)), LAYER)


def test_a_file_may_have_no_digest() -> None:
    entry = Entry(b"f", stat.S_IFREG, 0, 0, 0, 5, b"", False, (0, 0), (), 512, Extents.of([(0, 1)]), b"")
    assert decode(encode(Changeset((entry,), frozenset(), frozenset()), LAYER), LAYER).entries == (entry,)


def test_any_cut_is_noticed() -> None:
    raw = encode(nasty(), LAYER)
    for length in [*range(200), *range(200, len(raw), 997), len(raw) - 1]:
        with pytest.raises(LayerIndexDamaged):
            decode(raw[:length], LAYER)
    with pytest.raises(LayerIndexDamaged):
        decode(raw + b"x", LAYER)


def test_any_flipped_byte_is_noticed() -> None:
    raw = encode(nasty(), LAYER)
    for at in [*range(400), *range(400, len(raw), 997), *range(len(raw) - 40, len(raw))]:
        broken = bytearray(raw)
        broken[at] ^= 0x10
        with pytest.raises(LayerIndexDamaged):
            decode(bytes(broken), LAYER)


def test_the_index_of_another_layer_is_damaged() -> None:
    raw = encode(nasty(), OTHER)
    with pytest.raises(LayerIndexDamaged, match="another layer"):
        decode(raw, LAYER)
    with pytest.raises(LayerIndexDamaged, match="another layer"):
        IndexFile(lambda size, offset: raw[offset : offset + size], LAYER)
    assert IndexFile(lambda size, offset: raw[offset : offset + size], OTHER).count == len(nasty().entries)


def test_another_version_is_outdated() -> None:
    raw = bytearray(encode(nasty(), LAYER)[:-32])
    struct.pack_into("<I", raw, 8, index.INDEX_VERSION + 1)
    with pytest.raises(LayerIndexDamaged, match=f"not {index.INDEX_VERSION}") as caught:
        decode(sealed(bytes(raw)), LAYER)
    assert caught.value.is_outdated


def test_numbers_that_lie_under_a_good_seal_are_noticed() -> None:
    raw = encode(nasty(), LAYER)[:-32]
    for at in range(8, 8 + 8 + 4 * 8 + 32 + 4 + 3 * len(nasty().entries)):
        for value in (0, 1, 0x7F, 0xFF):
            broken = bytearray(raw)
            broken[at] = value
            try:
                assert isinstance(decode(sealed(bytes(broken)), LAYER), Changeset)
            except LayerIndexDamaged:
                pass


RECORDS_AT, RECORD = 84, 116


def one_entry() -> bytes:
    """Return the unsealed index of one file, with an attribute, and of one whiteout."""
    entry = Entry(b"f", stat.S_IFREG, 0, 0, 0, 5, b"", False, (0, 0), ((b"user.a", b"v"),), 512, None, b"1" * 32)
    return encode(Changeset((entry,), frozenset([b"gone"]), frozenset()), LAYER)[:-32]


def test_bytes_behind_the_paths_are_damage_under_a_good_seal() -> None:
    assert decode(sealed(one_entry()), LAYER).whiteouts == {b"gone"}
    with pytest.raises(LayerIndexDamaged, match="should end"):
        decode(sealed(one_entry() + b"x"), LAYER)


@pytest.mark.parametrize("change", [1, -1])
def test_a_marker_that_is_longer_or_shorter_than_its_path_is_damage(change: int) -> None:
    raw = bytearray(one_entry())
    marker_at = RECORDS_AT + RECORD
    struct.pack_into("<I", raw, marker_at, len(b"gone") + change)
    with pytest.raises(LayerIndexDamaged, match="less or more"):
        decode(sealed(bytes(raw)), LAYER)


@pytest.mark.parametrize("change", [1, -1])
def test_an_attribute_that_is_longer_or_shorter_than_its_place_is_damage(change: int) -> None:
    raw = bytearray(one_entry())
    value_length_at = RECORDS_AT + RECORD + 4 + len(b"f") + 4
    assert struct.unpack_from("<I", raw, value_length_at) == (1,)
    struct.pack_into("<I", raw, value_length_at, 1 + change)
    changeset = decode(sealed(bytes(raw)), LAYER)
    with pytest.raises(LayerIndexDamaged, match="attributes"):
        tuple(changeset.entries)


def test_an_index_that_is_cut_after_it_was_opened_is_damaged() -> None:
    changeset = scan([layer(file("a"), file("name"))])
    raw = bytearray(encode(changeset, LAYER))
    entries = index.read_changeset(lambda size, offset: bytes(raw[offset : offset + size]), len(raw), LAYER).entries
    assert tuple(entries) == tuple(changeset.entries)
    del raw[RECORDS_AT + 2 * RECORD + len(b"an") :]
    with pytest.raises(LayerIndexDamaged, match="more than it holds"):
        tuple(entries)
