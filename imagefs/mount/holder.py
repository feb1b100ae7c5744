"""A mount that outlives the process that serves it.

Receives a mounted FUSE device and what is to be shown; keeps the device, has a child serve it, and starts another
child whenever one dies.  What the next one must know (the numbers that were given to the kernel, the files of removed
images that are still in use, what the kernel and the first one settled) each child tells its holder as it goes, before
it tells the kernel.  So a child may be killed at any moment; the next asks the kernel to repeat what was not answered.

The holder itself is replaced by a newer version of the program in place: it starts that program in its own process,
with everything it keeps.
"""

import contextlib
import json
import logging
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

from imagefs.confinement import confine
from imagefs.errors import MountError, describe
from imagefs.mount import device
from imagefs.mount.mountinfo import MountIdentity, mount_at
from imagefs.mount.protocol import Flag, Session
from imagefs.oci.digest import DiffId, Digest
from imagefs.store.secret import SECRET_BYTES, Secret
from imagefs.store.store import Store
from imagefs.view.filesystem import Shown

STATE_FORMAT = 1
"""Of what a holder hands to the version that replaces it."""
REPLACE_SIGNAL = signal.SIGUSR2
"""Tells a holder to become the version of the program that is installed now."""

UNMOUNTED, STOPPED, LOST = 0, 3, 4
"""How a child ends: the mount is gone; it was asked to end and owes nothing; requests may be lost for good."""

ASKED, ANSWERED = "asked", "answered"
"""What a child tells once each: that it has read a request, that it has answered one."""

_MOST_DEATHS = 5
"""In a row over the first request, or within a minute by its own fault: then the next child would only die, too."""
_MINUTE_S = 60.0
_PAUSE_S = 0.02
"""Before the next child after a fault, doubled with each more."""
_MOST_MESSAGE_BYTES = 1 << 20

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, REPLACE_SIGNAL)
_SUCCESSOR = """
import sys
sys.path.insert(0, sys.argv[1])
from imagefs.mount.session import resume
resume(int(sys.argv[2]))
"""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class State:
    """Everything a holder keeps; descriptors by number."""

    device: int
    store: str
    mountpoint: str
    reference: str | None
    image: str | None
    """ID of the one image that is shown, with its layers and their size; None: all of the store."""
    layers: list[str]
    size: int
    presentation: dict[str, Any]
    log_file: str | None
    record: tuple[str, int] | None
    """Path and descriptor of the store's record of this mount."""
    in_foreground: bool = False
    verify: bool = False
    """Whether contents are compared with their digests before they are shown."""
    trust_store: bool = False
    """Whether the store may be another user's; see `Store.open`."""
    settled: tuple[int, int] | None = None
    """Minor version and flags that INIT settled."""
    notes: list[str] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    helpers: list[int] = field(default_factory=list)
    """Process IDs of helpers that were not reaped yet."""
    identity: tuple[int, str] | None = None
    """Fields of the mount's `MountIdentity`; None where a predecessor did not know it."""
    starts: int = 0
    owes: bool = False
    """Whether a child died that may have read requests and not answered them."""
    substitute: str = field(default_factory=lambda: secrets.token_hex(SECRET_BYTES), repr=False)
    """Stands in for the store's secret where that cannot be read: inode numbers outlive the child."""

    @property
    def session(self) -> Session | None:
        """What INIT settled, if it did already."""
        return Session(self.settled[0], Flag(self.settled[1])) if self.settled is not None else None

    def detach(self) -> None:
        """Detach the mount, and no other, from its place."""
        if self.identity is not None:
            device.detach(device.Mounted(self.device, MountIdentity(*self.identity)))


def opened_store(state: State) -> Store:
    """Return the store of *state*, which the caller closes.

    Raises: StoreUnusable.
    """
    store = Store.open(Path(state.store), trust=state.trust_store)
    store.secret(substitute=Secret(bytes.fromhex(state.substitute), is_stored=False))
    return store


class Line:
    """The child's end of the conversation with its holder.  Messages are sent at once and in order; thread-safe."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def tell(self, *descriptors: int, **said: Any) -> None:
        """Tell the holder; where it is dead, nobody."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._end, [json.dumps(said).encode()], descriptors)


Serve = Callable[[State, Line, int], int]
"""What a child does: serve *state*, telling the holder on the line, until the mount is gone or the descriptor becomes
readable; returns UNMOUNTED, STOPPED or LOST."""


@dataclass(frozen=True, slots=True)
class Programs:
    """What the processes of a mount do: its child, and helpers that the child has begun by name, with a socket."""

    serve: Serve
    helpers: Mapping[str, Callable[[State, socket.socket], None]]


