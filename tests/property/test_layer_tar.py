"""What the language of layers says is what the scanner reads, in any split; any bytes are a changeset or refused."""

import hashlib
import io
import stat
import tarfile
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import InvalidLayer
from imagefs.layer.changeset import Changeset
from imagefs.layer.tar import scan
from tests.support.layers import (
    Member,
    block,
    char,
    dir_,
    fifo,
    file,
    layer,
    link,
    opaque,
    sparse,
    symlink,
    whiteout,
)

COMPONENTS = st.one_of(
    st.binary(min_size=1, max_size=6), st.sampled_from([b"a", b"b", b".hidden", "é".encode(), b"n" * 255])
).filter(lambda name: not {b"/", b"\0"} & {name[i : i + 1] for i in range(len(name))} and name not in (b".", b".."))
PATHS = st.lists(COMPONENTS.filter(lambda name: b".wh." not in name), min_size=1, max_size=4).map(b"/".join)
TIMES = st.integers(-(2**62), 2**62)
OWNERS = st.integers(0, 2**32 - 1)
MODES = st.integers(0, 0o7777)
ATTRIBUTES = st.dictionaries(
    st.text("abc.", min_size=1, max_size=5).map("user.".__add__), st.binary(max_size=20), max_size=3
)
COMMON = {"mode": MODES, "uid": OWNERS, "gid": OWNERS, "mtime_ns": TIMES}
TARGETS = st.binary(min_size=1, max_size=150).filter(lambda text: b"\0" not in text)
DEVICES = st.integers(0, 2**32 - 1)

MEMBERS = st.one_of(
    st.builds(file, PATHS, st.binary(max_size=1500), xattrs=ATTRIBUTES, **COMMON),
    st.builds(dir_, PATHS, xattrs=ATTRIBUTES, **COMMON),
    st.builds(symlink, PATHS, TARGETS, xattrs=ATTRIBUTES, **COMMON),
    st.builds(link, PATHS, PATHS, **COMMON),
    st.builds(fifo, PATHS, xattrs=ATTRIBUTES, **COMMON),
    st.builds(char, PATHS, DEVICES, DEVICES, xattrs=ATTRIBUTES, **COMMON),
    st.builds(block, PATHS, DEVICES, DEVICES, xattrs=ATTRIBUTES, **COMMON),
)
SPLITS = st.lists(st.integers(1, 3000), max_size=40)
FORMS = {
    b"0": stat.S_IFREG,
    b"5": stat.S_IFDIR,
    b"2": stat.S_IFLNK,
    b"1": 0,
    b"6": stat.S_IFIFO,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
}


def split(raw: bytes, lengths: list[int]) -> list[bytes]:
    chunks = []
    at = 0
    for length in lengths:
        chunks.append(raw[at : at + length])
        at += length
    return [*chunks, raw[at:]]


def outcome(chunks: list[bytes]) -> Changeset | str:
    try:
        return scan(chunks)
    except InvalidLayer as error:
        return str(error)


@given(st.lists(MEMBERS, max_size=6), SPLITS, st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_what_is_scanned(members: list[Member], lengths: list[int], end: bool) -> None:
    raw = layer(*members, end=end)
    changes = scan(split(raw, lengths))
    assert len(changes.entries) == len(members)
    for entry, member in zip(changes.entries, members, strict=True):
        assert entry.path == member.name
        assert entry.mode == FORMS[member.type] | member.mode
        assert (entry.uid, entry.gid, entry.mtime_ns) == (member.uid, member.gid, member.mtime_ns)
        assert (entry.target, entry.rdev) == (member.target, member.rdev)
        assert entry.is_hardlink == (member.type == b"1")
        written = {key.removeprefix(b"SCHILY.xattr."): value for key, value in member.pax}
        assert entry.xattrs == tuple(sorted(written.items()))
        assert entry.size == len(member.data)
        if member.type == b"0":
            assert raw[entry.offset : entry.offset + entry.size] == member.data
            assert entry.sha256 == hashlib.sha256(member.data).digest()


@given(st.lists(PATHS, max_size=5), st.lists(PATHS, max_size=5), st.lists(MEMBERS, max_size=3), st.randoms())
@settings(max_examples=100, deadline=None)
def test_markers_are_sets_wherever_they_stand(
    gone: list[bytes], emptied: list[bytes], members: list[Member], random: Random
) -> None:
    parts = [*map(whiteout, gone), *map(opaque, emptied), *members]
    random.shuffle(parts)
    changes = scan([layer(*parts)])
    assert changes.whiteouts == set(gone)
    assert changes.opaques == set(emptied)
    assert len(changes.entries) == len(members)


@given(
    st.lists(st.tuples(st.integers(1, 200), st.binary(min_size=1, max_size=100)), max_size=30),
    st.integers(0, 500),
    SPLITS,
)
@settings(max_examples=100, deadline=None)
def test_sparse_files_are_read_as_their_logical_content(
    gaps: list[tuple[int, bytes]], tail: int, lengths: list[int]
) -> None:
    content = bytearray()
    runs = []
    for gap, data in gaps:
        content += bytes(gap)
        runs.append((len(content), data))
        content += data
    content += bytes(tail)
    (entry,) = scan(split(layer(sparse("f", len(content), runs)), lengths)).entries
    assert entry.size == len(content)
    assert entry.sha256 == hashlib.sha256(content).digest()


@given(
    st.lists(MEMBERS, max_size=4),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=12)), max_size=6),
    st.integers(0, 3000),
    SPLITS,
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_changeset_or_an_invalid_layer_whatever_the_split(
    members: list[Member], patches: list[tuple[int, bytes]], cut: int, lengths: list[int]
) -> None:
    raw = bytearray(layer(*members))
    for at, patch in patches:
        at %= len(raw)
        raw[at : at + len(patch)] = patch
        start = at - at % 512
        header = raw[start : start + 512]
        if len(header) == 512:  # keep the checksum right, or nothing behind it is ever reached
            header[148:156] = b" " * 8
            raw[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    whole = bytes(raw[: max(0, len(raw) - cut)])
    assert outcome(split(whole, lengths)) == outcome([whole])


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_an_invalid_layer_or_nothing(raw: bytes) -> None:
    result = outcome([raw])
    assert isinstance(result, str) or not result.entries


@given(
    st.lists(st.tuples(st.text("ab/.é", min_size=1, max_size=300), st.binary(max_size=600)), max_size=6),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=100, deadline=None)
def test_archives_of_the_standard_library_are_read(files: list[tuple[str, bytes]], form: int) -> None:
    buffer = io.BytesIO()
    written = []
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files:
            info = tarfile.TarInfo("x" + name.replace("/", "_"))
            info.size, info.mtime = len(data), 1_000_000
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # too long for ustar
                continue
            written.append((info.name.encode(), data))
    result = outcome([buffer.getvalue()])
    if isinstance(result, str):
        assert any(len(name) > 255 for name, _ in written)
    else:
        assert [(entry.path, entry.sha256) for entry in result.entries] == [
            (name, hashlib.sha256(data).digest()) for name, data in written
        ]
