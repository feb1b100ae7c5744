"""Descriptors: the promise of some content, by type, digest and size.

Receives one JSON value out of a document; hands on a `Descriptor` whose digest and size can be relied on in form.
Must never fetch what it describes.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from imagefs.errors import InvalidDigest, InvalidManifest, printable
from imagefs.oci.digest import Digest
from imagefs.oci.document import integer_field, mapping, string_field, string_map_field, strings_field
from imagefs.oci.platform import Platform

__all__ = ["MAX_SIZE", "Descriptor", "parse_digest", "platform_of"]

MAX_SIZE = 2**63 - 1
"""Largest size that fits the 64 bits the specification gives it."""

_MAX_URLS = 16
_MAX_FEATURES = 64
_MEDIA_TYPE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One piece of content elsewhere (image-spec descriptor.md).

    *urls* holds only http and https ones.  *data* is the content itself where it was embedded, already verified against
    *digest* and *size*.  *annotations* are in document order.
    """

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""
    data: bytes | None = field(default=None, repr=False)

    def annotation(self, key: str) -> str | None:
        """Return the value of one annotation, or None where there is none of that name."""
        return next((value for name, value in self.annotations if name == key), None)

    @classmethod
    def from_json(cls, value: object, *, what: str) -> "Descriptor":
        """Return the descriptor in *value*, a part of a parsed document; *what* names that part in errors.

        Raises: InvalidManifest.
        """
        document = mapping(value, what=what)
        media_type = string_field(document, "mediaType", what=what)
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise InvalidManifest(what, f"expected a media type, found '{printable(media_type, limit=60)}'")
        digest = parse_digest(string_field(document, "digest", what=what), what=what)
        size = integer_field(document, "size", what=what, maximum=MAX_SIZE)
        urls = strings_field(document, "urls", what=what, limit=_MAX_URLS)
        return cls(
            media_type=media_type,
            digest=digest,
            size=size,
            urls=tuple(url for url in urls if url.lower().startswith(("https://", "http://"))),
            platform=_platform(document, what),
            annotations=string_map_field(document, "annotations", what=what),
            artifact_type=string_field(document, "artifactType", what=what, default=""),
            data=_data(document, digest, size, what),
        )


def parse_digest(text: str, *, what: str) -> Digest:
    """Return the digest found as *text* in a document.  Raises: InvalidManifest, naming *what*."""
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise InvalidManifest(what, str(error)) from None


def _platform(document: Mapping[str, object], what: str) -> Platform | None:
    """Return the platform; None where it names neither an OS nor an architecture."""
    if document.get("platform") is None:
        return None
    what = f"platform of {what}"
    found = mapping(document["platform"], what=what)
    platform = platform_of(found, what=what)
    return platform if platform.os or platform.architecture else None


def platform_of(document: Mapping[str, object], *, what: str) -> Platform:
    """Return the platform whose fields are in *document*; "" for what is absent.  Raises: InvalidManifest."""
    return Platform(
        os=string_field(document, "os", what=what, default=""),
        architecture=string_field(document, "architecture", what=what, default=""),
        variant=string_field(document, "variant", what=what, default=""),
        os_version=string_field(document, "os.version", what=what, default=""),
        os_features=strings_field(document, "os.features", what=what, limit=_MAX_FEATURES),
    )


def _data(document: Mapping[str, object], digest: Digest, size: int, what: str) -> bytes | None:
    if document.get("data") is None:
        return None
    try:
        data = base64.b64decode(string_field(document, "data", what=what), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidManifest(what, "expected base64 as 'data', found other characters or a wrong length") from None
    if len(data) != size:
        raise InvalidManifest(what, f"expected {size} bytes in 'data', found {len(data)}")
    if (actual := Digest.of(data, digest.algorithm)) != digest:
        raise InvalidManifest(what, f"expected {digest} as the digest of 'data', found {actual}")
    return data
