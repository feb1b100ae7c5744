"""Files whose holes are bigger than any disk: copied, exported and searched in the time that their data take."""

import contextlib
import errno
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.layer.tar import scan
from imagefs.store.store import Store
from imagefs.view.copying import Copy
from imagefs.view.flat_tar import write_tar
from imagefs.view.kept import KeptFiles
from imagefs.view.open_file import OpenFile
from imagefs.view.opened import OpenedImages
from imagefs.view.tree import ImageTree, looked_at, named
from tests.support.commands import needs
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, link, sparse

EXABYTES = 1 << 62
TERABYTES = 1 << 42
RUNS = [(0, b"start"), (5, b"next"), (1 << 30, b"x" * 70_000), ((1 << 30) + 70_100, b"y")]


@contextlib.contextmanager
def tree_of(tmp_path: Path, raw: bytes) -> Iterator[ImageTree]:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [raw], "app:1")
        _, stack = named(store, "app:1")
        yield looked_at(OpenedImages(store, KeptFiles()), stack, passing=False)


def opened(tree: ImageTree, path: bytes) -> OpenFile:
    return tree.open(next(thing for at, thing in tree.walk() if at == path))


# ---- regions and places ----


def test_data_and_holes_are_found_as_lseek_finds_them(tmp_path: Path) -> None:
    with tree_of(tmp_path, layer(sparse("f", 1000, [(10, b"x" * 5), (20, b"y")]), file("plain", b"12345"))) as tree:
        one, plain = opened(tree, b"f"), opened(tree, b"plain")
        data = {0: 10, 9: 10, 10: 10, 14: 14, 15: 20, 20: 20}
        assert {at: one.seek(at, os.SEEK_DATA) for at in data} == data
        holes = {0: 0, 9: 9, 10: 15, 14: 15, 15: 15, 20: 21, 999: 999}
        assert {at: one.seek(at, os.SEEK_HOLE) for at in holes} == holes
        assert plain.seek(3, os.SEEK_DATA) == 3
        assert plain.seek(3, os.SEEK_HOLE) == 5
        for which, at, whence in ((one, 21, os.SEEK_DATA), (one, 1000, os.SEEK_HOLE), (plain, 5, os.SEEK_DATA)):
            with pytest.raises(OSError) as caught:
                which.seek(at, whence)
            assert caught.value.errno == errno.ENXIO
        with pytest.raises(OSError) as caught:
            one.seek(0, os.SEEK_END)
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(("gap", "count"), [(4095, 1), (4096, 2)])
def test_holes_that_no_file_system_keeps_count_as_data(tmp_path: Path, gap: int, count: int) -> None:
    with tree_of(tmp_path, layer(sparse("f", 100_000, [(0, b"x"), (1 + gap, b"y")]))) as tree:
        assert len(list(opened(tree, b"f").regions())) == count


# ---- cp ----


def copied(tmp_path: Path, tree: ImageTree) -> Path:
    target = tmp_path / "to"
    target.mkdir()
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Copy(tree, descriptor, archive=False, left_out=lambda *_: None) as copy:
            copy.copy(b"", tree.root(), b"")
    finally:
        os.close(descriptor)
    return target


@pytest.mark.timeout(20)
def test_a_copy_has_the_holes_of_the_file(tmp_path: Path) -> None:
    raw = layer(
        sparse("some", TERABYTES, RUNS),
        sparse("none", TERABYTES, []),
        sparse("last", 100_000, [(90_000, b"z" * 10_000)]),
    )
    with tree_of(tmp_path, raw) as tree:
        target = copied(tmp_path, tree)
    some = target / "some"
    assert some.stat().st_size == (target / "none").stat().st_size == TERABYTES
    assert some.stat().st_blocks * 512 < 1 << 20
    with some.open("rb") as opened_file:
        for offset, content in RUNS:
            opened_file.seek(offset)
            assert opened_file.read(len(content)) == content
    assert (target / "last").read_bytes() == bytes(90_000) + b"z" * 10_000


@pytest.mark.timeout(20)
def test_a_file_that_no_disk_can_hold_is_refused_by_name_at_once(tmp_path: Path) -> None:
    (tmp_path / "limit").touch()
    with tree_of(tmp_path, layer(sparse("huge", (1 << 63) - 1, [(5, b"x")]))) as tree:
        try:
            os.truncate(tmp_path / "limit", (1 << 63) - 1)
        except OSError:
            with pytest.raises(OSError, match="huge"):
                copied(tmp_path, tree)
            assert list((tmp_path / "to").iterdir()) == []
        else:
            assert (copied(tmp_path, tree) / "huge").stat().st_size == (1 << 63) - 1


# ---- export ----


def exported(tree: ImageTree) -> bytes:
    buffer = io.BytesIO()
    write_tar(tree, buffer)
    return buffer.getvalue()


@pytest.mark.timeout(20)
def test_an_export_has_the_holes_of_the_file(tmp_path: Path) -> None:
    some = sparse("d/some", EXABYTES, RUNS)
    raw = layer(dir_("d"), some, sparse("none", EXABYTES, []), link("other", "d/some"), file("plain", b"p" * 5000))
    with tree_of(tmp_path, raw) as tree:
        tar = exported(tree)
    assert len(tar) < 200_000
    before = {entry.path: entry for entry in scan([raw]).entries}
    after = {entry.path: entry for entry in scan([tar]).entries}
    assert after.keys() == before.keys()
    for path in (b"d/some", b"none"):
        assert after[path].size == EXABYTES
        assert (after[path].mode, after[path].mtime_ns) == (before[path].mode, before[path].mtime_ns)
    assert after[b"other"].is_hardlink
    assert after[b"other"].target == b"d/some"
    (tmp_path / "again").mkdir()
    with tree_of(tmp_path / "again", tar) as again:
        one = opened(again, b"d/some")
        for offset, content in RUNS:
            assert one.read(offset, len(content)) == content
        assert one.read(20, 100) == bytes(100)
        assert exported(again) == tar


@needs("tar")
@pytest.mark.timeout(20)
def test_other_programs_read_an_export_with_holes(tmp_path: Path) -> None:
    name = "d/" + "long" * 40 + "ü"
    runs = [(0, b"s"), (100_000, b"m" * 9000)]
    raw = layer(
        dir_("d"),
        sparse(name, 300_000, runs),
        sparse("end", 200_000, [(190_000, b"e" * 10_000)]),
        sparse("no", 70_000, []),
        file("plain", b"p"),
    )
    contents = {
        name: b"s" + bytes(99_999) + b"m" * 9000 + bytes(191_000),
        "end": bytes(190_000) + b"e" * 10_000,
        "no": bytes(70_000),
        "plain": b"p",
    }
    with tree_of(tmp_path, raw) as tree:
        tar = exported(tree)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xC", tmp_path / "out"], input=tar, check=True)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for path, content in contents.items():
            assert (tmp_path / "out" / path).read_bytes() == content
            extracted = archive.extractfile(path)
            assert extracted is not None
            assert extracted.read() == content
