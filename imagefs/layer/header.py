"""The 512-byte header block of a tar member.

Receives one block; hands on its fields as numbers and bytes, as written, with name prefixes joined.  It must never
know what a member means, or that extended headers may override it.

Understood are v7, ustar, star and GNU headers, told apart as Go's archive/tar does, which is the reader behind docker,
containerd, podman and umoci: where readers disagree, a layer is what that one makes of it.

Source: POSIX pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"; Go archive/tar, format.go.
"""

import stat
from functools import lru_cache
from struct import Struct
from zlib import adler32

from imagefs.errors import InvalidLayer

BLOCK_BYTES = 512
ZERO_BLOCK = bytes(BLOCK_BYTES)
INT64_MAX = 2**63 - 1
_UINT32_MAX = 2**32 - 1

HARD_LINK, SYMLINK = b"1", b"2"
GNU_SPARSE, GNU_DUMPDIR, VOLUME_LABEL = b"S", b"D", b"V"
PLAIN = frozenset({b"0", b"\0"})
"""Types of members for which a plain name that ends in a slash means a directory."""
FORMS = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,  # "contiguous": a wish about the disk
    GNU_SPARSE: stat.S_IFREG,
    HARD_LINK: 0,
    SYMLINK: stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    GNU_DUMPDIR: stat.S_IFDIR,  # its data list what the directory held once
    b"6": stat.S_IFIFO,
}
"""The file type of each type of member; a hard link has that of its target."""

_GNU_MAGIC = b"ustar  \0"
_USTAR_MAGIC = b"ustar\0"
_STAR_TRAILER = b"tar\0"

_FIELDS = Struct("100s8s8s8s12s12s8sc100s8s64x8s8s")
_PREFIX = slice(345, 500)
_STAR_PREFIX = slice(345, 476)
_GNU_TIMES = (slice(345, 357), slice(357, 369))

_NO_HEADER = "expected the header of a member, found something else (its checksum is wrong)"

_CACHED_NUMBERS = 8192
"""Owners, modes and times repeat from member to member; a cache hit costs a fifth of parsing."""


Header = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bool]
"""name, mode, uid, gid, size, mtime, type, linkname, major, minor, and whether the header is GNU's.

Numeric fields are still as written, see `number`.  A bare tuple, because one is made for every member."""


def parse(block: bytes) -> Header:
    """Return the fields of *block*, which has 512 bytes.

    Raises: InvalidLayer, where the checksum is wrong: the block is then no header at all.
    """
    name, mode, uid, gid, size, mtime, checksum, type_, linkname, magic, major, minor = _FIELDS.unpack_from(block)
    # zlib's Adler-32 keeps 1 + the sum of the bytes in its low half, exact for up to 256 bytes, and is ten times as
    # fast as sum().
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    if total != _expected_total(checksum):
        _verify_signed_checksum(block)
    name = name.partition(b"\0")[0]
    is_gnu = False
    if magic == _GNU_MAGIC:
        is_gnu = True
        if block[345]:
            name = _with_mistaken_prefix(block, name)
    elif magic[:6] == _USTAR_MAGIC:
        if block[345]:
            prefix = block[_STAR_PREFIX if block.endswith(_STAR_TRAILER) else _PREFIX].partition(b"\0")[0]
            name = prefix + b"/" + name
    else:
        major = minor = b"\0"  # v7 has no such fields
    linkname = linkname.partition(b"\0")[0] if linkname[0] else b""
    return name, mode, uid, gid, size, mtime, type_, linkname, major, minor, is_gnu


@lru_cache(maxsize=_CACHED_NUMBERS)
def number(field: bytes) -> int:
    """Return what a numeric header field says, octal or base-256 (which may be negative); an empty field is 0.

    Raises: InvalidLayer, for anything else and for what does not fit a signed 64-bit integer.
    """
    if field[0] & 0x80:
        # A two's complement number, but for its first bit, which marks the format.
        size = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << size) - 1)
        if value >> (size - 1):
            value -= 1 << size
        if not -INT64_MAX <= value + (value < 0) <= INT64_MAX:
            raise InvalidLayer("a number in a header is too big for 64 bits")
        return value
    text = field.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    # int() alone would take signs, underscores and "0o" too
    if not text.isdigit() or b"8" in text or b"9" in text:
        raise InvalidLayer(f"expected an octal number in a header, found {field!r}")
    return int(text, 8)


@lru_cache(maxsize=_CACHED_NUMBERS)
def _expected_total(checksum: bytes) -> int:
    """Return what all bytes of a block should add up to, given its checksum field, which counts as eight spaces."""
    try:
        return number(checksum) - 8 * 0x20 + sum(checksum)
    except InvalidLayer:
        raise InvalidLayer(_NO_HEADER) from None


def _verify_signed_checksum(block: bytes) -> None:
    """Accept the checksum of Sun's tar, which adds signed bytes."""
    others = block[:148] + b" " * 8 + block[156:]
    signed = sum(others) - 256 * sum(byte > 0x7F for byte in others)
    if signed != number(block[148:156]):
        raise InvalidLayer(_NO_HEADER)


def _with_mistaken_prefix(block: bytes, name: bytes) -> bytes:
    """Join the ustar prefix that Go before 1.8 wrote into GNU headers, over the access and change times.

    As Go reads it since: a prefix if the fields are no times, and it is ASCII.  https://golang.org/issue/12594
    """
    try:
        for field in _GNU_TIMES:
            if block[field.start]:
                number(block[field])
    except InvalidLayer:
        prefix = block[_PREFIX].partition(b"\0")[0]
        return prefix + b"/" + name if prefix.isascii() else name
    return name


def device(field: bytes) -> int:
    """Return the major or minor number that *field* holds.

    Raises: InvalidLayer.
    """
    value = number(field)
    if not 0 <= value <= _UINT32_MAX:
        raise InvalidLayer(f"expected a device number of 0 to {_UINT32_MAX}, found {value}")
    return value
