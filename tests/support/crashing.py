"""Kill a process at every operation on a store in turn, and look at what it leaves.

Run as a program: ``python -m tests.support.crashing FOLDER [EVERY]``; of the moments, each EVERY-th is tried.  Prints a
JSON object: by command, how many moments there are.  Whatever is not as it should be is an AssertionError.

A child is forked for each moment, with everything imported.  It counts calls of the system's functions that change
files, and the statements that the catalog runs, and kills itself at the one that it was told: before it for even
numbers, after it for odd ones.
"""

import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagefs.check.verify import verify
from imagefs.cli.main import main
from imagefs.store.store import Store

CHANGING = ("open", "write", "fsync", "rename", "replace", "unlink", "mkdir", "fchmod", "link", "pwrite")
_DIED = 128 + signal.SIGKILL


def crash_at(moment: int) -> None:
    """Let this process die at its *moment*-th operation, from 1; 0: never."""
    count = 0
    lock = threading.Lock()

    def passes() -> None:
        nonlocal count
        with lock:
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            passes()
            result = real(*args, **kwargs)
            passes()
            return result

        return call

    for name in CHANGING:
        setattr(os, name, counted(getattr(os, name)))

    real_connect = sqlite3.connect

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real_connect(*args, **kwargs)
        connection.set_trace_callback(lambda _statement: passes())
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]  # takes and returns the same


def run(argv: list[str], moment: int) -> int:
    """Run a command line in a child that dies at *moment*; return its exit status, 137 if it died."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        crash_at(moment)
        os._exit(main(argv))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) % 256 if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def names(store: Path) -> dict[str, str]:
    """Return what is visible: names with IDs."""
    with Store.open(store) as opened:
        return {name.familiar: str(image.id) for image in opened.images() for name in image.tags or image.digests}


def check_moments(pristine: Path, argv: list[str], scratch: Path, every: int) -> int:
    """Run ``imagefs --store STORE`` *argv* for each *every*-th moment to die at; return how many moments there are."""
    store = scratch / "store"
    shutil.copytree(pristine, scratch / "whole", symlinks=True)
    before = names(pristine) if (pristine / "imagefs.json").exists() else {}
    assert run(["--store", str(scratch / "whole"), *argv], 0) == 0
    after = names(scratch / "whole")
    shutil.rmtree(scratch / "whole")
    moment = 1 - every
    while True:
        moment += every
        shutil.copytree(pristine, store, symlinks=True)
        died = run(["--store", str(store), *argv], moment) == _DIED
        if (store / "imagefs.json").exists() and (store / "catalog.sqlite").exists():
            check_visible(store, before, after, f"{argv} killed at {moment}")
        assert run(["--store", str(store), *argv], 0) in (0, 7), f"{argv} again after dying at {moment}"
        assert names(store) == after, f"{argv} again after dying at {moment}"
        assert run(["--store", str(store), "prune", "-f"], 0) == 0
        with Store.open(store) as opened:
            assert list(verify(opened)) == [], f"{argv} again after dying at {moment}"
        assert not list((store / "ingest").iterdir())
        shutil.rmtree(store)
        if not died:
            return moment - every


def check_visible(store: Path, before: dict[str, str], after: dict[str, str], what: str) -> None:
    """Assert that each name leads where it did before or where it is to lead, and that all that is visible is whole."""
    try:
        found = names(store)
    except sqlite3.Error as error:  # pragma: no cover - told with the moment
        raise AssertionError(what) from error
    for name in before.keys() | after.keys():
        assert found.get(name) in (before.get(name), after.get(name)), f"{what}: {name} is {found.get(name)}"
    with Store.open(store) as opened:
        bad = [one for one in verify(opened) if one.state != "surplus" and one.kind in ("layer", "document", "catalog")]
    assert bad == [], what


def every_command(folder: Path, every: int) -> dict[str, int]:
    """Crash all commands that change a store, with images made below *folder*."""
    from tests.support.built_images import image, layout, sha256, write
    from tests.support.layers import file, layer

    base, top, other = (layer(file(name, name.encode() * 300)) for name in ("base", "top", "other"))
    layouts = {}
    for name, layers in (("one", [base, top]), ("two", [base, other])):
        made = image(layers)
        described = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha256(made.manifest),
            "size": len(made.manifest),
        }
        layouts[name] = str(write(folder / name, layout([made], [described])))
    empty, filled = folder / "empty", folder / "filled"
    empty.mkdir()
    for name in ("one", "two"):
        assert run(["--store", str(filled), "load", "-q", "--name", f"{name}:1", layouts[name]], 0) == 0
    one = folder / "only-one"
    assert run(["--store", str(one), "load", "-q", "--name", "app:1", layouts["one"]], 0) == 0
    dangling = folder / "dangling"
    shutil.copytree(filled, dangling)
    assert run(["--store", str(dangling), "tag", "two:1", "one:1"], 0) == 0
    damaged = folder / "damaged"
    shutil.copytree(filled, damaged)
    for path in (*damaged.glob("layers/*/*.index"), *damaged.glob("trees/*/*.tree")):
        path.unlink()
    commands = {
        "load into nothing": (empty, ["load", "-q", "--name", "app:1", layouts["one"]]),
        "load over a tag": (one, ["load", "-q", "--name", "app:1", layouts["two"]]),
        "tag": (filled, ["tag", "one:1", "third:1"]),
        "move a tag": (filled, ["tag", "one:1", "two:1"]),
        "rm": (filled, ["rm", "-f", "one:1"]),
        "prune": (dangling, ["prune", "-f"]),
        "verify --repair": (damaged, ["verify", "--repair"]),
    }
    found = {}
    for name, (pristine, argv) in commands.items():
        scratch = folder / "scratch"
        scratch.mkdir()
        found[name] = check_moments(pristine, argv, scratch, every)
        shutil.rmtree(scratch)
    return found


if __name__ == "__main__":
    print(json.dumps(every_command(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)))
