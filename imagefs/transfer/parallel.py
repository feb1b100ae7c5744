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
_NO_MEMORY_S = 0.05
"""How long to wait for memory before the next attempt to take a lock."""


class _NotWanted(Exception):
    """Unwinds a job that was told to stop."""


def run_all(jobs: Iterable[Job], *, limit: int, minimum: int = 1) -> None:
    """Run all *jobs*, started in order, at most *limit* at a time; return when all are done.

    Where *jobs* is a deque, they are taken from it, and a job may append others.  Where the operating system refuses
    more threads, at least *minimum* suffice (or one for each job): as many as jobs wait for each other.

    Raises: what the first failing job raised, or KeyboardInterrupt; the others are told to stop and get a second
    to clean up, jobs not begun are dropped.  RuntimeError where there are fewer threads than *minimum*.
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

    count = min(limit, len(pending))
    threads: list[threading.Thread] = []
    try:
        while len(threads) < count:
            threads.append(threading.Thread(target=work, daemon=True))
            try:
                threads[-1].start()
            except RuntimeError:
                threads.pop()
                if len(threads) < min(minimum, count):
                    raise
                break
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
        self._has_thread = True

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError:
            self._has_thread = False
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
        if self._has_thread:
            self._pieces.put(piece)
        else:
            self._take(piece)

    def finish(self) -> None:
        """Wait until every piece has been taken.  Raises: what *take* raised."""
        if self._has_thread:
            self._pieces.put(None)
            self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (piece := self._next()) is not None:
            if self._error is None:
                try:
                    self._take(piece)
                except BaseException as error:  # handed to the thread that makes the pieces
                    self._error = error

    def _next(self) -> bytes | None:
        while True:
            try:
                return self._pieces.get()
            except (RuntimeError, MemoryError) as error:  # no memory for a lock; `put` must not wait for ever
                self._error = error
                time.sleep(_NO_MEMORY_S)
