"""Which hosts to ask for the images of a repository: what containers' and docker's configuration files say.

Receives files and a repository's name; hands on `Endpoint` values, in the order in which to try them.  It must never
open a connection.

Read are podman's ``registries.conf`` (version 2) with its drop-ins, and of docker's ``daemon.json`` the keys
``registry-mirrors`` (for docker.io, where registries.conf has no mirror for it) and ``insecure-registries``.  Aliases
of short names and search registries are not used: a short name is docker.io's, as with docker.

Source: containers-registries.conf(5); docker's docs, "dockerd", daemon configuration file.
"""

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imagefs.errors import ConfigurationInvalid, RegistryError
from imagefs.oci.reference import DEFAULT_REGISTRY, Reference
from imagefs.registry.credentials import home

__all__ = ["Configuration", "Endpoint", "load_configuration"]

_SYSTEM = Path("/etc/containers/registries.conf")
_DAEMON = Path("/etc/docker/daemon.json")
_VARIABLE = "CONTAINERS_REGISTRIES_CONF"
_MAX_BYTES = 1024 * 1024
"""Of one file: it is written by hand."""
_LOCATION = re.compile(r"[A-Za-z0-9_.\-\[\]:]+(?:/[A-Za-z0-9_.\-]+)*")

PullFrom = Literal["all", "digest-only", "tag-only"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host, and what the repository is called there.  *insecure*: plain http and any certificate will do."""

    registry: str
    repository: str
    insecure: bool
    is_mirror: bool


@dataclass(frozen=True, slots=True)
class Mirror:
    """One ``[[registry.mirror]]``."""

    location: str
    insecure: bool
    pull_from: PullFrom


@dataclass(frozen=True, slots=True)
class Registry:
    """One ``[[registry]]``: what is said of all repositories whose names begin with *prefix*."""

    prefix: str
    location: str
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()

    def length(self, name: str) -> int:
        """Return how much of *name*, a canonical repository name, the prefix takes; 0 where it does not fit."""
        if self.prefix.startswith("*."):
            host, slash, rest = name.partition("/")
            suffix, _, path = self.prefix[1:].partition("/")
            if not host.endswith(suffix) or (path and not f"{rest}/".startswith(f"{path}/")):
                return 0
            return len(host) + (len(slash) + len(path) if path else 0)
        return len(self.prefix) if f"{name}/".startswith(f"{self.prefix}/") else 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that is configured.  *insecure* are hosts with or without port, and networks, of docker's."""

    registries: tuple[Registry, ...] = ()
    insecure: tuple[str, ...] = ()
    docker_mirrors: tuple[Mirror, ...] = ()

    def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Return where to ask for *reference*, best first; the last is the registry itself.

        Raises: RegistryError, if it is blocked.
        """
        name = reference.name
        found = max(self.registries, key=lambda registry: registry.length(name), default=None)
        length = found.length(name) if found is not None else 0
        if found is None or not length:
            found, length = Registry(reference.registry, reference.registry), len(reference.registry)
        if found.blocked:
            raise RegistryError(f"registry {found.prefix} is blocked by the registries configuration")
        mirrors = found.mirrors
        if reference.registry == DEFAULT_REGISTRY and not mirrors:
            mirrors = self.docker_mirrors
        rest = name[length:]
        kind = "tag-only" if reference.digest is None else "digest-only"
        endpoints = [
            self._endpoint(mirror.location + rest, insecure=mirror.insecure, is_mirror=True)
            for mirror in mirrors
            if mirror.pull_from in ("all", kind)
        ]
        # A prefix with a wildcard and no location rewrites nothing.
        primary = name if found.location.startswith("*.") else found.location + rest
        return (*endpoints, self._endpoint(primary, insecure=found.insecure, is_mirror=False))

    def _endpoint(self, name: str, *, insecure: bool, is_mirror: bool) -> Endpoint:
        registry, _, repository = name.partition("/")
        return Endpoint(registry, repository, insecure or self._is_insecure(registry), is_mirror)

    def _is_insecure(self, registry: str) -> bool:
        host = re.sub(r":\d+$", "", registry).strip("[]")
        for known in self.insecure:
            if known in (registry, host):
                return True
            try:
                if ipaddress.ip_address(host) in ipaddress.ip_network(known, strict=False):
                    return True
            except ValueError:
                continue
        return False


def load_configuration(
    *, environ: Mapping[str, str] = os.environ, system: Path = _SYSTEM, daemon: Path = _DAEMON
) -> Configuration:
    """Return what the files say that podman and docker read; files that are not there say nothing.

    ``$CONTAINERS_REGISTRIES_CONF`` names the only file to read instead of podman's.

    Raises: ConfigurationInvalid, naming the file and the key.
    """
    registries: dict[str, Registry] = {}
    for path in _files(environ, system):
        for registry in _registries(path):
            registries[registry.prefix] = registry
    insecure, mirrors = _docker(daemon)
    return Configuration(tuple(registries.values()), insecure, mirrors)


def configuration_files() -> tuple[Path, ...]:
    """Return the files that `load_configuration` reads and that are there."""
    return tuple(path for path in (*_files(os.environ, _SYSTEM), _DAEMON) if path.is_file())


def _files(environ: Mapping[str, str], system: Path) -> Iterable[Path]:
    if given := environ.get(_VARIABLE):
        return [Path(given)]
    folder = home()
    own = folder / ".config/containers/registries.conf" if folder else None
    base = own if own is not None and own.exists() else system
    dropped = [system.with_name("registries.conf.d")]
    if own is not None:
        dropped.append(own.with_name("registries.conf.d"))
    return [base, *(path for where in dropped for path in sorted(where.glob("*.conf")))]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise ConfigurationInvalid(str(path), (error.strerror or "cannot be read").lower()) from None
    if len(raw) > _MAX_BYTES:
        raise ConfigurationInvalid(str(path), f"expected at most {_MAX_BYTES} bytes")
    return raw


def _registries(path: Path) -> list[Registry]:
    try:
        document = tomllib.loads(_read(path).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationInvalid(str(path), str(error)) from None
    if "registries" in document:
        reason = "it has the old format ([registries.…]), which is not supported; use [[registry]]"
        raise ConfigurationInvalid(str(path), reason)
    entries = document.get("registry", [])
    if not isinstance(entries, list):
        raise ConfigurationInvalid(str(path), "expected [[registry]], found something else as 'registry'")
    return [_registry(_Table(path, f"registry {number}", entry)) for number, entry in enumerate(entries, 1)]


class _Table:
    """One table of a file, whose values are taken with their types checked."""

    def __init__(self, path: Path, name: str, value: object) -> None:
        if not isinstance(value, dict):
            raise ConfigurationInvalid(str(path), f"expected {name} to be a table")
        self._path = path
        self._name = name
        self._value: dict[str, Any] = value

    def text(self, key: str) -> str:
        value = self._value.get(key, "")
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def flag(self, key: str) -> bool:
        value = self._value.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def location(self, key: str) -> str:
        value = self.text(key).removesuffix("/")
        if value and not _LOCATION.fullmatch(value.removeprefix("*.")):
            raise self.wrong(key, "host[:port][/path], without scheme")
        return value

    def tables(self, key: str) -> "list[_Table]":
        value = self._value.get(key, [])
        if not isinstance(value, list):
            raise self.wrong(key, "[[registry.mirror]] tables")
        return [_Table(self._path, f"{key} {n} of {self._name}", entry) for n, entry in enumerate(value, 1)]

    def wrong(self, key: str, expected: str) -> ConfigurationInvalid:
        return ConfigurationInvalid(str(self._path), f"expected '{key}' of {self._name} to be {expected}")


def _registry(table: _Table) -> Registry:
    location = table.location("location")
    prefix = table.location("prefix") or location
    if not prefix:
        raise table.wrong("location", "there, or 'prefix'")
    by_digest = table.flag("mirror-by-digest-only")
    mirrors = []
    for mirror in table.tables("mirror"):
        where = mirror.location("location")
        if not where:
            raise mirror.wrong("location", "there")
        pull_from = mirror.text("pull-from-mirror") or ("digest-only" if by_digest else "all")
        if pull_from not in ("all", "digest-only", "tag-only"):
            raise mirror.wrong("pull-from-mirror", "all, digest-only or tag-only")
        mirrors.append(Mirror(where, mirror.flag("insecure"), pull_from))  # type: ignore[arg-type]  # one of the three
    return Registry(prefix, location or prefix, table.flag("insecure"), table.flag("blocked"), tuple(mirrors))


def _docker(path: Path) -> tuple[tuple[str, ...], tuple[Mirror, ...]]:
    raw = _read(path)
    try:
        document = json.loads(raw) if raw.strip() else {}
    except ValueError as error:
        raise ConfigurationInvalid(str(path), str(error)) from None
    if not isinstance(document, dict):
        raise ConfigurationInvalid(str(path), "expected a JSON object")
    found = {}
    for key in ("insecure-registries", "registry-mirrors"):
        texts = document.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ConfigurationInvalid(str(path), f"expected '{key}' to be a list of texts")
        found[key] = texts
    mirrors = []
    for text in found["registry-mirrors"]:
        scheme, separator, location = text.partition("://")
        location = location.removesuffix("/")
        if not separator or scheme not in ("http", "https") or not _LOCATION.fullmatch(location):
            reason = f"expected URLs such as https://host in 'registry-mirrors', found '{text}'"
            raise ConfigurationInvalid(str(path), reason)
        mirrors.append(Mirror(location, scheme == "http", "all"))
    return tuple(found["insecure-registries"]), tuple(mirrors)
