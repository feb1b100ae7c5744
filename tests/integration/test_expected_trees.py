"""The nasty image, in every packing, shows the tree that kernel overlayfs showed when it was recorded."""

import os
from pathlib import Path
from typing import Any

import pytest

from imagefs.cli.main import main
from imagefs.store.store import Store
from imagefs.view.filesystem import Filesystem
from tests.support.data import data_dir, needs_data
from tests.support.snapshot import Snapshot, expected
from tests.support.viewed import snapshot_view

_DATA = data_dir() or Path("/nonexistent")
PACKINGS = sorted(path.name for path in _DATA.glob("images/small*") if path.name != "small")
SCHEMA_1 = {"small-v2s1"}
LAZY_EXTRAS = {b"stargz.index.json", b".no.prefetch.landmark", b".prefetch.landmark"}


def disagreements(tree: Snapshot, rows: dict[bytes, dict[str, Any]]) -> list[str]:
    lines = [f"only shown: {path!r}" for path in tree.keys() - rows.keys() - LAZY_EXTRAS]
    lines += [f"not shown: {path!r}" for path in rows.keys() - tree.keys()]
    groups: dict[object, list[bytes]] = {}
    for path in sorted(tree.keys() & rows.keys()):
        shown, row = tree[path], rows[path]
        wanted: dict[str, object] = {
            "type": str(row["type"]).replace("f", "-"),
            "mode": int(str(row["mode"]), 8),
            "uid": row["uid"],
            "gid": row["gid"],
        }
        if row["mtime"] != 0:  # overlayfs shows a time before 1970 as 0; the tar's own is in the umoci recording
            wanted["mtime_ns"] = row["mtime"]
        wanted["xattrs"] = {name: bytes.fromhex(value) for name, value in (row.get("xattrs") or {}).items()}
        if row["type"] == "f":
            wanted |= {"size": row["size"], "sha256": row["sha256"]}
        if "link" in row:
            wanted["target"] = os.fsencode(str(row["link"]))
        if "rdev" in row:
            wanted["device"] = tuple(row["rdev"])
        lines += [
            f"{path!r} {key}: {shown[key]!r} != {value!r}" for key, value in wanted.items() if shown[key] != value
        ]
        if row["type"] != "d":
            groups.setdefault(row.get("hl", path.decode("utf-8", "surrogateescape")), []).append(path)
    for members in groups.values():
        if len({str(tree[path]["same as"]) for path in members}) != 1:
            lines.append(f"not one file: {members!r}")
        if any(tree[path].get("nlink", 1) != len(members) for path in members):
            lines.append(f"link count is not {len(members)}: {members!r}")
    return lines


def shown(store_path: Path, reference: str) -> Snapshot:
    with Store.open(store_path) as store:
        return snapshot_view(Filesystem.for_image(store, store.image(reference)))


@needs_data
@pytest.mark.parametrize("tag", ["base", "v1", "v2"])
def test_small_shows_what_overlayfs_showed(tag: str, tmp_path: Path) -> None:
    assert main(["--store", str(tmp_path / "store"), "load", "-q", str(_DATA / "images" / "small")]) == 0
    tree = shown(tmp_path / "store", f"small:{tag}")
    assert disagreements(tree, expected(_DATA / "expected" / f"small-{tag}.jsonl")) == []


@needs_data
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_shows_the_same_tree(packing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "store")
    status = main(["--store", store, "load", "--name", "packed:x", str(_DATA / "images" / packing)])
    if packing in SCHEMA_1:
        assert status == 6
        assert "schema 1" in capsys.readouterr().err
        return
    assert status == 0, capsys.readouterr().err
    tree = shown(tmp_path / "store", "packed:x")
    assert disagreements(tree, expected(_DATA / "expected" / "small-v2.umoci.jsonl")) == []
    assert disagreements(tree, expected(_DATA / "expected" / "small-v2.jsonl")) == []
