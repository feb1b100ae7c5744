"""What a refused request means, in the words users of image tools know.

Receives status, headers and body of an answer, and what was asked for; hands on the error to raise.  It must never
raise it, nor decide whether to try again: the error's class says that.
"""

import http
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from imagefs.errors import ManifestUnknown, RegistryError, RegistryUnavailable, Unauthorized
from imagefs.registry.boundaries import authority_of, redacted
from imagefs.registry.protocol import (
    ErrorEntry,
    describe_rate_limit,
    is_rate_spent,
    parse_errors,
    parse_retry_after,
)

__all__ = ["Asked", "refusal"]

_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request was for.

    *kind* is ``manifest``, ``blob``, ``tags``, ``search``, ``catalog``, ``token`` or ``registry``; *name* is the
    repository as a person writes it, of a search the term, of a catalog the registry; *reference* is the tag or digest
    asked for.
    """

    kind: str
    name: str = ""
    reference: str = ""

    @property
    def full(self) -> str:
        """The name with its tag or digest, as a person writes it."""
        if not self.reference:
            return self.name
        return f"{self.name}{'@' if ':' in self.reference else ':'}{self.reference}"


class _Facts(TypedDict):
    status: int
    codes: tuple[str, ...]
    url: str


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, *, url: str, asked: Asked, elsewhere: bool = False
) -> RegistryError:
    """Return the error that an answer other than the one hoped for means.

    *headers* are looked up by lower-case names; *body* is at most the first `MAX_ERROR_BODY_BYTES` of it.  *elsewhere*
    says that another host answered than the registry, such as its storage: what that refuses, no login changes.
    """
    entries = parse_errors(body)
    codes = tuple(entry.code for entry in entries if entry.code)
    more = _Facts(status=status, codes=codes, url=redacted(url))
    said = "; ".join(text for entry in entries[:3] if (text := str(entry)))
    if status == 429 or "TOOMANYREQUESTS" in codes:
        return _too_many(headers, entries, more, authority_of(url))
    if elsewhere and status in (401, 403, 404):
        phrase = f"HTTP {status} {_phrase(status)}"
        return RegistryError(f"{authority_of(url)}, where {_thing(asked)} should be, refuses with {phrase}", **more)
    if status in (401, 403):
        return Unauthorized(_denied(status, said, authority_of(url), asked), **more)
    if status == 404:
        return ManifestUnknown(_not_found(codes, said, asked), **more)
    phrase = f"HTTP {status} {_phrase(status)}".rstrip() + (f": {said}" if said else "")
    if status in _TEMPORARY or status >= 520:  # from 520 on: what proxies such as Cloudflare's say of those behind
        return RegistryUnavailable(
            f"{authority_of(url)} failed with {phrase}",
            retry_after_s=parse_retry_after(headers.get("retry-after"), now_s=time.time()),
            **more,
        )
    return RegistryError(f"{authority_of(url)} answered the request for {_thing(asked)} with {phrase}", **more)


def _too_many(headers: Mapping[str, str], entries: tuple[ErrorEntry, ...], more: _Facts, host: str) -> RegistryError:
    words = next((entry.message for entry in entries if entry.message), f"{host} asks for fewer requests")
    limit = describe_rate_limit(headers)
    message = f"toomanyrequests: {words}" + (f" ({limit})" if limit else "")
    if is_rate_spent(headers):  # comes back in hours: not worth a wait
        return RegistryError(message, **more)
    retry_after_s = parse_retry_after(headers.get("retry-after"), now_s=time.time())
    return RegistryUnavailable(message, retry_after_s=retry_after_s, **more)


def _denied(status: int, said: str, host: str, asked: Asked) -> str:
    if asked.kind == "token":
        why = said or f"HTTP {status} {_phrase(status)}"
        return f"the token server {host} refuses to let us pull {asked.name}: {why}; check the login to this registry"
    if asked.kind in ("search", "catalog"):
        return f"{host} refuses {_thing(asked)}: {said or _phrase(status)}; check the login to this registry"
    if not asked.name:
        return f"{host} refuses access: {said or _phrase(status)}"
    said = said or ("unauthorized: authentication required" if status == 401 else "denied: access is forbidden")
    return f"pull access denied for {asked.name}, repository does not exist or may require 'docker login': {said}"


def _not_found(codes: tuple[str, ...], said: str, asked: Asked) -> str:
    said = said or "the registry says no more than HTTP 404 Not Found"
    if "NAME_UNKNOWN" in codes or asked.kind == "tags":
        return f"repository {asked.name} not found: {said}"
    return f"{_thing(asked)} not found: {said}"


def _thing(asked: Asked) -> str:
    if asked.kind == "blob":
        return f"blob {asked.reference} of {asked.name}"
    if asked.kind == "registry":
        return "its API (/v2/)"
    if asked.kind == "search":
        return f"a search for '{asked.name}'"
    if asked.kind == "catalog":
        return f"the catalog of {asked.name}"
    return f"{asked.kind} for {asked.full}"


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
