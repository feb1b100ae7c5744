"""A few jobs at once: the first failure stops the others."""

import _thread
import functools
import itertools
import queue
import threading
from collections import deque

import pytest

from imagefs.transfer.parallel import Behind, Job, Proceed, run_all


def test_all_jobs_run_and_never_more_than_the_limit() -> None:
    running = 0
    most = 0
    done = []
    lock = threading.Lock()
    barrier = threading.Barrier(3)

    def job(number: int, _: Proceed) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if number < 3:
            barrier.wait(timeout=20)
        with lock:
            running -= 1
            done.append(number)

    run_all([functools.partial(job, number) for number in range(8)], limit=3)
    assert sorted(done) == list(range(8))
    assert most == 3


def test_no_jobs_are_done_at_once() -> None:
    run_all([], limit=3)


def test_a_job_may_put_another_behind_those_that_wait() -> None:
    done: list[str] = []
    jobs: deque[Job] = deque()

    def first(_: Proceed) -> None:
        done.append("first")
        jobs.append(lambda _: done.append("late"))

    jobs += [first, lambda _: done.append("second")]
    run_all(jobs, limit=1)
    assert done == ["first", "second", "late"]


def test_the_first_error_is_the_one_that_is_raised_and_the_others_stop() -> None:
    started = threading.Event()
    stopped = threading.Event()
    never = []

    def endless(proceed: Proceed) -> None:
        started.set()
        try:
            while True:
                proceed()
                threading.Event().wait(0.001)
        finally:
            stopped.set()

    def failing(_: Proceed) -> None:
        started.wait(timeout=20)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        run_all([endless, failing, lambda _: never.append(1)], limit=2)
    assert stopped.is_set()
    assert not never


def test_an_interrupt_stops_the_jobs() -> None:
    stopped = threading.Event()

    def endless(proceed: Proceed) -> None:
        _thread.interrupt_main()
        try:
            while True:
                proceed()
                threading.Event().wait(0.001)
        finally:
            stopped.set()

    with pytest.raises(KeyboardInterrupt):
        run_all([endless], limit=3)
    assert stopped.is_set()


def test_pieces_are_taken_in_order_and_all_of_them() -> None:
    taken: list[bytes] = []
    pieces = [bytes([number]) for number in range(200)]
    with Behind(taken.append) as behind:
        for piece in pieces:
            behind.put(piece)
        behind.finish()
    assert taken == pieces


def test_what_taking_raises_reaches_who_makes_the_pieces() -> None:
    taken = []

    def take(piece: bytes) -> None:
        taken.append(piece)
        raise ValueError("full")

    def make() -> None:
        with Behind(take) as behind:
            for _ in range(1000):
                behind.put(b"x")
            behind.finish()

    with pytest.raises(ValueError, match="full"):
        make()
    assert taken == [b"x"]


def test_after_an_error_nothing_is_taken_any_more() -> None:
    taken = []
    begun = threading.Event()
    go_on = threading.Event()

    def take(piece: bytes) -> None:
        taken.append(piece)
        begun.set()
        go_on.wait(timeout=20)

    def make() -> None:
        with Behind(take) as behind:
            for _ in range(3):
                behind.put(b"x")
            begun.wait(timeout=20)
            threading.Timer(0.05, go_on.set).start()
            raise ValueError("source failed")

    with pytest.raises(ValueError, match="source failed"):
        make()
    assert len(taken) == 1


def refuse_threads(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let the operating system refuse all threads but the first."""
    started = itertools.count()
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if next(started) >= after:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)


def test_with_fewer_threads_than_wished_for_all_jobs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch, after=2)
    done: list[int] = []
    run_all([lambda _, number=number: done.append(number) for number in range(9)], limit=5, minimum=2)  # type: ignore[misc]
    assert sorted(done) == list(range(9))


@pytest.mark.parametrize("minimum", [1, 2])
def test_with_fewer_threads_than_are_needed_no_job_goes_on(monkeypatch: pytest.MonkeyPatch, minimum: int) -> None:
    refuse_threads(monkeypatch, after=minimum - 1)
    stopped = threading.Event()

    def endless(proceed: Proceed) -> None:
        try:
            while True:
                proceed()
                threading.Event().wait(0.001)
        finally:
            stopped.set()

    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_all([endless, endless], limit=2, minimum=minimum)
    assert stopped.is_set() is (minimum == 2)


def test_one_job_needs_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch, after=1)
    done: list[int] = []
    run_all([lambda _: done.append(1)], limit=5, minimum=2)
    assert done == [1]


def test_without_a_thread_pieces_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch, after=0)
    taken: list[bytes] = []
    with Behind(taken.append) as behind:
        behind.put(b"a")
        behind.put(b"b")
        assert taken == [b"a", b"b"]
        behind.finish()
    with pytest.raises(ZeroDivisionError), Behind(lambda _: 1 // 0) as behind:  # type: ignore[arg-type]
        behind.put(b"a")


def test_a_thread_without_memory_for_a_lock_does_not_block_the_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    get = queue.Queue.get
    failures = iter([True, True])

    def fail(self: "queue.Queue[bytes]", *arguments: object) -> bytes:
        if next(failures, False):
            raise RuntimeError("can't allocate lock")
        return get(self)

    monkeypatch.setattr(queue.Queue, "get", fail)

    def make() -> None:
        with Behind(lambda _: None) as behind:
            for _ in range(100):
                behind.put(b"x")
            behind.finish()

    with pytest.raises(RuntimeError, match="can't allocate lock"):
        make()
