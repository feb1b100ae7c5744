"""A background process that its caller hears of: started, failed, or died."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefs.errors import MountError, StoreUnusable
from imagefs.mount import daemon


def test_the_caller_returns_when_it_is_ready_and_later_errors_are_logged(tmp_path: Path) -> None:
    def serve(ready: Callable[[], None]) -> None:
        (tmp_path / "folder").write_text(str(Path.cwd()))
        ready()
        raise ValueError("on purpose")

    daemon.start(serve, log_file=tmp_path / "log")
    assert (tmp_path / "folder").read_text() == "/"
    for _ in range(500):
        if "on purpose" in (tmp_path / "log").read_text():
            break
        time.sleep(0.02)
    assert "ValueError: on purpose" in (tmp_path / "log").read_text()


def test_failing_to_start_arrives_with_text_status_and_what_libraries_said(tmp_path: Path) -> None:
    def serve(_ready: Callable[[], None]) -> None:
        os.write(2, b"libfuse: \x1b[1m no\n")
        raise StoreUnusable("/s", "it is damaged")

    with pytest.raises(MountError, match=r"store at /s: it is damaged: libfuse: .x1b\[1m no$") as caught:
        daemon.start(serve, log_file=tmp_path / "log")
    assert caught.value.exit_code == StoreUnusable.exit_code


def test_a_sudden_death_is_told() -> None:
    with pytest.raises(MountError, match="died before it was ready"):
        daemon.start(lambda _ready: os._exit(0))


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=r"No such file or directory.*absent"):
        daemon.start(lambda ready: ready(), log_file=tmp_path / "absent" / "log")


def test_the_callers_files_and_streams_are_untouched(capfd: pytest.CaptureFixture[str]) -> None:
    def serve(ready: Callable[[], None]) -> None:
        print("to nobody", flush=True)
        sys.stderr.write("to nobody\n")
        ready()

    daemon.start(serve)
    assert capfd.readouterr() == ("", "")


def test_when_the_caller_is_gone_nothing_is_left_running(tmp_path: Path) -> None:
    def serve(ready: Callable[[], None]) -> None:
        (tmp_path / "started").touch()
        while (tmp_path / "caller").exists():
            time.sleep(0.01)
        (tmp_path / "pid").write_text(str(os.getpid()))
        ready()
        time.sleep(60)

    (tmp_path / "caller").touch()
    caller = os.fork()
    if caller == 0:
        daemon.start(serve)
        os._exit(0)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    (tmp_path / "caller").unlink()
    for _ in range(500):
        pid = (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""
        if pid and not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.02)
    pytest.fail("the background process is still there")
