"""``verify`` names whatever is not what it should be, and a damaged store never shows wrong bytes."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from imagefs.check.verify import Finding, verify
from imagefs.errors import FileDamaged, ImagefsError
from imagefs.overlay.stored import Stack
from imagefs.store.store import Store
from imagefs.view.filesystem import Filesystem
from tests.support.built_images import image
from tests.support.commands import imagefs
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, link, sparse, symlink, whiteout
from tests.support.mounts import mounted, needs_fuse
from tests.support.registry import Registry
from tests.support.snapshot import Snapshot
from tests.support.viewed import snapshot_view

BASE = layer(
    dir_("etc", mtime_ns=5),
    file("etc/conf", b"conf " * 300, xattrs={"user.note": b"1"}),
    file("gone", b"gone"),
    link("etc/linked", "etc/conf"),
    symlink("l", "/etc"),
    sparse("holes", 100_000, [(50_000, b"x" * 700)]),
)
TOP = layer(whiteout("gone"), file("top", b"t" * 3000, mode=0o600))
FLIPS_PER_FILE = 12


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "store"
    imagefs("--store", path, "ls")
    with Store.open(path, create=True) as store:
        add_image(store, [BASE, TOP], "app:1")
    assert imagefs("--store", path, "diff", "app:1", "app:1").returncode == 0  # now there is a tree
    assert imagefs("--store", path, "verify").stdout == "1 image checked: all is well\n"
    return path


def found(path: Path) -> list[Finding]:
    with Store.open(path) as store:
        return list(verify(store))


def shown(path: Path, *, check: bool) -> Snapshot:
    with Store.open(path) as store:
        view = Filesystem(store, verify=check)
        try:
            root = view.lookup(view.lookup(1, b"app"), b"1")  # type: ignore[arg-type]  # the root is node 1
            return snapshot_view(view, root)
        finally:
            view.close()


def contents(path: Path) -> list[Path]:
    return sorted(entry for entry in path.rglob("*") if entry.is_file() and entry.stat().st_size)


def test_a_flipped_bit_anywhere_is_named_and_never_shown(good: Path, tmp_path: Path) -> None:
    expected = shown(good, check=True)
    chance = random.Random(1)
    kinds = set()
    for original in contents(good):
        relative = original.relative_to(good)
        raw = original.read_bytes()
        for _ in range(FLIPS_PER_FILE):
            store = tmp_path / "store"
            shutil.copytree(good, store)
            broken = bytearray(raw)
            broken[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
            (store / relative).chmod(0o644)
            (store / relative).write_bytes(broken)
            try:
                named: set[tuple[str, str]] = {(finding.kind, finding.name) for finding in found(store)}
            except ImagefsError as error:
                named = {("refused", str(error))}
            kinds |= {kind for kind, _ in named}
            if relative.parent.name == "sha256":
                assert any(relative.stem in name for _, name in named), relative
            shutil.rmtree(store)
            shutil.copytree(good, store)
            (store / relative).chmod(0o644)
            (store / relative).write_bytes(broken)
            try:
                # A name or a claim in the catalog may be another one; what is shown under it must be right.
                assert shown(store, check=True) == expected or relative.name == "catalog.sqlite"
            except (ImagefsError, OSError):
                pass
            shutil.rmtree(store)
    assert {"layer", "index", "tree", "document"} <= kinds


@pytest.mark.parametrize(
    "pattern", ["layers/sha256/*.tar", "layers/sha256/*.index", "trees/sha256/*.tree", "blobs/sha256/*"]
)
def test_what_is_missing_is_named_and_what_can_be_is_made_again(good: Path, tmp_path: Path, pattern: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(good, store)
    for path in store.glob(pattern):
        path.unlink()
    findings = found(store)
    assert {finding.state for finding in findings} == {"missing"}
    repaired = imagefs("--store", store, "verify", "--repair", check=False)
    if pattern.endswith((".index", ".tree")):
        assert repaired.returncode == 0
        assert "0 left" in repaired.stdout
        assert found(store) == []
        for path in good.glob(pattern):
            assert (store / path.relative_to(good)).read_bytes() == path.read_bytes()
    else:
        assert repaired.returncode == 7
        assert "load it again" in repaired.stderr


def test_what_is_surplus_is_named_and_only_ours_goes(good: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(good, store)
    (store / "layers/sha256" / ("0" * 64 + ".tar")).write_bytes(b"x")
    (store / "layers/notes.txt").write_text("mine")
    (store / "blobs/sha256/link").symlink_to("/etc/passwd")
    lines = imagefs("--store", store, "verify", check=False).stdout.splitlines()
    assert lines[0].startswith(f"surplus content layers/sha256/{'0' * 64}.tar: no image needs it")
    assert "surplus file blobs/sha256/link: it is not of imagefs, and is left alone" in lines
    done = imagefs("--store", store, "verify", "--repair")
    assert "1 mended, 0 left" in done.stdout
    assert (store / "layers/notes.txt").read_text() == "mine"
    assert not (store / "layers/sha256" / ("0" * 64 + ".tar")).exists()


def test_one_image_can_be_asked_about_and_json_tells_it(good: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(good, store)
    with Store.open(store) as opened:
        other = add_image(opened, [layer(file("x", b"x"))], "other:1")
        damaged = opened.layer_path(other.diff_ids[0])
        tree = imagefs("--store", store, "diff", "other:1", "other:1")
    assert tree.returncode == 0
    damaged.chmod(0o644)
    damaged.write_bytes(b"y" + damaged.read_bytes()[1:])
    assert imagefs("--store", store, "verify", "app:1").returncode == 0
    done = imagefs("--store", store, "verify", "--json", "other:1", check=False)
    (said,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (said["state"], said["kind"], said["name"]) == ("damaged", "layer", str(other.diff_ids[0]))
    assert said["images"] == [str(other.id)]
    assert done.returncode == 7


def test_changed_content_is_refused_at_first_sight_where_that_was_asked_for(good: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(good, store)
    with Store.open(store) as opened:
        tar = opened.layer_path(opened.image("app:1").diff_ids[1])
        raw = tar.read_bytes()
        tar.chmod(0o644)
        tar.write_bytes(raw.replace(b"tttt", b"tttT", 1))
        view = Filesystem(opened, verify=True)
        root = view.lookup(view.lookup(1, b"app"), b"1")  # type: ignore[arg-type]
        with pytest.raises(FileDamaged, match="/top"):
            view.open(view.lookup(root, b"top"))
        assert view.open(view.lookup(root, b"holes")).read(50_000, 3) == b"xxx"
        view.close()


@pytest.mark.fuse
@needs_fuse[1]
@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_a_mount_that_checks_gives_an_error_and_one_line_for_damage(good: Path, tmp_path: Path, driver: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(good, store)
    with Store.open(store) as opened:
        tar = opened.layer_path(opened.image("app:1").diff_ids[1])
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes().replace(b"tttt", b"tttT", 1))
    options = f"driver={driver},verify=open,log_file={tmp_path / 'log'}"
    with mounted(store, tmp_path / "mnt", "-o", options) as mountpoint:
        for _ in range(5):
            with pytest.raises(OSError, match="Input/output error"):
                (mountpoint / "app/1/top").read_bytes()
        assert (mountpoint / "app/1/etc/conf").read_bytes() == b"conf " * 300
    said = [line for line in (tmp_path / "log").read_text().splitlines() if "is damaged" in line]
    assert len(said) == 1
    assert "/top" in said[0]


def test_what_came_from_a_registry_is_pulled_again(tmp_path: Path) -> None:
    one = image([BASE, TOP])
    store = tmp_path / "store"
    with Registry() as registry:
        registry.put("team/app", one, "1")
        reference = f"{registry.host}/team/app:1"
        imagefs("--store", store, "pull", "-q", reference)
        with Store.open(store) as opened:
            pulled = opened.image(reference)
            layers = [opened.layer_path(diff_id) for diff_id in pulled.diff_ids]
            manifest = opened.document_path(pulled.manifest_digest)
        good = [path.read_bytes() for path in (*layers, manifest)]
        layers[0].chmod(0o644)
        layers[0].write_bytes(b"damaged")
        layers[1].unlink()
        manifest.unlink()
        done = imagefs("--store", store, "verify", "--repair")
        assert "0 left as they are" in done.stdout
        assert [path.read_bytes() for path in (*layers, manifest)] == good
        assert found(store) == []
        layers[0].chmod(0o644)
        layers[0].write_bytes(b"damaged")
    done = imagefs("--store", store, "verify", "--repair", check=False)  # nobody answers any more
    assert done.returncode == 7
    assert "cannot reach registry" in done.stderr
    assert layers[0].read_bytes() == b"damaged", "what could not be replaced is as it was"


@pytest.mark.parametrize("field", ["diff_ids", "created_ns", "platform"])
def test_each_field_of_the_catalog_is_compared_with_the_config(good: Path, field: str) -> None:
    with Store.open(good) as store:
        image = store.image("app:1")
        other = {"diff_ids": image.diff_ids[:1], "created_ns": 1, "platform": "linux/arm64"}
        contradiction = replace(image, **{field: other[field]})  # type: ignore[arg-type]
        findings = list(verify(store, [contradiction]))
    assert ("damaged", "catalog", str(image.id)) in [(found.state, found.kind, found.name) for found in findings]


@pytest.mark.parametrize("pattern", ["layers/sha256/*.index", "trees/sha256/*.tree"])
def test_bytes_behind_the_end_are_damage(good: Path, tmp_path: Path, pattern: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(good, store)
    path = next(store.glob(pattern))
    path.write_bytes(path.read_bytes() + b"x")
    assert [(finding.state, finding.name.endswith(path.stem)) for finding in found(store)] == [("damaged", True)]


def test_a_damaged_tree_of_a_layer_by_itself_is_named_and_goes(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "store"
    shutil.copytree(good, path)
    with Store.open(path) as store:
        diff_id = store.image("app:1").diff_ids[0]
        lone = store.lone_tree_path(diff_id)
        raw = b"".join(Stack((diff_id,), alone=True).computed(store))
    lone.write_bytes(raw)
    assert found(path) == []
    lone.write_bytes(raw[:-1])
    assert [(finding.state, finding.kind, finding.name) for finding in found(path)] == [("damaged", "tree", lone.stem)]
    assert "1 mended, 0 left" in imagefs("--store", path, "verify", "--repair").stdout
    assert not lone.exists()
    assert found(path) == []


def test_a_layer_that_is_gone_is_not_told_again_as_a_damaged_tree(good: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(good, store)
    for path in store.glob("layers/sha256/*"):
        path.unlink()
    assert {(finding.state, finding.kind) for finding in found(store)} == {("missing", "layer")}
