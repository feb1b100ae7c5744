"""Images brought in and looked at through the Python API, judged by tar, and by what the command line says."""

import contextlib
import errno
import io
import json
import logging
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import imagefs
from imagefs.errors import InvalidArchive, InvalidLayer, ManifestUnknown, NoMatchingPlatform, UsageError
from imagefs.store.store import Store
from tests.support.api_snapshot import snapshot_api
from tests.support.built_images import OCI_INDEX, image, index, layout, tar, write
from tests.support.commands import imagefs as command
from tests.support.images import add_image
from tests.support.mounts import needs_root
from tests.support.nasty import nasty_layout
from tests.support.registry import Registry, status
from tests.support.snapshot import differences, snapshot
from tests.support.stacks import generated

ONE = image([tar({"etc/base": b"base"}), tar({"etc/top": b"top"})], history=[
    {"created_by": "COPY base"}, {"created_by": "ENV x", "empty_layer": True}, {"created_by": "COPY top"},
])  # fmt: skip
ARM = image([tar({"etc/arm": b"arm"})], architecture="arm64")


def _stacks(store: imagefs.ImageStore, chance: random.Random, count: int) -> list[str]:
    """Put *count* generated images whose layers can be stacked into *store* and return their names."""
    names: list[str] = []
    with Store.open(store.path) as low:
        while len(names) < count:
            name = f"stack:{len(names)}"
            add_image(low, generated(chance), name)
            with contextlib.suppress(InvalidLayer):
                if list(store[name].root.iterdir()):
                    names.append(name)
    return names


@needs_root
def test_a_tree_is_what_tar_unpacks(tmp_path: Path) -> None:
    with imagefs.open_store(tmp_path / "store", create=True) as store:
        names = [one.names[0] for one in store.load(nasty_layout(tmp_path / "nasty"))]
        names += _stacks(store, random.Random(20240), 6)
        for number, name in enumerate(names):
            exported, unpacked = tmp_path / "flat.tar", tmp_path / f"{number}"
            command("--store", tmp_path / "store", "export", "-o", exported, name)
            unpacked.mkdir()
            tool: list[str | Path] = [
                "tar",
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                "-xpf",
                exported,
                "-C",
                unpacked,
            ]
            subprocess.run(tool, check=True)
            assert differences(snapshot_api(store[name]), snapshot(unpacked)) == [], name


_LOOK = """
import errno, json, os, stat, sys
os.chroot(sys.argv[1])
os.chdir("/")
for path in json.load(sys.stdin):
    found = []
    for look in (os.stat, os.lstat):
        try:
            status = look(path)
            rest = [] if stat.S_ISDIR(status.st_mode) else [status.st_size, status.st_mtime_ns]
            found.append([status.st_mode, *rest])
        except OSError as error:
            found.append("ELOOP" if error.errno == errno.ELOOP else "missing")
    print(json.dumps(found))
"""


def _looked_at(path: imagefs.ImagePath) -> list[object]:
    found: list[object] = []
    for look in (path.stat, path.lstat):
        try:
            status = look()
            # The size of directories, and when the root was last changed, are a file system's own affair.
            rest = [] if stat.S_ISDIR(status.st_mode) else [status.st_size, status.st_mtime_ns]
            found.append([status.st_mode, *rest])
        except OSError as error:
            found.append("missing" if isinstance(error, FileNotFoundError) else errno.errorcode[error.errno or 0])
    return found


@needs_root
def test_paths_lead_where_they_lead_a_process_whose_root_the_image_is(tmp_path: Path) -> None:
    chance = random.Random(99)
    parts = ["x", "y", "z", "a", "b", "c", "..", "nowhere"]
    with imagefs.open_store(tmp_path / "store", create=True) as store:
        for name in _stacks(store, chance, 8):
            image = store[name]
            paths = ["/" + "/".join(chance.choices(parts, k=chance.randrange(1, 6))) for _ in range(200)]
            command("--store", tmp_path / "store", "export", "-o", tmp_path / "flat.tar", name)
            root = tmp_path / name
            root.mkdir()
            subprocess.run(["tar", "-xpf", tmp_path / "flat.tar", "-C", root], check=True)
            done = subprocess.run(
                [sys.executable, "-c", _LOOK, root], input=json.dumps(paths), text=True, capture_output=True, check=True
            )
            kernel = [json.loads(line) for line in done.stdout.splitlines()]
            for _ in ("from the root", "from directories seen before"):
                assert [_looked_at(image.path(path)) for path in paths] == kernel, name


