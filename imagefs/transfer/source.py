"""What pull and load ask of the place an image comes from.

Receives nothing; hands on the two protocols that registries, layouts and archives fulfil, and the value that describes
one image on offer.  It must never know which kind of place it is.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Protocol

from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest


class Documents(Protocol):
    """A place that has manifests, indexes and configs by descriptor."""

    @property
    def label(self) -> str:
        """What a person calls this place: a reference, or the path of an archive."""

    def has(self, descriptor: Descriptor) -> bool:
        """Return whether asking for *descriptor* is worth it; a registry is believed to have what it lists."""

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        """Return a manifest, index or config, verified against *descriptor*; *what* names it in errors.

        Raises: DigestMismatch, SizeMismatch, InvalidArchive or a RegistryError.
        """


class Source(Documents, Protocol):
    """A place that has documents and blobs by descriptor.  Thread-safe: layers are read several at a time."""

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        """Yield a layer as it is stored, in pieces; only after the last one is it known to be verified.

        Close the generator where it is not used up.

        Raises: DigestMismatch, SizeMismatch, InvalidArchive or a RegistryError, at any piece.
        """


class RemoteSource(Source, Protocol):
    """A source whose bytes come over a network: what came once should not have to come again."""

    def resumed(self, descriptor: Descriptor, received: Iterable[bytes]) -> Generator[bytes, None, None]:
        """Yield a layer like `blob`; *received*, its first bytes from an earlier attempt, come first.

        Raises: as `blob`; DigestMismatch also where *received* was not what it should be.
        """


@dataclass(frozen=True, slots=True)
class Offer:
    """One image of an archive.

    *candidates* are manifests or indexes of the same image, mostly one; several are for different platforms.  *names*
    are what the archive calls it: references, or bare tags; as written, so to be mistrusted.
    """

    names: tuple[str, ...]
    candidates: tuple[Descriptor, ...]


def joined(offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Return *offers* with those joined that offer the same content under several names."""
    by_content: dict[tuple[Digest, ...], Offer] = {}
    for offer in offers:
        key = tuple(candidate.digest for candidate in offer.candidates)
        first = by_content.get(key)
        by_content[key] = Offer(first.names + offer.names, first.candidates) if first else offer
    return tuple(by_content.values())


class ArchiveSource(Source, Protocol):
    """A source that knows what it holds."""

    def offers(self) -> tuple[Offer, ...]:
        """Return the images it holds, in its own order.

        Raises: InvalidArchive, InvalidManifest, UnsupportedMediaType.
        """
