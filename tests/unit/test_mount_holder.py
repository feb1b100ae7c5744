"""What a holder decides without a mount: whom it believes, what it closes, when it gives up."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import MountError
from imagefs.mount import holder_process
from imagefs.mount.holder import STATE_FORMAT, Holder, Programs, State, received_state
from imagefs.mount.holder_process import open_holder
from imagefs.store.mounts import MountRecord, RecordIdentity

needs_fuse = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")
EXIT_1 = 1 << 8
"""As os.waitpid returns it."""


@pytest.fixture
def holder() -> Holder:
    state = State(-1, "/store", "/mnt", None, None, [], 0, {}, None, None)
    state.starts = 2
    return Holder(state, Programs(lambda _state, _line, _stop: 0, {}), lambda _pid: None)


def is_open(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").exists()


@pytest.mark.parametrize("change", [1, -1])
def test_a_state_of_another_format_is_refused(change: int) -> None:
    descriptor = os.memfd_create("state")
    os.write(descriptor, json.dumps({"format": STATE_FORMAT + change}).encode())
    with pytest.raises(MountError, match="another format"):
        received_state(descriptor)


def test_a_descriptor_that_is_replaced_or_dropped_is_closed(holder: Holder) -> None:
    first, second = (os.open("/dev/null", os.O_RDONLY) for _ in range(2))
    holder._hear({"keep": "layer"}, [first], lambda: None)
    assert is_open(first)
    holder._hear({"keep": "layer"}, [second], lambda: None)
    assert (is_open(first), is_open(second)) == (False, True)
    holder._hear({"drop": "layer"}, [], lambda: None)
    assert not is_open(second)


def test_the_fifth_fault_within_a_minute_is_the_last(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses_s: list[float] = []
    now_s = [1000.0]
    monkeypatch.setattr(time, "sleep", pauses_s.append)
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    for _ in range(4):
        assert holder._goes_on(EXIT_1)
    now_s[0] += 60.0
    for _ in range(4):
        assert holder._goes_on(EXIT_1), "older faults do not count"
    assert pauses_s == [0.04, 0.08, 0.16, 0.32] * 2
    now_s[0] += 59.0
    with pytest.raises(MountError, match="die again and again, the last by status 1"):
        holder._goes_on(EXIT_1)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[MountRecord]:
    """A record that this process seems to hold, as far as its file is concerned."""
    path = tmp_path / "record"
    with path.open("x") as file:
        status = os.fstat(file.fileno())
        identity = RecordIdentity(path, os.geteuid(), status.st_dev, status.st_ino)
        yield MountRecord("/mnt", os.getpid(), None, None, file=identity)


@needs_fuse
def test_a_holder_has_the_record_and_the_device_open(record: MountRecord, tmp_path: Path) -> None:
    with pytest.raises(MountError, match="is dead"):
        open_holder(record)
    with open("/dev/fuse", "rb", buffering=0):
        os.close(open_holder(record))
        assert record.file is not None
        other = RecordIdentity(record.file.path, record.file.owner, record.file.device, record.file.inode + 1)
        with pytest.raises(MountError, match="is dead"):
            open_holder(MountRecord("/mnt", os.getpid(), None, None, file=other))


@needs_fuse
def test_what_proc_says_of_a_process_that_has_ended_is_not_believed(
    record: MountRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder_process, "has_ended", lambda _process: True)
    with open("/dev/fuse", "rb", buffering=0), pytest.raises(MountError, match="is dead"):
        open_holder(record)
