"""What a failed connection or transfer means, in the words users of image tools know.

Receives exceptions of sockets, TLS and HTTP libraries; hands on errors and sentences that hold neither whole URLs nor
addresses of objects.  It must never know which library raised an exception.
"""

import socket
import ssl

from imagefs.errors import RegistryError, RegistryUnavailable, printable
from imagefs.registry import limits
from imagefs.registry.boundaries import authority_of, redacted
from imagefs.registry.connections import MessageTooLong, Trickle

__all__ = ["PlainHttp", "broken", "no_answer"]


class PlainHttp(RegistryError):
    """The registry answered a TLS handshake in plain http."""


def no_answer(error: BaseException, url: str, *, is_proxy: bool = False) -> RegistryError:
    """Return what it means that the request to *url* had no answer because of *error*.

    *is_proxy* says that the proxy failed, not the host.
    """
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
            return PlainHttp(
                f"http: server gave HTTP response to HTTPS client ({host}); use --tls-verify=false to speak http to it",
                url=shown,
            )
        return RegistryError(f"no TLS connection to {host}: {_reason(failure)}", url=shown)
    through = " through the proxy" if is_proxy else ""
    if _find(error, socket.gaierror):
        reason = "no such host"
    elif _find(error, ConnectionRefusedError):
        reason = "connection refused"
    elif _find(error, MessageTooLong):
        reason = f"the head of its answer has more than {limits.MAX_FRAMING_BYTES} bytes (MAX_FRAMING_BYTES)"
    elif _find(error, Trickle):
        reason = f"the head of its answer did not end within {limits.HEAD_TIMEOUT_S:g} s (HEAD_TIMEOUT_S)"
    elif _find(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, ValueError) and not isinstance(error, OSError):
        return RegistryError(f"cannot send a request to {host}: {type(error).__name__}", url=shown)
    else:
        reason = _reason(error) or "the connection ended before an answer came"
    return RegistryUnavailable(f"cannot reach registry host {host}{through}: {reason}", url=shown)


def broken(error: BaseException) -> str:
    """Return how a transfer ended that *error* ended, as the end of a sentence."""
    if _find(error, MessageTooLong):
        return f"broke: more than {limits.MAX_FRAMING_BYTES} bytes without content (MAX_FRAMING_BYTES)"
    if _find(error, Trickle):
        return f"stalled: no content for {limits.STALL_WINDOW_S:g} s, only chunk sizes or trailers"
    if _find(error, TimeoutError):
        return "broke: it was silent for too long"
    return f"broke: {_reason(error) or 'the connection ended early'}"


_PLAIN_HTTP_REASONS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"}
)


def _reason(error: BaseException) -> str:
    """Return what the operating system or TLS says; other messages hold URLs and addresses of objects."""
    found = _find(error, OSError)
    if isinstance(found, ssl.SSLError):
        return printable((found.reason or "TLS failure").replace("_", " ").lower())
    return (found.strerror or "") if isinstance(found, OSError) else ""


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
