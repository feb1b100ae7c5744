"""A small language for layers: ``layer(dir_("etc"), file("etc/x", b"..."), whiteout("y"))`` gives the bytes of a tar.

Headers are written by hand, so that what no archiver would write can be said too.  Names are bytes, or str for
convenience.  What does not fit a ustar header goes into a pax header, unless *raw* fields say otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

BLOCK = 512
Name = bytes | str


@dataclass(frozen=True)
class Member:
    """One tar member as it will be written; *pax* records come before it, *data* after it."""

    name: bytes
    type: bytes = b"0"
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    pax: tuple[tuple[bytes, bytes], ...] = ()
    fields: Mapping[str, bytes] = field(default_factory=dict)
    """Raw header fields by name (see FIELDS) that replace what would be written."""


# name: (offset, length) in the header block
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "linkname": (157, 100),
    "magic": (257, 8),
    "uname": (265, 32),
    "gname": (297, 32),
    "major": (329, 8),
    "minor": (337, 8),
    "prefix": (345, 155),
    "gnu_sparse": (386, 96),
    "gnu_is_extended": (482, 1),
    "gnu_realsize": (483, 12),
    "star_trailer": (508, 4),
}
GNU_MAGIC = b"ustar  \0"
USTAR_MAGIC = b"ustar\x0000"


def encoded(name: Name) -> bytes:
    return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name


# ---- members ----


def file(
    name: Name,
    data: bytes = b"",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    xattrs: Mapping[str, bytes] | None = None,
    pax: Mapping[str, bytes] | None = None,
    fields: Mapping[str, bytes] | None = None,
) -> Member:
    """A regular file."""
    return Member(encoded(name), b"0", data, mode, uid, gid, mtime_ns, pax=_records(pax, xattrs), fields=fields or {})


def dir_(
    name: Name,
    *,
    mode: int = 0o755,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    xattrs: Mapping[str, bytes] | None = None,
    pax: Mapping[str, bytes] | None = None,
    fields: Mapping[str, bytes] | None = None,
) -> Member:
    """A directory; the name is written as given, with or without a trailing slash."""
    return Member(encoded(name), b"5", b"", mode, uid, gid, mtime_ns, pax=_records(pax, xattrs), fields=fields or {})


def symlink(
    name: Name,
    target: Name,
    *,
    mode: int = 0o777,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    xattrs: Mapping[str, bytes] | None = None,
    pax: Mapping[str, bytes] | None = None,
    fields: Mapping[str, bytes] | None = None,
) -> Member:
    records = _records(pax, xattrs)
    return Member(encoded(name), b"2", b"", mode, uid, gid, mtime_ns, encoded(target), pax=records, fields=fields or {})


def link(
    name: Name,
    target: Name,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    pax: Mapping[str, bytes] | None = None,
    fields: Mapping[str, bytes] | None = None,
) -> Member:
    """A hard link: *name* becomes another name of *target*."""
    records = _records(pax, None)
    return Member(encoded(name), b"1", b"", mode, uid, gid, mtime_ns, encoded(target), pax=records, fields=fields or {})


def fifo(
    name: Name,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    xattrs: Mapping[str, bytes] | None = None,
) -> Member:
    return Member(encoded(name), b"6", b"", mode, uid, gid, mtime_ns, pax=_records(None, xattrs))


def char(
    name: Name,
    major: int = 1,
    minor: int = 3,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    xattrs: Mapping[str, bytes] | None = None,
) -> Member:
    """A character device."""
    records = _records(None, xattrs)
    return Member(encoded(name), b"3", b"", mode, uid, gid, mtime_ns, rdev=(major, minor), pax=records)


def block(
    name: Name,
    major: int = 7,
    minor: int = 0,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime_ns: int = 0,
    xattrs: Mapping[str, bytes] | None = None,
) -> Member:
    """A block device."""
    records = _records(None, xattrs)
    return Member(encoded(name), b"4", b"", mode, uid, gid, mtime_ns, rdev=(major, minor), pax=records)


def whiteout(name: Name) -> Member:
    """Hide *name* of the layers below."""
    folder, slash, last = encoded(name).rpartition(b"/")
    return file(folder + slash + b".wh." + last)


def opaque(folder: Name = b"") -> Member:
    """Hide what the layers below have in *folder*."""
    path = encoded(folder).rstrip(b"/")
    return file(path + b"/.wh..wh..opq" if path else b".wh..wh..opq")


def sparse(name: Name, size: int, runs: Iterable[tuple[int, bytes]], *, mode: int = 0o644) -> Member:
    """A sparse file in pax format 1.0: *size* logical bytes, zeros but for *runs* of (offset, data)."""
    pieces = list(runs)
    numbers = [len(pieces)] + [number for offset, data in pieces for number in (offset, len(data))]
    head = b"".join(b"%d\n" % number for number in numbers)
    body = padded(head) + b"".join(data for _, data in pieces)
    pax = {
        "GNU.sparse.major": b"1",
        "GNU.sparse.minor": b"0",
        "GNU.sparse.name": encoded(name),
        "GNU.sparse.realsize": b"%d" % size,
    }
    return file(b"GNUSparseFile.0/" + encoded(name)[-80:], body, mode=mode, pax=pax)


# ---- bytes ----


def layer(*members: Member | bytes, end: bool = True) -> bytes:
    """Return the tar of *members* in order; bytes among them go in as they are; *end* adds the two zero blocks."""
    parts = [part if isinstance(part, bytes) else member_bytes(part) for part in members]
    return b"".join(parts) + (bytes(2 * BLOCK) if end else b"")


def member_bytes(member: Member) -> bytes:
    """Return header(s), data and padding of one member, with pax records for what ustar cannot say."""
    records = dict(member.pax)
    name, target = member.name, member.target
    if len(name) > 100 or not name.isascii() or b"\n" in name:
        records.setdefault(b"path", name)
    if len(target) > 100 or not target.isascii():
        records.setdefault(b"linkpath", target)
    for key, value in ((b"uid", member.uid), (b"gid", member.gid)):
        if not 0 <= value < 8**7:
            records.setdefault(key, b"%d" % value)
    if len(member.data) >= 8**11:
        records.setdefault(b"size", b"%d" % len(member.data))
    seconds, fraction = divmod(member.mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds < 8**11:
        records.setdefault(b"mtime", decimal_time(member.mtime_ns))
    extended = pax_header(records.items()) if records else b""
    return extended + header(member) + padded(member.data)


def header(member: Member, *, size: int | None = None) -> bytes:
    """Return the one header block of *member*; what does not fit is cut off or 0."""
    seconds = member.mtime_ns // 1_000_000_000
    values = {
        "name": member.name[:100],
        "mode": _octal(member.mode, 8),
        "uid": _octal(member.uid, 8),
        "gid": _octal(member.gid, 8),
        "size": _octal(len(member.data) if size is None else size, 12),
        "mtime": _octal(seconds, 12),
        "type": member.type,
        "linkname": member.target[:100],
        "magic": USTAR_MAGIC,
        "major": number(member.rdev[0], 8),
        "minor": number(member.rdev[1], 8),
        **member.fields,
    }
    raw = bytearray(BLOCK)
    for key, value in values.items():
        start, length = FIELDS[key]
        assert len(value) <= length, f"{key} is too long for its field"
        raw[start : start + len(value)] = value
    if "checksum" not in member.fields:
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def pax_header(records: Iterable[tuple[bytes, bytes]], *, type_: bytes = b"x") -> bytes:
    """Return an extended header member with *records*; *type_* b"g" makes it a global one."""
    body = b"".join(pax_record(key, value) for key, value in records)
    return member_bytes(Member(b"PaxHeaders.0/x", type_, body))


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def gnu_long(text: Name, *, type_: bytes = b"L") -> bytes:
    """Return a GNU long name (b"L") or long link (b"K") member for the member that follows."""
    return member_bytes(Member(b"././@LongLink", type_, encoded(text) + b"\0", fields={"magic": GNU_MAGIC}))


def number(value: int, length: int) -> bytes:
    """Return *value* as a header field of *length* bytes: octal where it fits, else base-256."""
    if 0 <= value < 8 ** (length - 1):
        return b"%0*o\0" % (length - 1, value)
    return bytes([0xFF if value < 0 else 0x80]) + value.to_bytes(length - 1, "big", signed=True)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def decimal_time(time_ns: int) -> bytes:
    sign, magnitude = (b"-" if time_ns < 0 else b""), abs(time_ns)
    return sign + b"%d.%09d" % divmod(magnitude, 1_000_000_000)


def _octal(value: int, length: int) -> bytes:
    return b"%0*o\0" % (length - 1, value if 0 <= value < 8 ** (length - 1) else 0)


def _records(pax: Mapping[str, bytes] | None, xattrs: Mapping[str, bytes] | None) -> tuple[tuple[bytes, bytes], ...]:
    records = [(encoded(key), value) for key, value in (pax or {}).items()]
    records += [(b"SCHILY.xattr." + encoded(key), value) for key, value in (xattrs or {}).items()]
    return tuple(records)
