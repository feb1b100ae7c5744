"""A tar scanned by another process: what is found, and refused, is what a scan here finds."""

import os
import signal
from pathlib import Path

import pytest

from imagefs.errors import InvalidLayer
from imagefs.layer import scan_process
from imagefs.layer.index import encode
from imagefs.layer.scan_process import ScanProcess
from imagefs.layer.tar import scan
from imagefs.oci.digest import DiffId, Digest
from tests.support.built_images import link, tar, tar_of

LAYER = tar({"etc/motd": b"hello\n" * 100_000, "etc/.wh.old": b"", "x/.wh..wh..opq": b""})
ID = DiffId(Digest.of(b"any"))
BROKEN = tar_of([link(".", "x")]) + LAYER


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    (tmp_path / "layer").touch()
    return tmp_path / "layer"


def fed(path: Path, data: bytes, process: ScanProcess) -> bytes:
    with path.open("ab", buffering=0) as file:
        for at in range(0, len(data), 100_000):
            process.grown(file.write(data[at : at + 100_000]))
    return b"".join(process.finish())


def pid_of(process: ScanProcess) -> int:
    return process._process.pid


@pytest.mark.parametrize("layer", [LAYER, b"", bytes(1024)], ids=["some", "empty", "zeros"])
def test_the_index_is_that_of_a_scan_here(layer: bytes, growing: Path) -> None:
    with ScanProcess(growing, ID) as process:
        assert fed(growing, layer, process) == encode(scan([layer]), ID)


@pytest.mark.parametrize("layer", [BROKEN, LAYER[:1000], b"\xff" * 2000], ids=["broken", "cut off", "no tar"])
def test_what_is_refused_is_refused_in_the_same_words(layer: bytes, growing: Path) -> None:
    with pytest.raises(InvalidLayer) as here:
        scan([layer])
    with ScanProcess(growing, ID) as process, pytest.raises(InvalidLayer) as there:
        fed(growing, layer, process)
    assert str(there.value) == str(here.value)
    assert (there.value.entry, there.value.offset) == (here.value.entry, here.value.offset)


@pytest.mark.parametrize("fed_before", [0, 1, 3, 7])
def test_a_process_that_was_killed_is_replaced_by_a_scan_here(growing: Path, fed_before: int) -> None:
    pieces = [LAYER[at : at + 100_000] for at in range(0, len(LAYER), 100_000)]
    assert len(pieces) == 7
    with ScanProcess(growing, ID) as process, growing.open("ab", buffering=0) as file:
        for number, piece in enumerate([*pieces, b""]):
            if number == fed_before:
                os.kill(pid_of(process), signal.SIGKILL)
                process._process.wait()  # so that the pipe is broken when the next piece is told of
            if piece:
                process.grown(file.write(piece))
        assert b"".join(process.finish()) == encode(scan([LAYER]), ID)


def test_what_is_refused_is_refused_also_after_the_process_was_killed(growing: Path) -> None:
    with ScanProcess(growing, ID) as process:
        os.kill(pid_of(process), signal.SIGKILL)
        process._process.wait()
        with pytest.raises(InvalidLayer):
            fed(growing, BROKEN, process)


def test_a_process_that_cannot_begin_is_replaced_too(growing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_process, "_PROGRAM", "raise SystemExit(3)")
    with ScanProcess(growing, ID) as process:
        assert fed(growing, LAYER, process) == encode(scan([LAYER]), ID)


def test_the_process_is_gone_afterwards_whatever_happened(growing: Path) -> None:
    with ScanProcess(growing, ID) as process:
        pid = pid_of(process)
        process.grown(0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
