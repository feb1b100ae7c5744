"""Requests that wait for work, and the threads that do the work.

Receives requests that cannot be answered yet, with the `NotReady` that says what must be done first; hands them back
once it is done, to be answered from their beginning.  Knows neither what the requests ask for nor what the work is.

Brief work and long work have threads of their own: a user who has trees computed all day does not delay another user's
disk access.
"""

import errno
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from imagefs.mount import protocol
from imagefs.mount.kernel import failed
from imagefs.mount.protocol import Buffer
from imagefs.view import waiting
from imagefs.view.waiting import Duration, NotReady

_BRIEF_THREADS = 3
_LONG_THREADS = 2
"""Two processors are enough for users who wait seconds anyway."""
_MOST_ROUNDS = 50
"""After which a request fails with EIO: memory is so short that the results of work are lost before they are used."""


class Parked:
    """A request that waits."""

    __slots__ = ("began_s", "error", "raw", "rounds", "unique")

    def __init__(self, unique: int, raw: bytes) -> None:
        self.unique = unique
        self.raw = raw
        self.began_s = waiting.now_s()
        self.rounds = 0
        self.error: Exception | None = None


class Parking:
    """All requests that wait.  `do` is for any thread; everything else for the one that answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parked: dict[int, Parked] = {}
        self._waiters: dict[Hashable, list[Parked]] = {}
        """Requests by the key of the work that they wait for."""
        self._ready: deque[Parked] = deque()
        self._threads = {
            Duration.BRIEF: _Threads(_BRIEF_THREADS, Duration.BRIEF),
            Duration.LONG: _Threads(_LONG_THREADS, Duration.LONG),
        }
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when a request may be ready."""

    def __bool__(self) -> bool:
        """Return whether any request waits."""
        return bool(self._parked)

    def park(self, raw: Buffer, missing: NotReady, *, is_alone: bool = False) -> Sequence[Buffer]:
        """Let the request *raw* wait for what is *missing*; return its reply if it has waited too often.

        If it *is_alone*, the work is done at once, by this thread.
        """
        unique = protocol.unique(raw)
        parked = self._parked.get(unique)
        if parked is None:
            parked = self._parked[unique] = Parked(unique, bytes(raw))
        parked.rounds += 1
        if parked.rounds > _MOST_ROUNDS:
            del self._parked[unique]
            error = OSError(errno.EIO, "the results of its work are lost before they are used; memory is short")
            return failed(unique, error, "a request")
        with self._lock:
            waiters = self._waiters.get(missing.key)
            if waiters is not None:
                waiters.append(parked)
                return ()
            self._waiters[missing.key] = [parked]
        if is_alone:
            with waiting.allowed(missing.duration):
                self._work(missing)
        else:
            self.do(lambda: self._work(missing), missing.duration)
        return ()

    def do(self, work: Callable[[], None], duration: Duration) -> None:
        """Have a thread do *work*, which handles its own errors."""
        self._threads[max(duration, Duration.BRIEF)].do(work)

    def _work(self, missing: NotReady) -> None:
        error: Exception | None = None
        try:
            missing.work()
        except NotReady as longer:
            self._go_on(missing.key, longer)
            return
        except Exception as caught:
            error = caught
        with self._lock:
            waiters = self._waiters.pop(missing.key)
        for parked in waiters:
            parked.error = error
            self._ready.append(parked)
        os.eventfd_write(self.wake, 1)

    def _go_on(self, key: Hashable, longer: NotReady) -> None:
        """Let all that wait for the work of *key* wait for *longer* work instead."""
        with self._lock:
            waiters = self._waiters.pop(key)
            is_new = longer.key not in self._waiters
            self._waiters.setdefault(longer.key, []).extend(waiters)
        if is_new:
            self.do(lambda: self._work(longer), longer.duration)

    def next(self) -> Parked | None:
        """Return a request to answer now, if there is one."""
        while self._ready:
            parked = self._ready.popleft()
            if self._parked.get(parked.unique) is parked:  # else it was interrupted
                return parked
        return None

    def answered(self, parked: Parked) -> None:
        """Forget *parked*, which has got its reply."""
        self._parked.pop(parked.unique, None)

    def interrupt(self, unique: int) -> Sequence[Buffer]:
        """Return the reply to request *unique*, if that waits: its process is being killed and waits for a reply."""
        return protocol.refusal(unique, errno.EINTR) if self._parked.pop(unique, None) else ()

    def woken(self) -> None:
        """Reset `wake`."""
        try:
            os.eventfd_read(self.wake)
        except BlockingIOError:
            pass

    def finish(self, *, wait: bool) -> None:
        """End the threads; with *wait*, return when they have done everything."""
        for threads in self._threads.values():
            threads.finish(wait=wait)
        if wait:
            os.close(self.wake)


class _Threads:
    """Up to *most* threads that do work of the same duration."""

    def __init__(self, most: int, duration: Duration) -> None:
        self._most = most
        self._duration = duration
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def do(self, work: Callable[[], None]) -> None:
        with self._lock:
            if len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name=f"{self._duration.name} work", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._work.put(work)

    def _run(self) -> None:
        waiting.limit(self._duration)
        while (work := self._work.get()) is not None:
            work()

    def finish(self, *, wait: bool) -> None:
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads if wait else ():
            thread.join()
