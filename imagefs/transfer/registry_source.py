"""A repository of a registry as a source.

Receives a registry client and a reference; hands on documents and blobs.  It must never know how the client does it.
"""

from collections.abc import Generator, Iterable

from imagefs.errors import InvalidManifest, SizeMismatch
from imagefs.oci import media_type
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.oci.manifest import MAX_MANIFEST_BYTES
from imagefs.oci.reference import Reference
from imagefs.registry.mirrors import Client


class RegistrySource:
    """A source over one repository.  The client stays the caller's to close."""

    def __init__(self, client: Client, reference: Reference) -> None:
        self._client = client
        self._reference = reference
        self._manifests: dict[Digest, bytes] = {}
        self.label = reference.familiar

    def root(self) -> Descriptor:
        """Ask what the reference, with a tag or a digest, points to now.

        Raises: RegistryError, DigestMismatch, SizeMismatch.
        """
        wanted = self._reference.digest or self._reference.tag
        assert wanted is not None
        found = self._client.manifest(self._reference.repository, wanted)
        self._manifests[found.digest] = found.raw
        return Descriptor(media_type=found.media_type, digest=found.digest, size=len(found.raw))

    def has(self, descriptor: Descriptor) -> bool:
        return True

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        if descriptor.digest in self._manifests:
            return self._manifests[descriptor.digest]
        if not (media_type.is_manifest(descriptor.media_type) or media_type.is_index(descriptor.media_type)):
            return self._client.document(self._reference.repository, descriptor, limit_bytes=limit_bytes)
        if descriptor.size > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"{what} {descriptor.digest}", f"it has more than {MAX_MANIFEST_BYTES} bytes")
        raw = self._client.manifest(self._reference.repository, descriptor.digest).raw
        if len(raw) != descriptor.size:
            raise SizeMismatch(f"{what} {descriptor.digest}", descriptor.size, len(raw))
        self._manifests[descriptor.digest] = raw
        return raw

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        return self.resumed(descriptor, ())

    def resumed(self, descriptor: Descriptor, received: Iterable[bytes]) -> Generator[bytes, None, None]:
        yield from self._client.blob(self._reference.repository, descriptor, received)
