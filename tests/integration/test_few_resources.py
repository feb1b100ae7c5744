"""A pull with little memory or few threads ends well, or with one sentence."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.built_images import image, tar
from tests.support.registry import Registry

ONE = image([tar({f"file{number}": os.urandom(300_000)}) for number in range(5)])


def limited_pull(tmp_path: Path, kind: int, limit: int) -> "subprocess.CompletedProcess[str]":
    with Registry() as registry:
        registry.put("x", ONE, "1")
        command = [sys.executable, "-m", "imagefs", "--store", str(tmp_path / f"store{limit}"), "pull", "-q"]
        return subprocess.run(
            [*command, "--platform", "linux/amd64", f"{registry.host}/x:1"],
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
        )


@pytest.mark.parametrize("mebibytes", [110, 130, 150, 170, 200, 250, 300])
def test_a_pull_with_little_address_space_is_no_internal_error(tmp_path: Path, mebibytes: int) -> None:
    done = limited_pull(tmp_path, resource.RLIMIT_AS, mebibytes << 20)
    assert "internal error" not in done.stderr
    if done.returncode:  # Python may print a line of its own before, about a thread that it could not start
        last = done.stderr.splitlines()[-1]
        assert last.startswith(("imagefs: the operating system refuses more memory", "imagefs: Cannot allocate memory"))
