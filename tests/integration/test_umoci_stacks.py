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
from tests.support.layers import Member, dir_, file, layer, link, opaque, symlink, whiteout
from tests.support.mounts import needs_root
from tests.support.snapshot import differences, snapshot
from tests.support.viewed import snapshot_view

STACKS = 60
FOLDERS = ["x", "x/y", "z"]
NAMES = ["a", "b", "c", "y"]
TARGETS = ["a", "b/c", "/a", "../b", "/c/../d", ".", "../../..", "nowhere/x"]


def generated(chance: random.Random) -> list[bytes]:
    """Return two or three layers over few names, so that paths meet."""
    layers = []
    files = ["x/a"]
    for number in range(chance.choice([2, 3])):
        members: list[Member] = [] if number else [dir_(path, mtime_ns=10**18) for path in FOLDERS]
        for position in range(chance.randrange(2, 9)):
            path = "/".join([*chance.choices(FOLDERS, k=chance.choice([0, 1, 1])), chance.choice(NAMES)])
            mtime_ns = (1_500_000_000 + 100 * number + position) * 10**9
            mode = chance.choice([0o600, 0o644, 0o755])
            match chance.choice("dddfffffslhwo"):
                case "d":
                    members.append(dir_(path, mode=mode | 0o700, mtime_ns=mtime_ns))
                case "s" | "l":
                    members.append(symlink(path, chance.choice(TARGETS), mtime_ns=mtime_ns))
                case "h":
                    members.append(link(path, chance.choice(files)))
                case "w" if number:
                    members.append(whiteout(path))
                case "o" if number:
                    members.append(opaque(path))
                case _:
                    files.append(path)
                    members.append(file(path, b"%d %d" % (number, position), mode=mode, mtime_ns=mtime_ns))
        # umoci, reading in order, takes what a hard link names for gone once its whiteout has been; and a whiteout of a
        # directory that got a child before keeps the directory.  Markers first is where all agree.
        layers.append(layer(*sorted(members, key=lambda member: b".wh." not in member.name)))
    return layers


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
