"""Work that takes long, and the threads that must not do it.

One thread answers the requests of all users, so it must never wait for a disk, a digest or a tree.  Code that is about
to wait calls `do`.  In a thread that may wait, `do` does the work; in one that must not, it raises `NotReady` with the
work.  The thread then has another thread do it, and answers the request again from its beginning, when what the work
provides is in memory.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TypeVar

_Result = TypeVar("_Result")


class Duration(IntEnum):
    """How long work takes, and what a thread may do."""

    NONE = 0
    DISK = 1
    """One read from a disk."""
    BRIEF = 2
    """Several of them, a lock on the catalog, or some milliseconds of the processor."""
    LONG = 3


class NotReady(Exception):
    """*work* must be done, by a thread that may do so, before the request can be answered.

    Works of one *key* are the same work.
    """

    def __init__(self, key: Hashable, work: Callable[[], object], duration: Duration) -> None:
        self.key = key
        self.work = work
        self.duration = duration


class _Thread(threading.local):
    longest = Duration.LONG
    began_s = float("inf")


_thread = _Thread()


def limit(longest: Duration) -> None:
    """Let this thread do nothing that takes longer than *longest*, from now on."""
    _thread.longest = longest


@contextmanager
def allowed(longest: Duration) -> Iterator[None]:
    """Let this thread do what takes up to *longest* while the context lasts, or more where it may anyway."""
    before = _thread.longest
    _thread.longest = max(before, longest)
    try:
        yield
    finally:
        _thread.longest = before


def may(duration: Duration) -> bool:
    """Return whether this thread may do what takes *duration*."""
    return duration <= _thread.longest


def do(key: Hashable, work: Callable[[], _Result], duration: Duration) -> _Result:
    """Do *work*, which is idempotent and may be done by several threads at once, and return what it returns.

    Raises: NotReady, in a thread that must not do it; whatever *work* raises.
    """
    if duration > _thread.longest:
        raise NotReady(key, work, duration)
    return work()


def answer_since(began_s: float | None) -> None:
    """Take note that this thread now answers a request that it first tried to answer at *began_s*; None: a new one."""
    _thread.began_s = float("inf") if began_s is None else began_s


def is_since_request(time_s: float) -> bool:
    """Return whether *time_s*, of time.monotonic, is after the first try to answer the present request."""
    return time_s >= _thread.began_s


def now_s() -> float:
    """Return the time that `answer_since` takes."""
    return time.monotonic()
