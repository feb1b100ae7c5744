"""``imagefs diff`` against a comparison of unpacked trees that shares no code with it."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.compare.trees import Change, compare
from imagefs.overlay.stored import Stack
from imagefs.store.store import Store
from imagefs.view.kept import KeptFiles
from imagefs.view.opened import OpenedImages
from imagefs.view.tree import ImageTree
from tests.support.built_images import image, layout, sha256, write
from tests.support.commands import imagefs, needs, run, umoci_unpack
from tests.support.data import data_dir
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, link, sparse, symlink, whiteout
from tests.support.mounts import needs_root
from tests.support.nasty import nasty_layout
from tests.support.snapshot import Snapshot, snapshot
from tests.support.stacks import generated

GENERATED_PAIRS = 25

Told = tuple[str, bytes, frozenset[str]]


def brute_force(old: Snapshot, new: Snapshot, *, started_ns: int) -> list[Told]:
    """Compare two trees entry by entry; the times of directories that unpacking touched are nobody's."""
    told: list[Told] = []
    for path in sorted(old.keys() | new.keys(), key=lambda path: path.split(b"/")):
        before, after = old.get(path), new.get(path)
        if before is None or after is None:
            told.append(("D" if after is None else "A", path, frozenset()))
            continue
        found = set()
        if before["type"] != after["type"]:
            found.add("type")
        else:
            pairs = (("sha256", "content"), ("target", "target"), ("device", "device"))
            found |= {aspect for key, aspect in pairs if before.get(key) != after.get(key)}
        if before["mode"] != after["mode"]:
            found.add("mode")
        if (before["uid"], before["gid"]) != (after["uid"], after["gid"]):
            found.add("owner")
        if before["mtime_ns"] != after["mtime_ns"]:
            found.add("times")
        if before["xattrs"] != after["xattrs"]:
            found.add("xattrs")
        if any(side["type"] == "d" and int(str(side["mtime_ns"])) > started_ns for side in (before, after)):
            found.discard("times")
        if found:
            told.append(("C", path, frozenset(found)))
    return told


def ours(store: Store, old: str, new: str) -> list[Change]:
    images = OpenedImages(store, KeptFiles())
    sides = [ImageTree(images, Stack(store.image(name).diff_ids)) for name in (old, new)]
    return [change for change in compare(*sides) if change.path]  # whose the root is, umoci and we see differently


def agrees(store: Store, old: str, new: str, unpacked: tuple[Path, Path], *, started_ns: int) -> None:
    expected = brute_force(*(snapshot(root) for root in unpacked), started_ns=started_ns)
    touched = {path for root in unpacked for path in _touched(root, started_ns)}
    found = []
    for change in ours(store, old, new):
        aspects = frozenset(change.aspects) - ({"times"} if change.path in touched else set())
        if aspects or change.kind != "C":
            found.append((change.kind, change.path, aspects))
    assert found == expected


def _touched(root: Path, started_ns: int) -> Iterator[bytes]:
    for path, described in snapshot(root).items():
        if described["type"] == "d" and int(str(described["mtime_ns"])) > started_ns:
            yield path


@pytest.mark.tools
@needs("umoci")
@needs_root
@pytest.mark.parametrize("seed", range(GENERATED_PAIRS))
def test_a_generated_pair_differs_as_its_unpacked_trees_do(seed: int, tmp_path: Path) -> None:
    started_ns = time.time_ns() - 10**9
    chance = random.Random(seed)
    layers = generated(chance)
    others = [*layers[: chance.randrange(len(layers) + 1)], *generated(chance)]
    images = [image(layers), image(others)]
    described = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha256(one.manifest),
            "size": len(one.manifest),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }
        for one, name in zip(images, ("old", "new"), strict=True)
    ]
    folder = write(tmp_path / "pair", layout(images, described))
    loaded = imagefs("--store", tmp_path / "store", "load", "-q", folder, check=False)
    theirs = [
        run(["umoci", "unpack", "--image", f"{folder}:{name}", tmp_path / name], check=False) for name in ("old", "new")
    ]
    if loaded.returncode or any(done.returncode for done in theirs):
        return  # each may refuse what the other takes; which images those are, other tests say
    with Store.open(tmp_path / "store") as store:
        roots = (tmp_path / "old" / "rootfs", tmp_path / "new" / "rootfs")
        agrees(store, "pair:old", "pair:new", roots, started_ns=started_ns)


