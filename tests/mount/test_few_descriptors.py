"""A mount whose processes may have few files open: nobody meets EMFILE."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import DRIVER_VARIABLE
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer
from tests.support.mounts import CHECKOUT, needs_fuse, unmount_anyhow

pytestmark = needs_fuse

LAYERS = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "store"
    with Store.open(path, create=True) as opened:
        layers = [layer(dir_(f"d{n}"), file(f"d{n}/f", b"%d" % n * 5000), file(f"g{n}", b"x")) for n in range(LAYERS)]
        add_image(opened, layers, "many:1")
        for number in range(40):
            add_image(opened, [layer(file("f", b"%d" % number))], f"other{number}:1")
    return path


def mount_with(descriptors: int, store: Path, mountpoint: Path, *options: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    command = [sys.executable, "-m", "imagefs", "--store", str(store), "mount", *options, str(mountpoint)]
    subprocess.run(command, check=True, cwd=CHECKOUT, preexec_fn=limit, timeout=60)


@pytest.mark.parametrize("descriptors", [600, 64])
def test_an_image_of_300_layers_and_others_are_read_with_few_descriptors(
    store: Path, folder: Path, driver: str, descriptors: int
) -> None:
    mount_with(descriptors, store, folder, "-o", f"driver={os.environ[DRIVER_VARIABLE]}")
    try:
        for _ in range(2):
            for number in range(LAYERS):
                assert (folder / f"many/1/d{number}/f").read_bytes() == b"%d" % number * 5000
                assert (folder / f"many/1/g{number}").stat().st_size == 1
                if number % 10 == 0:
                    other = number // 10
                    assert (folder / f"other{other}/1/f").read_bytes() == b"%d" % other
            assert len(os.listdir(folder / ".imagefs/layers")) >= LAYERS
            assert len([*(folder / "many/1").iterdir()]) == 2 * LAYERS
            if os.geteuid() == 0:
                Path("/proc/sys/vm/drop_caches").write_text("3")
    finally:
        unmount_anyhow(folder)
