"""One blob, whole and verified, over connections that break.

Receives a way to open the content at some offset; hands on its bytes in order, each once.  It must never know how it
is opened (HTTP, hosts, credentials).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from imagefs.errors import DigestMismatch, RegistryError, RegistryUnavailable, SizeMismatch
from imagefs.oci.digest import Digest
from imagefs.registry.retry import Attempts, RetryPolicy

__all__ = ["Body", "Opened", "download"]


class Body(Protocol):
    """Bytes that come in pieces until they end, or a RegistryUnavailable says that they broke off."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the pieces."""

    def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened body; its first byte is that at *offset*; *total* is the whole content's size, None where not known."""

    body: Body
    offset: int
    total: int | None


def download(
    open_at: Callable[[int], Opened],
    digest: Digest,
    size: int,
    *,
    what: str,
    policy: RetryPolicy,
    received: Iterable[bytes] = (),
) -> Iterator[bytes]:
    """Yield the *size* bytes that *digest* names; only after the last piece is it known that they are right.

    *received* are the first of them, from an attempt before: they are yielded first, and verified with the rest.  Where
    they are all, nothing is opened.

    *open_at* receives the offset to go on from; what it opens begins there, or at 0 where the server cannot resume.
    Then the part received before is read again and must be the same, as it was handed on already.

    Raises: SizeMismatch, DigestMismatch (neither is tried again), or what *open_at* or the body raised last.
    """
    hasher = digest.hasher()
    count = 0
    for piece in received:
        count += len(piece)
        if count > size:
            raise SizeMismatch(what, size, count)
        hasher.update(piece)
        yield piece
    counted = count
    attempts = Attempts(policy)
    while count < size or not size:
        body: Body | None = None
        try:
            opened = open_at(count)
            body = opened.body
            if opened.total is not None and opened.total != size:
                raise SizeMismatch(what, size, opened.total)
            prefix, skipped = digest.hasher(), 0
            to_skip = count - opened.offset
            for chunk in body.chunks():
                piece = chunk
                if skipped < to_skip:
                    again = chunk[: to_skip - skipped]
                    prefix.update(again)
                    skipped += len(again)
                    piece = chunk[len(again) :]
                    if skipped == to_skip and prefix.digest() != hasher.digest():
                        other = f"other bytes when asked again ({digest.algorithm}:{prefix.hexdigest()} so far)"
                        raise DigestMismatch(what, str(digest), other)
                if count + len(piece) > size:
                    raise SizeMismatch(what, size, count + len(piece))
                if piece:
                    count += len(piece)
                    hasher.update(piece)
                    yield piece
            if count < size:
                raise RegistryUnavailable(f"the transfer of {what} {digest} ended after {count} of {size} bytes")
            break
        except RegistryError as error:
            if body is not None and count == size:  # it broke behind the last byte
                break
            attempts.failed(error, progress_bytes=count - counted)
            counted = count
        finally:
            if body is not None:
                body.close()
    if hasher.hexdigest() != digest.hex:
        raise DigestMismatch(what, str(digest), f"{digest.algorithm}:{hasher.hexdigest()}")
