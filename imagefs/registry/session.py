"""A registry, connected: which scheme it speaks, what opens it, and one checked answer for each request.

Receives the name of a registry and what the user said about TLS and credentials; hands on answers with a status the
caller hoped for.  It must never know what is in a body.
"""

import contextlib
import logging
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from imagefs.errors import RegistryError
from imagefs.oci.reference import Reference
from imagefs.registry.authorization import Authorizer
from imagefs.registry.boundaries import Sender, authority_of, checked_foreign
from imagefs.registry.credentials import find_credential
from imagefs.registry.failures import PlainHttp
from imagefs.registry.http import Response, Transport
from imagefs.registry.protocol import (
    MAX_ERROR_BODY_BYTES,
    api_root,
    describe_rate_limit,
    parse_challenges,
    parse_warnings,
)
from imagefs.registry.redirects import get_following
from imagefs.registry.refusal import Asked, refusal
from imagefs.registry.retry import Attempts, RetryPolicy
from imagefs.registry.secrets import Secrets
from imagefs.registry.tls import TlsPolicy, certificate_files

__all__ = ["RegistrySession"]

_log = logging.getLogger("imagefs.registry")

_MAX_WARNINGS = 100


class RegistrySession:
    """Requests to one registry, authorized and with redirects followed; none is repeated but for a challenge.

    Connects when first needed.  Thread-safe; `close` when no thread uses it any more.
    """

    def __init__(self, registry: str, *, policy: TlsPolicy, authfile: Path | None, retry: RetryPolicy) -> None:
        self._registry = registry
        self._policy = policy
        self._authfile = authfile
        self._retry = retry
        self._lock = threading.Lock()
        self._secrets = Secrets()
        self._transport: Transport | None = None
        self._connected: tuple[str, Transport, Authorizer] | None = None
        self._warnings: set[str] = set()

    def root_url(self) -> str:
        """Return the URL all others begin with.  Raises: RegistryError where the registry cannot be reached."""
        return self._connect()[0]

    def asked(self, kind: str, repository: str, reference: str = "") -> Asked:
        """Return what a request is for, in the words of a person."""
        return Asked(kind, Reference(self._registry, repository, None, None).familiar_name, reference)

    def get(
        self,
        url: str,
        repository: str,
        asked: Asked,
        *,
        headers: Mapping[str, str],
        accept: Collection[int] = (200,),
    ) -> Response:
        """Return the answer of the registry, or of where it sends us, to a GET; its status is in *accept*.

        A 401 of the registry itself is answered once, with a new token where there was one; another 401 means that
        these credentials do not suffice.

        Raises: RegistryError.
        """
        with self._secrets.scrubbing():
            _, transport, authorizer = self._connect()
            header = authorizer.header(repository, name=asked.name)
            response, trusted = get_following(transport, url, headers=headers, authorization=header)
            if response.status == 401 and trusted:
                challenges = parse_challenges(response.header_values("www-authenticate"))
                try:
                    better = authorizer.answer(challenges, repository, name=asked.name, rejected=header)
                except BaseException:
                    response.close()
                    raise
                if better is not None:
                    response.close()
                    response, trusted = get_following(transport, url, headers=headers, authorization=better)
            return self._checked(response, asked, accept, elsewhere=not trusted)

    def get_anonymous(self, url: str, asked: Asked, *, headers: Mapping[str, str]) -> Response:
        """Return the answer to a GET from the registry itself, without credentials.  Raises: RegistryError."""
        with self._secrets.scrubbing():
            _, transport, _ = self._connect()
            response, _ = get_following(transport, url, headers=headers, authorization=None)
            return self._checked(response, asked, (200,), elsewhere=True)

    def get_foreign(
        self, url: str, asked: Asked, *, headers: Mapping[str, str], accept: Collection[int] = (200,)
    ) -> Response:
        """Return the answer to a GET from a URL that some manifest names: without credentials, whatever it asks for.

        Raises: RegistryError.
        """
        with self._secrets.scrubbing():
            root_url, transport, _ = self._connect()
            registry = Sender(root_url, transport.is_here(root_url))
            target = checked_foreign(registry, url)
            response, _ = get_following(transport, target, headers=headers, authorization=None, sender=registry)
            return self._checked(response, asked, accept, elsewhere=True)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()

    def _connect(self) -> tuple[str, Transport, Authorizer]:
        with self._lock, self._secrets.scrubbing():
            if self._connected is None:
                if self._transport is None:
                    authority = authority_of(api_root(self._registry, "https"))
                    files = certificate_files(self._registry)
                    self._transport = Transport(authority, self._policy, files, self._secrets)
                self._connected = self._find_scheme(self._transport)
            return self._connected

    def _find_scheme(self, transport: Transport) -> tuple[str, Transport, Authorizer]:
        https = api_root(self._registry, "https")
        try:
            return self._greet(transport, https)
        except RegistryError as error:
            if error.status or not self._policy.allows_http(is_here=transport.is_here(https)):
                raise
            failure = error
        # Not inside the handler above: what fails now would be read as a consequence of the TLS failure.
        try:
            return self._greet(transport, api_root(self._registry, "http"), only_expected=True)
        except RegistryError as second:
            if isinstance(failure, PlainHttp):
                raise
            _log.debug("plain http neither: %s", second)
        raise failure

    def _greet(
        self, transport: Transport, root_url: str, *, only_expected: bool = False
    ) -> tuple[str, Transport, Authorizer]:
        """Knock at the front door and remember its challenges; most other answers do no harm.

        Where no answer comes at all, that is final here: most often the name is mistyped.
        """
        attempts = Attempts(self._retry)
        while True:
            try:
                response, trusted = get_following(transport, root_url, headers={}, authorization=None)
                with contextlib.closing(response):
                    body = response.read(MAX_ERROR_BODY_BYTES)
                    failed = response.status == 429 or response.status >= 500
                    if failed or (only_expected and response.status not in (200, 401)):
                        asked = Asked("registry")
                        raise refusal(response.status, response.headers, body, url=response.url, asked=asked)
                    authorizer = Authorizer(
                        transport,
                        root_url,
                        lambda repository: find_credential(self._registry, repository, authfile=self._authfile),
                    )
                    if response.status == 401 and trusted:
                        authorizer.greeted(parse_challenges(response.header_values("www-authenticate")))
                    return root_url, transport, authorizer
            except RegistryError as error:
                if error.status == 0:
                    raise
                attempts.failed(error)

    def _checked(self, response: Response, asked: Asked, accept: Collection[int], *, elsewhere: bool) -> Response:
        self._show_warnings(response)
        if limit := describe_rate_limit(response.headers):
            _log.debug("%s: %s", authority_of(response.url), limit)
        if response.status in accept:
            return response
        with contextlib.closing(response):
            try:
                body = response.read(MAX_ERROR_BODY_BYTES)
            except RegistryError:
                body = b""  # the status says enough
            raise refusal(response.status, response.headers, body, url=response.url, asked=asked, elsewhere=elsewhere)

    def _show_warnings(self, response: Response) -> None:
        for text in parse_warnings(response.header_values("warning")):
            with self._lock:
                if text in self._warnings or len(self._warnings) >= _MAX_WARNINGS:
                    continue
                self._warnings.add(text)
            _log.warning("%s says: %s", authority_of(response.url), text)
