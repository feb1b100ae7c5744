"""Any changeset survives the way to the disk and back; any bytes give a changeset or LayerIndexDamaged."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import LayerIndexDamaged
from imagefs.layer.changeset import Changeset, Entry
from imagefs.layer.extents import Extents
from imagefs.layer.index import decode, encode
from imagefs.oci.digest import DiffId, Digest

LAYER = DiffId(Digest.of(b"layer"))
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**63 - 1)
TEXT = st.binary(max_size=20)

ENTRIES = st.builds(
    Entry,
    path=TEXT,
    mode=UINT32,
    uid=UINT32,
    gid=UINT32,
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    size=UINT64,
    target=TEXT,
    is_hardlink=st.booleans(),
    rdev=st.tuples(UINT32, UINT32),
    xattrs=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    offset=UINT64,
    extents=st.none() | st.lists(st.tuples(UINT64, UINT64), max_size=3).map(Extents.of),
    sha256=st.sampled_from([b"", bytes(32), b"x" * 32]),
)
CHANGESETS = st.builds(
    Changeset,
    entries=st.lists(ENTRIES, max_size=8).map(tuple),
    whiteouts=st.frozensets(TEXT),
    opaques=st.frozensets(TEXT),
)


@given(CHANGESETS)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back(changeset: Changeset) -> None:
    assert decode(encode(changeset, LAYER), LAYER) == changeset


@given(
    CHANGESETS,
    st.lists(st.tuples(st.integers(8, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 50),
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_changeset_or_damaged(changeset: Changeset, flips: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(encode(changeset, LAYER)[:-32])
    for at, value in flips:
        raw[at % len(raw)] = value
    body = bytes(raw[: len(raw) - cut])
    try:
        tuple(decode(body + hashlib.sha256(body).digest(), LAYER).entries)
    except LayerIndexDamaged:
        pass


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_damaged(raw: bytes) -> None:
    try:
        decode(raw, LAYER)
    except LayerIndexDamaged:
        return
    raise AssertionError("accepted")