@pytest.mark.tools
@needs("umoci")
@needs_root
def test_real_and_nasty_pairs_differ_as_their_unpacked_trees_do(tmp_path: Path) -> None:
    layouts = {"nasty": (nasty_layout(tmp_path / "nasty"), ["1", "2"])}
    if data := data_dir():
        layouts["alpine"] = (data / "images" / "alpine", ["3.18", "3.20"])
        layouts["small"] = (data / "images" / "small", ["base", "v1", "v2"])
    started_ns = time.time_ns() - 10**9
    with Store.open(tmp_path / "store", create=True) as store:
        for name, (folder, tags) in layouts.items():
            imagefs("--store", tmp_path / "store", "load", "-q", folder)
            roots = {tag: umoci_unpack(folder, tag, tmp_path / f"{name}-{tag}") for tag in tags}
            for old in tags:
                for new in tags:
                    pair = (roots[old], roots[new])
                    agrees(store, f"{name}:{old}", f"{name}:{new}", pair, started_ns=started_ns)


OLD = layer(
    dir_("etc"),
    file("etc/conf", b"one\ntwo\nthree\n"),
    file("etc/binary", b"\0\1"),
    file(b"etc/odd \xff\n\x1b[31m", b"x"),
    file("etc/gone", b"12345"),
    dir_("same"),
    file("same/deep", b"same"),
    symlink("lib", "etc"),
    link("etc/linked", "etc/conf"),
    sparse("holes", 10 * 2**30, [(0, b"x" * 512)]),
)
NEW = layer(
    dir_("etc"),
    file("etc/conf", b"one\nTWO\nthree", mode=0o600),
    file("etc/binary", b"\0\2", uid=7, mtime_ns=5),
    file(b"etc/odd \xff\n\x1b[31m", b"y"),
    whiteout("etc/gone"),
    file("etc/added", b"1234567", xattrs={"user.a": b"1"}),
    symlink("lib", "/etc"),
)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [OLD], "app:1", label="old")
        add_image(store, [OLD, NEW], "app:2", label="new")
        add_image(store, [OLD], "same:1", label="other")
    return tmp_path / "store"