def shown_image(state: State) -> Shown | None:
    """Return the one image that the mount of *state* shows; None for all of its store."""
    if state.image is None:
        return None
    layers = tuple(DiffId(Digest.parse(diff_id)) for diff_id in state.layers)
    return Shown(Digest.parse(state.image), layers, state.size)


class Holder:
    """Holds one mount.  To be used from the main thread of a process that has no other."""

    def __init__(self, state: State, programs: Programs, started: Callable[[int], None]) -> None:
        """Hold *state*; *started* is told the process ID of every child."""
        self._state = state
        self._programs = programs
        self._started = started
        self._child_was: set[str] = set()
        self._fault_times_s: list[float] = []
        self._silent_deaths = 0
        self._asked: set[int] = set()
        self._failure: MountError | None = None

    def hold(self, ready: Callable[[], None]) -> None:
        """Return when the mount is gone; *ready* is called once the first child answers.

        Raises: MountError, if the first child could not start, or no further one made sense; the mount is then gone.
        """
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        handled = (*_SIGNALS, signal.SIGCHLD)
        before = {number: signal.signal(number, lambda asked, _: self._asked.add(asked)) for number in handled}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._reap_helpers()  # their end may have been signaled to a predecessor
        try:
            while self._one_child(wake, ready):
                pass
        except BaseException:
            self._state.detach()
            raise
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake)
            os.close(waker)
            for descriptor in (self._state.device, *self._state.kept.values()):
                os.close(descriptor)

    def _one_child(self, wake: int, ready: Callable[[], None]) -> bool:
        """Have one child serve; return whether there is to be another."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stop, stopper = os.pipe2(os.O_CLOEXEC)
        self._state.starts += 1
        self._child_was = set()
        child = os.fork()
        if child == 0:
            ours.close()
            os.close(stopper)
            _be_child(self._programs.serve, self._state, Line(theirs), stop)
        self._started(child)
        theirs.close()
        os.close(stop)
        ours.setblocking(False)
        with ours:
            try:
                self._listen(child, ours, wake, stopper, ready)
            finally:
                with contextlib.suppress(OSError):
                    os.close(stopper)
            _, status = os.waitpid(child, 0)
            for said, descriptors in _messages(ours):  # what it said before it died
                self._hear(said, descriptors, ready)
        return self._goes_on(status)

    def _listen(self, child: int, ours: socket.socket, wake: int, stopper: int, ready: Callable[[], None]) -> None:
        """Do what the child says and what signals ask, until it has ended."""
        process = os.pidfd_open(child)
        try:
            poll = select.poll()
            for descriptor in (process, ours.fileno(), wake):
                poll.register(descriptor, select.POLLIN)
            while True:
                readable = {descriptor for descriptor, _ in poll.poll()}
                if ours.fileno() in readable:
                    for said, descriptors in _messages(ours):
                        self._hear(said, descriptors, ready)
                if wake in readable:
                    os.read(wake, 4096)
                    self._obey(stopper)
                if process in readable:
                    return
                if ours.fileno() in readable and process not in readable and not _is_open(ours):
                    poll.unregister(ours.fileno())
        finally:
            os.close(process)

    def _obey(self, stopper: int) -> None:
        if self._asked - {REPLACE_SIGNAL, signal.SIGCHLD}:
            self._state.detach()
        self._reap_helpers()
        if REPLACE_SIGNAL in self._asked:
            with contextlib.suppress(BrokenPipeError):  # it has just died: as well
                os.write(stopper, b"x")
        self._asked &= {REPLACE_SIGNAL}

    def _hear(self, said: dict[str, Any], descriptors: list[int], ready: Callable[[], None]) -> None:
        state = self._state
        if "note" in said:
            state.notes.append(said["note"])
        elif "keep" in said:
            before = state.kept.pop(said["keep"], None)
            if before is not None:
                os.close(before)
            state.kept[said["keep"]] = descriptors[0]
        elif "drop" in said:
            descriptor = state.kept.pop(said["drop"], None)
            if descriptor is not None:
                os.close(descriptor)
        elif "settled" in said:
            minor, flags = said["settled"]
            state.settled = minor, flags
        elif "was" in said:
            self._child_was.add(said["was"])
            if said["was"] == ANSWERED:
                state.owes = False
                if state.starts == 1:
                    ready()
        elif "begin" in said:
            self._begin_helper(said["begin"], descriptors[0])
        elif "failed" in said:
            code, text = said["failed"]
            self._failure = MountError(text)
            self._failure.exit_code = code

    def _begin_helper(self, name: str, descriptor: int) -> None:
        """Have a process do what is asked for on the socket *descriptor*; it ends with who asks."""
        helper = os.fork()
        if helper == 0:
            try:
                for number in _SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
                confine(Path(self._state.store))
                self._programs.helpers[name](self._state, socket.socket(fileno=descriptor))
            finally:
                os._exit(0)
        os.close(descriptor)
        self._state.helpers.append(helper)

    def _reap_helpers(self) -> None:
        self._state.helpers = [pid for pid in self._state.helpers if os.waitpid(pid, os.WNOHANG) == (0, 0)]

    def _goes_on(self, status: int) -> bool:
        """Return whether another child shall follow the one that ended with *status*."""
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == UNMOUNTED:
            return False
        if self._state.starts == 1 and ANSWERED not in self._child_was:
            raise self._failure or MountError("the process that was to serve the mount died at once")
        is_stopped = os.WIFEXITED(status) and os.WEXITSTATUS(status) == STOPPED
        self._state.owes = self._state.owes or not is_stopped
        if REPLACE_SIGNAL in self._asked:
            self._asked.clear()
            self._become_newer()
        if is_stopped:
            return True
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
        where = self._state.mountpoint
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == LOST:
            raise MountError(f"the process that served {where} died, and this kernel cannot repeat what it was asked")
        now_s = time.monotonic()
        if ANSWERED in self._child_was:
            self._silent_deaths = 0
        elif ASKED in self._child_was:
            self._silent_deaths += 1
        self._fault_times_s = [time_s for time_s in self._fault_times_s if now_s - time_s < _MINUTE_S]
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):  # that was somebody else's will
            self._fault_times_s.append(now_s)
        if max(self._silent_deaths, len(self._fault_times_s)) >= _MOST_DEATHS:
            raise MountError(f"the processes that serve {where} die again and again, the last by {how}")
        _log.warning("the process that served %s died by %s; another takes over", where, how)
        if self._fault_times_s:  # what is wrong may be over in a moment
            time.sleep(_PAUSE_S * 2 ** len(self._fault_times_s))
        return True

    def _become_newer(self) -> None:
        """Let the program that is installed now go on in this process; does not return if that can be started."""
        state = self._state
        handed_over = os.memfd_create("imagefs-state", 0)
        os.write(handed_over, json.dumps({"format": STATE_FORMAT, **asdict(state)}).encode())
        descriptors = [handed_over, state.device, *state.kept.values(), *([state.record[1]] if state.record else [])]
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        # The last argument is for `remount`, which learns from it that this process has become another program.
        arguments = [str(Path(__file__).parents[2]), str(handed_over), str(state.starts)]
        program = [sys.executable, "-c", _SUCCESSOR, *arguments]
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            os.execv(sys.executable, program)  # noqa: S606 - no shell is what is wanted
        except OSError as error:
            _log.error("the installed program cannot be started: %s", describe(error))
            os.close(handed_over)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def received_state(descriptor: int) -> State:
    """Return what a predecessor in this process handed over, and close *descriptor*.

    Raises: MountError, if its format is not ours.
    """
    with open(descriptor, "rb") as file:
        file.seek(0)
        said = json.load(file)
    if said.pop("format") != STATE_FORMAT:
        raise MountError("the version that mounted it keeps its state in another format")
    tuples = {name: tuple(said.pop(name)) for name in ("record", "settled", "identity") if said.get(name)}
    state = State(**{**said, **tuples})
    if state.identity is None:  # from imagefs 0.3
        mounted = mount_at(Path(state.mountpoint))
        state.identity = astuple(mounted.identity) if mounted is not None and mounted.is_imagefs else None
        state.helpers = _children()
    for number in (state.device, *state.kept.values(), *([state.record[1]] if state.record else [])):
        os.set_inheritable(number, False)
    return state


def _be_child(serve: Serve, state: State, line: Line, stop: int) -> None:
    """Serve, and end this process."""
    code = LOST
    try:
        signal.set_wakeup_fd(-1)
        holder = os.getppid()

        def end_if_alone(*_: object) -> None:
            if os.getppid() != holder:  # else the holder was told, too, or decides
                _log.warning("nobody serves %s any more; unmount it: imagefs umount %s", *[state.mountpoint] * 2)
                os._exit(LOST)

        for number in _SIGNALS:
            signal.signal(number, end_if_alone)
        confine(Path(state.store))
        code = serve(state, line, stop)
    except BaseException as error:
        code = 1
        exit_code = getattr(error, "exit_code", 1)
        line.tell(failed=[exit_code, describe(error)])
        _log.exception("serving failed")
    finally:
        logging.shutdown()
        os._exit(code)


def _children() -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return []


def _messages(ours: socket.socket) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield the messages that have arrived on *ours*, which does not block."""
    while True:
        try:
            text, descriptors, _, _ = socket.recv_fds(ours, _MOST_MESSAGE_BYTES, 4)
        except BlockingIOError:
            return
        if not text:
            return
        yield json.loads(text), descriptors


def _is_open(ours: socket.socket) -> bool:
    try:
        return ours.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
