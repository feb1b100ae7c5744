"""Manifests and indexes, and the refusal of everything else that registries keep in their place.

Receives the bytes of a document and the media type it was announced with; hands on a `Manifest` or an `ImageIndex`.
Must never know where the document came from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from imagefs.errors import InvalidManifest, UnsupportedMediaType, printable
from imagefs.oci import media_type as types
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.oci.document import array_field, integer_field, mapping, parse_json, string_field, string_map_field

__all__ = ["MAX_INDEX_ENTRIES", "MAX_LAYERS", "MAX_MANIFEST_BYTES", "ImageIndex", "Manifest", "parse_manifest"]

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""Largest manifest or index: the limit registries set for pushing one."""

MAX_LAYERS = 1024
"""Most layers of an image.  docker refuses more than 125; images made by package managers have a few hundred."""

MAX_INDEX_ENTRIES = 4096
"""Most entries of an index.  Official images have some 20, collections of build results some hundreds."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one image (image-spec manifest.md); *digest* is that of *raw*, *layers* are bottom first."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """A list of manifests to choose from (image-spec image-index.md); *digest* is that of *raw*.

    *manifests* are in document order and may be of any media type, nested indexes and attestations included.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: tuple[tuple[str, str], ...] = ()


def parse_manifest(raw: bytes, *, media_type: str | None = None, algorithm: str = "sha256") -> Manifest | ImageIndex:
    """Return the manifest or index that *raw* is.

    *media_type* is what it was announced as, by a Content-Type or a descriptor, parameters allowed; None where nothing
    was.  It must agree with the type the document states of itself (distribution-spec, "Pulling manifests"), except
    for the general types of servers that know no better.  *algorithm* is that of the digest to compute.

    Raises: InvalidManifest for what breaks the rules; UnsupportedMediaType for what is well-formed and no image.
    """
    document = mapping(parse_json(raw, what="manifest", limit_bytes=MAX_MANIFEST_BYTES), what="manifest")
    kind = _media_type(document, types.essence(media_type or ""))
    if "manifests" in document and ("layers" in document or "config" in document):
        # CVE-2021-41190: such a document is an image to one tool and an index of others to the next.
        raise InvalidManifest("manifest", "expected either 'manifests' or 'layers' and 'config', found both")
    integer_field(document, "schemaVersion", what="manifest", minimum=2, maximum=2)
    digest = Digest.of(raw, algorithm)
    if types.is_index(kind):
        return ImageIndex(
            raw=raw,
            digest=digest,
            media_type=kind,
            manifests=_descriptors(document, "manifests", "index", MAX_INDEX_ENTRIES),
            annotations=string_map_field(document, "annotations", what="index"),
        )
    config = Descriptor.from_json(document.get("config"), what="config descriptor")
    _check_is_image(document, config)
    layers = _descriptors(document, "layers", "manifest", MAX_LAYERS)
    for layer in layers:
        _check_is_layer(layer)
    return Manifest(
        raw=raw,
        digest=digest,
        media_type=kind,
        config=config,
        layers=layers,
        annotations=string_map_field(document, "annotations", what="manifest"),
    )


def _media_type(document: Mapping[str, object], announced: str) -> str:
    """Return which kind of manifest *document* is, by what it says, what was *announced*, and at last its form."""
    stated = string_field(document, "mediaType", what="manifest", default="")
    if types.is_schema1(stated) or types.is_schema1(announced) or document.get("schemaVersion") == 1:
        raise UnsupportedMediaType(
            stated or announced or "manifest version 2, schema 1",
            "Docker Image manifest version 2, schema 1 support has been removed from all tools; "
            "ask the image's author to push it again with a current one",
        )
    if stated and not types.says_nothing(announced) and stated != announced:
        reason = f"expected the media type {printable(announced)} it was announced with, found {printable(stated)}"
        raise InvalidManifest("manifest", reason)
    kind = stated or ("" if types.says_nothing(announced) else announced)
    if not kind:
        # Only OCI documents may leave the type out; then their form decides.
        if "manifests" in document:
            return types.OCI_INDEX
        if "layers" in document or "config" in document:
            return types.OCI_MANIFEST
        raise InvalidManifest("manifest", "expected 'manifests', or 'layers' and 'config', found neither")
    if not types.is_index(kind) and not types.is_manifest(kind):
        raise UnsupportedMediaType(kind, f"it is {types.describe_other(kind)}, not a filesystem image")
    return kind


def _descriptors(document: Mapping[str, object], key: str, what: str, limit: int) -> tuple[Descriptor, ...]:
    if key not in document:
        raise InvalidManifest(what, f"expected '{key}', found none")
    found = array_field(document, key, what=what, limit=limit)
    return tuple(Descriptor.from_json(value, what=f"{what} ({key}[{i}])") for i, value in enumerate(found))


def _check_is_image(document: Mapping[str, object], config: Descriptor) -> None:
    """Refuse artifacts: documents of a manifest's form about something else than a root file system."""
    if types.is_config(config.media_type):
        return
    artifact = string_field(document, "artifactType", what="manifest", default="")
    kind = artifact if config.media_type == types.OCI_EMPTY and artifact else config.media_type
    raise UnsupportedMediaType(kind, f"it is {types.describe_other(kind)}, not a filesystem image")


def _check_is_layer(layer: Descriptor) -> None:
    if types.is_encrypted(layer.media_type):
        raise UnsupportedMediaType(layer.media_type, "the layer is encrypted, and imagefs cannot decrypt")
    if not types.is_layer(layer.media_type):
        kind = types.describe_other(layer.media_type)
        raise UnsupportedMediaType(layer.media_type, f"it is {kind}, not a layer of a filesystem image")