def diff(store: Path, *args: str, expect: int = 1) -> list[str]:
    done = imagefs("--store", store, "diff", *args, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout.splitlines() if expect < 2 else done.stderr.splitlines()


def test_what_changed_is_told_in_the_order_of_diff_r(pair: Path) -> None:
    assert diff(pair, "app:1", "app:2") == [
        "A /etc/added",
        "C /etc/binary  content, owner, times",
        "C /etc/conf  content, mode",
        "D /etc/gone",
        'C "/etc/odd \\377\\n\\033[31m"  content',
        "C /lib  target",
    ]
    assert diff(pair, "app:2", "app:1", "etc/gone") == ["A /etc/gone"]
    assert diff(pair, "app:1", "app:1", expect=0) == []
    assert diff(pair, "app:1", "same:1", expect=0) == [], "the trees are the same, if not the images"
    assert diff(pair, "-q", "app:1", "app:2") == []


def test_sizes_names_and_what_not_to_count(pair: Path) -> None:
    lines = diff(pair, "--stat", "app:1", "app:2")
    assert lines[0] == "A /etc/added  +7B"
    assert lines[-1] == "1 added, 1 deleted, 4 changed, +1B"
    assert "D /etc/gone  -5B" in lines
    names = diff(pair, "--name-only", "--ignore", "content", "--ignore=owner,mtime", "app:1", "app:2")
    assert names == ["/etc/added", "/etc/conf", "/etc/gone", "/lib"]
    raw = subprocess.run(
        [sys.executable, "-m", "imagefs", "--store", pair, "diff", "--name-only", "-z", "app:1", "app:2", "etc"],
        capture_output=True,
        check=False,
    )
    assert b"etc/odd \xff\n\x1b[31m\0" in raw.stdout


def test_changed_lines_are_shown_of_text_files_only(pair: Path) -> None:
    lines = diff(pair, "-u", "app:1", "app:2")
    at = lines.index("C /etc/conf  content, mode")
    assert lines[at + 1 : at + 10] == [
        "--- app:1/etc/conf",
        "+++ app:2/etc/conf",
        "@@ -1,3 +1,3 @@",
        " one",
        "-two",
        "-three",
        "+TWO",
        "+three",
        "\\ No newline at end of file",
    ]
    assert "Binary files app:1/etc/binary and app:2/etc/binary differ" in lines


def test_json_tells_everything(pair: Path) -> None:
    said = {row["path"]: row for row in map(json.loads, diff(pair, "--json", "app:1", "app:2"))}
    assert said["/etc/conf"]["changes"] == ["content", "mode"]
    assert said["/etc/conf"]["old"]["mode"] == "0644"
    assert said["/etc/conf"]["new"]["size"] == 13
    assert said["/etc/added"]["new"]["xattrs"] == {"user.a": b"1".hex()}
    assert said["/lib"]["new"]["target"] == "/etc"
    (odd,) = [row for row in said.values() if "path_hex" in row]
    assert bytes.fromhex(odd["path_hex"]) == b"etc/odd \xff\n\x1b[31m"


def test_layers_and_configs_are_compared_on_request(pair: Path) -> None:
    lines = diff(pair, "--layers", "--config", "app:1", "app:2", "same", expect=1)
    assert [line.split()[0] for line in lines] == ["=", "+", "C"]
    assert lines[1].endswith("adds 23B, frees 22B")
    assert lines[2] == "C Labels label: old → new"


def test_an_image_can_be_seen_as_of_a_layer(pair: Path) -> None:
    assert diff(pair, "app:2@layer:1", "app:1", expect=0) == []
    assert len(diff(pair, "app:2@layer:1", "app:2")) == 6
    assert diff(pair, "app:2@layer:0", "app:2")[0] == "A /etc"
    (error,) = diff(pair, "app:2@layer:3", "app:2", expect=2)
    assert "2 layers" in error


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("app:1", "app:3"), "no such image: app:3; did you mean"),
        (("app:1", "app:2", "etc/cnf"), "no such file or directory in app:2: /etc/cnf; did you mean /etc/conf?"),
        (("-z", "app:1", "app:2"), "--name-only"),
        (("--ignore=colour", "app:1", "app:2"), "'colour' is none of content"),
        (("app:1",), "required: NEW"),
    ],
)
def test_trouble_is_told_from_difference(pair: Path, args: tuple[str, ...], words: str) -> None:
    assert words in "\n".join(diff(pair, *args, expect=2))


def test_no_content_is_read_but_for_lines(pair: Path) -> None:
    expected = diff(pair, "app:1", "app:2")
    for tar in (pair / "layers" / "sha256").glob("*.tar"):
        tar.unlink()
    assert diff(pair, "app:1", "app:2") == expected
    assert imagefs("--store", pair, "blame", "app:2", "etc/conf").returncode == 0
    assert "missing" in diff(pair, "-u", "app:1", "app:2", "etc/conf", expect=2)[0]


def test_a_tree_that_is_missing_is_made_again(pair: Path) -> None:
    expected = diff(pair, "app:1", "app:2")
    shutil.rmtree(pair / "trees")
    assert diff(pair, "app:1", "app:2") == expected
    before = sorted(os.listdir(pair / "trees" / "sha256"))
    assert diff(pair, "app:2@layer:1", "app:2@layer:0", expect=1)
    assert sorted(os.listdir(pair / "trees" / "sha256")) == before, "what no image has is not kept"


def test_files_without_a_digest_are_the_same_only_as_one_entry(tmp_path: Path) -> None:
    again = layer(sparse("holes", 10 * 2**30, [(0, b"x" * 512)]))
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [OLD], "app:1")
        add_image(store, [OLD, again], "app:2")
    assert diff(tmp_path / "store", "app:1", "app:2") == ["C /holes  content"]
