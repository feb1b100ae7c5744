"""Files that stay open: by path, handed over, given up, and within bounds."""

import gc
import os
import resource
import threading
from pathlib import Path

import pytest

from imagefs.view import kept, waiting
from imagefs.view.kept import KeptFiles
from imagefs.view.waiting import Duration, NotReady


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
    assert files.replaced() == [str(path)]
    assert files.replaced() == []
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
    monkeypatch.setattr("resource.getrlimit", lambda _: (kept._SPARE_DESCRIPTORS + 2 * 16, 1000))
    told, files = handed()
    for number in range(20):
        (tmp_path / f"{number}").touch()
        files.get(str(tmp_path / f"{number}"))
        files.get(str(tmp_path / "0"))
    assert [path for path, is_kept in told if not is_kept] == [str(tmp_path / str(number)) for number in range(1, 5)]


def test_content_without_a_file_is_not_taken_for_removed(tmp_path: Path) -> None:
    _, files = handed()
    assert files.put(str(tmp_path / "x"), [b"made"]).read(10, 0) == b"made"
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


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_a_file_in_use_is_closed_and_opened_again_within_the_bound(tmp_path: Path) -> None:
    files = KeptFiles(most=5)
    before = descriptors()
    held = []
    for number in range(50):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
        held.append(files.get(str(tmp_path / f"{number}")))
        held[-1].reader = held[-1].read  # a cycle, as readers of trees and indexes make it
    assert descriptors() - before == 5
    for number, file in enumerate(held):
        assert file.read(10, 0) == b"%d" % number
        assert bytes(file.view(10, 0)) == b"%d" % number
        assert files.get(str(tmp_path / f"{number}")) is file
        assert descriptors() - before <= 10  # a view has a descriptor of its own
    files.close()


def test_removed_files_stay_open_until_they_take_half_of_the_bound(tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    files = KeptFiles(hand_over=lambda path, descriptor: told.append((path, descriptor is not None)), most=8)
    removed = []
    for number in range(6):
        path = tmp_path / f"removed{number}"
        path.write_bytes(b"%d" % number)
        removed.append(files.get(str(path)))
        path.unlink()
    for number in range(20):
        (tmp_path / f"{number}").touch()
        files.get(str(tmp_path / f"{number}"))
    readable = []
    for number, file in enumerate(removed):
        try:
            assert file.read(1, 0) == b"%d" % number
            readable.append(number)
        except FileNotFoundError:
            pass
    assert readable == [2, 3, 4, 5]
    assert sum(1 if is_open else -1 for _, is_open in told) == 8


def test_a_full_table_of_descriptors_is_met_by_closing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = KeptFiles(most=100)
    held = []
    for number in range(20):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
        held.append(files.get(str(tmp_path / f"{number}")))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "new").write_bytes(b"new")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    try:
        assert files.get(str(tmp_path / "new")).read(3, 0) == b"new"
        assert all(file.read(10, 0) == b"%d" % number for number, file in enumerate(held))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files.close()


def test_nameless_content_is_bounded_and_never_taken_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_MOST_NAMELESS_BYTES", 2500)
    files = KeptFiles()
    made = [files.put(str(tmp_path / f"{number}"), [b"%d" % number * 1000]) for number in range(3)]
    (tmp_path / "0").write_bytes(b"what was damaged")
    with pytest.raises(FileNotFoundError):
        made[0].read(10, 0)
    assert files.get(str(tmp_path / "0")).read(4, 0) == b"what"
    assert made[1].read(2, 0) == b"11"
    assert made[2].read(2, 0) == b"22"


def test_a_successor_does_not_take_nameless_content_for_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "x.layer")
    (tmp_path / "y.layer").write_bytes(b"removed")
    first = KeptFiles()
    handed_over = {
        path: os.dup(first.put(path, [b"made"]).descriptor),
        str(tmp_path / "y.layer"): os.open(tmp_path / "y.layer", os.O_RDONLY),
    }
    (tmp_path / "y.layer").unlink()
    second = KeptFiles(handed_over)
    assert second.removed() == [str(tmp_path / "y.layer")]
    assert second.get(path).read(4, 0) == b"made"


def test_a_thread_that_must_not_wait_reads_only_what_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(range(256)) * 4096)
    os.sync()
    file = KeptFiles().get(str(tmp_path / "x"))
    os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    seen: list[object] = []

    def patiently(size: int, offset: int) -> bytes:
        try:
            return file.read(size, offset)
        except NotReady as missing:
            with waiting.allowed(missing.duration):
                missing.work()
        return file.read(size, offset)

    def read() -> None:
        waiting.limit(Duration.NONE)
        for size, offset in ((256, 512 * 1024), (100, 1024 * 1024 - 10), (100, 1024 * 1024)):
            seen.append(patiently(size, offset))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert seen == [bytes(range(256)), bytes(range(246, 256)), b""]
