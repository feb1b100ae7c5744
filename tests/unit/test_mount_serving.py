"""The thread that answers: it never does what takes long, and answers others meanwhile."""

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from imagefs.mount import parking as parking_module
from imagefs.mount import protocol, serving
from imagefs.mount.kernel import NotInMemory, Server
from imagefs.mount.protocol import Buffer, Opcode, Session
from imagefs.view import waiting
from imagefs.view.waiting import Duration, NotReady

WAIT_S = 20.0
_HEADER = struct.Struct("<IiQ")


def request(unique: int, node: int, opcode: Opcode = Opcode.GETATTR, body: bytes = b"") -> bytes:
    return protocol.HEADER.pack(protocol.HEADER.size + len(body), opcode, unique, node, 0, 0, 0, 0) + body


class FakeServer:
    """Answers a request with its node's text, once the work for that node is done, if any is needed."""

    session = Session(31, protocol.Flag(0))

    def __init__(self) -> None:
        self.work: dict[int, tuple[Callable[[], None], Duration]] = {}
        self.files: dict[int, FakeFile] = {}
        self.done: set[int] = set()
        self.worked: list[int] = []

    def need(self, node: int, work: Callable[[], None], duration: Duration = Duration.LONG) -> None:
        self.work[node] = work, duration

    def _do(self, node: int) -> None:
        work, _ = self.work[node]
        work()
        self.worked.append(node)
        self.done.add(node)

    def answer(self, raw: Buffer) -> list[Buffer]:
        _, opcode, unique, node, *_ = protocol.HEADER.unpack_from(raw)
        if opcode == Opcode.INTERRUPT:
            return Server.answer(cast(Server, self), raw)  # type: ignore[return-value]
        if node in self.files:
            raise NotInMemory(unique, self.files[node], 0, 9, is_brief=False)  # type: ignore[arg-type]
        if node in self.work and node not in self.done:
            waiting.do(node, lambda: self._do(node), self.work[node][1])
        return protocol.reply(unique, b"node %d" % node)


class FakeFile:
    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read

    def read(self, _offset: int, _size: int) -> bytes:
        return self._read()


class Kernel:
    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def ask(self, unique: int, node: int, opcode: Opcode = Opcode.GETATTR, body: bytes = b"") -> None:
        self._end.send(request(unique, node, opcode, body))

    def reply(self) -> tuple[int, int, bytes]:
        """Return (unique, errno, text) of the next reply."""
        raw = self._end.recv(4096)
        _, number, unique = _HEADER.unpack_from(raw)
        return unique, -number, raw[_HEADER.size :]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@contextmanager
