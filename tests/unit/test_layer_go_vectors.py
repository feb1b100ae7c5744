"""The scanner against the vectors of Go's archive/tar: same headers, same contents, same refusals."""

import bz2
import hashlib
import json
import stat
from typing import Any

import pytest

from imagefs.errors import InvalidLayer
from imagefs.layer.changeset import Entry
from imagefs.layer.tar import scan
from tests.support.data import data_dir, needs_data

DATA = data_dir()
ROWS: list[dict[str, Any]] = json.loads((DATA / "tables/go_tar_reader.json").read_text()) if DATA else []

FORMATS = {
    "0": stat.S_IFREG,
    "S": stat.S_IFREG,
    "2": stat.S_IFLNK,
    "5": stat.S_IFDIR,
    "D": stat.S_IFDIR,
}
# Vectors of archive/tar without a row in the table, and what must come of them.
OTHERS = {
    "file-and-dir.tar": 2,
    "gnu-sparse-big.tar": 1,
    "hardlink.tar": 2,
    "hdr-only.tar": 16,
    "pax-path-hdr.tar": 0,
    "pax-sparse-big.tar": 1,
    "ustar-file-reg.tar": 1,
    "ustar.tar": 1,
    "writer-big-long.tar": 1,
    "writer.tar": 3,
}
# Where the table and the file disagree: the header of this one says group 1750 (octal), as Go's own test expects.
CORRECTIONS = {"gnu-utf8.tar": {"gid": 1000}}
# Go's reader is content with the header of a file whose data are missing; a layer cannot be.
CUT_OFF = {"writer-big.tar", "writer-big-long.tar"}


def raw_of(name: str) -> bytes:
    assert DATA is not None
    raw = (DATA / "tar" / name).read_bytes()
    return bz2.decompress(raw) if name.endswith(".bz2") else raw


def content(raw: bytes, entry: Entry) -> bytes:
    if entry.extents is None:
        return raw[entry.offset : entry.offset + entry.size]
    logical = bytearray(entry.size)
    at = entry.offset
    for offset, length in entry.extents:
        logical[offset : offset + length] = raw[at : at + length]
        at += length
    return bytes(logical)


def encoded(name: str) -> bytes:
    # the table writes bytes that are no UTF-8 as the characters of the same numbers
    return name.encode("latin-1") if name.isascii() or all(c < "\x80" or c <= "\xff" for c in name) else name.encode()


@needs_data
@pytest.mark.parametrize("row", [row for row in ROWS if "err" not in row], ids=lambda row: row["file"])
def test_headers_are_what_go_reads(row: dict[str, Any]) -> None:
    raw = raw_of(row["file"])
    entries = scan([raw]).entries
    headers = [header for header in row["headers"] if header["type"] != "g"]  # checked and ignored
    assert len(entries) == len(headers)
    for entry, written in zip(entries, headers, strict=True):
        header = {**written, **CORRECTIONS.get(row["file"], {})}
        is_directory = header["type"] in "5D"
        assert entry.path == encoded(header["name"]).rstrip(b"/")
        assert stat.S_IFMT(entry.mode) == FORMATS[header["type"]]
        assert stat.S_IMODE(entry.mode) == header.get("mode", 0) & 0o7777
        assert (entry.uid, entry.gid) == (header.get("uid", 0), header.get("gid", 0))
        assert entry.size == (0 if is_directory else header.get("size", 0))
        assert entry.mtime_ns == header["mtime"][0] * 10**9 + header["mtime"][1]
        assert entry.target == encoded(header.get("linkname", ""))
        xattrs = {
            key.removeprefix("SCHILY.xattr.").encode(): value.encode()
            for key, value in header.get("pax", {}).items()
            if key.startswith("SCHILY.xattr.") and not key.endswith("security.selinux")
        }
        assert dict(entry.xattrs) == xattrs
    for entry, md5 in zip(entries, row.get("md5", []), strict=False):
        assert hashlib.md5(content(raw, entry)).hexdigest() == md5
    for entry in entries:
        if stat.S_ISREG(entry.mode) and entry.size <= 1 << 20:
            assert entry.sha256 == hashlib.sha256(content(raw, entry)).digest()


@needs_data
@pytest.mark.parametrize("row", [row for row in ROWS if "err" in row], ids=lambda row: row["file"])
def test_what_go_refuses_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidLayer):
        scan([raw_of(row["file"])])


@needs_data
@pytest.mark.parametrize("name", sorted(OTHERS))
def test_other_vectors_are_read(name: str) -> None:
    if name in CUT_OFF or OTHERS[name] == 0:
        with pytest.raises(InvalidLayer, match=r"cut off|ends after"):
            scan([raw_of(name)])
    else:
        assert len(scan([raw_of(name)]).entries) == OTHERS[name]


@needs_data
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
@pytest.mark.parametrize("step", [1, 7, 511, 512, 513])
def test_splits_do_not_matter(row: dict[str, Any], step: int) -> None:
    raw = raw_of(row["file"])[: 64 * 1024]
    assert outcome([raw[at : at + step] for at in range(0, len(raw), step)]) == outcome([raw])


def outcome(chunks: list[bytes]) -> object:
    try:
        return scan(chunks)
    except InvalidLayer as error:
        return str(error)


@needs_data
def test_every_vector_is_accounted_for() -> None:
    assert DATA is not None
    there = {path.name for path in (DATA / "tar").iterdir()} - {"SOURCE.txt"}
    assert there == {row["file"] for row in ROWS} | set(OTHERS) | CUT_OFF