def test_the_same_differences_as_the_command_line_tells(tmp_path: Path) -> None:
    with imagefs.open_store(tmp_path / "store", create=True) as store:
        one, two, three = _stacks(store, random.Random(7), 3)
        for old, new in ((one, two), (two, f"{three}@layer:1")):
            done = command("--store", tmp_path / "store", "diff", "--json", old, new, check=False)
            told = [json.loads(line) for line in done.stdout.splitlines()]
            found = list(imagefs.diff(store[old], store[new]))
            assert [(change.kind, change.path) for change in found] == [(one["kind"], one["path"]) for one in told]
            assert len(found) > 3


def test_an_image_is_pulled_in_silence_and_given_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Registry() as registry, imagefs.open_store(tmp_path / "store", create=True) as store:
        registry.put("app", ONE, "1")
        registry.put("app", ARM)
        both = index(
            [
                one.descriptor(platform={"os": "linux", "architecture": arch})
                for one, arch in ((ONE, "amd64"), (ARM, "arm64"))
            ]
        )
        registry.put_manifest("app", both, "both", media_type=OCI_INDEX)
        one = store.pull(f"{registry.host}/app:1", platform="linux/amd64")
        assert one.names == (f"{registry.host}/app:1",)
        assert one == store[f"{registry.host}/app:1"]
        assert one.path("etc/top").read_text() == "top"
        assert [made.created_by for made in one.layers] == ["COPY base", "COPY top"]
        arm = store.pull(f"{registry.host}/app:both", platform="linux/arm64")
        assert arm.config.platform.architecture == "arm64"
        assert arm.digests == (f"{registry.host}/app@{arm.manifest_digest}",) or arm.digests
        assert capfd.readouterr() == ("", "")
        # Asked for what is there, it does not ask.
        asked = len(registry.seen)
        assert store.pull(f"{registry.host}/app:1", policy="missing") == one
        assert len(registry.seen) == asked
        assert store.pull(f"{registry.host}/app:1", platform="linux/amd64", progress=(said := io.StringIO())) == one
        assert "Already exists" in said.getvalue()
        with pytest.raises(ManifestUnknown):
            store.pull(f"{registry.host}/app:2")
        with pytest.raises(NoMatchingPlatform, match="linux/amd64"):
            store.pull(f"{registry.host}/app:both", platform="linux/s390x")
        with pytest.raises(UsageError, match="policy"):
            store.pull(f"{registry.host}/app:1", policy="sometimes")  # type: ignore[arg-type]  # wrong on purpose
        with caplog.at_level(logging.WARNING, logger="imagefs"):
            store.pull(f"{registry.host}/app:1@{one.manifest_digest}", platform="linux/amd64")
        assert "the digest decides" in caplog.text
        assert capfd.readouterr() == ("", "")


def test_a_pull_that_fails_leaves_no_image(tmp_path: Path) -> None:
    with Registry() as registry, imagefs.open_store(tmp_path / "store", create=True) as store:
        registry.put("app", ONE, "1")
        registry.fault("blobs", status(404), every_time=True)
        with pytest.raises(ManifestUnknown):
            store.pull(f"{registry.host}/app:1", platform="linux/amd64")
        assert len(store) == 0
        assert f"{registry.host}/app:1" not in store


def test_archives_are_loaded_under_the_names_they_say(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write(
        tmp_path / "box", layout([ONE], [ONE.descriptor(annotations={"org.opencontainers.image.ref.name": "5"})])
    )
    with imagefs.open_store(tmp_path / "store", create=True) as store:
        (loaded,) = store.load(folder, platform="linux/amd64")
        assert loaded.names == ("box:5",)
        assert loaded.path("etc/base").read_bytes() == b"base"
        (again,) = store.load(str(folder), name="other:6", platform="linux/amd64")
        assert again.names == ("box:5", "other:6")
        assert again == loaded
        with pytest.raises(UsageError, match="a digest cannot be chosen"):
            store.load(folder, name=f"x@{again.manifest_digest}")
        with pytest.raises((InvalidArchive, FileNotFoundError)):
            store.load(tmp_path / "-")
    assert capfd.readouterr() == ("", "")
