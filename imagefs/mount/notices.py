"""What the kernel is told unasked, by a process that does nothing else.

Receives names to forget and nodes to ask about; hands on what the kernel says to them.  A process of its own, not a
thread of the one that serves: the kernel may make who tells it something wait for a lock that is held by somebody who
waits for an answer, and waiting so, nobody can be killed.  If the server is killed meanwhile, its successor answers.
"""

import errno
import itertools
import os
import socket
from collections.abc import Callable, Iterable

from imagefs.mount import protocol
from imagefs.view.attributes import NodeId

_BATCH = 1000
_KNOWN, _UNKNOWN, _GONE = b"known", b"unknown", b"gone"


class Notices:
    """The server's end; not thread-safe.  Raises OSError(ENODEV) where the mount is gone."""

    def __init__(self, begin: Callable[[socket.socket], None]) -> None:
        """Have *begin* start a process that runs `tell` with the socket given, when there is something to tell."""
        self._begin = begin
        self._teller: socket.socket | None = None

    def forget_name(self, parent: NodeId, name: bytes) -> None:
        """Let the kernel ask again what *name* in *parent* leads to, and drop what nobody uses below."""
        self._tell([protocol.invalidate_entry(parent, name)])

    def first_known(self, nodes: Iterable[NodeId]) -> NodeId | None:
        """Return the first of *nodes* that the kernel knows.

        It is told to forget their attributes, which costs whoever has one of them a question, and says if nobody has.
        """
        remaining = iter(nodes)
        while batch := list(itertools.islice(remaining, _BATCH)):
            known = self._tell([protocol.invalidate_attributes(node) for node in batch])
            if known is not None:
                return batch[known]
        return None

    def _tell(self, notices: list[bytes]) -> int | None:
        """Return the index of the first of *notices* that the kernel had a use for; later ones are not told."""
        if self._teller is None:
            self._teller, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._begin(theirs)
        lengths = b"".join(len(notice).to_bytes(4, "little") for notice in notices)
        try:
            self._teller.send(len(notices).to_bytes(4, "little") + lengths + b"".join(notices))
            answer = self._teller.recv(64)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if not answer:  # it died; another is begun with the next notice
            self._teller.close()
            self._teller = None
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        outcome, _, index = answer.partition(b" ")
        if outcome == _GONE:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return int(index) if outcome == _KNOWN else None


def tell(device: int, asking: socket.socket) -> None:
    """Tell the kernel on *device* whatever comes from *asking*, until nobody is there any more."""
    while message := asking.recv(1 << 20):
        asking.send(_told(device, message))


def _told(device: int, message: bytes) -> bytes:
    count = int.from_bytes(message[:4], "little")
    at = 4 + 4 * count
    for index in range(count):
        length = int.from_bytes(message[4 + 4 * index : 8 + 4 * index], "little")
        try:
            os.write(device, message[at : at + length])
        except FileNotFoundError:
            at += length
        except OSError:
            return _GONE
        else:
            return b"%b %d" % (_KNOWN, index)
    return _UNKNOWN
