"""A background process whose caller learns whether it started.

Receives a function that serves until it is told to stop; hands on success once that function has said it is ready, or
its failure as text and exit status.  Knows nothing of mounting.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import syslog
import tempfile
from collections.abc import Callable
from pathlib import Path

from imagefs.errors import EXIT_FAILURE, ImagefsError, MountError, describe
from imagefs.text import PrintableFormatter, printable

_READY = b"ready\n"

_log = logging.getLogger(__name__)


class _SyslogHandler(logging.Handler):
    """To the C library's syslog, which, unlike logging's own handler, bears that nobody listens."""

    _PRIORITIES = ((logging.ERROR, syslog.LOG_ERR), (logging.WARNING, syslog.LOG_WARNING), (0, syslog.LOG_INFO))

    def emit(self, record: logging.LogRecord) -> None:
        priority = next(priority for level, priority in self._PRIORITIES if record.levelno >= level)
        for line in self.format(record).splitlines():
            syslog.syslog(priority, line)


def log_to(log_file: Path | None) -> None:
    """Let everything logged go to *log_file*, or to syslog where that is None.

    Raises: OSError, if the file cannot be written.
    """
    if log_file is None:
        syslog.openlog("imagefs", syslog.LOG_PID, syslog.LOG_DAEMON)
        handler: logging.Handler = _SyslogHandler()
        handler.setFormatter(PrintableFormatter("%(message)s"))
    else:
        handler = logging.FileHandler(log_file)
        handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.getLogger().level, force=True)


def log_end(error: BaseException) -> None:
    """Log that serving ended with *error*."""
    if isinstance(error, ImagefsError):
        _log.error("%s", describe(error))
    else:
        _log.error("serving failed", exc_info=error)


def start(serve: Callable[[Callable[[], None]], None], *, log_file: Path | None = None) -> None:
    """Run ``serve(ready)`` in a process of its own and return as soon as it has called ``ready()``.

    The process leads a session of its own, in ``/``, with no files but its log; it ends when *serve* returns.  If
    *serve* fails before it is ready, or dies, what it raised and what was written to its standard error is raised
    here; later errors are logged.  If the caller is gone by then, the process gets SIGTERM.

    Raises: MountError, with the exit status of the error that *serve* raised.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    _become(serve, writing, said.fileno(), log_file)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            os.waitpid(child, 0)
            answer = pipe.readline()  # and not to its end: children of the process hold it open, too
        if answer == _READY:
            return
        said.seek(0)
        lines = [line.strip() for line in said.read(64 * 1024).decode("utf-8", "replace").splitlines()]
    try:
        code, text = json.loads(answer)
    except ValueError:
        code, text = None, "the serving process died before it was ready"
    error = MountError(": ".join([text, *(printable(line) for line in lines if line)]))
    if code is not None:
        error.exit_code = code
    raise error


def _become(serve: Callable[[Callable[[], None]], None], status_fd: int, stderr_fd: int, log_file: Path | None) -> None:
    """Be the background process; does not return."""
    ready = False

    def say_ready() -> None:
        nonlocal ready
        ready = True
        os.dup2(1, 2)
        try:
            os.write(status_fd, _READY)
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)  # nobody waits any more: the caller was interrupted
        os.close(status_fd)

    code = 0
    try:
        _detach(status_fd, stderr_fd)
        log_to(log_file)
        serve(say_ready)
    except BaseException as error:
        code = error.exit_code if isinstance(error, ImagefsError) else EXIT_FAILURE
        if ready:
            log_end(error)
        else:
            _log.debug("starting failed", exc_info=True)
            os.write(status_fd, json.dumps([code, describe(error)]).encode() + b"\n")
    finally:
        logging.shutdown()
        os._exit(code)


def _detach(status_fd: int, stderr_fd: int) -> None:
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(stderr_fd, 2)
    # Replaced, not closed: objects of the caller's that are collected here later would close our files by number.
    for number in map(int, os.listdir("/dev/fd")):
        if number > 2 and number != status_fd:
            with contextlib.suppress(OSError):  # the descriptor that listed is gone
                os.fstat(number)
                os.dup2(nothing, number, inheritable=False)
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ending, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
