"""``imagefs blame`` names the layer and the instruction behind every entry."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import imagefs, needs, run
from tests.support.data import data_dir, needs_data
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, link, opaque, symlink, whiteout
from tests.support.mounts import needs_root

FIVE = """
FROM scratch
COPY busybox /busybox
COPY one two /dir/
COPY three /dir/one
RUN ["/busybox", "rm", "/dir/two"]
RUN ["/busybox", "chmod", "700", "/dir/one"]
"""


def blamed(store: Path, reference: str, *paths: str) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for line in imagefs("--store", store, "blame", "--json", reference, *paths).stdout.splitlines():
        row = json.loads(line)
        found.setdefault(row["path"], []).append(row)
    return found


def newest_mention(layout: Path, tag: str) -> dict[str, int]:
    """Return by path the number of the newest layer whose tar has an entry for it."""
    index = json.loads((layout / "index.json").read_text())
    (manifest,) = [
        described["digest"]
        for described in index["manifests"]
        if described.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    ]
    layers = json.loads(blob(layout, manifest).read_text())["layers"]
    found = {}
    for number, described in enumerate(layers, 1):
        with tarfile.open(blob(layout, described["digest"]), errors="surrogateescape") as archive:
            for name in archive.getnames():
                found["/" + name.strip("./") if name.strip("./") else "/"] = number
    return found


def blob(layout: Path, digest: str) -> Path:
    return layout.joinpath("blobs", *digest.split(":"))


@needs_data
def test_every_entry_of_a_nasty_image_is_blamed_on_the_newest_layer_that_has_it(tmp_path: Path) -> None:
    data = data_dir()
    assert data is not None
    layout = data / "images" / "small"
    imagefs("--store", tmp_path / "store", "load", "-q", layout)
    with Store.open(tmp_path / "store") as store:
        image = store.image("small:v2")
    mentions = newest_mention(layout, "v2")
    there = [
        json.loads(line)["path"] for line in (data / "expected" / "small-v2.jsonl").read_text().splitlines() if line
    ]
    paths = [path for path in there if path != "."]
    found = blamed(tmp_path / "store", "small:v2", *paths)
    assert len(found) > 40
    assert len(found) == len({path.encode("utf-8", "surrogateescape").decode(errors="replace") for path in paths})
    for path in paths:
        if not path.isascii():
            continue
        newest = found["/" + path][0]
        assert newest["layer"] == mentions.get("/" + path, newest["layer"]), path
        assert newest["diff_id"] == str(image.diff_ids[int(str(newest["layer"])) - 1])
        assert newest["created_by"] == "/bin/sh"


@pytest.mark.tools
@needs("buildah")
@needs("busybox")
@needs_root
def test_the_instructions_of_a_built_image_are_named(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(str(shutil.which("busybox")), context / "busybox")
    for name in ("one", "two", "three"):
        (context / name).write_text(name)
    (context / "Dockerfile").write_text(FIVE)
    buildah: list[str | Path] = ["buildah", "--root", tmp_path / "root", "--runroot", tmp_path / "run"]
    buildah += ["--storage-driver", "vfs"]
    try:
        run([*buildah, "bud", "--isolation", "chroot", "--layers", "-t", "five:1", context])
        run([*buildah, "push", "five:1", f"oci:{tmp_path / 'layout'}:five"])
    finally:
        run([*buildah, "rmi", "--all", "--force"], check=False)
    imagefs("--store", tmp_path / "store", "load", "-q", tmp_path / "layout")
    found = blamed(tmp_path / "store", "layout:five", "busybox", "dir/one", "dir/two", "dir")
    told = {
        path: [(row["layer"], row["action"], str(row["created_by"])) for row in rows] for path, rows in found.items()
    }
    assert [row[:2] for row in told["/busybox"]] == [(1, "added")]
    assert [row[:2] for row in told["/dir/one"]] == [(5, "metadata"), (3, "changed"), (2, "added")]
    assert [row[:2] for row in told["/dir/two"]] == [(4, "removed"), (2, "added")]
    assert told["/dir"][-1][:2] == (2, "added")
    made = {number: by for rows in told.values() for number, _, by in rows}
    assert "COPY file:" in made[1]
    assert "/busybox" in made[1]
    assert "COPY multi:" in made[2]
    assert "in /dir/one" in made[3]
    assert '"rm", "/dir/two"' in made[4]
    assert '"chmod", "700"' in made[5]


BASE = layer(
    dir_("etc"),
    file("etc/conf", b"one"),
    file("etc/gone", b"1"),
    dir_("opaque"),
    file("opaque/hidden", b"h"),
    dir_("folder/deep"),
    file("folder/deep/file", b"f"),
    symlink("lib", "usr/lib"),
    dir_("usr/lib"),
    file("plain", b"p"),
)
SECOND = layer(
    whiteout("etc/gone"),
    opaque("opaque"),
    whiteout("folder"),
    file("lib/through", b"a symlink"),
    link("linked", "etc/conf"),
    file("plain", b"p"),
    file("etc/conf", b"one", mode=0o600),
)
THIRD = layer(file("opaque", b"a file now"))


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [BASE, SECOND, THIRD], "app:1")
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("etc/conf", [(2, "metadata", ["mode"], ""), (1, "added", [], "")]),
        ("etc/gone", [(2, "removed", [], "whiteout"), (1, "added", [], "")]),
        ("opaque/hidden", [(2, "removed", [], "opaque directory /opaque"), (1, "added", [], "")]),
        ("folder/deep/file", [(2, "removed", [], "whiteout of /folder"), (1, "added", [], "")]),
        ("usr/lib/through", [(2, "added", [], "")]),
        ("linked", [(2, "added", [], "hard link to etc/conf")]),
        ("plain", [(2, "rewritten", [], ""), (1, "added", [], "")]),
        ("opaque", [(3, "changed", ["type", "mode"], ""), (1, "added", [], "")]),
    ],
)
def test_what_a_layer_did_is_told(store_path: Path, path: str, expected: list[tuple[int, str, list[str], str]]) -> None:
    (rows,) = blamed(store_path, "app:1", path).values()
    assert [(row["layer"], row["action"], row["changes"], row["how"]) for row in rows] == expected


def test_a_path_through_a_symlink_is_blamed_where_it_leads(store_path: Path) -> None:
    assert list(blamed(store_path, "app:1", "lib/through")) == ["/usr/lib/through"]
    shown = imagefs("--store", store_path, "blame", "app:1", "lib/through").stdout
    assert shown.startswith("/usr/lib/through:\nLAYER")


def test_a_history_that_does_not_fit_the_layers_blames_no_instruction(store_path: Path) -> None:
    (rows,) = blamed(store_path, "app:1", "plain").values()
    assert {row["created_by"] for row in rows} == {""}
    assert "<unknown>" in imagefs("--store", store_path, "blame", "app:1", "plain").stdout


def test_a_path_that_never_was_is_an_error_and_the_others_are_told(store_path: Path) -> None:
    done = imagefs("--store", store_path, "blame", "app:1", "plein", "etc/conf", check=False)
    assert done.returncode == 7
    assert "no such file or directory in app:1: /plein; did you mean /plain?" in done.stderr
    assert "metadata mode" in done.stdout
