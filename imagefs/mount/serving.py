"""The conversation with the kernel: requests read, answered, and waited for.

Receives the descriptor of a FUSE device and a `Server`; returns when there is no mount any more.  Knows when to answer
and from which thread, not what.

One thread reads and answers.  It does not sleep as soon as there is nothing to do, for a request that comes soon after
another then finds it awake.  What must come from the disk is left to other threads, so that nobody waits for somebody
else's data; and who reads on through a layer finds the next pieces already in memory.
"""

import errno
import os
import queue
import select
import threading
from collections.abc import Callable, Sequence

from imagefs.mount import protocol
from imagefs.mount.kernel import NotInMemory, Server, failed
from imagefs.mount.protocol import Buffer

_SPINS = 100
"""Reads tried before sleeping, a tenth of a millisecond: on a virtual machine, waking up takes longer.  More of them
keep a processor from others, such as whoever is behind the reader's pipe."""
_READERS = 3
"""Threads that wait for the disk."""


def serve(device: int, server: Server, *, asked: Callable[[], None], answered: Callable[[], None], stop: int) -> bool:
    """Read and answer requests on *device*, which is made non-blocking, until its mount is gone: return True.

    Or until descriptor *stop* is readable: return False, with everything that was read answered.  *asked* is called
    before the first request is answered, *answered* after the first one that was answered in a settled session.

    Raises: OSError.
    """
    os.set_blocking(device, False)
    readers = _Readers(device)
    try:
        return _converse(device, server, readers, asked, answered, stop)
    finally:
        readers.finish()


def _converse(
    device: int,
    server: Server,
    readers: "_Readers",
    asked: Callable[[], None],
    answered: Callable[[], None],
    stop: int,
) -> bool:
    requests = _Requests(device, stop)
    was_asked = was_answered = False
    raw = requests.next()
    while raw is not None:
        if not was_asked:
            was_asked = True
            asked()
        following: memoryview | None = None
        try:
            pieces = server.answer(raw)
        except NotInMemory as wanted:
            # Whoever is alone need not wait for another thread to wake up besides.
            following = requests.waiting()
            pieces = readers.leave(wanted) if following is not None else readers.answer(wanted)
        if pieces:
            write(device, pieces)
            if not was_answered and server.session is not None:
                was_answered = True
                answered()
        pieces = ()  # what was sent may be of a file that is to be given up
        raw = following if following is not None else requests.next()
    return requests.is_over


class _Requests:
    """The requests that arrive on *device*, until *stop* is readable."""

    def __init__(self, device: int, stop: int) -> None:
        self._device = device
        self._stop = stop
        buffer = bytearray(protocol.REQUEST_BYTES)
        self._into = [buffer]
        self._view = memoryview(buffer)
        self._poll = select.poll()
        self._poll.register(device, select.POLLIN)
        self._poll.register(stop, select.POLLIN)
        self.is_over = False
        """Whether there is no mount any more."""

    def next(self) -> memoryview | None:
        """Return the next request, good until the one after it; None when there is none to come."""
        spins = _SPINS
        while True:
            try:
                return self._view[: os.readv(self._device, self._into)]
            except BlockingIOError:
                spins -= 1
                if spins <= 0:
                    if self._is_told_to_stop():
                        return None
                    spins = _SPINS
            except OSError as error:
                if error.errno == errno.ENODEV:
                    self.is_over = True
                    return None
                if error.errno not in (errno.ENOENT, errno.EINTR):  # the asker gave up before the request was read
                    raise

    def _is_told_to_stop(self) -> bool:
        """Return when there is a request, False, or none is to be read any more."""
        for descriptor, event in self._poll.poll():
            if descriptor == self._stop:
                if event & select.POLLIN:
                    return True
                self._poll.unregister(descriptor)  # whoever could have told is dead
        return False

    def waiting(self) -> memoryview | None:
        """Return the next request if there is one already."""
        try:
            return self._view[: os.readv(self._device, self._into)]
        except OSError:  # whatever it is, `next` meets it again
            return None


def write(device: int, pieces: Sequence[Buffer]) -> None:
    """Write one reply to *device*; that its asker gave up, or that the mount is gone, is nobody's concern."""
    try:
        os.writev(device, pieces)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


class _Readers:
    """Answers with data from the disk, from threads that wait for it where others would have to wait, too."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._wanted: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def answer(self, wanted: NotInMemory) -> Sequence[Buffer]:
        """Return the answer to *wanted* when its data is there."""
        try:
            return protocol.reply(wanted.unique, wanted.file.read(wanted.offset, wanted.size))
        except Exception as error:
            return failed(wanted.unique, error, "a read")

    def leave(self, wanted: NotInMemory) -> Sequence[Buffer]:
        """See to it that *wanted* is answered, and return nothing."""
        self._put(lambda: write(self._device, self.answer(wanted)))
        return ()

    def finish(self) -> None:
        """Return when everything that was left to threads is done."""
        for _ in self._threads:
            self._wanted.put(None)
        for thread in self._threads:
            thread.join()

    def _put(self, work: Callable[[], None]) -> None:
        if len(self._threads) < _READERS:
            thread = threading.Thread(target=self._run, name="reader", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._wanted.put(work)

    def _run(self) -> None:
        while (work := self._wanted.get()) is not None:
            work()
