"""``save``: what other tools make of it, and what they say an image's ID is."""

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from imagefs.oci.reference import Reference
from imagefs.store.store import Store
from imagefs.transfer.save import FolderFiles, Saved, save
from tests.support.commands import imagefs, needs, run
from tests.support.images import add_image
from tests.support.layers import dir_, file, layer, whiteout
from tests.support.mounts import needs_root
from tests.support.podman import podman_storage

BASE = layer(dir_("etc"), file("etc/base", b"base"))
TOP = layer(file("etc/top", b"top"), whiteout("etc/base"))


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [BASE], "app:1", "registry.example/own/app:one")
        add_image(store, [BASE, TOP], "app:2", "other:1")
    return tmp_path / "store"


def ids(store_path: Path) -> dict[str, str]:
    lines = imagefs("--store", store_path, "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout
    return dict(line.split() for line in lines.splitlines())


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci", "oci-dir"])
def test_what_is_saved_is_loaded_again(store_path: Path, tmp_path: Path, form: str) -> None:
    saved = tmp_path / "saved"
    names = ["app:1", "registry.example/own/app:one", "app:2", "other:1"]
    imagefs("--store", store_path, "save", "--format", form, "-o", saved, *names)
    imagefs("--store", tmp_path / "second", "load", "-q", saved)
    assert ids(tmp_path / "second") == ids(store_path)
    assert imagefs("--store", tmp_path / "second", "verify").returncode == 0
    assert imagefs("--store", tmp_path / "second", "find", "app:2").stdout == "/\n/etc\n/etc/top\n"


def test_an_image_without_a_name_has_none_afterwards(store_path: Path, tmp_path: Path) -> None:
    with Store.open(store_path) as store:
        wanted = store.image("app:2").id
    imagefs("--store", store_path, "save", "-o", tmp_path / "saved", wanted.short)
    imagefs("--store", tmp_path / "second", "load", "-q", tmp_path / "saved")
    assert imagefs("--store", tmp_path / "second", "ls", "-q").stdout.strip() == wanted.short
    assert "<none>" in imagefs("--store", tmp_path / "second", "ls").stdout


def test_an_archive_holds_shared_layers_once_and_is_always_the_same(store_path: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        imagefs("--store", store_path, "save", "-o", tmp_path / name, "app:1", "app:2")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with tarfile.open(tmp_path / "one") as archive:
        names = archive.getnames()
        listed = json.load(archive.extractfile("manifest.json") or pytest.fail("none"))
    assert len(names) == len(set(names)) == 2 + 2 + 2 + 3
    assert [one["RepoTags"] for one in listed] == [["docker.io/library/app:1"], ["docker.io/library/app:2"]]


def test_nothing_half_is_left_and_nothing_whole_is_lost(store_path: Path, tmp_path: Path) -> None:
    with Store.open(store_path) as store:
        layer_path = store.layer_path(store.image("app:2").diff_ids[1])
    layer_path.chmod(0o644)
    layer_path.write_bytes(layer_path.read_bytes().replace(b"etc/top", b"etc/tip"))
    (tmp_path / "saved").write_text("precious")
    for form, path in (("docker-archive", tmp_path / "saved"), ("oci", tmp_path / "folder")):
        done = imagefs("--store", store_path, "save", "--format", form, "-o", path, "app:1", "app:2", check=False)
        assert done.returncode == 6
        assert "layer sha256:" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved", "store"]
    assert (tmp_path / "saved").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (("app:3",), "no such image: app:3", 7),
        (("--format", "oci", "app:1"), "name one that does not exist yet with --output", 2),
        (("--format", "oci", "-o", "full", "app:1"), "Directory not empty", 1),
        (("--format", "tgz", "app:1"), "invalid choice: 'tgz'", 2),
    ],
)
def test_what_cannot_be_saved_is_said(
    store_path: Path, tmp_path: Path, arguments: tuple[str, ...], said: str, status: int
) -> None:
    (tmp_path / "full/of").mkdir(parents=True)
    arguments = tuple(str(tmp_path / "full") if word == "full" else word for word in arguments)
    done = imagefs("--store", store_path, "save", *arguments, check=False)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr


@pytest.mark.tools
@needs("skopeo")
def test_skopeo_reads_what_is_saved(store_path: Path, tmp_path: Path) -> None:
    wanted = {"app:1": ids(store_path)["app:1"], "app:2": ids(store_path)["app:2"]}
    for form, transport in (("docker-archive", "docker-archive"), ("oci-archive", "oci-archive"), ("oci", "oci")):
        path = tmp_path / form
        imagefs("--store", store_path, "save", "--format", form, "-o", path, "app:1", "app:2")
        for name, image_id in wanted.items():
            source = f"{transport}:{path}:{name if form == 'docker-archive' else name.partition(':')[2]}"
            raw = run(["skopeo", "inspect", "--raw", "--config", source]).stdout
            assert f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}" == image_id
        run(["skopeo", "copy", "--insecure-policy", source, f"dir:{tmp_path}/{form}-copy"])


@pytest.mark.tools
@needs("podman")
@needs_root
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_loads_what_is_saved_under_the_same_id(store_path: Path, tmp_path: Path, form: str) -> None:
    names = ["app:1", "app:2"] if form == "docker-archive" else ["app:2"]
    imagefs("--store", store_path, "save", "--format", form, "-o", tmp_path / "saved", *names)
    with podman_storage() as podman:
        podman("load", "-q", "-i", tmp_path / "saved")
        listed = podman("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.splitlines()
    known = ids(store_path)
    assert sorted(listed) == sorted(f"docker.io/library/{name} {known[name]}" for name in names)


class Kept(dict[str, bytes]):
    """Files in memory."""

    def put(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        assert name not in self
        self[name] = b"".join(chunks)
        assert len(self[name]) == size


def test_a_tag_names_an_image_only_where_no_other_has_it(store_path: Path) -> None:
    files = Kept()
    with Store.open(store_path) as store:
        images = {name: store.image(name) for name in ("app:1", "app:2", "other:1")}
        wanted = [Saved(one, (Reference.parse(name),)) for name, one in images.items()]
        save(store, wanted, files, for_docker=False)
    names = [
        one["annotations"]["org.opencontainers.image.ref.name"] for one in json.loads(files["index.json"])["manifests"]
    ]
    assert names == ["app:1", "2", "other:1"]
    assert "manifest.json" not in files


def test_nothing_is_removed_from_the_store_while_it_is_saved(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 0
    keeping = Store.keeping

    @contextlib.contextmanager
    def counted(store: Store) -> Iterator[None]:
        nonlocal depth
        with keeping(store):
            depth += 1
            yield
            depth -= 1

    class Watching(Kept):
        def put(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
            assert depth == 1
            super().put(name, size, chunks)

    monkeypatch.setattr(Store, "keeping", counted)
    with Store.open(store_path) as store:
        save(store, [Saved(store.image("app:2"), ())], Watching(), for_docker=True)
    assert depth == 0


def test_a_file_of_a_folder_is_put_once(tmp_path: Path) -> None:
    FolderFiles(tmp_path).put("a/b", 1, [b"x"])
    with pytest.raises(FileExistsError):
        FolderFiles(tmp_path).put("a/b", 1, [b"y"])
    assert (tmp_path / "a/b").read_bytes() == b"x"
