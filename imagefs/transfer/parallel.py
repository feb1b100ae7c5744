"""A few jobs at once, where the first failure stops the others; and one job's pieces, handled a little behind.

Receives jobs; hands on nothing but the first error.  Knows nothing of layers.

Daemon threads and not a ThreadPoolExecutor: an executor is waited for when the program ends, and a thread that sits in
a socket's read-timeout would make Ctrl-C a matter of minutes.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

Proceed = Callable[[], None]
"""Called by a job wherever it may stop; returns, or raises where the work is no longer wanted."""

Job = Callable[[Proceed], None]

_GRACE_S = 1.0
_PIECES_BEHIND = 4


class _NotWanted(Exception):
    """Unwinds a job that was told to stop."""


def run_all(jobs: Iterable[Job], *, limit: int) -> None:
    """Run all *jobs*, started in order, at most *limit* at a time; return when all are done.

    Where *jobs* is a deque, they are taken from it, and a job may append others.

    Raises: what the first failing job raised, or KeyboardInterrupt; the others are told to stop and get a second
    to clean up, jobs not begun are dropped.
    """
    pending = jobs if isinstance(jobs, deque) else deque(jobs)
    unwanted = threading.Event()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def proceed() -> None:
        if unwanted.is_set():
            raise _NotWanted

    def work() -> None:
        try:
            while not unwanted.is_set():
                try:
                    job = pending.popleft()
                except IndexError:
                    break
                job(proceed)
        except BaseException as error:  # handed to the thread that waits
            ended.put(error)
        else:
            ended.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(limit, len(pending)))]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            error = ended.get()
            if error is not None:
                raise error
    except BaseException:
        unwanted.set()
        deadline = time.monotonic() + _GRACE_S
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        raise


class Behind:
    """Calls *take* for every piece, in order, in a thread of its own, while the next piece is being made.

    Hashing, inflating and writing leave the interpreter's lock, so one stream keeps two processors busy.  Holds a few
    pieces at most.  A context manager: leaving it waits until *take* is not called any more, whatever happened.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._pieces: queue.Queue[bytes | None] = queue.Queue(maxsize=_PIECES_BEHIND)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            if value is not None and self._error is None:
                self._error = value  # what is still waiting is not wanted
            self._pieces.put(None)
            self._thread.join()

    def put(self, piece: bytes) -> None:
        """Let *piece* be taken, soon.  Raises: what *take* raised for an earlier piece."""
        self._raise_error()
        self._pieces.put(piece)

    def finish(self) -> None:
        """Wait until every piece has been taken.  Raises: what *take* raised."""
        self._pieces.put(None)
        self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self._error is None:
                try:
                    self._take(piece)
                except BaseException as error:  # handed to the thread that makes the pieces
                    self._error = error
