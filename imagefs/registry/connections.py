"""Sockets for the registry client: each name resolved once, each read bounded in time and bytes.

A name that resolves to one address while it is judged and to another when it is connected to (DNS rebinding) would
defeat every rule about addresses.  Hence a `Resolver` answers the same for a name as long as it lives, and `dial`
connects to nothing but its answers.

A timeout of a socket bounds one silence.  A server that sends a byte before each timeout could hold a reader for ever;
the sockets of this module also bound the whole of a message (`ReadLimit`).

Source: RFC 9110, 15.2 (informational responses without end); RFC 9112, 7.1.2 (trailers).
"""

import contextlib
import queue
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["LimitedSocket", "LimitedTlsSocket", "MessageTooLong", "ReadLimit", "Resolver", "Trickle", "dial"]

MAX_ADDRESSES = 8
"""Most addresses of one name that are tried; names of content networks have two to eight."""


class Trickle(TimeoutError):
    """A message did not end in time although its bytes kept coming."""


class MessageTooLong(OSError):
    """A head, or the framing between two pieces of a body, has more bytes than its limit."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a host.  *text* is what `ipaddress` reads, perhaps with a scope."""

    family: socket.AddressFamily
    text: str
    scope: tuple[int, ...] = ()
    """Flow and scope number of an IPv6 address."""

    def with_port(self, port: int) -> tuple[Any, ...]:
        """Return the address of *port* there, as `socket.connect` takes it."""
        return (self.text, port, *self.scope)


class Resolver:
    """Addresses by name; an answer is kept as long as the resolver.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[Address, ...]] = {}

    def addresses(self, host: str, timeout_s: float) -> tuple[Address, ...]:
        """Return the first `MAX_ADDRESSES` addresses of *host*, best first; at least one.

        Raises: OSError, above all socket.gaierror and TimeoutError.
        """
        with self._lock:
            answer = self._answers.get(host)
        if answer is None:
            infos = _resolve(host, timeout_s)
            listed = dict.fromkeys(Address(info[0], str(info[4][0]), tuple(info[4][2:])) for info in infos)
            if not listed:
                raise socket.gaierror(socket.EAI_NONAME, "no address")
            with self._lock:  # the answer of another thread may have come first, and may be in use
                answer = self._answers.setdefault(host, tuple(listed)[:MAX_ADDRESSES])
        return answer


def _resolve(host: str, timeout_s: float) -> list[Any]:
    """Call getaddrinfo in a thread of its own: the C library neither stops at a signal nor after *timeout_s*."""
    with contextlib.suppress(socket.gaierror):  # an address needs no name server, and so no thread
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:  # no more threads
        work()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError("the name server does not answer") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class ReadLimit:
    """Bounds one message that arrives on a socket: *silence_s* until its first byte, then *rest_s* until its end.

    Not thread-safe: a connection has one reader.
    """

    def __init__(self, silence_s: float, rest_s: float, limit_bytes: int) -> None:
        self._deadline_s = time.monotonic() + silence_s
        self._rest_s = rest_s
        self._left_bytes = limit_bytes
        self._is_begun = False

    def before_read(self, sock: socket.socket) -> None:
        """Let the next read of *sock* end at the deadline.  Raises: Trickle where it has passed."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise Trickle("the message does not end")
        timeout_s = sock.gettimeout()
        if timeout_s is None or not left_s <= timeout_s <= 1.05 * left_s:  # setting it is a system call
            sock.settimeout(left_s)

    def after_read(self, count: int) -> None:
        """Count *count* bytes.  Raises: MessageTooLong."""
        if not self._is_begun:
            self._is_begun = True
            self._deadline_s = time.monotonic() + self._rest_s
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise MessageTooLong("the message is too long")

    def explain(self, error: TimeoutError) -> TimeoutError:
        """Return the error that the timeout of a read means: a trickle where bytes had come before."""
        return Trickle("the message does not end") if self._is_begun else error


class LimitedSocket(socket.socket):
    """A socket whose reads keep to *read_limit*, where there is one."""

    read_limit: ReadLimit | None = None

    @classmethod
    def connected(cls, address: Address, port: int, timeout_s: float) -> Self:
        """Return a socket that is connected to *port* at *address*.  Raises: OSError."""
        sock = cls(address.family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(timeout_s)
            sock.connect(address.with_port(port))
        except BaseException:
            sock.close()
            raise
        return sock

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        """Receive as `socket.recv_into` does.  Raises: Trickle, MessageTooLong, OSError."""
        received: int = _limited(self, super().recv_into, arguments, options)
        return received


class LimitedTlsSocket(ssl.SSLSocket):
    """The same over TLS; a context makes them that has this class as its *sslsocket_class*."""

    read_limit: ReadLimit | None = None

    def read(self, *arguments: Any, **options: Any) -> Any:
        """Read as `ssl.SSLSocket.read` does, on which all its ways to receive rest.

        Raises: Trickle, MessageTooLong, OSError.
        """
        return _limited(self, super().read, arguments, options)


def _limited(
    sock: LimitedSocket | LimitedTlsSocket, receive: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Return what *receive* returns, bytes or their number, within the limit of *sock*."""
    limit = sock.read_limit
    if limit is None:
        return receive(*arguments, **options)
    limit.before_read(sock)
    try:
        received = receive(*arguments, **options)
    except TimeoutError as error:
        raise limit.explain(error) from None
    limit.after_read(len(received) if isinstance(received, bytes) else received)
    return received


def dial(resolver: Resolver, host: str, port: int, timeout_s: float) -> LimitedSocket:
    """Return a connection to the first address of *host* that accepts one within its share of *timeout_s*.

    Raises: OSError, of the last address.
    """
    deadline_s = time.monotonic() + timeout_s
    addresses = resolver.addresses(host, timeout_s)
    for remaining in range(len(addresses), 0, -1):
        left_s = max(deadline_s - time.monotonic(), 0.1)
        try:
            return LimitedSocket.connected(addresses[-remaining], port, left_s / remaining)
        except OSError:
            if remaining == 1:
                raise
    raise AssertionError("a resolver returns at least one address")
