"""Authorization: from a challenge and a stored credential to the header that opens a repository.

Receives challenges, and credentials by repository; hands on values of the ``Authorization`` header, which go to the
registry's own origin only.  It must never answer a challenge from another host (its caller sees to that), nor send a
password where `boundaries` says no.

Source: distribution's token documents ("Token Authentication Specification", "OAuth2"); RFC 7617.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from imagefs.errors import InvalidManifest, RegistryError, Unauthorized, printable
from imagefs.registry.boundaries import (
    Sender,
    authority_of,
    checked_realm,
    checked_redirect,
    host_of,
    may_tell_password,
    redacted,
)
from imagefs.registry.credentials import Credential
from imagefs.registry.http import Response, Transport
from imagefs.registry.protocol import (
    MAX_ERROR_BODY_BYTES,
    MAX_TOKEN_BODY_BYTES,
    Challenge,
    Token,
    parse_token,
    pull_scope,
    token_url,
)
from imagefs.registry.redirects import get_following
from imagefs.registry.refusal import Asked, refusal

__all__ = ["Authorizer"]

_log = logging.getLogger("imagefs.registry")

CLIENT_ID = "imagefs"
_OAUTH_UNSUPPORTED = frozenset({400, 401, 404, 405})
"""How servers refuse the POST they do not know: ACR 400, Artifactory 401, GCR 404, others 405."""


@dataclass(frozen=True, slots=True)
class _Granted:
    header: str = field(repr=False)
    expires_s: float


class Authorizer:
    """Headers for one registry, remembered by repository until they expire.

    Thread-safe; threads that need the same token wait for the one that fetches it.  *find* returns the credential for
    a repository and is called once for each.
    """

    def __init__(
        self,
        transport: Transport,
        root_url: str,
        find: Callable[[str], Credential | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._root_url = root_url
        self._find = find
        self._clock = clock
        self._lock = threading.Lock()
        self._greeting: tuple[Challenge, ...] = ()
        self._granted: dict[str, _Granted] = {}
        self._credentials: dict[str, Credential | None] = {}

    def greeted(self, challenges: Sequence[Challenge]) -> None:
        """Remember the challenges of the registry's front door, for requests that are refused without one."""
        with self._lock:
            self._greeting = tuple(challenges)

    def header(self, repository: str, *, name: str) -> str | None:
        """Return the header to send at first, None to go without.  *name* is the repository for a person.

        Raises: RegistryError.
        """
        with self._lock:
            granted = self._granted.get(repository)
            if granted is not None and granted.expires_s > self._clock():
                return granted.header
            # The scope in a greeting is that of some other repository, or an example.
            return self._grant(self._greeting, repository, name, scopes=(pull_scope(repository),))

    def answer(
        self, challenges: Sequence[Challenge], repository: str, *, name: str, rejected: str | None
    ) -> str | None:
        """Return the header to try after a 401 to the header *rejected*; None where there is nothing else to try.

        Raises: RegistryError.
        """
        with self._lock:
            granted = self._granted.get(repository)
            if granted is not None and granted.header != rejected:
                return granted.header  # another thread was quicker
            self._granted.pop(repository, None)
            chosen = _choose(challenges) or _choose(self._greeting)
            scope = chosen.parameter("scope") if chosen else ""
            scopes = tuple(scope.split()) if chosen in challenges and scope else (pull_scope(repository),)
            header = self._grant(challenges or self._greeting, repository, name, scopes=scopes)
            return None if header == rejected else header

    def _grant(
        self, challenges: Sequence[Challenge], repository: str, name: str, *, scopes: tuple[str, ...]
    ) -> str | None:
        chosen = _choose(challenges)
        if chosen is None:
            return None
        credential = self._credential(repository)
        if chosen.scheme == "basic":
            if credential is None or credential.registry_token:
                return None
            granted = _Granted(credential.basic(), float("inf"))
        elif credential is not None and credential.registry_token:
            granted = _Granted(f"Bearer {credential.registry_token}", float("inf"))
        else:
            token = self._token(chosen, credential, name, scopes)
            granted = _Granted(f"Bearer {token.value}", self._clock() + token.lifetime_s)
        self._granted[repository] = granted
        return granted.header

    def _credential(self, repository: str) -> Credential | None:
        if repository not in self._credentials:
            self._credentials[repository] = self._find(repository)
        return self._credentials[repository]

    def _token(self, challenge: Challenge, credential: Credential | None, name: str, scopes: tuple[str, ...]) -> Token:
        registry, is_here = self._registry(), self._transport.is_here
        realm = checked_realm(registry, challenge.parameter("realm"), is_here=is_here)
        service = challenge.parameter("service")
        if credential is not None:
            if not may_tell_password(registry, realm, is_here=is_here):
                raise Unauthorized(
                    f"{authority_of(self._root_url)} wants the password of {printable(credential.username)} sent to "
                    f"{authority_of(realm)} in plain http, which is refused",
                    url=redacted(realm),
                )
            if host_of(realm) != host_of(self._root_url):
                _log.info("logging in to %s at %s", authority_of(self._root_url), authority_of(realm))
            if credential.identity_token:
                response = self._post(realm, credential, service, scopes)
                if response.status not in _OAUTH_UNSUPPORTED:
                    return _read_token(response, name)
                response.close()
        account = credential.username if credential is not None and not credential.identity_token else ""
        response, _ = get_following(
            self._transport,
            token_url(realm, service=service, scopes=scopes, account=account),
            headers={"Accept": "application/json"},
            authorization=credential.basic() if credential is not None else None,
            sender=registry,
            check=self._check_token_redirect,
        )
        return _read_token(response, name)

    def _post(self, realm: str, credential: Credential, service: str, scopes: tuple[str, ...]) -> Response:
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "scope": " ".join(scopes),
            "client_id": CLIENT_ID,
            "refresh_token": credential.identity_token,
        }
        headers = {"Accept": "application/json"}
        return self._transport.request("POST", realm, headers=headers, form=form, sender=self._registry())

    def _registry(self) -> Sender:
        return Sender(self._root_url, self._transport.is_here(self._root_url))

    def _check_token_redirect(self, sender: Sender, target: str) -> str:
        return checked_realm(self._registry(), checked_redirect(sender, target), is_here=self._transport.is_here)


def _choose(challenges: Sequence[Challenge]) -> Challenge | None:
    """Return the challenge to answer: a token server's before a plain password, which tells the registry more."""
    bearer = (challenge for challenge in challenges if challenge.scheme == "bearer" and challenge.parameter("realm"))
    basic = (challenge for challenge in challenges if challenge.scheme == "basic")
    return next(bearer, None) or next(basic, None)


def _read_token(response: Response, name: str) -> Token:
    try:
        if response.status != 200:
            body = response.read(MAX_ERROR_BODY_BYTES)
            raise refusal(response.status, response.headers, body, url=response.url, asked=Asked("token", name))
        raw = response.read(MAX_TOKEN_BODY_BYTES + 1)
    finally:
        response.close()
    try:
        return parse_token(raw)
    except InvalidManifest as error:
        host = authority_of(response.url)
        message = f"cannot use the token from {host} for {name}: {error.reason}"
        raise RegistryError(message, status=200, url=redacted(response.url)) from None
