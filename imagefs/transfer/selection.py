"""Which manifest of an index is meant.

Receives a source, the descriptors an image is offered under, and a platform; hands on one manifest with its config,
both verified and in agreement.  Asks the source for documents only, never for layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from imagefs.errors import InvalidManifest, NoMatchingPlatform, UnsupportedMediaType
from imagefs.oci import media_type
from imagefs.oci.config import MAX_CONFIG_BYTES, ImageConfig, parse_config
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, Manifest, parse_manifest
from imagefs.oci.platform import Platform, select
from imagefs.transfer.source import Documents

_MAX_INDEX_DEPTH = 4
_MAX_INDEXES = 64
_MAX_PROBES = 64  # entries without a platform, each of which costs two documents
MAX_CANDIDATES = 10_000
"""Manifests of one image for all platforms: the widest official images have 20."""
MAX_DOCUMENT_BYTES = 32 << 20
"""Of all manifests and configs that one pull or load parses: a thousand images of the usual size.  Parsing takes a
second for every 10 MB, and 14 times the memory."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The manifest and config of one image.  *mismatch*: it was the only one, and is not for this machine."""

    manifest: Manifest
    config: ImageConfig
    mismatch: bool


class BoundedDocuments:
    """Documents of *source*, as long as they have no more than `MAX_DOCUMENT_BYTES` together.  Not thread-safe."""

    def __init__(self, source: Documents) -> None:
        self._source = source
        self._left = MAX_DOCUMENT_BYTES
        self.label = source.label

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.data is not None or self._source.has(descriptor)

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        """Return the document *descriptor*, verified.

        Raises: InvalidManifest, where it goes beyond the bound; what the source raises.
        """
        raw = descriptor.data  # embedded, and verified when the descriptor was read
        if raw is None:
            raw = self._source.document(descriptor, limit_bytes=limit_bytes, what=what)
        self._left -= len(raw)
        if self._left < 0:
            raise InvalidManifest(
                f"{what} of {self.label}",
                f"its manifests and configs have more than {MAX_DOCUMENT_BYTES} bytes together;"
                " bring its images one by one",
            )
        return raw


def select_image(source: Documents, candidates: Sequence[Descriptor], *, platform: Platform | None) -> Selected:
    """Return the image for *platform* among *candidates*; None means this machine's, and is less strict.

    Indexes are followed, those inside indexes too, to a bounded depth and number.  Attestations, entries of unknown
    media types and entries that the source does not have are passed over.  Entries that do not say their platform are
    matched by their configs, if no other fits.  Where there is just one manifest and no index, an explicit *platform*
    must fit its config, the machine's own need not.

    Raises: NoMatchingPlatform, listing what there is; InvalidManifest, UnsupportedMediaType; what the source raises.
    """
    source = BoundedDocuments(source)
    if len(candidates) == 1 and not media_type.is_index(candidates[0].media_type):
        root = parsed(source, candidates[0])
        if isinstance(root, Manifest):
            return _only(source, root, platform)
        candidates = root.manifests
    entries = _entries(source, candidates)
    wanted = platform or Platform.host()
    strict = platform is not None  # who names a platform does not mean one it can also run
    chosen = select(wanted, [entry.platform for entry in entries], same_architecture=strict)
    if chosen is not None:
        return _agreeing(source, _manifest(source, entries[chosen]))
    probed = _probe(source, [entry for entry in entries if entry.platform is None])
    chosen = select(wanted, [found for _, found in probed], same_architecture=strict)
    if chosen is not None:
        return _agreeing(source, probed[chosen][0])
    offered = [entry.platform for entry in entries if entry.platform] + [found for _, found in probed]
    raise NoMatchingPlatform(source.label, str(wanted), tuple(dict.fromkeys(str(one) for one in offered)))


