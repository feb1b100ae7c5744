"""The README's tour, run as it is printed: every command works, and prints what the README says.

With IMAGEFS_UPDATE_README set, what the commands print is written into the README instead.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mounts import needs_fuse
from tests.support.tour import tour_registries

pytestmark = needs_fuse

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAME = (
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "HASH"),
    (re.compile(r"\b(About an?|\d+) (seconds?|minutes?|hours?|days?|weeks?|months?|years?) ago"), "AGE ago"),
    (re.compile(r" +"), " "),
    (re.compile(r"(pid) \d+"), r"\1 N"),
)


@dataclass(frozen=True)
class Step:
    """A command of the tour, its comment left out, and what the README says that it prints."""

    command: str
    expected: str
    start: int
    end: int


def steps() -> list[Step]:
    text = README.read_text()
    tour_at, tour_end = text.index("\n## Tour\n"), text.index("\n## ", text.index("\n## Tour\n") + 1)
    found: list[Step] = []
    for block in _BLOCK.finditer(text, tour_at, tour_end):
        prompts = [match.start() for match in re.finditer(r"^\$ ", block[1], re.MULTILINE)]
        assert prompts[:1] == [0], f"a console block begins with a command: {block[1][:80]}"
        for start, end in zip(prompts, [*prompts[1:], len(block[1])], strict=True):
            line, _, printed = block[1][start + 2 : end].partition("\n")
            after = block.start(1) + start + 2 + len(line) + 1
            found.append(Step(line.partition("   #")[0].rstrip(), printed, after, after + len(printed)))
    return found


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody who has just installed imagefs."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    imagefs = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m imagefs "$@"\n'
    (programs / "imagefs").write_text(imagefs)
    (programs / "imagefs").chmod(0o755)
    with tour_registries(tmp_path) as found:
        environment = {
            **os.environ,
            **found,
            "HOME": str(home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(README.parent),
            "IMAGEFS_STORE": str(tmp_path / "store"),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }
        try:
            yield environment
        finally:
            for line in Path("/proc/self/mounts").read_text().splitlines():
                if line.split()[1].startswith(str(home)):
                    subprocess.run(["umount", "-l", line.split()[1]], check=False)


def run(step: Step, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", step.command],
        env=environment,
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    printed = done.stdout.replace(environment["HOME"], "/home/you")
    # What fails is meant to fail: the README shows the error, or a diff.
    assert done.returncode == 0 or "\nimagefs: " in f"\n{printed}" or "diff" in step.command, (step.command, printed)
    return printed


def normal(text: str) -> str:
    for pattern, same in _SAME:
        text = pattern.sub(same, text)
    return text.rstrip()


def agrees(printed: str, expected: str) -> bool:
    """Return whether *printed* is what the README shows, where ``…`` on a line of its own stands for any lines."""
    lines = [".*(?:\n.*)*" if line == "…" else re.escape(line) for line in normal(expected).split("\n")]
    return re.fullmatch("\n".join(lines), normal(printed)) is not None


def test_the_tour_goes_as_the_readme_says(shell: dict[str, str]) -> None:
    wrong: list[tuple[str, str, str]] = []
    text = README.read_text()
    moved = 0
    for step in steps():
        printed = run(step, shell)
        if "IMAGEFS_UPDATE_README" in os.environ:
            if "\n…\n" not in f"\n{step.expected}":
                text = text[: step.start + moved] + printed + text[step.end + moved :]
                moved += len(printed) - (step.end - step.start)
        elif not agrees(printed, step.expected):
            wrong.append((step.command, step.expected, printed))
    if text != README.read_text():
        README.write_text(text)
    assert not wrong
    assert not [line for line in Path("/proc/self/mounts").read_text().splitlines() if shell["HOME"] in line]
