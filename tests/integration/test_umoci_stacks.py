"""Generated stacks of layers, judged by umoci: what both accept looks the same."""

import random
import time
from pathlib import Path

import pytest

from imagefs.cli.main import main
from imagefs.store.store import Store
from imagefs.view.filesystem import Filesystem
from tests.support.built_images import image, layout, sha256, write
from tests.support.commands import needs, run
from tests.support.mounts import needs_root
from tests.support.snapshot import differences, snapshot
from tests.support.stacks import generated
from tests.support.viewed import snapshot_view

STACKS = 60


@pytest.mark.tools
@needs("umoci")
@needs_root
@pytest.mark.parametrize("seed", range(STACKS))
def test_a_generated_stack_looks_as_umoci_unpacks_it(seed: int, tmp_path: Path) -> None:
    started_ns = time.time_ns() - 10**9
    one = image(generated(random.Random(seed)))
    described = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(one.manifest),
        "size": len(one.manifest),
        "annotations": {"org.opencontainers.image.ref.name": "x"},
    }
    folder = write(tmp_path / "stack", layout([one], [described]))
    ours = main(["--store", str(tmp_path / "store"), "load", "-q", str(folder)])
    theirs = run(["umoci", "unpack", "--image", f"{folder}:x", tmp_path / "bundle"], check=False)
    if ours or theirs.returncode:
        # Each may refuse what the other takes: a link that replaces its own parent, a whiteout below a file.
        assert ours in (0, 6)
        return
    with Store.open(tmp_path / "store") as store:
        shown = snapshot_view(Filesystem.for_image(store, store.image("stack:x")))

    unpacked = snapshot(tmp_path / "bundle" / "rootfs")

    def touched(path: bytes, key: str) -> bool:
        """A directory that no layer mentions, or in which such a one is made, has the time of unpacking there."""
        return key == "mtime_ns" and unpacked[path]["type"] == "d" and int(str(unpacked[path][key])) > started_ns

    assert differences(shown, unpacked, ignore=touched) == []
