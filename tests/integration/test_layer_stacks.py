"""The layer stacks of umoci's and moby's own tests: what must apply, what must be refused, what must be contained."""

import json
from pathlib import Path

import pytest

from imagefs.cli.main import main
from imagefs.errors import InvalidLayer
from imagefs.store.store import Store
from imagefs.view.filesystem import Filesystem
from tests.support.data import data_dir, needs_data
from tests.support.snapshot import Snapshot
from tests.support.viewed import snapshot_view

_DATA = data_dir()
CASES = sorted(path.parent for path in _DATA.glob("layers/*/expect.json")) if _DATA else []


def listing(tree: Snapshot) -> list[str]:
    return sorted(path.decode() + ("/" if entry["type"] == "d" else "") for path, entry in tree.items())


def check(tree: Snapshot, operation: dict[str, object]) -> None:
    path = str(operation.get("path", "")).encode()
    match operation["op"]:
        case "listing":
            assert listing(tree) == operation["paths"]
        case "exists":
            assert path in tree
        case "absent":
            assert path not in tree
        case "dir":
            assert tree[path]["type"] == "d"
        case "samefile" | "samelink":
            one, other = (tree[str(operation[key]).encode()] for key in "ab")
            assert one["same as"] == other["same as"]
            assert one["type"] == ("l" if operation["op"] == "samelink" else "-")
        case unknown:
            raise AssertionError(f"this test does not know the check {unknown}")


@needs_data
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_a_stack_shows_what_its_own_project_expects(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expectation = json.loads((case / "expect.json").read_text())
    status = main(["--store", str(tmp_path / "store"), "load", "--name", "case:x", str(case / "oci")])
    said = capsys.readouterr().err
    if expectation["expect"] == "reject":
        assert status == InvalidLayer.exit_code
        assert "invalid layer" in said
        assert not Store.open(tmp_path / "store").images()
        return
    if expectation["expect"] == "contained" and status:
        # Refused: clearly, and with nothing visible left behind.
        assert status == InvalidLayer.exit_code, said
        assert not Store.open(tmp_path / "store").images()
        return
    assert status == 0, said
    with Store.open(tmp_path / "store") as store:
        tree = snapshot_view(Filesystem.for_image(store, store.image("case:x")))
    for operation in expectation["checks"]:
        check(tree, operation)


@needs_data
def test_there_are_cases() -> None:
    assert len(CASES) >= 35
