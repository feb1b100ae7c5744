"""The conversation with the kernel: requests read, answered, and waited for.

Receives the descriptor of a FUSE device and a `Server`; returns when there is no mount any more.  Knows when to answer
and from which thread, not what.

One thread reads and answers.  It does not sleep as soon as there is nothing to do, for a request that comes soon after
another then finds it awake.  What must come from the disk is left to other threads, so that nobody waits for somebody
else's data; and who reads on through a layer finds the next pieces already in memory.
"""

import contextlib
import errno
import os
import queue
import select
import threading
from collections.abc import Callable, Sequence

from imagefs.mount import protocol
from imagefs.mount.kernel import NotInMemory, Server, failed
from imagefs.mount.protocol import Buffer
from imagefs.view.attributes import NodeId

_SPINS = 200
"""Reads tried before sleeping, a tenth of a millisecond or two: on a virtual machine, waking up takes longer."""
_READERS = 3
"""Threads that wait for the disk."""
_LEAST_AHEAD_BYTES = 1024 * 1024
_MOST_AHEAD_BYTES = 16 * 1024 * 1024
_NEAR_BYTES = 1024 * 1024
"""How far beyond what was read, or read ahead, a read may be and still be one that goes on there."""


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
    buffer = bytearray(protocol.REQUEST_BYTES)
    view = memoryview(buffer)
    into = [buffer]
    poll = select.poll()
    poll.register(device, select.POLLIN)
    poll.register(stop, select.POLLIN)
    was_asked = was_answered = False
    spins = _SPINS
    while True:
        try:
            length = os.readv(device, into)
        except BlockingIOError:
            spins -= 1
            if spins <= 0:
                if any(descriptor == stop for descriptor, _ in poll.poll()):
                    return False
                spins = _SPINS
            continue
        except OSError as error:
            if error.errno == errno.ENODEV:
                return True
            if error.errno in (errno.ENOENT, errno.EINTR):  # the asker gave up before the request was read
                continue
            raise
        spins = _SPINS
        if not was_asked:
            was_asked = True
            asked()
        try:
            pieces = server.answer(view[:length])
        except NotInMemory as wanted:
            readers.take(wanted)
            continue
        if pieces:
            write(device, pieces)
            if not was_answered and server.session is not None:
                was_answered = True
                answered()


def write(device: int, pieces: Sequence[Buffer]) -> None:
    """Write one reply to *device*; that its asker gave up, or that the mount is gone, is nobody's concern."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.writev(device, pieces)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise


class Notices:
    """What the kernel may be told unasked, through *device*; see `upkeep.Kernel`."""

    def __init__(self, device: int) -> None:
        self._device = device

    def forget_name(self, parent: NodeId, name: bytes) -> None:
        self._tell(protocol.invalidate_entry(parent, name))

    def knows(self, node: NodeId) -> bool:
        # To forget attributes costs whoever has the node a question at most; the kernel says if nobody has it.
        return self._tell(protocol.invalidate_attributes(node))

    def repeat(self) -> None:
        """Have the kernel ask everything again that was asked and not answered.

        Raises: OSError, where it does not know how (before Linux 6.9).
        """
        os.write(self._device, protocol.resend())

    def _tell(self, notice: bytes) -> bool:
        try:
            os.write(self._device, notice)
        except FileNotFoundError:
            return False
        return True


class _Readers:
    """Threads that answer with data from the disk."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._wanted: queue.SimpleQueue[NotInMemory | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._ahead: dict[int, tuple[int, int, int]] = {}

    def take(self, wanted: NotInMemory) -> None:
        """See to it that *wanted* is answered."""
        if len(self._threads) < _READERS:
            thread = threading.Thread(target=self._run, name="reader", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._wanted.put(wanted)

    def finish(self) -> None:
        """Return when everything taken was answered."""
        for _ in self._threads:
            self._wanted.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            try:
                data = wanted.file.read(wanted.offset, wanted.size)
                pieces: Sequence[Buffer] = protocol.reply(wanted.unique, data)
            except Exception as error:
                pieces = failed(wanted.unique, error, "a read")
            write(self._device, pieces)
            self._read_ahead(wanted)

    def _read_ahead(self, wanted: NotInMemory) -> None:
        """Have the kernel read what comes next in the layer, if somebody reads on there."""
        place = wanted.file.place(wanted.offset + wanted.size)
        if place is None:
            return
        descriptor, position = place
        last, end, length = self._ahead.get(descriptor, (position, 0, 0))
        if last < position <= max(last, end) + wanted.size + _NEAR_BYTES:
            length = min(max(2 * length, _LEAST_AHEAD_BYTES), _MOST_AHEAD_BYTES)
            start, end = max(position, end), position + length
            with contextlib.suppress(OSError):
                os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_WILLNEED)
        else:
            end = length = 0
        self._ahead[descriptor] = position, end, length
