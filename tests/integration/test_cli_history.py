"""``history`` tells which step made which layer."""

import json
from pathlib import Path

import pytest

from imagefs.oci.digest import Digest
from imagefs.oci.manifest import Manifest, parse_manifest
from imagefs.oci.reference import Reference
from imagefs.store.store import Store
from tests.support.commands import imagefs
from tests.support.images import add_layer, documents
from tests.support.layers import file, layer

LAYERS = [layer(file("one", b"1")), layer(file("two", b"2" * 3000))]
STEPS: list[dict[str, object]] = [
    {"created": "2024-01-01T00:00:00Z", "created_by": "ADD base.tar /"},
    {"created": "2024-01-02T00:00:00Z", "created_by": "ENV A=1", "empty_layer": True},
    {"created": "2024-01-03T00:00:00Z", "created_by": "RUN  make\t" + "x" * 80 + "\x1b[31m", "comment": "buildkit"},
]


def stored(path: Path, steps: list[dict[str, object]]) -> Path:
    manifest, raw = documents(LAYERS)
    config = json.dumps({**json.loads(raw), "history": steps}).encode()
    changed = json.loads(manifest.raw)
    changed["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    parsed = parse_manifest(json.dumps(changed).encode())
    assert isinstance(parsed, Manifest)
    with Store.open(path, create=True) as store, store.writing():
        for one in LAYERS:
            add_layer(store, one)
        store.add_image(manifest=parsed, config=config, references=(Reference.parse("app:1"),))
    return path


def test_steps_are_told_newest_first_with_their_layers(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", STEPS)
    header, *lines = imagefs("--store", store, "history", "app:1").stdout.splitlines()
    assert header.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT", "LAYER"]
    assert "RUN make xxxx" in lines[0]
    assert "…" in lines[0]
    assert "\x1b" not in lines[0]
    assert lines[0].split()[-2:] == ["buildkit", Digest.of(LAYERS[1]).short]
    assert lines[1].startswith("<missing>")
    assert lines[1].split()[-1] == "0B"
    assert lines[2].split()[-1] == Digest.of(LAYERS[0]).short
    rows = [
        json.loads(line)
        for line in imagefs("--store", store, "history", "--no-trunc", "--format=json", "app:1").stdout.splitlines()
    ]
    assert [row["Layer"] for row in rows] == [str(Digest.of(LAYERS[1])), "", str(Digest.of(LAYERS[0]))]
    assert rows[0]["ID"].startswith("sha256:")
    assert "x" * 80 in rows[0]["CreatedBy"]
    plain = imagefs("--store", store, "history", "--human=false", "--format", "{{.CreatedSince}} {{.Size}}", "app:1")
    assert plain.stdout.splitlines()[1] == "2024-01-02T00:00:00Z 0"
    assert imagefs("--store", store, "history", "-q", "app:1").stdout.splitlines()[1:] == ["<missing>", "<missing>"]


@pytest.mark.parametrize("steps", [[], STEPS[:1]])
def test_a_history_that_does_not_fit_names_no_wrong_layer(tmp_path: Path, steps: list[dict[str, object]]) -> None:
    store = stored(tmp_path / "store", steps)
    rows = [
        json.loads(line) for line in imagefs("--store", store, "history", "--format=json", "app:1").stdout.splitlines()
    ]
    if steps:
        assert [row["Layer"] for row in rows] == [""]
    else:
        assert [row["Layer"] for row in rows] == [Digest.of(one).short for one in LAYERS[::-1]]
