"""podman with a storage of its own, as the judge of what its users expect."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from tests.support.commands import run


class Podman:
    """One podman storage below *folder*."""

    def __init__(self, folder: Path) -> None:
        self._argv: list[str | Path] = ["podman", "--root", folder / "root", "--runroot", folder / "run"]
        self._argv += ["--storage-driver", "vfs"]

    def __call__(self, *arguments: str | Path, check: bool = True) -> CompletedProcess[str]:
        return run([*self._argv, *arguments], check=check)


@contextmanager
def podman_storage() -> Iterator[Podman]:
    """Make an empty storage; its path is short because podman refuses others."""
    with tempfile.TemporaryDirectory(prefix="podman") as folder:
        podman = Podman(Path(folder))
        try:
            yield podman
        finally:
            podman("rmi", "--all", "--force", check=False)
