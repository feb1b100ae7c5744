"""HTTP as the registry client needs it; the only module that knows requests.

Receives URLs that were checked by `boundaries`, and headers; hands on responses whose bodies are read in bounded pieces
exactly as they came over the wire.  It must never follow a redirect, answer a challenge, keep a cookie, read
``~/.netrc``, or try again: those are decisions, and made elsewhere.

requests' adapters are used without its sessions, because a session reads the bodies of redirects without bound and
has opinions on all of the above.
"""

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
import requests.adapters
import requests.utils
import urllib3
import urllib3.exceptions

from imagefs import __version__
from imagefs.errors import RegistryError, RegistryUnavailable, printable
from imagefs.registry.boundaries import authority_of, host_of, is_loopback, redacted
from imagefs.registry.tls import CertificateFiles, TlsPolicy, tls_context

__all__ = ["Response", "Transport"]

_log = logging.getLogger("imagefs.registry")

CONNECT_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 60.0
"""Longest silence; registries that fetch from elsewhere first take their time."""

STALL_WINDOW_S = 30.0
STALL_BYTES = 4096
"""Less than this in a window of waiting is a stall: a tenth of an old modem, yet enough to keep a socket from timing
out for days."""

CHUNK_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024


class Response:
    """An answer, its body yet to be read.  Close it; not thread-safe."""

    def __init__(self, response: requests.Response, url: str, clock: Callable[[], float]) -> None:
        self._response = response
        self._clock = clock
        self.url = url
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
        window_bytes = 0
        while True:
            before = self._clock()
            try:
                # read1 returns with what is there; read would wait for all it was asked for, which a server that sends
                # a byte now and then can draw out for ever.
                piece: bytes = raw.read1(_READ_BYTES, decode_content=False)
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
                yield _broken(error, self.url)
                return
            waited_s += self._clock() - before
            window_bytes += len(piece)
            if piece:
                yield piece
            else:
                return
            if waited_s >= STALL_WINDOW_S:
                if window_bytes < STALL_BYTES:
                    host = authority_of(self.url)
                    yield RegistryUnavailable(
                        f"the transfer from {host} stalled: {window_bytes} bytes in {waited_s:.0f} s",
                        url=redacted(self.url),
                    )
                    return
                waited_s, window_bytes = 0.0, 0


class Transport:
    """Connections for one registry client.  Thread-safe; `close` when no thread uses it any more.

    Only *authority*, the registry's own ``host[:port]``, is shown the client certificate and judged by the CAs in
    *files*; the policy holds for all hosts.
    """

    def __init__(
        self,
        authority: str,
        policy: TlsPolicy,
        files: CertificateFiles,
        *,
        timeouts_s: tuple[float, float] = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authority = authority
        self._policy = policy
        self._files = files
        self._timeouts_s = timeouts_s
        self._clock = clock
        self._lock = threading.Lock()
        self._adapters: dict[tuple[bool, bool], _Adapter] = {}
        # Its lines hold whole URLs, in which storage services put signatures.
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> Response:
        """Send one request and return the answer, whatever its status.

        *headers* are sent besides those every request has.

        Raises: RegistryUnavailable where no answer comes; RegistryError where none can, as with a bad certificate.
        """
        everything = {"User-Agent": f"imagefs/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
        verify = self._policy.verifies(host_of(url))
        try:
            prepared = requests.Request(method, url, headers=everything, data=form).prepare()
            response = self._adapter(authority_of(url) == self._authority, verify).send(
                prepared, stream=True, timeout=self._timeouts_s, verify=verify, proxies=_proxies(url)
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, OSError) as error:
            problem = _no_answer(error, url)
            _log.debug("%s %s: %s", method, redacted(url), problem)
            # Not chained: the messages below hold whole URLs.
            raise problem from None
        _log.debug("%s %s: %d", method, redacted(url), response.status_code)
        return Response(response, url, self._clock)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for adapter in self._adapters.values():
                adapter.close()
            self._adapters.clear()

    def _adapter(self, own: bool, verify: bool) -> "_Adapter":
        with self._lock:
            if (own, verify) not in self._adapters:
                files = self._files if own else CertificateFiles()
                context = tls_context(files, verify=verify, bundle=requests.utils.DEFAULT_CA_BUNDLE_PATH)
                self._adapters[own, verify] = _Adapter(context)
                if not verify:
                    # It says for each request what the user said himself.
                    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            return self._adapters[own, verify]


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections that share one TLS context, straight and through proxies."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, **kwargs, ssl_context=self._context)

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave all to the context: it is loaded already, where requests would load its bundle at each connection."""


def _proxies(url: str) -> dict[str, str]:
    if is_loopback(host_of(url)):
        return {}
    return requests.utils.get_environ_proxies(url)


def _broken(error: BaseException, url: str) -> RegistryUnavailable:
    reason = "it was silent for too long" if _find(error, TimeoutError, urllib3.exceptions.ReadTimeoutError) else ""
    reason = reason or _reason(error) or "the connection ended early"
    return RegistryUnavailable(f"the transfer from {authority_of(url)} broke: {reason}", url=redacted(url))


def _no_answer(error: BaseException, url: str) -> RegistryError:
    host, shown = authority_of(url), redacted(url)
    if certificate := _find(error, ssl.SSLCertVerificationError):
        why = printable(getattr(certificate, "verify_message", "") or str(certificate))
        return RegistryError(
            f"cannot trust the TLS certificate of {host}: {why}; put its CA into "
            f"/etc/containers/certs.d/{host}/ca.crt, or use --tls-verify=false",
            url=shown,
        )
    if failure := _find(error, ssl.SSLError):
        if getattr(failure, "reason", None) in _PLAIN_HTTP_REASONS:
            return RegistryError(
                f"http: server gave HTTP response to HTTPS client ({host}); use --tls-verify=false to speak http to it",
                url=shown,
            )
        return RegistryError(f"no TLS connection to {host}: {_reason(failure)}", url=shown)
    through = " through the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
    if _find(error, socket.gaierror, urllib3.exceptions.NameResolutionError):
        reason = "no such host"
    elif _find(error, ConnectionRefusedError):
        reason = "connection refused"
    elif isinstance(error, requests.exceptions.Timeout) or _find(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, ValueError) and not isinstance(error, OSError):
        return RegistryError(f"cannot send a request to {host}: {type(error).__name__}", url=shown)
    else:
        reason = _reason(error) or "the connection ended before an answer came"
    return RegistryUnavailable(f"cannot reach registry host {host}{through}: {reason}", url=shown)


_PLAIN_HTTP_REASONS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"}
)


def _reason(error: BaseException) -> str:
    """Return what the operating system or TLS says; other messages hold URLs and addresses of objects."""
    found = _find(error, OSError)
    if isinstance(found, ssl.SSLError):
        return printable((found.reason or "TLS failure").replace("_", " ").lower())
    return (
        (found.strerror or "")
        if isinstance(found, OSError) and not isinstance(found, requests.RequestException)
        else ""
    )


def _find(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """Return the innermost exception of one of *kinds* among those *error* is made of."""
    queue: list[BaseException] = [error]
    seen: list[BaseException] = []
    while queue and len(seen) < 50:
        current = queue.pop(0)
        if any(current is other for other in seen):
            continue
        seen.append(current)
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        queue.extend(other for other in inner if isinstance(other, BaseException))
    return next((found for found in reversed(seen) if isinstance(found, kinds)), None)
