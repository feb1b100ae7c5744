"""Several processes use one store at once, at random, and nothing is lost."""

import sys
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.mounts import CHECKOUT, needs_fuse, needs_root


@needs_root
@pytest.mark.fuse
@needs_fuse[1]
def test_nothing_is_lost_between_processes(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, CHECKOUT / "scripts/stress_store"]
    done = run([*command, "--minutes", "0.2", "--workers", "4", "--seed", "1"], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("nothing was lost")
