"""A few jobs at once, where the first failure stops the others.

Receives jobs; hands on nothing but the first error.  Knows nothing of layers.

Daemon threads and not a ThreadPoolExecutor: an executor is waited for when the program ends, and a thread that sits in
a socket's read-timeout would make Ctrl-C a matter of minutes.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

Proceed = Callable[[], None]
"""Called by a job wherever it may stop; returns, or raises where the work is no longer wanted."""

_GRACE_S = 3.0


class _NotWanted(Exception):
    """Unwinds a job that was told to stop."""


def run_all(jobs: Iterable[Callable[[Proceed], None]], *, limit: int) -> None:
    """Run all *jobs*, started in order, at most *limit* at a time; return when all are done.

    Raises: what the first failing job raised, or KeyboardInterrupt; the others are told to stop and get a few seconds
    to clean up, jobs not begun are dropped.
    """
    pending = deque(jobs)
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
