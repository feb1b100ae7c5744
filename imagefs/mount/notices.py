"""What the kernel is told unasked, by a process that does nothing else.

Receives names to forget and nodes to ask about; hands on what the kernel says to them.  A process of its own, not a
thread of the one that serves: the kernel may make who tells it something wait for a lock that is held by somebody who
waits for an answer, and waiting so, nobody can be killed.  If the server is killed meanwhile, its successor answers.
"""

import errno
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterable

from imagefs.mount import protocol
from imagefs.view.attributes import NodeId

_BATCH = 1000
_MOST_MESSAGE_BYTES = 1 << 20


class Notices:
    """The server's end; not thread-safe.  Raises OSError(ENODEV) where the mount is gone."""

    def __init__(self, begin: Callable[[socket.socket], None]) -> None:
        """Have *begin* start a process that runs `tell` with the socket given, when there is something to tell."""
        self._begin = begin
        self._teller: socket.socket | None = None

    def forget_name(self, parent: NodeId, name: bytes) -> None:
        """Let the kernel ask again what *name* in *parent* leads to, and drop what nobody uses below."""
        self._tell([protocol.invalidate_entry(parent, name)])

    def known(self, nodes: Iterable[NodeId], *, only_first: bool = False) -> list[NodeId]:
        """Return those of *nodes* that the kernel knows, or at most the first of them.

        It is told to forget their attributes, which costs whoever has one of them a question, and says if nobody has.
        """
        found: list[NodeId] = []
        remaining = iter(nodes)
        while (batch := list(itertools.islice(remaining, _BATCH))) and not (found and only_first):
            told = self._tell([protocol.invalidate_attributes(node) for node in batch], only_first=only_first)
            found += [batch[index] for index in told]
        return found

    def forget_content(self, nodes: Iterable[NodeId]) -> None:
        """Have the kernel read the content of *nodes* again."""
        remaining = iter(nodes)
        while batch := list(itertools.islice(remaining, _BATCH)):
            self._tell([protocol.invalidate_content(node) for node in batch])

    def _tell(self, notices: list[bytes], *, only_first: bool = False) -> list[int]:
        """Return the indexes of those of *notices* that the kernel had a use for; after the first no more are told."""
        if self._teller is None:
            self._teller, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._begin(theirs)
        try:
            self._teller.send(json.dumps([only_first, [notice.hex() for notice in notices]]).encode())
            answer = self._teller.recv(_MOST_MESSAGE_BYTES)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if not answer:  # it died; another is begun with the next notice
            self._teller.close()
            self._teller = None
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        told: list[int] | None = json.loads(answer)
        if told is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return told


def tell(device: int, asking: socket.socket) -> None:
    """Tell the kernel on *device* whatever comes from *asking*, until nobody is there any more."""
    while message := asking.recv(_MOST_MESSAGE_BYTES):
        only_first, notices = json.loads(message)
        asking.send(json.dumps(_told(device, notices, only_first=only_first)).encode())


def _told(device: int, notices: list[str], *, only_first: bool) -> list[int] | None:
    """Return the indexes of the *notices* that the kernel had a use for; None if the mount is gone."""
    used = []
    for index, notice in enumerate(notices):
        try:
            os.write(device, bytes.fromhex(notice))
        except FileNotFoundError:
            continue
        except OSError:
            return None
        used.append(index)
        if only_first:
            break
    return used
