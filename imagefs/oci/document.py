"""JSON documents from strangers: bounded, unambiguous, and typed where they are read.

Receives the bytes of a manifest, index, config or archive document; hands on plain Python values, and fields of the
type that was asked for.  Must never know what a field means.

Parsers disagree about duplicate keys, NaN and broken Unicode, and a document that two tools read differently can show
one of them something else than was checked by the other; so such documents are refused, not interpreted.
"""

import json
import math
import re
from collections.abc import Mapping

from imagefs.errors import InvalidManifest, printable

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "array_field",
    "integer_field",
    "mapping",
    "mapping_field",
    "parse_json",
    "string_field",
    "string_map_field",
    "strings_field",
]

MAX_DEPTH = 64
"""Deepest allowed nesting.  Real manifests need 5 and configs 6; the JSON parser recurses, with about 1000 to spend."""

MAX_VALUES = 250_000
"""Most separators and brackets in one document.  The largest real ones have some thousands; without a bound, 4 MiB of
``[],[],…`` become a hundred times that in memory."""

MAX_INTEGER_DIGITS = 20
"""Longest number that is read as an integer: enough for 64 bits and a sign."""

# The closing quote is optional so that an unending string costs one look at it, not one from each of its quotes.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Refused(Exception):
    """Carries a reason out of the JSON parser's callbacks."""


def parse_json(raw: bytes, *, what: str, limit_bytes: int) -> object:
    """Return the value of the JSON document *raw*, which must be UTF-8 of at most *limit_bytes*.

    Refused are duplicate keys, NaN, infinities, numbers beyond any 64-bit field, strings that are no Unicode text, and
    more nesting or values than `MAX_DEPTH` and `MAX_VALUES`.  *what* names the document in errors.

    Raises: InvalidManifest, and nothing else for any bytes.
    """
    if len(raw) > limit_bytes:
        raise InvalidManifest(what, f"expected at most {limit_bytes} bytes, found {len(raw)}")
    try:
        text = raw.decode("utf-8")
        _check_structure(raw)
        value: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
        if b"\\u" in raw:  # decoding UTF-8 lets no surrogate in; only an escape can
            _check_text(value)
    except UnicodeDecodeError as error:
        raise InvalidManifest(what, f"expected UTF-8 text, found the byte 0x{raw[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        reason = f"expected JSON, found something else at byte {len(text[: error.pos].encode())}: {error.msg}"
        raise InvalidManifest(what, reason) from None
    except RecursionError:
        raise InvalidManifest(what, "nested too deeply") from None
    except _Refused as error:
        raise InvalidManifest(what, str(error)) from None
    return value


# ---- reading fields ----


def mapping(value: object, *, what: str) -> Mapping[str, object]:
    """Return *value* as the object it must be.  Raises: InvalidManifest."""
    if not isinstance(value, dict):
        raise InvalidManifest(what, f"expected a JSON object, found {_kind(value)}")
    return value


def string_field(value: Mapping[str, object], key: str, *, what: str, default: str | None = None) -> str:
    """Return a string; *default* where it is absent or null, and an error where that is None."""
    found = value.get(key)
    if found is None and default is not None:
        return default
    if not isinstance(found, str):
        raise _wrong(what, key, "a string", found)
    return found


def integer_field(value: Mapping[str, object], key: str, *, what: str, maximum: int, minimum: int = 0) -> int:
    """Return an integer from *minimum* to *maximum*; absent is an error."""
    found = value.get(key)
    if not isinstance(found, int) or isinstance(found, bool):
        raise _wrong(what, key, "an integer", found)
    if not minimum <= found <= maximum:
        bounds = f"{minimum}" if minimum == maximum else f"from {minimum} to {maximum}"
        raise InvalidManifest(what, f"expected {bounds} as '{key}', found {found}")
    return found


def array_field(value: Mapping[str, object], key: str, *, what: str, limit: int) -> list[object]:
    """Return an array of at most *limit* values; empty where it is absent or null, as Go's tools write no values."""
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise _wrong(what, key, "an array", found)
    if len(found) > limit:
        raise InvalidManifest(what, f"expected at most {limit} values in '{key}', found {len(found)}")
    return found


def strings_field(value: Mapping[str, object], key: str, *, what: str, limit: int) -> tuple[str, ...]:
    """Return an array of at most *limit* strings; empty where it is absent or null."""
    found = array_field(value, key, what=what, limit=limit)
    return tuple(string_field({f"{key}[{i}]": text}, f"{key}[{i}]", what=what) for i, text in enumerate(found))


def mapping_field(value: Mapping[str, object], key: str, *, what: str) -> Mapping[str, object]:
    """Return an object; empty where it is absent or null."""
    found = value.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong(what, key, "an object", found)
    return found


def string_map_field(value: Mapping[str, object], key: str, *, what: str) -> tuple[tuple[str, str], ...]:
    """Return an object of strings as pairs, in document order; empty where absent or null, "" for a null value."""
    pairs = []
    for name, text in mapping_field(value, key, what=what).items():
        if text is not None and not isinstance(text, str):
            raise _wrong(what, f"{key}.{name}", "a string", text)
        pairs.append((name, text or ""))
    return tuple(pairs)


def _wrong(what: str, key: str, expected: str, found: object) -> InvalidManifest:
    return InvalidManifest(what, f"expected {expected} as '{printable(key)}', found {_kind(found)}")


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string '{printable(value, limit=60)}'"
        case int() | float():
            return f"the number {value}"
        case list():
            return "an array"
    return "an object"


# ---- bounds ----


def _check_structure(raw: bytes) -> None:
    """Refuse too much nesting and too many values before the parser allocates or recurses."""
    structure = _STRING.sub(b"", raw)
    if structure.count(b",") + structure.count(b"[") + structure.count(b"{") > MAX_VALUES:
        raise _Refused(f"expected at most {MAX_VALUES} values")
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", structure):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise _Refused(f"expected at most {MAX_DEPTH} levels of nesting")
        if depth < 0:
            return  # the parser says it better


def _check_text(value: object) -> None:
    """Refuse strings with half a surrogate pair, which no encoder can write again."""
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise _Refused(f"expected Unicode text, found half a character in '{printable(value, limit=60)}'")
    elif isinstance(value, dict):
        for key, member in value.items():
            _check_text(key)
            _check_text(member)
    elif isinstance(value, list):
        for member in value:
            _check_text(member)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Refused(f"expected each key once, found '{printable(name, limit=60)}' twice")
            seen.add(name)
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise _Refused(f"expected numbers of at most {MAX_INTEGER_DIGITS} digits, found one of {len(digits)}")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Refused(f"expected a finite number, found {printable(digits, limit=60)}")
    return number


def _constant(name: str) -> float:
    raise _Refused(f"expected a finite number, found {name}")
