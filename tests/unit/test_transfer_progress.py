"""What a person sees: docker's lines, or bars, or one name."""

import io
import re
import threading
import time

import pytest

from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.transfer.progress import Reporter

LAYERS = [Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(bytes([n])), 1000) for n in range(3)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(reporter: Reporter) -> None:
    reporter.note("latest: Pulling from library/x")
    with reporter.layers() as layers:
        layers.exists(LAYERS[0])
        for layer in LAYERS[1:]:
            layers.begin(layer)
        for layer in LAYERS[1:]:
            for _ in range(10):
                layers.advance(layer, 100)
            layers.complete(layer)
    reporter.result("docker.io/library/x:latest")


def test_without_a_terminal_each_layer_gets_one_line_a_phase() -> None:
    out, err = io.StringIO(), io.StringIO()
    tell(Reporter(out, err))
    first, second, third = (layer.digest.short for layer in LAYERS)
    assert out.getvalue().splitlines() == [
        "latest: Pulling from library/x",
        f"{first}: Already exists",
        f"{second}: Pulling fs layer",
        f"{third}: Pulling fs layer",
        f"{second}: Pull complete",
        f"{third}: Pull complete",
        "docker.io/library/x:latest",
    ]
    assert err.getvalue() == ""


def test_quiet_leaves_only_the_result() -> None:
    for out in (io.StringIO(), Terminal()):
        tell(Reporter(out, io.StringIO(), quiet=True))
        assert out.getvalue() == "docker.io/library/x:latest\n"


def test_layer_lines_can_be_left_out() -> None:
    out = io.StringIO()
    tell(Reporter(out, io.StringIO(), layer_lines=False))
    assert out.getvalue().splitlines() == ["latest: Pulling from library/x", "docker.io/library/x:latest"]


def test_a_terminal_gets_a_bar_for_each_layer_and_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    tell(Reporter(out, io.StringIO()))
    text = out.getvalue()
    for layer in LAYERS:
        assert layer.digest.short in text
    assert "Already exists" in text
    assert "Pull complete" in text
    assert "total" in text
    assert "2.0 kB" in text


@pytest.mark.parametrize("width", [100, 80, 60, 57, 40])
def test_bars_keep_to_one_line_each_whatever_the_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    out = Terminal()
    big = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(b"big"), 999_900_000)
    with Reporter(out, io.StringIO()).layers() as layers:
        layers.begin(big)
        for _ in range(3):
            layers.advance(big, 333_300_000)
            time.sleep(0.15)  # more than one frame
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]", out.getvalue())]
    shown = [line for line in lines if line.strip()]
    assert shown
    assert all(line.startswith(f"{big.digest.short}: Pulling fs layer") for line in shown)
    assert max(map(len, shown)) <= width
    assert any("333.3 MB / 999.9 MB" in line if width >= 58 else " 33 %" in line for line in shown)


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    tell(Reporter(out, io.StringIO()))
    assert "\x1b" not in out.getvalue()
    assert f"{LAYERS[0].digest.short}: Already exists" in out.getvalue()


def test_a_warning_cannot_carry_terminal_escapes() -> None:
    err = io.StringIO()
    Reporter(io.StringIO(), err, quiet=True).warn("bad \x1b]0;title\x07 name\nsecond line")
    assert err.getvalue() == "warning: bad \\x1b]0;title\\x07 name\\nsecond line\n"


def test_lines_of_several_threads_do_not_mix() -> None:
    out = io.StringIO()
    with Reporter(out, io.StringIO()).layers() as layers:
        threads = [threading.Thread(target=layers.complete, args=(layer,)) for layer in LAYERS for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 30
    assert set(lines) == {f"{layer.digest.short}: Pull complete" for layer in LAYERS}
