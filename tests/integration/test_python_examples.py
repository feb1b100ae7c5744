"""The Python in the documentation runs as it stands, and prints what the comments in it say."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import imagefs.api
from tests.support.tour import tour_registries

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAID = re.compile(r"print\(.*\) +# (.*)$", re.MULTILINE)


def examples() -> list[str]:
    documented = (imagefs.api.__doc__ or "").partition("::\n")[2]
    indented = [line for line in documented.splitlines() if line.startswith("    ") or not line]
    return [textwrap.dedent("\n".join(indented)), *(block[1] for block in _BLOCK.finditer(README.read_text()))]


@pytest.mark.parametrize("code", examples(), ids=lambda code: code.splitlines()[0])
def test_an_example_prints_what_it_says(code: str, tmp_path: Path) -> None:
    said = _SAID.findall(code)
    assert said, "an example says what it prints"
    with tour_registries(tmp_path) as environment:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env={
                **os.environ,
                **environment,
                "HOME": str(tmp_path),
                "IMAGEFS_STORE": str(tmp_path / "store"),
                "PYTHONPATH": str(README.parent),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said
