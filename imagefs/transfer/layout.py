"""OCI image layouts, and skopeo's ``dir:`` folders, whether in a folder or in a tar.

Receives members; hands on offers, documents and blobs.  It must never know how members are stored.

Source: OCI image-spec, image-layout.md; containers-transports(5) for ``dir:``, whose files are manifest.json, version,
and blobs named by their digests' hex digits.
"""

import contextlib
from collections.abc import Generator, Mapping

from imagefs.errors import ContentError, InvalidArchive, SizeMismatch, printable
from imagefs.oci import media_type
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest, verified
from imagefs.oci.document import parse_json
from imagefs.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, Manifest, parse_manifest
from imagefs.transfer.docker_archive import named_configs
from imagefs.transfer.members import Members, read
from imagefs.transfer.source import Offer, joined

_CONTAINERD_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_MAX_MARK_BYTES = 64 * 1024


class LayoutSource:
    """A source over an OCI layout.

    Raises: InvalidArchive, where it is of another version than 1.x.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self.label = members.label
        self._check_version()

    def _check_version(self) -> None:
        raw = read(self._members, "oci-layout", limit_bytes=_MAX_MARK_BYTES)
        mark = parse_json(raw, what="oci-layout", limit_bytes=_MAX_MARK_BYTES)
        version = mark.get("imageLayoutVersion") if isinstance(mark, dict) else None
        if not isinstance(version, str) or not version.startswith("1."):
            raise InvalidArchive(
                self.label, f"its oci-layout file has version {printable(str(version))}; imagefs reads version 1.x"
            )

    def offers(self) -> tuple[Offer, ...]:
        raw = read(self._members, "index.json", limit_bytes=MAX_MANIFEST_BYTES)
        index = parse_manifest(raw, media_type=media_type.OCI_INDEX)
        assert isinstance(index, ImageIndex)
        docker_names = self._docker_names()
        offers: list[Offer] = []
        unnamed: list[Descriptor] = []
        for descriptor in index.manifests:
            # containerd and docker put the whole name into an annotation of their own, and only the tag into ref.name.
            name = descriptor.annotation(_CONTAINERD_NAME) or descriptor.annotation(_REF_NAME)
            if name:
                offers.append(Offer((name,), (descriptor,)))
            elif descriptor.platform is not None:
                unnamed.append(descriptor)
            else:
                offers.append(Offer(self._names_of(descriptor, docker_names), (descriptor,)))
        if unnamed:
            # Manifests without names, told apart by their platforms, are one image: index.json is its index.
            names = self._names_of(unnamed[0], docker_names) if len(unnamed) == 1 else ()
            offers.append(Offer(names, tuple(unnamed)))
        return joined(offers)

    def _docker_names(self) -> Mapping[str, tuple[str, ...]]:
        """Return the names that docker's manifest.json gives, if there is one too, by the path of the config."""
        if not self._members.has("manifest.json"):
            return {}
        try:
            return named_configs(self._members)
        except ContentError:
            return {}  # only names are wanted of it, and only where the layout itself has none

    def _names_of(self, descriptor: Descriptor, docker_names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """Return the names of the image of *descriptor*, which has none of its own."""
        if not docker_names or media_type.is_index(descriptor.media_type):
            return ()
        try:
            raw = self.document(descriptor, limit_bytes=MAX_MANIFEST_BYTES, what="manifest")
            manifest = parse_manifest(raw, media_type=descriptor.media_type)
        except ContentError:
            return ()  # whatever is wrong is found again, and said, when the image itself is loaded
        return docker_names.get(_blob_name(manifest.config.digest), ()) if isinstance(manifest, Manifest) else ()

    def has(self, descriptor: Descriptor) -> bool:
        return self._members.has(_blob_name(descriptor.digest))

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        return _document(self._members, _blob_name(descriptor.digest), descriptor, limit_bytes=limit_bytes, what=what)

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        return _blob(self._members, _blob_name(descriptor.digest), descriptor)


class DirSource:
    """A source over a ``dir:`` folder: one image, without a name."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self.label = members.label
        raw = read(members, "manifest.json", limit_bytes=MAX_MANIFEST_BYTES)
        manifest = parse_manifest(raw)
        self._root = Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=len(raw))
        self._raw = raw

    def offers(self) -> tuple[Offer, ...]:
        return (Offer((), (self._root,)),)

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest == self._root.digest or any(
            self._members.has(name) for name in (descriptor.digest.hex, f"{descriptor.digest.hex}.manifest.json")
        )

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        if descriptor.digest == self._root.digest:
            return self._raw
        name = descriptor.digest.hex
        if not self._members.has(name):
            name += ".manifest.json"  # how skopeo keeps the manifests of an index
        return _document(self._members, name, descriptor, limit_bytes=limit_bytes, what=what)

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        return _blob(self._members, descriptor.digest.hex, descriptor)


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _document(members: Members, name: str, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
    if descriptor.size > limit_bytes:
        raise SizeMismatch(f"{what} {descriptor.digest}", limit_bytes, descriptor.size)
    return b"".join(
        verified(members.chunks(name), descriptor.digest, descriptor.size, what=f"{what} {descriptor.digest}")
    )


def _blob(members: Members, name: str, descriptor: Descriptor) -> Generator[bytes, None, None]:
    with contextlib.closing(members.chunks(name)) as chunks:
        yield from verified(chunks, descriptor.digest, descriptor.size, what=f"layer {descriptor.digest}")
