"""Files that are locked by path: between open and flock, another process may remove them."""

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefs.oci.digest import Digest
from imagefs.store.content import Ingest, locked_temporary
from imagefs.store.partial import Partial, Partials

BLOB = Digest.of(b"blob")


def before_the_first_lock(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], None]) -> None:
    """Let *happen* between the first open and its flock."""
    real, pending = fcntl.flock, [happen]

    def flock(descriptor: int, operation: int) -> None:
        if pending:
            pending.pop()()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def open_files() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor that listed them
            found.append(str(Path(f"/proc/self/fd/{number}").readlink()))
    return found


def test_a_temporary_file_that_was_swept_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep() -> None:
        (path,) = tmp_path.iterdir()
        path.unlink()

    before_the_first_lock(monkeypatch, sweep)
    path, descriptor = locked_temporary(tmp_path)
    assert [*tmp_path.iterdir()] == [path]
    assert os.fstat(descriptor).st_ino == path.stat().st_ino
    os.close(descriptor)


def claimed(partials: Partials) -> Partial:
    partial = partials.claim(BLOB)
    assert partial is not None
    return partial


def test_a_partial_whose_holder_removed_it_before_the_lock_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partials = Partials(tmp_path)
    holder = claimed(partials)
    holder.append(b"all of it")
    before_the_first_lock(monkeypatch, holder.discard)
    second = claimed(partials)
    assert second.size == 0
    second.append(b"xy")
    second.close()
    assert partials.size(BLOB) == 2


@pytest.mark.parametrize("remove", [lambda partials: partials.drop(BLOB), lambda partials: partials.remove_old(-1.0)])
def test_removing_a_partial_spares_one_that_another_process_has_begun_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remove: Callable[[Partials], None]
) -> None:
    partials = Partials(tmp_path)
    holder = claimed(partials)
    holder.append(b"all of it")
    others: list[Partial] = []

    def finish_and_begin_again() -> None:
        holder.discard()
        others.append(claimed(partials))
        others[0].append(b"of another")

    before_the_first_lock(monkeypatch, finish_and_begin_again)
    remove(partials)
    assert partials.size(BLOB) == len(b"of another")
    others[0].close()


def test_no_descriptor_is_left_open_by_a_lost_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partials = Partials(tmp_path)
    holder = claimed(partials)
    before_the_first_lock(monkeypatch, holder.discard)
    partials.drop(BLOB)
    assert not [name for name in open_files() if str(tmp_path) in name]


@pytest.mark.parametrize("kind", ["ingest", "partial"])
def test_a_name_goes_before_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    discard = Ingest(tmp_path).discard if kind == "ingest" else claimed(Partials(tmp_path)).discard
    (path,) = tmp_path.iterdir()
    real = os.close
    present: list[bool] = []

    def close(descriptor: int) -> None:
        present.append(path.exists())
        real(descriptor)

    monkeypatch.setattr(os, "close", close)
    discard()
    assert present == [False]
