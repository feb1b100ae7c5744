"""What an image says of itself, typed: what a container of it would be started with.

Receives the bytes of a config; hands on a `Config`.  Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from imagefs.oci.config import MAX_CONFIG_BYTES, ImageConfig
from imagefs.oci.document import (
    MAX_VALUES,
    mapping,
    mapping_field,
    parse_json,
    string_field,
    strings_field,
)
from imagefs.oci.platform import Platform

_WHAT = "image config"


@dataclass(frozen=True, slots=True)
class Config:
    """The config of an image; what it does not say is empty.

    *env*, *labels* are in document order; of a variable that is there twice, the last counts.  *exposed_ports* are as
    written, such as ``80/tcp``.  *raw* is the whole document, for the caller to do with as it likes.

    Source: OCI image-spec, config.md.
    """

    platform: Platform
    env: Mapping[str, str] = field(hash=False)
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    user: str
    working_dir: str
    labels: Mapping[str, str] = field(hash=False)
    exposed_ports: tuple[str, ...]
    volumes: tuple[str, ...]
    stop_signal: str
    raw: dict[str, object] = field(repr=False, hash=False)


def typed_config(config: ImageConfig) -> Config:
    """Return *config*, typed.  Raises: InvalidManifest, where something in it is of another type than it must be."""
    container = config.container
    variables = (text.partition("=") for text in strings_field(container, "Env", what=_WHAT, limit=MAX_VALUES))
    return Config(
        platform=config.platform,
        env=MappingProxyType({name: value for name, _, value in variables}),
        entrypoint=strings_field(container, "Entrypoint", what=_WHAT, limit=MAX_VALUES),
        cmd=strings_field(container, "Cmd", what=_WHAT, limit=MAX_VALUES),
        user=string_field(container, "User", what=_WHAT, default=""),
        working_dir=string_field(container, "WorkingDir", what=_WHAT, default=""),
        labels=MappingProxyType(dict(config.labels)),
        exposed_ports=tuple(mapping_field(container, "ExposedPorts", what=_WHAT)),
        volumes=tuple(mapping_field(container, "Volumes", what=_WHAT)),
        stop_signal=string_field(container, "StopSignal", what=_WHAT, default=""),
        raw=dict(mapping(parse_json(config.raw, what=_WHAT, limit_bytes=MAX_CONFIG_BYTES), what=_WHAT)),
    )
