"""Holes bigger than any disk, seen through the mount: programs that look for holes skip them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import run
from tests.support.images import add_image
from tests.support.layers import file, layer, sparse
from tests.support.mounts import mounted, needs_fuse

pytestmark = [*needs_fuse, pytest.mark.timeout(60)]

TERABYTES = 1 << 42
LAYER = layer(
    sparse("some", TERABYTES, [(0, b"start"), (1 << 40, b"x" * 70_000)]),
    sparse("none", TERABYTES, []),
    file("plain", b"12345"),
)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("holes")
    (folder / "mnt").mkdir()
    with Store.open(folder / "store", create=True) as store:
        add_image(store, [LAYER], "app:1")
    with mounted(folder / "store", folder / "mnt"):
        yield folder / "mnt" / "app" / "1"


def seek(path: Path, offset: int, whence: int) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(descriptor, offset, whence)
    finally:
        os.close(descriptor)


def test_lseek_finds_data_and_holes(top: Path) -> None:
    assert seek(top / "some", 0, os.SEEK_HOLE) == 5
    assert seek(top / "some", 5, os.SEEK_DATA) == 1 << 40
    assert seek(top / "some", 1 << 40, os.SEEK_HOLE) == (1 << 40) + 70_000
    assert seek(top / "none", 0, os.SEEK_HOLE) == 0
    assert seek(top / "plain", 2, os.SEEK_HOLE) == 5
    for path, offset in (("some", (1 << 40) + 70_000), ("none", 0), ("plain", 5)):
        with pytest.raises(OSError) as caught:
            seek(top / path, offset, os.SEEK_DATA)
        assert caught.value.errno == errno.ENXIO


def test_a_file_with_holes_has_the_blocks_of_its_data(top: Path) -> None:
    assert (top / "some").stat().st_blocks == -(-70_005 // 512)
    assert (top / "none").stat().st_blocks == 0


def test_cp_and_tar_skip_holes(top: Path, tmp_path: Path) -> None:
    run(["cp", "-a", top / "some", top / "none", tmp_path])
    assert (tmp_path / "some").stat().st_size == TERABYTES
    assert (tmp_path / "some").stat().st_blocks * 512 < 1 << 20
    archive = tmp_path / "a.tar"
    run(["tar", "--sparse", "-C", top, "-cf", archive, "some", "none", "plain"])
    assert archive.stat().st_size < 1 << 20
