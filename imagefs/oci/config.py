"""Image configs: what an image says of itself, and which layers it is made of.

Receives the bytes of a config; hands on an `ImageConfig`.  Must never know whether the layers it names exist.
"""

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from imagefs.errors import InvalidManifest, printable
from imagefs.oci.descriptor import parse_digest, platform_of
from imagefs.oci.digest import DiffId, Digest
from imagefs.oci.document import (
    array_field,
    mapping,
    mapping_field,
    parse_json,
    string_field,
    string_map_field,
    strings_field,
)
from imagefs.oci.manifest import MAX_LAYERS
from imagefs.oci.platform import Platform

__all__ = ["MAX_CONFIG_BYTES", "History", "ImageConfig", "parse_config", "parse_time_ns"]

MAX_CONFIG_BYTES = 4 * 1024 * 1024
"""Largest config: the limit other tools set for one."""

_MAX_HISTORY = 8 * MAX_LAYERS
"""Most steps of a history: several that change no file may belong to each layer."""

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_ZERO_TIME_S = -62_135_596_800
"""The first second of the year 1, which Go programs write for "no time"."""


@dataclass(frozen=True, slots=True)
class History:
    """One step of how an image was built; texts are as found, "" where absent."""

    created: str
    created_by: str
    comment: str
    empty_layer: bool


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The config of an image (image-spec config.md); *digest* is that of *raw* and is the image's ID.

    *diff_ids* and *history* are bottom first; they need not agree, as tools that squash layers leave the history.
    *created_ns* counts nanoseconds since 1970, None where it is absent, unreadable or beyond 64 bits.  *container* is
    the document's "config" object, verbatim.  *labels* are in document order.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    platform: Platform
    created_ns: int | None
    diff_ids: tuple[DiffId, ...]
    history: tuple[History, ...]
    labels: tuple[tuple[str, str], ...]
    container: Mapping[str, object] = field(hash=False)

    def steps(self) -> tuple[tuple[History, DiffId | None], ...]:
        """Return the history, oldest first, each step with the layer that it made; None for steps that made none.

        Where not as many steps made a layer as there are layers, as tools that squash them leave it, nobody knows which
        made which: then it is None for all.

        Source: OCI image-spec, config.md, "history".
        """
        made = sum(not step.empty_layer for step in self.history)
        layers = iter(self.diff_ids if made == len(self.diff_ids) else ())
        return tuple((step, None if step.empty_layer else next(layers, None)) for step in self.history)


def parse_config(raw: bytes, *, algorithm: str = "sha256") -> ImageConfig:
    """Return the config that *raw* is; *algorithm* is that of the digest to compute.

    Raises: InvalidManifest.
    """
    document = mapping(parse_json(raw, what="image config", limit_bytes=MAX_CONFIG_BYTES), what="image config")
    container = mapping_field(document, "config", what="image config")
    platform = platform_of(document, what="image config")
    return ImageConfig(
        raw=raw,
        digest=Digest.of(raw, algorithm),
        # The first configs said no OS, as there was only one.
        platform=platform if platform.os else replace(platform, os="linux"),
        created_ns=_created_ns(document),
        diff_ids=_diff_ids(document),
        history=_history(document),
        labels=string_map_field(container, "Labels", what="image config"),
        container=MappingProxyType(dict(container)),
    )


def parse_time_ns(text: str) -> int | None:
    """Return the nanoseconds since 1970 that an RFC 3339 time means.

    None for what is no such time, for the first moment of the year 1 (Go's "no time"), and for times that do not fit
    a signed 64-bit integer (before 1678 and after 2261).  Digits beyond nanoseconds are dropped.
    """
    matched = _RFC3339.fullmatch(text)
    if matched is None:
        return None
    year, month, day, hour, minute, second = (int(matched[group]) for group in range(1, 7))
    if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    if matched[8]:
        offset = int(matched[9]) * 3600 + int(matched[10]) * 60
        seconds -= offset if matched[8] == "+" else -offset
    nanoseconds = seconds * 10**9 + int((matched[7] or "")[:9].ljust(9, "0"))
    return nanoseconds if seconds != _ZERO_TIME_S and -(2**63) <= nanoseconds < 2**63 else None


def _created_ns(document: Mapping[str, object]) -> int | None:
    created = document.get("created")
    return parse_time_ns(created) if isinstance(created, str) else None


def _diff_ids(document: Mapping[str, object]) -> tuple[DiffId, ...]:
    what = "rootfs of the image config"
    if document.get("rootfs") is None:
        raise InvalidManifest("image config", "expected 'rootfs', found none; such old configs name no layers")
    rootfs = mapping(document["rootfs"], what=what)
    kind = string_field(rootfs, "type", what=what)
    if kind != "layers":
        raise InvalidManifest(what, f"expected 'layers' as its type, found '{printable(kind, limit=60)}'")
    texts = strings_field(rootfs, "diff_ids", what=what, limit=MAX_LAYERS)
    return tuple(DiffId(parse_digest(text, what=what)) for text in texts)


def _history(document: Mapping[str, object]) -> tuple[History, ...]:
    steps = []
    for i, found in enumerate(array_field(document, "history", what="image config", limit=_MAX_HISTORY)):
        what = f"image config (history[{i}])"
        step = mapping(found, what=what)
        steps.append(
            History(
                created=string_field(step, "created", what=what, default=""),
                created_by=string_field(step, "created_by", what=what, default=""),
                comment=string_field(step, "comment", what=what, default=""),
                empty_layer=step.get("empty_layer") is True,
            )
        )
    return tuple(steps)
