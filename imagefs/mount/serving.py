"""The conversation with the kernel: requests read, answered, and waited for.

Receives the descriptor of a FUSE device and a `Server`; returns when there is no mount any more.  Knows when to answer
and from which thread, not what.

One thread reads and answers.  It does not sleep as soon as there is nothing to do, for a request that comes soon after
another then finds it awake.  It never does what may take long: requests for data on the disk are left to other threads,
and requests that need more work wait in `parking` until other threads have done it.
"""

import errno
import os
import select
import sys
from collections.abc import Callable, Sequence

from imagefs.mount import protocol
from imagefs.mount.kernel import Interrupted, NotInMemory, Server, failed
from imagefs.mount.parking import Parked, Parking
from imagefs.mount.protocol import Buffer
from imagefs.view import waiting
from imagefs.view.waiting import Duration, NotReady

_SPINS = 100
"""Reads tried before sleeping, a tenth of a millisecond: on a virtual machine, waking up takes longer.  More of them
keep a processor from others, such as whoever is behind the reader's pipe."""
_SWITCH_S = 0.0005
"""After which a thread that computes lets another one run."""


def serve(device: int, server: Server, *, asked: Callable[[], None], answered: Callable[[], None], stop: int) -> bool:
    """Read and answer requests on *device*, which is made non-blocking, until its mount is gone: return True.

    Or until descriptor *stop* is readable: return False, with everything that was read answered.  *asked* is called
    before the first request is answered, *answered* after the first one that was answered in a settled session.

    Raises: OSError.
    """
    os.set_blocking(device, False)
    # A thread that computes must not keep the interpreter's lock for long from the one that answers.
    sys.setswitchinterval(_SWITCH_S)
    waiting.limit(Duration.NONE)
    parking = Parking()
    requests = _Requests(device, stop, parking)
    conversation = _Conversation(device, server, requests, parking, asked, answered)
    try:
        conversation.hold()
        return requests.is_over
    finally:
        waiting.limit(Duration.LONG)
        parking.finish(wait=not requests.is_over)


class _Conversation:
    """All requests of one mount, answered or parked one after the other."""

    def __init__(
        self,
        device: int,
        server: Server,
        requests: "_Requests",
        parking: Parking,
        asked: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        self._device = device
        self._server = server
        self._requests = requests
        self._parking = parking
        self._asked = asked
        self._answered = answered

    def hold(self) -> None:
        """Return when there is no request any more."""
        server, requests, parking = self._server, self._requests, self._parking
        raw = requests.next()
        if raw is not None:
            self._asked()
        has_answered = False
        while raw is not None:
            following: memoryview | None = None
            pieces: Sequence[Buffer]
            try:
                pieces = server.answer(raw) if type(raw) is memoryview else self._answer_again(raw)
            except NotInMemory as read:
                # With no other request pending, reading here saves a switch of threads.
                following = requests.pending() if read.is_brief else None
                pieces = _data(read) if following is None and read.is_brief else self._leave(read)
            except NotReady as missing:
                request = bytes(raw) if isinstance(raw, memoryview) else raw.raw
                may_be_alone = missing.duration <= Duration.DISK
                following = requests.pending() if may_be_alone else None
                pieces = parking.park(request, missing, is_alone=may_be_alone and following is None)
            except Interrupted as interrupted:
                pieces = parking.interrupt(interrupted.unique)
            if pieces:
                write(self._device, pieces)
                if not has_answered and server.session is not None:
                    has_answered = True
                    self._answered()
            pieces = ()  # they may be a view of a file that is to be closed
            raw = following if following is not None else requests.next()

    def _answer_again(self, parked: Parked) -> Sequence[Buffer]:
        try:
            if parked.error is not None:
                pieces = failed(parked.unique, parked.error, "a request")
            else:
                waiting.answer_since(parked.began_s)
                pieces = self._server.answer(parked.raw)
        finally:
            waiting.answer_since(None)
        self._parking.answered(parked)
        return pieces

    def _leave(self, read: NotInMemory) -> Sequence[Buffer]:
        duration = Duration.BRIEF if read.is_brief else Duration.LONG
        self._parking.do(lambda: write(self._device, _data(read)), duration)
        return ()


def _data(read: NotInMemory) -> Sequence[Buffer]:
    """Return the reply to *read* when its data is there."""
    with waiting.allowed(Duration.BRIEF):
        try:
            return protocol.reply(read.unique, read.file.read(read.offset, read.size))
        except Exception as error:
            return failed(read.unique, error, "a read")


class _Requests:
    """The requests that arrive on *device*, until *stop* is readable, and those that come back from *parking*."""

    def __init__(self, device: int, stop: int, parking: Parking) -> None:
        self._device = device
        self._stop = stop
        self._parking = parking
        buffer = bytearray(protocol.REQUEST_BYTES)
        self._into = [buffer]
        self._view = memoryview(buffer)
        self._poll = select.poll()
        for descriptor in (device, stop, parking.wake):
            self._poll.register(descriptor, select.POLLIN)
        self._is_stopping = False
        self.is_over = False
        """Whether there is no mount any more."""

    def next(self) -> memoryview | Parked | None:
        """Return the next request, valid until the one after it; None when there is none to come."""
        spins = _SPINS
        while True:
            if self._parking:
                parked = self._parking.next()
                if parked is not None:
                    return parked
            elif self._is_stopping:
                return None
            try:
                if not self._is_stopping:
                    return self._view[: os.readv(self._device, self._into)]
                self._sleep()
            except BlockingIOError:
                spins -= 1
                if spins <= 0:
                    self._sleep()
                    spins = _SPINS
            except OSError as error:
                if error.errno == errno.ENODEV:
                    self.is_over = True
                    return None
                if error.errno not in (errno.ENOENT, errno.EINTR):  # the request was withdrawn before it was read
                    raise

    def _sleep(self) -> None:
        """Return when there may be a request, or none is to be read any more."""
        for descriptor, event in self._poll.poll():
            if descriptor == self._parking.wake:
                self._parking.woken()
            if descriptor == self._stop:
                self._poll.unregister(descriptor)  # it is told once, or its other end is dead
                if event & select.POLLIN:
                    self._is_stopping = True
                    self._poll.unregister(self._device)

    def pending(self) -> memoryview | None:
        """Return the next request if there is one already."""
        try:
            return self._view[: os.readv(self._device, self._into)]
        except OSError:  # `next` meets it again
            return None


def write(device: int, pieces: Sequence[Buffer]) -> None:
    """Write one reply to *device*; that its asker gave up, or that the mount is gone, is nobody's concern."""
    try:
        os.writev(device, pieces)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
