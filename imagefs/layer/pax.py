"""The records of pax extended headers.

Receives the body of an extended header; hands on its records, and reads numbers, times and extended attributes from
them.  It must never know headers, or which member the records are for.

Source: POSIX pax, "pax Extended Header"; Go archive/tar, strconv.go; libarchive, archive_read_support_format_tar.c.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from imagefs.errors import InvalidLayer
from imagefs.layer.header import INT64_MAX

MAX_EXTENDED_BYTES = 1 << 20
"""Of one extended header or GNU long name, as in Go and libarchive: a megabyte for a name is an attack."""

MAX_XATTR_NAME_BYTES = 255
MAX_XATTR_VALUE_BYTES = 64 * 1024
MAX_XATTR_LIST_BYTES = 64 * 1024
"""The kernel's XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX (names with a NUL after each): what goes beyond can
neither be set by an extractor nor be read through any file system, so such a layer cannot be applied."""

HOST_XATTRS = frozenset({b"security.selinux", b"system.nfs4_acl"})
"""Dropped, as umoci does: SELinux labels and NFSv4 ACLs belong to the machine that built the image.

umoci drops no others.  It renames ``user.overlay.*`` and ``trusted.overlay.*`` where it extracts for overlayfs; to a
plain folder, and so here, they are attributes like any other."""

_GNU_RUN_OFFSET = b"GNU.sparse.offset"
_GNU_RUN_LENGTH = b"GNU.sparse.numbytes"
GNU_MAP = b"GNU.sparse.map"

_SCHILY_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."
_TEXT_KEYS = frozenset({b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.name"})

_MAX_LENGTH_DIGITS = 20
_NANOSECOND_DIGITS = 9


def parse(body: bytes) -> dict[bytes, bytes]:
    """Return the records of an extended header by key; of equal keys the last counts.

    The pairs of records that GNU's sparse format 0.0 repeats are joined into one ``GNU.sparse.map``, as format 0.1
    has it.

    Raises: InvalidLayer, where *body* is not a row of complete records, and for NULs in keys and names.
    """
    records: dict[bytes, bytes] = {}
    runs: list[bytes] = []
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + _MAX_LENGTH_DIGITS + 1)
        digits = body[at:space]
        if space < 0 or not digits.isdigit():
            raise InvalidLayer(f"expected the length of a pax record, found {body[at : at + 8]!r}")
        stop = at + int(digits)
        equals = body.find(b"=", space + 1, stop - 1)
        if equals <= space + 1 or stop > len(body) or body[stop - 1] != 0x0A:
            raise InvalidLayer("a pax record is not of the form 'length key=value' and a newline")
        key, value = body[space + 1 : equals], body[equals + 1 : stop - 1]
        at = stop
        if b"\0" in key or (key in _TEXT_KEYS and b"\0" in value):
            raise InvalidLayer(f"the pax record {key[:40]!r} holds a NUL")
        if key in (_GNU_RUN_OFFSET, _GNU_RUN_LENGTH):
            if key != (_GNU_RUN_LENGTH if len(runs) % 2 else _GNU_RUN_OFFSET) or b"," in value:
                raise InvalidLayer("the offsets and lengths of a sparse file do not alternate")
            runs.append(value)
        else:
            records[key] = value
    if runs:
        records[GNU_MAP] = b",".join(runs)
    return records


def integer(text: bytes, what: str) -> int:
    """Return a decimal number, which may have a sign; *what* is its name for the error.

    Raises: InvalidLayer, if *text* is no such number or does not fit a signed 64-bit integer.
    """
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    # Zeros go first, and length is looked at before value: int() takes quadratic time.
    significant = digits.lstrip(b"0")
    if digits.isdigit() and len(significant) <= 19:
        value = int(significant or b"0")
        if value <= INT64_MAX:
            return -value if text[:1] == b"-" else value
    raise InvalidLayer(f"expected a decimal number for {what}, found {text[:40]!r}")


def time_ns(text: bytes) -> int:
    """Return a decimal number of seconds as nanoseconds, exactly; further digits are cut off.

    Raises: InvalidLayer, if *text* is no such number.
    """
    seconds, _, fraction = text.partition(b".")
    if fraction and not fraction.isdigit():
        raise InvalidLayer(f"expected a time in seconds, found {text[:40]!r}")
    nanoseconds = int(fraction[:_NANOSECOND_DIGITS].ljust(_NANOSECOND_DIGITS, b"0"))
    whole = integer(seconds, "a time") * 1_000_000_000
    return whole - nanoseconds if seconds.startswith(b"-") else whole + nanoseconds


def xattrs(records: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes among *records*, sorted by name, without those of `HOST_XATTRS`.

    Where star's and libarchive's spelling give the same attribute, star's counts: it is what docker reads.

    Raises: InvalidLayer, if one cannot be decoded, or if no kernel would keep them.
    """
    schily: dict[bytes, bytes] = {}
    libarchive: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_SCHILY_XATTR):
            schily[key.removeprefix(_SCHILY_XATTR)] = value
        elif key.startswith(_LIBARCHIVE_XATTR):
            name = unquote_to_bytes(key.removeprefix(_LIBARCHIVE_XATTR))
            libarchive[name] = _base64(value)
    if not schily and not libarchive:
        return ()
    found = {**libarchive, **schily}
    list_bytes = 0
    for name, value in found.items():
        if not 0 < len(name) <= MAX_XATTR_NAME_BYTES or b"\0" in name:
            raise InvalidLayer(f"expected an attribute name of 1 to {MAX_XATTR_NAME_BYTES} bytes, found {name[:40]!r}")
        if len(value) > MAX_XATTR_VALUE_BYTES:
            raise InvalidLayer(f"the attribute {name!r} has {len(value)} bytes, more than any kernel keeps")
        list_bytes += len(name) + 1
    if list_bytes > MAX_XATTR_LIST_BYTES:
        raise InvalidLayer(f"the names of {len(found)} attributes take more bytes than any kernel lists")
    return tuple(sorted((name, value) for name, value in found.items() if name not in HOST_XATTRS))


def _base64(text: bytes) -> bytes:
    # libarchive writes no padding
    try:
        return a2b_base64(text.rstrip(b"=\n") + b"===", strict_mode=False)
    except Base64Error:
        raise InvalidLayer(f"expected base64 in an attribute, found {text[:40]!r}") from None
