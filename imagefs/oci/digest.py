"""Content digests: their text form, and the stream that refuses to end on the wrong bytes.

Receives digest strings and chunks of bytes from anywhere; hands on `Digest` values that are safe in a path or URL and
streams that are verified at their end.  Must never know where bytes come from or go to.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

from imagefs.errors import DigestMismatch, InvalidDigest, SizeMismatch, printable

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["HEX_DIGITS", "ChainId", "DiffId", "Digest", "chain_id", "chain_ids", "verified"]

HEX_DIGITS = {"sha256": 64, "sha512": 128}
"""The algorithms understood (image-spec descriptor.md, "Registered algorithms") and how many hex digits each has."""

_HEX = {algorithm: re.compile(rf"[0-9a-f]{{{digits}}}") for algorithm, digits in HEX_DIGITS.items()}


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The name of some content: a hash algorithm and the hash in lower-case hex.

    Every instance is valid, however it was made, so its text never holds a path separator or anything else unexpected.
    Ordered by algorithm, then hex.  Raises InvalidDigest when made from anything else.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        pattern = _HEX.get(self.algorithm)
        if pattern is None or not pattern.fullmatch(self.hex):
            raise InvalidDigest(f"{self.algorithm}:{self.hex}", _why_not(self.algorithm, self.hex))

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Return the digest written as *text*, ``algorithm:hex`` (image-spec descriptor.md, "Digests").

        Raises: InvalidDigest.
        """
        algorithm, colon, hex_digits = text.partition(":")
        if not colon:
            raise InvalidDigest(text, "expected algorithm:hex, such as sha256:e3b0…; there is no colon")
        return cls(algorithm, hex_digits)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> "Digest":
        """Return the digest of *data*.  Raises: InvalidDigest where *algorithm* is none of `HEX_DIGITS`."""
        return cls(algorithm, _hasher(algorithm, data).hexdigest())

    def hasher(self) -> "_Hash":
        """Return a fresh hash object of this digest's algorithm."""
        return _hasher(self.algorithm)

    @property
    def short(self) -> str:
        """The first 12 hex digits, as image tools print image IDs."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


DiffId = NewType("DiffId", Digest)
"""The digest of a layer's uncompressed tar (image-spec config.md, "Layer DiffID")."""

ChainId = NewType("ChainId", Digest)
"""The name of a stack of layers (image-spec config.md, "Layer ChainID")."""


def chain_ids(diff_ids: Sequence[DiffId]) -> tuple[ChainId, ...]:
    """Return for each layer, bottom first, the name of the stack up to it (image-spec config.md, "Layer ChainID")."""
    chain: list[ChainId] = []
    for diff_id in diff_ids:
        chain.append(ChainId(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id))
    return tuple(chain)


def chain_id(diff_ids: Sequence[DiffId]) -> ChainId:
    """Return the name of the whole stack *diff_ids*; for no layers, where there is none, one of our own."""
    return chain_ids(diff_ids)[-1] if diff_ids else ChainId(Digest.of(b""))


def verified(chunks: Iterable[bytes], digest: Digest, size: int, *, what: str) -> Iterator[bytes]:
    """Pass *chunks* on; fail where they turn out not to be the *size* bytes that *digest* names.

    A *size* below 0 means that it is not known.  You must read to the end to learn whether what you got was right:
    nothing received before the iterator ends is verified.  *what* names the content in errors ("layer", "manifest").

    Raises: SizeMismatch as soon as the content is too long (the chunk that exceeds is not passed on) or when it ends
    early; DigestMismatch at the end.
    """
    hasher = digest.hasher()
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if 0 <= size < seen:
            raise SizeMismatch(what, size, seen)
        hasher.update(chunk)
        yield chunk
    if 0 <= size != seen:
        raise SizeMismatch(what, size, seen)
    if (actual := hasher.hexdigest()) != digest.hex:
        raise DigestMismatch(what, str(digest), f"{digest.algorithm}:{actual}")


def _hasher(algorithm: str, data: bytes = b"") -> "_Hash":
    if algorithm not in HEX_DIGITS:
        raise InvalidDigest(algorithm, _why_not(algorithm, ""))
    return hashlib.new(algorithm, data)


def _why_not(algorithm: str, hex_digits: str) -> str:
    if algorithm not in HEX_DIGITS:
        known = " and ".join(HEX_DIGITS)
        if algorithm.lower() in HEX_DIGITS:
            return f"unsupported digest algorithm '{printable(algorithm)}': write it in lower case"
        return f"unsupported digest algorithm '{printable(algorithm, limit=40)}': only {known} are understood"
    expected = HEX_DIGITS[algorithm]
    if re.fullmatch(r"[0-9a-fA-F]*", hex_digits) is None:
        return "invalid checksum digest format: there is something else than hex digits behind the colon"
    if len(hex_digits) != expected:
        return f"invalid checksum digest length: {algorithm} has {expected} hex digits, found {len(hex_digits)}"
    return "invalid checksum digest format: the hex digits must be lower case"
