"""Pulls that are killed: a registry that sends at a steady rate and counts, and what must be true afterwards."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.built_images import BuiltImage, image, tar
from tests.support.registry import Handler, Registry

RATE_BYTES = 40_000_000
"""A second, of one layer.  Slower than the pull, so that what is sent is what arrives, and little is in between."""

_PIECE_BYTES = 64 * 1024
_NAME = "killed"


class Counter:
    """Sends blobs at `RATE_BYTES` and counts their bytes, per digest."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, handler: Handler) -> bool:
        digest = handler.path.rpartition("/")[2]
        blob = handler.registry.blobs[digest]
        start = int(handler.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
        handler.send_header("Content-Length", str(len(blob) - start))
        handler.end_headers()
        begun_s = time.monotonic()
        with contextlib.suppress(OSError):  # the client was killed
            for at in range(start, len(blob), _PIECE_BYTES):
                piece = blob[at : at + _PIECE_BYTES]
                handler.wfile.write(piece)
                with self._lock:
                    self.sent[digest] = self.sent.get(digest, 0) + len(piece)
                ahead_s = (at + len(piece) - start) / RATE_BYTES - (time.monotonic() - begun_s)
                if ahead_s > 0:
                    time.sleep(ahead_s)
        return True

    def total(self) -> int:
        with self._lock:
            return sum(self.sent.values())


@dataclass(frozen=True)
class Outcome:
    """*killed*: before it ended by itself; *problems*: what was not as it should be after the second pull."""

    killed: bool
    problems: tuple[str, ...]
    needed_bytes: int
    sent_bytes: int


class KilledPulls:
    """One image, pulled again and again into new stores, from a registry in this process."""

    def __init__(self, registry: Registry, counter: Counter, one: BuiltImage, scratch: Path) -> None:
        self._registry = registry
        self._counter = counter
        self._scratch = scratch
        self._needed = sum(map(len, one.blobs)) + len(one.config)
        start_s = time.monotonic()
        assert self._pull(scratch / "whole").wait() == 0
        self.usual_s = time.monotonic() - start_s
        self._expected = dict(_files(scratch / "whole"))

    def once(self, kill_after_s: float) -> Outcome:
        """Pull, kill that, pull again, and look."""
        store = self._scratch / "store"
        shutil.rmtree(store, ignore_errors=True)
        before = self._counter.total()
        process = self._pull(store)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(kill_after_s)
        process.kill()
        killed = process.wait() < 0
        problems = []
        if status := self._pull(store).wait(120):
            problems.append(f"the second pull ended with status {status}")
        found = dict(_files(store))
        problems += [f"{name} is missing" for name in self._expected.keys() - found.keys()]
        problems += [f"{name} is left over" for name in found.keys() - self._expected.keys()]
        problems += [
            f"{name} is not what it should be" for name, raw in self._expected.items() if found.get(name, raw) != raw
        ]
        return Outcome(killed, tuple(problems), self._needed, self._counter.total() - before)

    def _pull(self, store: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "imagefs", "--store", str(store), "pull", "-q", "--platform", "linux/amd64"]
        return subprocess.Popen(
            [*command, f"{self._registry.host}/{_NAME}:1"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "HOME": str(self._scratch)},
            stdout=subprocess.DEVNULL,
        )


@contextlib.contextmanager
def killed_pulls(scratch: Path, *, layers: int, layer_bytes: int, chance: random.Random) -> Iterator[KilledPulls]:
    """Serve an image of *layers*, each of about *layer_bytes* compressed, until the context ends."""
    one = image([_layer(chance, number, layer_bytes) for number in range(layers)])
    counter = Counter()
    with Registry() as registry:
        registry.put(_NAME, one, "1")
        registry.fault("/blobs/", counter, every_time=True)
        yield KilledPulls(registry, counter, one, scratch)


def _layer(chance: random.Random, number: int, size: int) -> bytes:
    files = {f"folder{number}/file{n}": chance.randbytes(size // 20) + bytes(size // 20) for n in range(20)}
    return tar({**files, "shared": bytes([number])})


def _files(store: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of *store* with their content, but not of those that differ between stores.

    These are the catalog, the secret, and trees, whose inode numbers are made with the secret.
    """
    for path in store.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(store))
            differs = name.startswith(("catalog.sqlite", "secret", "trees/"))
            yield name, b"" if differs else path.read_bytes()
