"""Credentials, where docker and podman keep them.

Receives a registry and a repository; hands on the credential somebody stored for exactly that registry, or None.  It
must never hand one registry's credential to another, whatever is missing or broken, nor show a secret.

Order (containers-auth.json(5), docker's config file): a given authfile or ``$REGISTRY_AUTH_FILE`` alone; else the first
of podman's runtime file, podman's config file, docker's config file and ``~/.dockercfg`` that knows the registry.
Within a file: ``credHelpers`` for the registry, then ``credsStore``, then ``auths``.
"""

import base64
import binascii
import json
import logging
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagefs.errors import Unauthorized, printable
from imagefs.oci.reference import DEFAULT_REGISTRY
from imagefs.registry.credential_helper import ask_helper

__all__ = ["Credential", "credential_files", "find_credential", "home"]

_log = logging.getLogger("imagefs.registry")

MAX_FILE_BYTES = 16 * 1024 * 1024
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io"})
_TOKEN_USER = "<token>"  # noqa: S105  # a user name


@dataclass(frozen=True, slots=True)
class Credential:
    """A user with a password, or with a token to be used instead: one to get others, or one for the registry itself.

    *source* says where it was found.  Secrets are kept out of ``repr``.
    """

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    source: str = ""

    def basic(self) -> str:
        """Return the value of a Basic ``Authorization`` header: a secret."""
        text = f"{self.username}:{self.password or self.identity_token}"
        return "Basic " + base64.b64encode(text.encode()).decode()


def find_credential(registry: str, repository: str, *, authfile: Path | None = None) -> Credential | None:
    """Return the credential for pulling *repository* from *registry* (``host[:port]``), None where none is stored.

    Reads the files anew, and may run a credential helper, which may ask a person.

    Raises: Unauthorized, naming the file, where a file cannot be understood or a helper fails.
    """
    for path, must_exist, is_dockercfg in _files(authfile):
        document = _load(path, must_exist=must_exist)
        if document is None:
            continue
        if is_dockercfg:
            document = {"auths": document}
        found = _from_file(path, document, registry, repository)
        if found is not None:
            _log.debug("credentials for %s: user %r from %s", registry, printable(found.username), found.source)
            return found
    return None


def credential_files() -> tuple[Path, ...]:
    """Return the files that credentials would be looked for in and that are there, the first asked first."""
    return tuple(path for path, _, _ in _files(None) if path.is_file())


def home() -> Path | None:
    """Return this user's home folder, None where there is none; ``HOME`` need not be set (it is not under mount(8))."""
    if given := os.environ.get("HOME"):
        return Path(given)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def _files(authfile: Path | None) -> Iterator[tuple[Path, bool, bool]]:
    """Yield each path, whether it must exist, and whether it is in the oldest format, which has no ``auths`` level."""
    if authfile is not None:
        yield authfile, True, False
        return
    environ = os.environ
    if given := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(given), False, False
        return
    runtime = environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "containers" if runtime else Path(f"/run/containers/{os.getuid()}")
    yield folder / "auth.json", False, False
    own = home()
    if config := environ.get("XDG_CONFIG_HOME"):
        yield Path(config) / "containers/auth.json", False, False
    elif own:
        yield own / ".config/containers/auth.json", False, False
    if config := environ.get("DOCKER_CONFIG"):
        yield Path(config) / "config.json", False, False
    elif own:
        yield own / ".docker/config.json", False, False
    if own:
        yield own / ".dockercfg", False, True


def _load(path: Path, *, must_exist: bool) -> Mapping[str, object] | None:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        if must_exist:
            raise Unauthorized(f"there is no credentials file {path}") from None
        return None
    except OSError as error:
        raise Unauthorized(f"cannot read the credentials in {path}: {error.strerror}") from None
    if not raw.strip():
        return None
    try:
        document = json.loads(raw) if len(raw) <= MAX_FILE_BYTES else None
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it is no JSON"
        raise Unauthorized(f"cannot understand the credentials in {path}: {why}") from None
    if not isinstance(document, dict):
        raise Unauthorized(f"cannot understand the credentials in {path}: expected a JSON object")
    return document


def _from_file(path: Path, document: Mapping[str, object], registry: str, repository: str) -> Credential | None:
    helpers = _object(document.get("credHelpers"))
    for key in _names(registry):
        if isinstance(name := helpers.get(key), str) and name:
            return _from_helper(path, name, key)
    if isinstance(store := document.get("credsStore"), str) and store:
        server = _HUB_KEY if registry in _HUB_HOSTS else registry
        found = _from_helper(path, store, server)
        if found is not None:
            return found
    return _from_auths(path, _object(document.get("auths")), registry, repository)


def _from_helper(path: Path, name: str, server: str) -> Credential | None:
    try:
        answer = ask_helper(name, server)
    except FileNotFoundError as error:
        _log.warning("%s names the credential helper %s, which is not installed; going on without", path, error)
        return None
    if answer is None:
        return None
    username, secret = answer
    source = f"docker-credential-{name}"
    if username == _TOKEN_USER:
        return Credential(username, identity_token=secret, source=source)
    return Credential(username, secret, source=source)


def _from_auths(path: Path, auths: Mapping[str, object], registry: str, repository: str) -> Credential | None:
    parts = repository.split("/") if repository else []
    for name in _names(registry):
        for length in range(len(parts), -1, -1):
            key = "/".join((name, *parts[:length]))
            if (found := _from_entry(path, key, auths.get(key))) is not None:
                return found
    wanted = set(_names(registry))
    for key, entry in auths.items():
        if _host_of_key(key) in wanted and (found := _from_entry(path, key, entry)) is not None:
            return found
    return None


def _names(registry: str) -> tuple[str, ...]:
    """Return what *registry* may be called, most exact first."""
    if registry in _HUB_HOSTS:
        return (DEFAULT_REGISTRY, _HUB_KEY, "index.docker.io", "registry-1.docker.io")
    return (registry,)


def _host_of_key(key: str) -> str:
    """Return the registry a key of the older, URL-like kinds means; "" for a namespaced one, which means less."""
    scheme, separator, rest = key.partition("://")
    if separator:
        return rest.partition("/")[0] if scheme in ("https", "http") else ""
    host, _, path = key.partition("/")
    return host if path.strip("/") in ("", "v1", "v2") else ""


def _from_entry(path: Path, key: str, entry: object) -> Credential | None:
    """Return what one entry holds; None where it is empty, as docker leaves it when a helper has the secret."""
    fields = _object(entry)
    username, password = _text(fields, "username"), _text(fields, "password")
    if encoded := _text(fields, "auth"):
        try:
            decoded = base64.b64decode(encoded, validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            decoded = ""
        username, colon, password = decoded.partition(":")
        if not colon:
            why = f"'auth' of '{printable(key)}' is no base64 of user:password"
            raise Unauthorized(f"cannot understand the credentials in {path}: {why}")
    identity_token, registry_token = _text(fields, "identitytoken"), _text(fields, "registrytoken")
    if not (username or password or identity_token or registry_token):
        return None
    return Credential(username, password, identity_token, registry_token, source=str(path))


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
