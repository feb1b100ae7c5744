"""Files that stay open: by path, handed over, given up, and within bounds."""

import os
from pathlib import Path

import pytest

from imagefs.view import kept
from imagefs.view.kept import KeptFiles


def handed() -> tuple[list[tuple[str, bool]], KeptFiles]:
    told: list[tuple[str, bool]] = []
    return told, KeptFiles(hand_over=lambda path, descriptor: told.append((path, descriptor is not None)))


def test_a_file_stays_what_it_was_when_it_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    told, files = handed()
    assert files.get(str(path)).read(10, 1) == b"ld"
    path.unlink()
    assert files.get(str(path)).read(10, 0) == b"old"
    assert files.removed() == [str(path)]
    path.write_bytes(b"new")
    assert files.removed() == []
    assert files.get(str(path)).read(10, 0) == b"new"
    assert told == [(str(path), True), (str(path), False), (str(path), True)]


def test_who_holds_a_file_reads_on_when_it_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    _, files = handed()
    file = files.get(str(tmp_path / "x"))
    descriptor = file.descriptor
    files.drop(str(tmp_path / "x"))
    assert file.read(7, 0) == b"content"
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_successor_takes_over_what_has_no_name_any_more(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"content")
    descriptor = os.open(path, os.O_RDONLY)
    path.unlink()
    files = KeptFiles({str(path): descriptor})
    assert files.get(str(path)).read(7, 0) == b"content"


def test_those_not_used_for_longest_are_given_up_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (kept._SPARE_DESCRIPTORS + 16, 1000))
    told, files = handed()
    for number in range(20):
        (tmp_path / f"{number}").touch()
        files.get(str(tmp_path / f"{number}"))
        files.get(str(tmp_path / "0"))
    assert [path for path, is_kept in told if not is_kept] == [str(tmp_path / str(number)) for number in range(1, 5)]


def test_content_without_a_file_is_not_taken_for_removed(tmp_path: Path) -> None:
    _, files = handed()
    assert files.put(str(tmp_path / "x"), b"made").read(10, 0) == b"made"
    assert files.removed() == []


def test_what_is_viewed_is_what_is_there_and_a_cut_file_is_short(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 64)
    file = KeptFiles().get(str(path))
    assert bytes(file.view(300, 100)) == (bytes(range(256)) * 64)[100:400]
    assert len(file.view(100, 256 * 64 - 10)) == 10
    assert file.is_at_hand(0)
    reading, writing = os.pipe()
    os.truncate(path, 4096)
    with pytest.raises(OSError, match="Bad address"):
        os.writev(writing, [file.view(100, 9000)])
    os.close(reading)
    os.close(writing)


def test_what_was_viewed_does_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST_SEEN_BYTES", 1 << 20)
    files = KeptFiles()
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(16 << 20))
    sink = os.open(os.devnull, os.O_WRONLY)
    reading, writing = os.pipe()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[2]) * 4096  # shared: of files

    before = resident()
    for start in range(0, 16 << 20, 32768):
        for name in ("one", "two"):
            os.writev(writing, [files.get(str(tmp_path / name)).view(32768, start)])
            os.splice(reading, sink, 32768)
    assert resident() - before < 8 << 20
    for descriptor in (sink, reading, writing):
        os.close(descriptor)
