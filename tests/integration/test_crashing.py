"""A process that dies at any moment, and a disk that forgets what was not synced, leave a store whole."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagefs.check.verify import verify
from imagefs.store.store import Store
from tests.support.built_images import image, layout, sha256, write
from tests.support.commands import imagefs, run
from tests.support.layers import file, layer
from tests.support.mounts import CHECKOUT, needs_root

_EXT4_IOC_SHUTDOWN = 0x8004587D
"""Source: fs/ext4/ext4.h, _IOR('X', 125, __u32)."""
_NO_LOG_FLUSH = 2
_EVERY = 5
"""Of the moments at which to die, tried here; ``python -m tests.support.crashing FOLDER 1`` tries them all."""


def test_whoever_dies_at_any_moment_leaves_what_is_visible_whole(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "tests.support.crashing", tmp_path, str(_EVERY)])
    moments = json.loads(done.stdout)
    assert set(moments) == {
        "load into nothing",
        "load over a tag",
        "tag",
        "move a tag",
        "rm",
        "prune",
        "verify --repair",
    }
    assert all(count >= 10 for count in moments.values()), moments


def _loop_refusal(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    probe = tmp_path_factory.mktemp("loop") / "disk"
    with probe.open("wb") as disk:
        disk.truncate(1 << 20)
    done = subprocess.run(["losetup", "--find", "--show", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"there are no loop devices here: {done.stderr.strip()}"
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)
    return None


class Disk:
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk"
        self.top = folder / "top"
        self.top.mkdir()
        with self._image.open("wb") as disk:
            disk.truncate(48 << 20)
        # Without a commit every few seconds by itself, nothing is kept by chance.
        run(["mkfs.ext4", "-q", self._image])
        self.mount()

    def mount(self) -> None:
        run(["mount", "-o", "loop,commit=300", self._image, self.top])

    def unmount(self) -> None:
        run(["umount", self.top])

    def lose_power(self) -> None:
        """Forget what was not synced, and come back."""
        descriptor = os.open(self.top, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(descriptor)
        self.unmount()
        self.mount()


@needs_root
def test_what_was_said_to_be_there_outlives_a_loss_of_power(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if reason := _loop_refusal(tmp_path_factory):
        pytest.skip(reason)
    layouts = []
    for name in ("one", "two"):
        made = image([layer(file("base", b"base" * 9000)), layer(file(name, name.encode() * 300_000))])
        described = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha256(made.manifest),
            "size": len(made.manifest),
        }
        layouts.append(write(tmp_path / name, layout([made], [described])))
    disk = Disk(tmp_path)
    try:
        store = disk.top / "store"
        imagefs("--store", store, "load", "-q", "--name", "one:1", layouts[0])
        disk.lose_power()
        assert clean(store) == ["one:1"]
        imagefs("--store", store, "load", "-q", "--name", "two:1", layouts[1])
        imagefs("--store", store, "tag", "two:1", "three:1")
        imagefs("--store", store, "rm", "one:1")
        disk.lose_power()
        assert clean(store) == ["three:1", "two:1"]
        program = (
            "import sys; from pathlib import Path; from tests.support import crashing;"
            "sys.exit(crashing.run(sys.argv[2:], int(sys.argv[1])) not in (0, 137))"
        )
        for moment in (30, 60, 90, 120, 150):
            argv: list[str | Path] = ["--store", store, "load", "-q", "--name", "one:1", layouts[0]]
            run([sys.executable, "-c", program, str(moment), *argv], env={"PYTHONPATH": str(CHECKOUT)})
            disk.lose_power()
            assert clean(store) in (["three:1", "two:1"], ["one:1", "three:1", "two:1"])
        imagefs(*argv)
        disk.lose_power()
        assert clean(store) == ["one:1", "three:1", "two:1"]
    finally:
        disk.unmount()


def clean(store: Path) -> list[str]:
    """Return the names of a store that is whole, but for what can be made again."""
    with Store.open(store) as opened:
        bad = [one for one in verify(opened) if one.state != "surplus" and one.kind not in ("index", "tree")]
        assert bad == []
        return sorted(tag.familiar for one in opened.images() for tag in one.tags)
