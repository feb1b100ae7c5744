"""HTTP as the registry client needs it; the only module that knows requests.

Receives URLs that were checked by `boundaries`, and headers; hands on responses whose bodies are read in bounded pieces
exactly as they came over the wire.  It must never follow a redirect, answer a challenge, keep a cookie, read
``~/.netrc``, or try again: those are decisions, and made elsewhere.

requests' adapters are used without its sessions, because a session reads the bodies of redirects without bound and
has opinions on all of the above.  Below them, connections are made by `connections.dial`.
"""

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
import requests.utils
import urllib3
import urllib3.exceptions

from imagefs import __version__
from imagefs.errors import RegistryError, RegistryUnavailable
from imagefs.registry import limits
from imagefs.registry.boundaries import Sender, authority_of, check_addresses, host_of, is_loopback, redacted
from imagefs.registry.connections import LimitedTlsSocket, ReadLimit, Resolver, dial
from imagefs.registry.failures import broken, no_answer
from imagefs.registry.secrets import Secrets
from imagefs.registry.tls import CertificateFiles, TlsPolicy, tls_context

__all__ = ["Response", "Transport"]

_log = logging.getLogger("imagefs.registry")

CHUNK_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024


class Response:
    """An answer, its body yet to be read.  Close it; not thread-safe."""

    def __init__(
        self, response: requests.Response, url: str, clock: Callable[[], float], secrets: Secrets, *, is_here: bool
    ) -> None:
        self._response = response
        self._clock = clock
        self._secrets = secrets
        self.url = url
        self.is_here = is_here
        """Whether the connection went to a loopback address."""
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        """By name in any case; values of repeated headers are joined with commas."""

    def header_values(self, name: str) -> tuple[str, ...]:
        """Return the values of all headers of that name."""
        return tuple(self._response.raw.headers.getlist(name))

    def content_length(self) -> int | None:
        """Return the announced size of the body, None where it is not known."""
        if self._response.raw.chunked:
            return None
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in pieces of at most `CHUNK_BYTES`, undecoded.

        Raises: RegistryUnavailable where the transfer breaks or stalls, after all that came before was yielded.
        """
        pieces: list[bytes] = []
        pending = 0
        for piece in self._pieces():
            if isinstance(piece, RegistryUnavailable):
                if pieces:
                    yield b"".join(pieces)
                raise piece
            pieces.append(piece)
            pending += len(piece)
            if pending > CHUNK_BYTES - _READ_BYTES:
                yield b"".join(pieces)
                pieces, pending = [], 0
        if pieces:
            yield b"".join(pieces)

    def read(self, limit_bytes: int) -> bytes:
        """Return the body, or its first *limit_bytes* where it is longer.

        Raises: RegistryUnavailable where the transfer breaks or stalls.
        """
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) >= limit_bytes:
                break
        return bytes(body[:limit_bytes])

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        self._response.close()

    def _pieces(self) -> Iterator[bytes | RegistryUnavailable]:
        """Yield what each read from the socket brings, at the end perhaps the error that ended it."""
        raw = self._response.raw
        waited_s = 0.0
        window_bytes = window_reads = 0
        while True:
            before = self._clock()
            _limit_reads(raw, limits.READ_TIMEOUT_S, limits.STALL_WINDOW_S, _READ_BYTES + limits.MAX_FRAMING_BYTES)
            try:
                # read1 returns with what is there; read would wait for all it was asked for, which a server that sends
                # a byte now and then can draw out for ever.
                piece: bytes = raw.read1(_READ_BYTES, decode_content=False)
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
                yield self._unavailable(broken(error))
                return
            waited_s += self._clock() - before
            window_bytes += len(piece)
            window_reads += 1
            if piece:
                yield piece
            else:
                return
            if waited_s >= limits.STALL_WINDOW_S or window_reads >= limits.STALL_READS:
                if window_bytes < limits.STALL_BYTES:
                    problem = f"stalled: {window_bytes} bytes in {waited_s:.0f} s and {window_reads} reads"
                    yield self._unavailable(problem)
                    return
                waited_s, window_bytes, window_reads = 0.0, 0, 0

    def _unavailable(self, problem: str) -> RegistryUnavailable:
        message = f"the transfer from {authority_of(self.url)} {problem}"
        error = RegistryUnavailable(message, url=redacted(self.url))
        self._secrets.scrub_error(error)
        return error


def _limit_reads(response: urllib3.BaseHTTPResponse, silence_s: float, rest_s: float, limit_bytes: int) -> None:
    """Bound the next piece of the body of *response*; a socket of another kind (SOCKS) keeps its timeout alone."""
    sock = getattr(response, "limited_socket", None)
    if sock is not None:
        sock.read_limit = ReadLimit(silence_s, rest_s, limit_bytes)


class Transport:
    """Connections for one registry client.  Thread-safe; `close` when no thread uses it any more.

    Only *authority*, the registry's own ``host[:port]``, is shown the client certificate and judged by the CAs in
    *files*; the policy holds for all hosts.  *secrets* learns each secret that is sent, and keeps them out of the log
    until `close`.
    """

    def __init__(
        self,
        authority: str,
        policy: TlsPolicy,
        files: CertificateFiles,
        secrets: Secrets,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authority = authority
        self._policy = policy
        self._files = files
        self._secrets = secrets
        self._clock = clock
        self._resolver = Resolver()
        self._lock = threading.Lock()
        self._adapters: dict[tuple[bool, bool], _Adapter] = {}
        # Its lines hold whole URLs, in which storage services put signatures.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        _log.addFilter(secrets)

    def is_here(self, url: str) -> bool:
        """Return whether requests to *url* go to this machine: not through a proxy, and to loopback addresses only.

        False for a host that cannot be resolved.
        """
        try:
            return self._located(url, None)
        except RegistryError:
            return False

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        sender: Sender | None = None,
    ) -> Response:
        """Send one request and return the answer, whatever its status.

        *headers* are sent besides those every request has.  *sender* is the server that names *url*, None where the
        user or the configuration does; it decides which addresses may be connected to.

        Raises: RegistryUnavailable where no answer comes; RegistryError where none can, as with a bad certificate.
        """
        everything = {"User-Agent": f"imagefs/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
        is_here = self._located(url, sender)
        self._keep_secrets(url, everything, form or {}, is_here=is_here)
        verify = self._policy.verifies(is_here=is_here)
        try:
            prepared = requests.Request(method, url, headers=everything, data=form).prepare()
            response = self._adapter(authority_of(url) == self._authority, verify).send(
                prepared,
                stream=True,
                timeout=(limits.CONNECT_TIMEOUT_S, limits.READ_TIMEOUT_S),
                verify=verify,
                proxies=_proxies(url),
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, OSError) as error:
            is_proxy = isinstance(error, requests.exceptions.ProxyError)
            problem = no_answer(error, url, is_proxy=is_proxy)
            _log.debug("%s %s: %s", method, redacted(url), problem)
            # Not chained: the messages below hold whole URLs.
            raise problem from None
        _log.debug("%s %s: %d", method, redacted(url), response.status_code)
        return Response(response, url, self._clock, self._secrets, is_here=is_here)

    def close(self) -> None:
        """Close all connections."""
        _log.removeFilter(self._secrets)
        with self._lock:
            for adapter in self._adapters.values():
                adapter.close()
            self._adapters.clear()

    def _located(self, url: str, sender: Sender | None) -> bool:
        """Return whether *url* is on this machine; refuse it if *sender* must not name its addresses.

        Raises: RegistryError, RegistryUnavailable where the host has no address.
        """
        if requests.utils.select_proxy(url, _proxies(url)):
            return False  # the proxy resolves the name
        try:
            found = self._resolver.addresses(urlsplit(url).hostname or "", limits.CONNECT_TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise no_answer(error, url) from None
        addresses = [address.text for address in found]
        if sender is not None:
            check_addresses(sender, url, addresses)
        return all(is_loopback(address) for address in addresses)

    def _keep_secrets(self, url: str, headers: Mapping[str, str], form: Mapping[str, str], *, is_here: bool) -> None:
        """Remember what is secret in a request.  Raises: RegistryError where it would be readable on its way."""
        authorization, refresh_token = headers.get("Authorization"), form.get("refresh_token")
        if authorization:
            self._secrets.add_authorization(authorization)
        if refresh_token:
            self._secrets.add(refresh_token)
        is_readable = urlsplit(url).scheme != "https" and not self._policy.allows_http(is_here=is_here)
        if is_readable and (authorization or refresh_token):
            raise RegistryError(
                f"a login must not be sent to {authority_of(url)} in plain http: its address is not this machine's",
                url=redacted(url),
            )

    def _adapter(self, own: bool, verify: bool) -> "_Adapter":
        with self._lock:
            if (own, verify) not in self._adapters:
                bundle = requests.utils.DEFAULT_CA_BUNDLE_PATH
                context = tls_context(self._files if own else CertificateFiles(), verify=verify, bundle=bundle)
                # A proxy sees neither the client certificate nor the CAs of the registry.
                to_proxy = tls_context(CertificateFiles(), verify=verify, bundle=bundle)
                self._adapters[own, verify] = _Adapter(self._resolver, context, to_proxy)
                if not verify:
                    # It says for each request what the user said himself.
                    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            return self._adapters[own, verify]


class _Dialing:
    """What connections of urllib3 do otherwise here: connect to resolved addresses, and bound what is read."""

    resolver: Resolver
    host: str
    port: int
    timeout: float
    sock: Any

    def _new_conn(self) -> socket.socket:
        try:
            sock = dial(self.resolver, self._dns_host.strip("[]"), self.port, self.timeout)  # type: ignore[attr-defined]
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "no connection in time") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, "no connection") from error  # type: ignore[arg-type]
        # For the answer of a proxy that is asked for a tunnel.
        sock.read_limit = ReadLimit(limits.CONNECT_TIMEOUT_S, limits.CONNECT_TIMEOUT_S, limits.MAX_FRAMING_BYTES)
        return sock

    def getresponse(self) -> urllib3.BaseHTTPResponse:
        """Read the head of the answer."""
        sock = getattr(self.sock, "socket", self.sock)  # of TLS within the TLS of a proxy
        sock.read_limit = ReadLimit(limits.READ_TIMEOUT_S, limits.HEAD_TIMEOUT_S, limits.MAX_FRAMING_BYTES)
        response: urllib3.BaseHTTPResponse = super().getresponse()  # type: ignore[misc]
        response.limited_socket = sock  # type: ignore[attr-defined]
        return response


def _pool_classes(resolver: Resolver) -> dict[str, Any]:
    """Return the classes of connection pools by scheme, bound to *resolver*."""

    class Plain(_Dialing, urllib3.connection.HTTPConnection):  # type: ignore[misc]
        pass

    class Secure(_Dialing, urllib3.connection.HTTPSConnection):  # type: ignore[misc]
        pass

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain  # type: ignore[assignment]

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure  # type: ignore[assignment]

    Plain.resolver = Secure.resolver = resolver
    return {"http": PlainPool, "https": SecurePool}


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections that share one TLS context, straight and through proxies."""

    def __init__(self, resolver: Resolver, context: ssl.SSLContext, to_proxy: ssl.SSLContext) -> None:
        context.sslsocket_class = to_proxy.sslsocket_class = LimitedTlsSocket
        self._pools = _pool_classes(resolver)
        self._context = context
        self._to_proxy = to_proxy
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("socks"):  # whose connections are of classes of their own
            return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        manager = super().proxy_manager_for(
            proxy, **kwargs, ssl_context=self._context, proxy_ssl_context=self._to_proxy
        )
        manager.pool_classes_by_scheme = self._pools
        return manager

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave all to the context: it is loaded already, where requests would load its bundle at each connection."""


def _proxies(url: str) -> dict[str, str]:
    if is_loopback(host_of(url)):
        return {}
    return requests.utils.get_environ_proxies(url)