def served(server: FakeServer, *, at_end: Callable[[Kernel], None] = lambda _: None) -> Iterator[Kernel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(WAIT_S)
    stop, stopper = os.pipe()

    def serve() -> None:
        serving.serve(theirs.fileno(), cast(Server, server), asked=lambda: None, answered=lambda: None, stop=stop)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Kernel(ours)
    finally:
        os.write(stopper, b"x")
        thread.join(WAIT_S)
        assert not thread.is_alive()
        at_end(Kernel(ours))
        for descriptor in (stop, stopper):
            os.close(descriptor)
        ours.close()
        theirs.close()


def test_others_are_answered_while_a_request_waits_for_its_work(server: FakeServer) -> None:
    release = threading.Event()
    server.need(7, lambda: _wait(release))
    with served(server) as kernel:
        kernel.ask(1, 7)
        for unique in range(2, 20):
            kernel.ask(unique, 3)
            assert kernel.reply() == (unique, 0, b"node 3")
        release.set()
        assert kernel.reply() == (1, 0, b"node 7")


def _wait(event: threading.Event) -> None:
    assert event.wait(WAIT_S)


def test_requests_for_the_same_work_have_it_done_once(server: FakeServer) -> None:
    release = threading.Event()
    server.need(7, lambda: _wait(release))
    with served(server) as kernel:
        for unique in range(1, 11):
            kernel.ask(unique, 7)
        kernel.ask(99, 3)
        assert kernel.reply()[0] == 99
        release.set()
        assert {kernel.reply()[0] for _ in range(10)} == set(range(1, 11))
    assert server.worked == [7]


def test_brief_work_does_not_queue_behind_long_work(server: FakeServer) -> None:
    release = threading.Event()
    for node in range(10, 20):
        server.need(node, lambda: _wait(release))
    server.need(5, lambda: None, Duration.BRIEF)
    with served(server) as kernel:
        for node in range(10, 20):
            kernel.ask(node, node)
        kernel.ask(1, 5)
        assert kernel.reply() == (1, 0, b"node 5")
        release.set()
        assert {kernel.reply()[0] for _ in range(10)} == set(range(10, 20))


def test_brief_work_that_turns_out_long_goes_on_in_another_thread(server: FakeServer) -> None:
    release = threading.Event()
    names: list[str] = []

    def long_work() -> None:
        names.append(threading.current_thread().name)
        _wait(release)

    server.need(7, lambda: waiting.do("tree", long_work, Duration.LONG), Duration.BRIEF)
    with served(server) as kernel:
        for unique in (1, 2, 3, 4):
            kernel.ask(unique, 7)
        kernel.ask(9, 3)
        assert kernel.reply()[0] == 9
        server.done.add(7)
        release.set()
        assert {kernel.reply() for _ in range(4)} == {(unique, 0, b"node 7") for unique in (1, 2, 3, 4)}
    assert names == ["LONG work"]


def test_an_interrupted_request_gets_its_reply_at_once_and_no_second_one(server: FakeServer) -> None:
    release = threading.Event()
    server.need(7, lambda: _wait(release))
    with served(server) as kernel:
        kernel.ask(1, 7)
        kernel.ask(2, 0, Opcode.INTERRUPT, struct.pack("<Q", 1))
        assert kernel.reply() == (1, errno.EINTR, b"")
        kernel.ask(3, 0, Opcode.INTERRUPT, struct.pack("<Q", 1))  # too late: there is no reply to that
        kernel.ask(4, 7)
        kernel.ask(5, 3)
        assert kernel.reply() == (5, 0, b"node 3"), "request 4 waits now, too"
        release.set()
        assert kernel.reply() == (4, 0, b"node 7")
        kernel.ask(6, 3)
        assert kernel.reply() == (6, 0, b"node 3")


def test_work_that_fails_fails_all_that_wait_for_it(server: FakeServer) -> None:
    def fail() -> None:
        raise OSError(errno.ESTALE, "stale")

    server.need(7, fail)
    with served(server) as kernel:
        for unique in (1, 2):
            kernel.ask(unique, 7)
        assert {kernel.reply() for _ in range(2)} == {(unique, errno.ESTALE, b"") for unique in (1, 2)}
        kernel.ask(3, 3)
        assert kernel.reply() == (3, 0, b"node 3")


def test_a_request_whose_work_never_lasts_fails_in_the_end(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking_module, "_MOST_ROUNDS", 5)
    rounds: list[int] = []
    server.need(7, lambda: rounds.append(1))
    monkeypatch.setattr(server, "done", frozenset())
    monkeypatch.setattr(server, "_do", lambda _node: rounds.append(1))
    with served(server) as kernel:
        kernel.ask(1, 7)
        assert kernel.reply() == (1, errno.EIO, b"")
    assert len(rounds) == 5


def test_data_that_is_slow_to_put_together_is_left_to_others(server: FakeServer) -> None:
    release = threading.Event()

    def read() -> bytes:
        _wait(release)
        return b"data"

    server.files[8] = FakeFile(read)
    with served(server) as kernel:
        kernel.ask(1, 8)
        kernel.ask(2, 3)
        assert kernel.reply() == (2, 0, b"node 3")
        release.set()
        assert kernel.reply() == (1, 0, b"data")


def test_everything_that_was_read_is_answered_before_serving_stops(server: FakeServer) -> None:
    release = threading.Event()
    server.need(7, lambda: _wait(release))
    ours: list[tuple[int, int, bytes]] = []
    with served(server, at_end=lambda kernel: ours.append(kernel.reply())) as kernel:
        kernel.ask(1, 7)
        kernel.ask(2, 3)
        assert kernel.reply()[0] == 2
        threading.Timer(0.2, release.set).start()
    assert ours == [(1, 0, b"node 7")]


def test_a_thread_does_only_what_it_may() -> None:
    seen: list[Duration] = []

    def run() -> None:
        waiting.limit(Duration.BRIEF)
        assert waiting.do("a", lambda: 1, Duration.BRIEF) == 1
        try:
            waiting.do("key", lambda: 2, Duration.LONG)
        except NotReady as missing:
            seen.append(missing.duration)
        with waiting.allowed(Duration.DISK):
            assert waiting.may(Duration.BRIEF)
        with waiting.allowed(Duration.LONG):
            assert waiting.do("key", lambda: 3, Duration.LONG) == 3
        assert not waiting.may(Duration.LONG)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [Duration.LONG]
    assert waiting.may(Duration.LONG), "limits are of one thread"


def test_works_that_go_on_as_the_same_longer_work_keep_all_their_requests(server: FakeServer) -> None:
    release = threading.Event()
    begun = threading.Barrier(3)

    def begin() -> None:
        begun.wait(WAIT_S)
        waiting.do("tree", lambda: _wait(release), Duration.LONG)

    for node in (7, 8):
        server.need(node, begin, Duration.BRIEF)
    with served(server) as kernel:
        for node in (7, 8):
            kernel.ask(node, node)
        begun.wait(WAIT_S)
        server.done |= {7, 8}
        kernel.ask(9, 3)
        assert kernel.reply()[0] == 9
        threading.Timer(0.2, release.set).start()
        assert {kernel.reply() for _ in range(2)} == {(node, 0, b"node %d" % node) for node in (7, 8)}