def parsed(source: Documents, descriptor: Descriptor) -> Manifest | ImageIndex:
    """Return the manifest or index *descriptor* names, verified and parsed.

    Raises: InvalidManifest, UnsupportedMediaType, what the source raises.
    """
    raw = source.document(descriptor, limit_bytes=MAX_MANIFEST_BYTES, what="manifest")
    return parse_manifest(raw, media_type=descriptor.media_type or None, algorithm=descriptor.digest.algorithm)


def _only(source: Documents, manifest: Manifest, platform: Platform | None) -> Selected:
    selected = _agreeing(source, manifest)
    found = selected.config.platform
    fits = select(platform or Platform.host(), [found], same_architecture=platform is not None) is not None
    if platform is not None and not fits:
        raise NoMatchingPlatform(source.label, str(platform), (str(found),))
    return Selected(manifest, selected.config, mismatch=not fits)


def _entries(source: Documents, candidates: Sequence[Descriptor]) -> list[Descriptor]:
    """Return the manifests that *candidates* and the indexes among them lead to, in order, without attestations."""
    entries: list[Descriptor] = []
    indexes = 0
    # A stack of what is still to be looked at, the next one last; each with how many indexes it lies below.
    waiting = [(descriptor, 0) for descriptor in reversed(candidates)]
    while waiting:
        descriptor, depth = waiting.pop()
        if not source.has(descriptor):
            continue
        if media_type.is_index(descriptor.media_type):
            indexes += 1
            if depth >= _MAX_INDEX_DEPTH or indexes > _MAX_INDEXES:
                raise InvalidManifest(
                    f"index of {source.label}",
                    f"it nests more than {_MAX_INDEX_DEPTH} levels or {_MAX_INDEXES} indexes deep",
                )
            index = parsed(source, descriptor)
            if isinstance(index, ImageIndex):
                waiting += [(below, depth + 1) for below in reversed(index.manifests)]
        elif media_type.is_manifest(descriptor.media_type) and not _is_attestation(descriptor):
            entries.append(descriptor)
            if len(entries) > MAX_CANDIDATES:
                raise InvalidManifest(
                    f"index of {source.label}",
                    f"it has more than {MAX_CANDIDATES} manifests; name the one to use by its digest",
                )
    return entries


def _is_attestation(descriptor: Descriptor) -> bool:
    platform = descriptor.platform
    if platform is not None and (platform.os, platform.architecture) == ("unknown", "unknown"):
        return True
    return descriptor.annotation("vnd.docker.reference.type") == "attestation-manifest"


def _probe(source: Documents, entries: Sequence[Descriptor]) -> list[tuple[Manifest, Platform]]:
    probed = []
    for entry in entries[:_MAX_PROBES]:
        try:
            manifest = _manifest(source, entry)
            probed.append((manifest, _config(source, manifest).platform))
        except (UnsupportedMediaType, InvalidManifest):
            continue  # an artifact beside the images; if nothing else fits, the list of what there is says so
    return probed


def _manifest(source: Documents, descriptor: Descriptor) -> Manifest:
    manifest = parsed(source, descriptor)
    if isinstance(manifest, ImageIndex):
        raise InvalidManifest(f"manifest {descriptor.digest}", "it is an index, but is listed as an image")
    return manifest


def _config(source: Documents, manifest: Manifest) -> ImageConfig:
    raw = source.document(manifest.config, limit_bytes=MAX_CONFIG_BYTES, what="image config")
    return parse_config(raw, algorithm=manifest.config.digest.algorithm)


def _agreeing(source: Documents, manifest: Manifest) -> Selected:
    return _checked(manifest, _config(source, manifest))


def _checked(manifest: Manifest, config: ImageConfig) -> Selected:
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidManifest(
            f"manifest {manifest.digest}",
            f"layers from manifest don't match image configuration: {len(manifest.layers)} layers,"
            f" {len(config.diff_ids)} diff_ids",
        )
    return Selected(manifest, config, mismatch=False)
