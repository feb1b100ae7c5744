"""``imagefs load``: every packing, sound and broken, through the command line."""

import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imagefs.cli.main import main
from imagefs.errors import EXIT_USAGE
from imagefs.layer.indexed import stored_changeset
from imagefs.oci.platform import Platform
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree import InodeNumber
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from tests.support.built_images import (
    CONTAINERD_NAME,
    OCI_INDEX,
    OCI_MANIFEST,
    REF_NAME,
    BuiltImage,
    docker_archive,
    dump,
    image,
    index,
    layout,
    link,
    old_docker_archive,
    sha256,
    tar,
    tar_of,
    write,
)
from tests.support.data import data_dir, needs_data

CONTENT = 6  # exit status: bytes are not what they claim
BASE = tar({"etc/base": b"base"})
TOP = tar({"etc/top": b"top", "etc/.wh.base": b""})
ONE = image([BASE, TOP])


@dataclass
class Result:
    status: int
    out: list[str]
    err: str


class Tool:
    """The program on one store."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = store
        self._capsys = capsys

    def __call__(self, *argv: str) -> Result:
        try:
            status = main(["--store", str(self.store), *argv])
        except SystemExit as exit_:  # argparse
            status = int(exit_.code or 0)
        captured = self._capsys.readouterr()
        return Result(status, captured.out.splitlines(), captured.err)

    def load(self, *argv: str | Path) -> Result:
        return self("load", *map(str, argv))

    def loads(self, *argv: str | Path) -> list[str]:
        result = self.load(*argv)
        assert (result.status, result.err) == (0, "")
        return result.out

    def images(self) -> dict[str, Image]:
        with Store.open(self.store) as store:
            return {tag.familiar: one for one in store.images() for tag in one.tags}

    def paths(self, name: str) -> set[bytes]:
        """Return the paths, as their layers wrote them, of the regular files in the union of image *name*."""
        with Store.open(self.store) as store:
            tree = resolve([stored_changeset(store, diff_id) for diff_id in store.image(name).diff_ids])
        entries = [tree.inode(InodeNumber(number)).entry for number in range(1, len(tree) + 1)]
        return {entry.path for entry in entries if stat.S_ISREG(entry.mode)}

    def nothing_stored(self) -> bool:
        with Store.open(self.store) as store:
            assert store.images() == ()
        return not [
            path for kind in ("ingest", "layers", "blobs") for path in (self.store / kind).rglob("*") if path.is_file()
        ]


@pytest.fixture
def tool(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.delenv("DOCKER_DEFAULT_PLATFORM", raising=False)
    monkeypatch.setattr(Platform, "host", classmethod(lambda cls: cls("linux", "amd64")))
    return Tool(tmp_path / "store", capsys)


def named(one: BuiltImage, name: str, key: str = REF_NAME, **more: Any) -> dict[str, Any]:
    return one.descriptor(annotations={key: name}, **more)


def as_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    return write(folder / "my-image", files)


def as_tar(folder: Path, files: Mapping[str, bytes]) -> Path:
    (folder / "my-image.tar").write_bytes(tar(files))
    return folder / "my-image.tar"


def as_gzip(folder: Path, files: Mapping[str, bytes]) -> Path:
    (folder / "my-image.tar.gz").write_bytes(gzip.compress(tar(files)))
    return folder / "my-image.tar.gz"


def as_tar_of_dot(folder: Path, files: Mapping[str, bytes]) -> Path:
    """As ``tar -C layout -cf my-image.tar .`` writes it."""
    write(folder / "unpacked", files)
    with tarfile.open(folder / "my-image.tar", "w") as archive:
        archive.add(folder / "unpacked", ".")
    return folder / "my-image.tar"


def as_xz(folder: Path, files: Mapping[str, bytes]) -> Path:
    (folder / "my-image.tar.xz").write_bytes(lzma.compress(tar(files)))
    return folder / "my-image.tar.xz"


PACKINGS = [as_folder, as_tar, as_gzip, as_xz, as_tar_of_dot]
Packing = Callable[[Path, Mapping[str, bytes]], Path]


# ---- sound ----


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_layout_loads_in_every_packing(tool: Tool, tmp_path: Path, packing: Packing) -> None:
    path = packing(tmp_path, layout([ONE], [named(ONE, "v2")]))
    assert tool.loads(path) == ["Loaded image: my-image:v2"]
    loaded = tool.images()["my-image:v2"]
    assert str(loaded.id) == sha256(ONE.config)
    assert str(loaded.manifest_digest) == sha256(ONE.manifest)
    assert tool.paths("my-image:v2") == {b"etc/top"}


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_docker_archive_loads_in_every_packing(tool: Tool, tmp_path: Path, packing: Packing) -> None:
    path = packing(tmp_path, docker_archive(ONE, names=["a:1", "quay.io/b/c:2"]))
    assert tool.loads(path) == ["Loaded image: a:1", "Loaded image: quay.io/b/c:2"]
    assert str(tool.images()["a:1"].id) == sha256(ONE.config)
    assert tool.images()["a:1"] == tool.images()["quay.io/b/c:2"]
    assert tool.paths("a:1") == {b"etc/top"}


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_archive_of_docker_1_9_loads(tool: Tool, tmp_path: Path, packing: Packing) -> None:
    path = packing(tmp_path, old_docker_archive([BASE, TOP], repository="old/app", tag="1"))
    assert tool.loads(path) == ["Loaded image: old/app:1"]
    assert tool.paths("old/app:1") == {b"etc/top"}
    with Store.open(tool.store) as store:
        config = json.loads(store.document(store.image("old/app:1").id))
    assert config["rootfs"]["diff_ids"] == [sha256(BASE), sha256(TOP)]
    assert [step["created_by"] for step in config["history"]] == ["/bin/sh -c step 0", "/bin/sh -c step 1"]
    assert config["config"] == {"Env": ["A=1"]}
    assert "parent" not in config


def test_standard_input_is_read_as_an_archive(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_gzip(tmp_path, docker_archive(ONE, names=["a:1"]))
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert tool.loads("-") == ["Loaded image: a:1"]


def test_a_pipe_on_standard_input_needs_a_name_where_the_archive_has_only_a_tag(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe() -> io.TextIOWrapper:
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb") as file:
            file.write(gzip.compress(tar(layout([ONE], [named(ONE, "v2")]))))  # small enough for the pipe's buffer
        return io.TextIOWrapper(os.fdopen(reading, "rb"))

    with pipe() as reader:
        monkeypatch.setattr(sys, "stdin", reader)
        refused = tool.load("-")
    assert refused.status == EXIT_USAGE
    assert "--name" in refused.err
    with pipe() as reader:
        monkeypatch.setattr(sys, "stdin", reader)
        assert tool.loads("--name", "given", "-") == ["Loaded image: given:v2"]


def test_an_unnamed_image_is_loaded_by_its_id(tool: Tool, tmp_path: Path) -> None:
    path = as_folder(tmp_path, layout([ONE], [ONE.descriptor()]))
    assert tool.loads(path) == [f"Loaded image ID: {sha256(ONE.config)}"]
    with Store.open(tool.store) as store:
        assert [one.tags for one in store.images()] == [()]


def test_a_name_can_be_given(tool: Tool, tmp_path: Path) -> None:
    path = as_folder(tmp_path, layout([ONE], [named(ONE, "v2")]))
    assert tool.loads("--name", "mine", path) == ["Loaded image: mine:v2"]
    assert tool.loads("--name", "mine:7", path) == ["Loaded image: mine:7"]
    assert tool.load("--name", "mine@sha256:" + "a" * 64, path).status == EXIT_USAGE


def test_several_images_of_one_layout_are_all_loaded(tool: Tool, tmp_path: Path) -> None:
    other = image([BASE])
    path = as_folder(tmp_path, layout([ONE, other], [named(ONE, "v2"), named(other, "quay.io/x/y:1")]))
    assert tool.loads(path) == ["Loaded image: my-image:v2", "Loaded image: quay.io/x/y:1"]
    assert tool.loads("--name", "mine", path) == ["Loaded image: mine:v2", "Loaded image: mine:1"]
    refused = tool.load("--name", "mine:1", path)
    assert refused.status == EXIT_USAGE
    assert "holds 2 images" in refused.err


def test_the_whole_name_that_containerd_wrote_is_preferred(tool: Tool, tmp_path: Path) -> None:
    annotations = {REF_NAME: "1", CONTAINERD_NAME: "docker.io/library/app:1"}
    path = as_folder(tmp_path, layout([ONE], [ONE.descriptor(annotations=annotations)]))
    assert tool.loads(path) == ["Loaded image: app:1"]


def test_an_archive_that_is_both_is_read_as_a_layout(tool: Tool, tmp_path: Path) -> None:
    """As docker 25 writes it: manifest.json points into blobs/."""
    files = layout([ONE], [ONE.descriptor()])
    blob = {sha256(one): "blobs/" + sha256(one).replace(":", "/") for one in ONE.all_blobs}
    files["manifest.json"] = dump(
        [
            {
                "Config": blob[sha256(ONE.config)],
                "RepoTags": ["app:1"],
                "Layers": [blob[sha256(layer)] for layer in ONE.blobs],
            }
        ]
    )
    assert tool.loads(as_tar(tmp_path, files)) == ["Loaded image: app:1"]
    assert str(tool.images()["app:1"].manifest_digest) == sha256(ONE.manifest)


def test_compressed_layers_in_a_docker_archive_load(tool: Tool, tmp_path: Path) -> None:
    files = docker_archive(ONE, names=["a:1"])
    packed = {name: gzip.compress(raw) if name.endswith("layer.tar") else raw for name, raw in files.items()}
    assert tool.loads(as_tar(tmp_path, packed)) == ["Loaded image: a:1"]
    assert tool.paths("a:1") == {b"etc/top"}


@pytest.mark.parametrize("hard", [False, True])
def test_layers_may_be_links_to_each_other_inside_the_archive(tool: Tool, tmp_path: Path, hard: bool) -> None:
    one = image([BASE, TOP, BASE])
    config = f"{hashlib.sha256(one.config).hexdigest()}.json"
    members: list[tuple[str, bytes] | tarfile.TarInfo] = [
        (config, one.config),
        ("manifest.json", dump([{"Config": config, "RepoTags": ["a:1"], "Layers": [f"{n}/layer.tar" for n in "123"]}])),
        ("1/layer.tar", BASE),
        ("2/layer.tar", TOP),
        link("3/layer.tar", "1/layer.tar" if hard else "../1/layer.tar", hard=hard),
    ]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    assert tool.loads(tmp_path / "a.tar") == ["Loaded image: a:1"]
    assert tool.paths("a:1") == {b"etc/base", b"etc/top"}


def test_the_platform_of_an_index_is_chosen(tool: Tool, tmp_path: Path) -> None:
    arm = image([TOP], architecture="arm64")
    inner = index(
        [
            ONE.descriptor(platform={"os": "linux", "architecture": "amd64"}),
            arm.descriptor(platform={"os": "linux", "architecture": "arm64"}),
            image([]).descriptor(platform={"os": "unknown", "architecture": "unknown"}),
        ]
    )
    listed = {"mediaType": OCI_INDEX, "digest": sha256(inner), "size": len(inner), "annotations": {REF_NAME: "v2"}}
    path = as_folder(tmp_path, layout([ONE, arm], [listed], documents=[inner]))
    tool.loads(path)
    assert str(tool.images()["my-image:v2"].id) == sha256(ONE.config)
    moved = tool.load("--platform", "linux/arm64", path)
    assert moved.status == 0
    assert "was image" in moved.err
    assert str(tool.images()["my-image:v2"].id) == sha256(arm.config)
    refused = tool.load("--platform", "linux/s390x", path)
    assert refused.status == 5
    assert "linux/amd64, linux/arm64" in refused.err


def test_unnamed_manifests_for_several_platforms_are_one_image(tool: Tool, tmp_path: Path) -> None:
    arm = image([TOP], architecture="arm64")
    descriptors = [
        arm.descriptor(platform={"os": "linux", "architecture": "arm64"}),
        ONE.descriptor(platform={"os": "linux", "architecture": "amd64"}),
    ]
    path = as_folder(tmp_path, layout([ONE, arm], descriptors))
    assert tool.loads(path) == [f"Loaded image ID: {sha256(ONE.config)}"]


def test_a_name_of_docker_for_one_of_several_platforms_is_not_that_of_the_image(tool: Tool, tmp_path: Path) -> None:
    arm = image([TOP], architecture="arm64")
    descriptors = [
        ONE.descriptor(platform={"os": "linux", "architecture": "amd64"}),
        arm.descriptor(platform={"os": "linux", "architecture": "arm64"}),
    ]
    config = f"blobs/sha256/{sha256(ONE.config).removeprefix('sha256:')}"
    files = layout([ONE, arm], descriptors) | {"manifest.json": dump([{"Config": config, "RepoTags": ["a:1"]}])}
    assert tool.loads(as_folder(tmp_path, files)) == [f"Loaded image ID: {sha256(ONE.config)}"]


def test_a_tag_that_moves_is_announced(tool: Tool, tmp_path: Path) -> None:
    tool.loads(as_tar(tmp_path, docker_archive(ONE, names=["docker.io/library/alpine:latest"])))
    other = image([BASE])
    moved = tool.load(as_tar(tmp_path, docker_archive(other, names=["alpine:latest"])))
    assert moved.status == 0
    assert f"alpine:latest was image {sha256(ONE.config)[7:19]} and is now {sha256(other.config)[7:19]}" in moved.err
    again = tool.load(as_tar(tmp_path, docker_archive(other, names=["alpine:latest"])))
    assert again.err == ""


def test_what_is_no_image_is_left_out_and_said(tool: Tool, tmp_path: Path) -> None:
    config = b"{}"
    helm = "application/vnd.cncf.helm.config.v1+json"
    chart = dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": helm, "digest": sha256(config), "size": 2},
            "layers": [],
        }
    )
    listed = {"mediaType": OCI_MANIFEST, "digest": sha256(chart), "size": len(chart), "annotations": {REF_NAME: "c"}}
    path = as_folder(tmp_path, layout([ONE], [listed, named(ONE, "v2")], documents=[chart, config]))
    result = tool.load(path)
    assert (result.status, result.out) == (0, ["Loaded image: my-image:v2"])
    assert "helm" in result.err


def test_quiet_still_says_what_was_loaded(tool: Tool, tmp_path: Path) -> None:
    assert tool.loads("-q", as_tar(tmp_path, docker_archive(ONE, names=["a:1"]))) == ["Loaded image: a:1"]


def test_loading_twice_changes_nothing(tool: Tool, tmp_path: Path) -> None:
    path = as_tar(tmp_path, docker_archive(ONE, names=["a:1"]))
    tool.loads(path)
    before = tool.images()
    tool.loads(path)
    assert tool.images() == before


# ---- broken ----


def refused(tool: Tool, path: Path, *words: str, status: int = CONTENT) -> None:
    result = tool.load(path)
    assert result.status == status, result
    assert result.out == []
    for word in words:
        assert word in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert tool.nothing_stored()


def test_a_path_that_is_not_there_is_named(tool: Tool, tmp_path: Path) -> None:
    refused(tool, tmp_path / "nowhere.tar", "nowhere.tar", "No such file", status=1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"no tar at all " * 100, "not a complete tar"),
        (b"\xfd7zXZ\x00" + bytes(100), "xz"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (gzip.compress(b"x" * 2000), "not a complete tar"),
        (gzip.compress(tar({"a": b"b"}))[:-12], "cannot load"),
        (gzip.compress(b""), "empty"),
        (tar({"a": b"b"}), "neither an OCI layout"),
        (tar({"etc": b""}), "docker export"),
        (tar({"manifest.json": b"[]"}), "not a list of images"),
        (tar({"manifest.json": b"[1]"}), "object"),
        (tar({"manifest.json": b'[{"Config":"/etc/shadow","Layers":[]}]'}), "outside of the archive"),
        (tar({"manifest.json": b'[{"Config":"../x","Layers":[]}]'}), "outside of the archive"),
        (tar({"manifest.json": b'[{"Config":"x","Layers":[]}]'}), "'x' is missing"),
        (tar({"manifest.json": b'[{"Config":"x","Layers":["y/layer.tar"]}]', "x": b"{}"}), "'y/layer.tar' is missing"),
        (tar({"manifest.json": b'[{"RepoTags":["a:1"]}]'}), "no file where it should"),
        (tar({"repositories": b'{"a":{"1":"../../etc"}}'}), "no image ID"),
        (tar({"repositories": b'{"a":{"1":"%s"}}' % (b"a" * 64)}), "is missing"),
        (tar({"repositories": b"[]"}), "expected an object"),
        (tar({"index.json": b"{}"}), "'oci-layout' is missing"),
        (tar({"index.json": b"{}", "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}), "version 2.0.0"),
        (tar({"index.json": b"{}", "oci-layout": b"null"}), "oci-layout"),
        (tar({"manifest.json": b"{", "x": b""}), "manifest.json"),
    ],
)
def test_what_is_no_image_archive_is_refused(tool: Tool, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    refused(tool, tmp_path / "x.tar", words)


def test_an_endless_chain_of_parents_is_refused(tool: Tool, tmp_path: Path) -> None:
    one, two = "1" * 64, "2" * 64
    files = {
        "repositories": dump({"a": {"1": one}}),
        f"{one}/json": dump({"id": one, "parent": two}),
        f"{two}/json": dump({"id": two, "parent": one}),
    }
    refused(tool, as_tar(tmp_path, files), "do not end")


def test_links_without_end_or_out_of_the_archive_are_refused(tool: Tool, tmp_path: Path) -> None:
    for links, words in (
        ([link("manifest.json", "manifest.json")], "without an end"),
        ([link("manifest.json", "a"), link("a", "manifest.json")], "without an end"),
        ([link("manifest.json", "/etc/passwd")], "out of the archive"),
        ([link("manifest.json", "../../etc/passwd")], "out of the archive"),
        ([link("manifest.json", "nowhere")], "'nowhere' is missing"),
    ):
        (tmp_path / "x.tar").write_bytes(tar_of(links))
        refused(tool, tmp_path / "x.tar", words)


@pytest.mark.parametrize("packing", [as_folder, as_tar])
@pytest.mark.parametrize("victim", ["manifest", "config", "layer"])
def test_a_changed_blob_is_noticed(tool: Tool, tmp_path: Path, packing: Packing, victim: str) -> None:
    files = layout([ONE], [named(ONE, "v2")])
    blob = {"manifest": ONE.manifest, "config": ONE.config, "layer": ONE.blobs[1]}[victim]
    name = "blobs/" + sha256(blob).replace(":", "/")
    files[name] = blob[:-1] + bytes([blob[-1] ^ 1])
    refused(tool, packing(tmp_path, files), victim, sha256(blob))


@pytest.mark.parametrize("packing", [as_folder, as_tar])
@pytest.mark.parametrize("change", [b"", b"longer"])
def test_a_blob_of_another_size_is_noticed(tool: Tool, tmp_path: Path, packing: Packing, change: bytes) -> None:
    files = layout([ONE], [named(ONE, "v2")])
    blob = ONE.blobs[1]
    files["blobs/" + sha256(blob).replace(":", "/")] = blob + change if change else blob[:-5]
    refused(tool, packing(tmp_path, files), "wrong size")


@pytest.mark.parametrize("packing", [as_folder, as_tar])
def test_a_missing_blob_is_named(tool: Tool, tmp_path: Path, packing: Packing) -> None:
    files = layout([ONE], [named(ONE, "v2")])
    name = "blobs/" + sha256(ONE.blobs[0]).replace(":", "/")
    del files[name]
    refused(tool, packing(tmp_path, files), f"'{name}' is missing")


def test_a_config_that_promises_other_layers_is_refused(tool: Tool, tmp_path: Path) -> None:
    other = sha256(b"other")
    lying = image([BASE, TOP], diff_ids=[sha256(BASE), other])
    refused(tool, as_folder(tmp_path, layout([lying], [named(lying, "v2")])), "layer", other, sha256(TOP))
    fewer = image([BASE, TOP], diff_ids=[sha256(BASE)])
    refused(tool, as_folder(tmp_path, layout([fewer], [named(fewer, "v2")])), "don't match")
    in_docker = docker_archive(lying, names=["a:1"])
    refused(tool, as_tar(tmp_path, in_docker), "layer", sha256(TOP))


def test_a_layer_that_is_no_tar_is_refused(tool: Tool, tmp_path: Path) -> None:
    bad = image([BASE, b"this is no tar" * 100])
    refused(tool, as_folder(tmp_path, layout([bad], [named(bad, "v2")])), "invalid layer", sha256(bad.blobs[1]))


def test_a_union_that_cannot_be_is_refused(tool: Tool, tmp_path: Path) -> None:
    bad = image([BASE, tar_of([link("x", "nowhere", hard=True)])])
    refused(tool, as_folder(tmp_path, layout([bad], [named(bad, "v2")])), "hard link", "'x'")


def test_a_blob_that_is_a_symbolic_link_is_refused(tool: Tool, tmp_path: Path) -> None:
    path = as_folder(tmp_path, layout([ONE], [named(ONE, "v2")]))
    blob = path / "blobs" / sha256(ONE.blobs[0]).replace(":", "/")
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    refused(tool, path, "symbolic link")


def test_a_folder_of_blobs_that_is_a_symbolic_link_is_refused(tool: Tool, tmp_path: Path) -> None:
    path = as_folder(tmp_path, layout([ONE], [named(ONE, "v2")]))
    (path / "blobs").rename(tmp_path / "elsewhere")
    (path / "blobs").symlink_to(tmp_path / "elsewhere")
    refused(tool, path, "symbolic link")


def test_a_blob_that_is_a_pipe_keeps_nobody_waiting(tool: Tool, tmp_path: Path) -> None:
    path = as_folder(tmp_path, layout([ONE], [named(ONE, "v2")]))
    blob = path / "blobs" / sha256(ONE.blobs[0]).replace(":", "/")
    blob.unlink()
    os.mkfifo(blob)
    refused(tool, path, "not a regular file")


def test_a_digest_that_is_a_path_is_refused(tool: Tool, tmp_path: Path) -> None:
    descriptor = {**ONE.descriptor(), "digest": "sha256:../../../etc/passwd"}
    refused(tool, as_folder(tmp_path, layout([ONE], [descriptor])), "digest")


def test_a_failing_image_does_not_take_earlier_ones_along(tool: Tool, tmp_path: Path) -> None:
    bad = image([b"no tar" * 200])
    result = tool.load(as_folder(tmp_path, layout([ONE, bad], [named(ONE, "v1"), named(bad, "v2")])))
    assert result.status == CONTENT
    assert result.out == ["Loaded image: my-image:v1"]
    assert set(tool.images()) == {"my-image:v1"}


# ---- real ones ----


@needs_data
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("small", ["small:base", "small:v1", "small:v2"]),
        ("small-zstd", ["small-zstd:v2"]),
        ("small-uncompressed", ["small-uncompressed:v2"]),
        ("small-estargz", ["small-estargz:v2"]),
        ("small-zstd-chunked", ["small-zstd-chunked:v2"]),
        ("small-zstdchunked-ctr", ["small-zstdchunked-ctr:v2"]),
        ("small-docker-archive.tar", ["small:v2"]),
        ("small-oci-archive.tar", ["small-oci-archive:v2"]),
        ("alpine", ["alpine:3.20", "alpine:3.18"]),
        ("busybox-multi", ["busybox-multi:latest"]),
    ],
)
def test_images_that_other_tools_packed_load(tool: Tool, name: str, said: list[str]) -> None:
    folder = data_dir()
    assert folder is not None
    assert tool.loads(folder / "images" / name) == [f"Loaded image: {one}" for one in said]


@needs_data
def test_a_dir_folder_of_skopeo_loads(tool: Tool) -> None:
    folder = data_dir()
    assert folder is not None
    (line,) = tool.loads("--name", "dir", folder / "images" / "small-dir")
    assert line == "Loaded image: dir:latest"


@needs_data
def test_schema_1_is_refused_with_the_reason(tool: Tool) -> None:
    folder = data_dir()
    assert folder is not None
    refused(tool, folder / "images" / "small-v2s1", "schema 1")


@needs_data
@pytest.mark.parametrize(
    ("wanted", "architecture"), [("linux/arm/v7", "linux/arm/v7"), ("riscv64", "linux/riscv64"), ("386", "linux/386")]
)
def test_real_platforms_are_told_apart(tool: Tool, wanted: str, architecture: str) -> None:
    folder = data_dir()
    assert folder is not None
    tool.loads("--platform", wanted, folder / "images" / "busybox-multi")
    assert tool.images()["busybox-multi:latest"].platform == architecture
