"""The media types of images, and what other things in registries are called.

Receives media types as declared; hands on what kind of thing they announce.  Must never know content: a layer's true
compression is decided by its first bytes, not by its name.
"""

import re

__all__ = [
    "ACCEPT",
    "DOCKER_CONFIG",
    "DOCKER_INDEX",
    "DOCKER_MANIFEST",
    "OCI_CONFIG",
    "OCI_EMPTY",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "describe_other",
    "essence",
    "is_config",
    "is_encrypted",
    "is_foreign_layer",
    "is_index",
    "is_layer",
    "is_manifest",
    "is_schema1",
    "says_nothing",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
"""What to ask a registry for, most wanted first."""

_SCHEMA1 = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(?:json|prettyjws)")
_LAYER = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.(?P<oci_foreign>nondistributable\.)?v1\.tar"
    r"|docker\.image\.rootfs\.(?P<docker_foreign>foreign\.)?diff\.tar)(?:[.+][a-z0-9.+_-]+)?"
)
_SAYS_NOTHING = frozenset({"", "application/json", "application/octet-stream", "text/plain", "text/html"})
_LEGACY_CONFIGS = frozenset({"application/octet-stream", "application/json", "text/html"})
_OTHERS = (
    (re.compile(r"application/vnd\.in-toto\b.*"), "an attestation"),
    (re.compile(r"application/vnd\.docker\.attestation\b.*"), "an attestation"),
    (re.compile(r"application/vnd\.cncf\.helm\..*"), "a helm chart"),
    (re.compile(r"application/(?:vnd\.(?:wasm|bytecodealliance|w3c\.wasm)\..*|wasm)"), "a WebAssembly module"),
    (re.compile(r"application/vnd\.docker\.plugin\..*"), "a docker plugin"),
    (re.compile(r"application/vnd\.docker\.ai\..*|application/vnd\.cncf\.model\..*"), "an AI model"),
    (re.compile(r"application/vnd\.(?:dev\.cosign|dev\.sigstore|cncf\.notary)\..*"), "a signature"),
    (re.compile(r"application/vnd\.(?:cyclonedx|spdx)\b.*|text/spdx.*"), "a bill of materials"),
    (re.compile(r"application/vnd\.buildkit\.cacheconfig\..*"), "a build cache"),
    (re.compile(r"application/vnd\.docker\.compose\b.*"), "a compose project"),
    (re.compile(re.escape(OCI_EMPTY)), "an artifact"),
)


def essence(media_type: str) -> str:
    """Return *media_type* without parameters and in lower case, as types are compared (RFC 9110, 8.3.1)."""
    return media_type.partition(";")[0].strip().lower()


def is_index(media_type: str) -> bool:
    """Return whether this is a list of manifests, one for each platform."""
    return media_type in (OCI_INDEX, DOCKER_INDEX)


def is_manifest(media_type: str) -> bool:
    """Return whether this is the manifest of one image (or of an artifact that takes its form)."""
    return media_type in (OCI_MANIFEST, DOCKER_MANIFEST)


def is_schema1(media_type: str) -> bool:
    """Return whether this is docker's first manifest format, which all tools have given up."""
    return _SCHEMA1.fullmatch(media_type) is not None


def is_config(media_type: str) -> bool:
    """Return whether this is the config of an image.

    Early registries lost the type and wrote a general one; docker takes those for images.
    """
    return media_type in (OCI_CONFIG, DOCKER_CONFIG) or media_type in _LEGACY_CONFIGS


def is_layer(media_type: str) -> bool:
    """Return whether this is a layer as a tar, however compressed (an encrypted one too: see `is_encrypted`)."""
    return _LAYER.fullmatch(media_type) is not None


def is_encrypted(media_type: str) -> bool:
    """Return whether a layer is encrypted (ocicrypt's suffix)."""
    return is_layer(media_type) and media_type.endswith("+encrypted")


def is_foreign_layer(media_type: str) -> bool:
    """Return whether this is a layer that registries may not hold, to be fetched from its descriptor's urls."""
    matched = _LAYER.fullmatch(media_type)
    return matched is not None and bool(matched["oci_foreign"] or matched["docker_foreign"])


def says_nothing(media_type: str) -> bool:
    """Return whether a Content-Type is one that servers send for want of a better one."""
    return media_type in _SAYS_NOTHING


def describe_other(media_type: str) -> str:
    """Return, for a person, what a type that is no image's announces: ``a helm chart``, or ``something else``."""
    return next((kind for pattern, kind in _OTHERS if pattern.fullmatch(media_type)), "something else")
