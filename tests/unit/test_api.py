"""The Python API: what programs get of images, and how it fails."""

import datetime
import gc
import io
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

import imagefs
from imagefs.errors import (
    BlobNotFound,
    FileDamaged,
    ImageNotFound,
    InvalidManifest,
    InvalidReference,
    PathNotFound,
    StoreUnusable,
    UsageError,
)
from imagefs.oci.config import parse_config
from imagefs.store.store import Store
from tests.support.images import add_image
from tests.support.layers import char, dir_, fifo, file, layer, link, sparse, symlink, whiteout

TIME_NS = 1_700_000_000_123_456_789
BINARY = bytes(range(256)) * 9000
BASE = layer(
    dir_("etc", mode=0o750, uid=3, gid=4),
    file("etc/conf", b"one\n", mtime_ns=TIME_NS, uid=1, gid=2, xattrs={"user.k": b"v"}),
    file("etc/gone", b"gone"),
    link("etc/same", "etc/conf"),
    symlink("abs", "/etc/conf"),
    symlink("out", "../../../../etc/conf"),
    symlink("loop", "loop"),
    symlink("broken", "nowhere"),
    symlink("lib", "/etc"),
    file(b"odd\xff\n", b"odd"),
    fifo("fifo"),
    char("null", 1, 3),
)
TOP = layer(
    file("etc/conf", b"two\n", mtime_ns=TIME_NS),
    file("etc/binary", BINARY),
    file("a/b/c.tar.gz", b"deep"),
    whiteout("etc/gone"),
    sparse("holes", 5 * 1024 * 1024, [(1024 * 1024, b"x" * 512)]),
)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [BASE, TOP], "app:1", "ghcr.io/team/app:1")
        add_image(store, [BASE], "app:0")
    return tmp_path / "store"


@pytest.fixture
def store(store_path: Path) -> Iterator[imagefs.ImageStore]:
    with imagefs.open_store(store_path) as store:
        yield store


@pytest.fixture
def image(store: imagefs.ImageStore) -> imagefs.Image:
    return store["app:1"]


# ---- the package ----


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = (
        "import sys, imagefs; before = set(sys.modules);"
        "assert not [name for name in before if name.startswith('imagefs.')];"
        "imagefs.open_store; imagefs.diff;"
        "heavy = {'requests', 'urllib3', 'fuse', 'rich', 'fsspec', 'argparse', 'imagefs.mount', 'imagefs.cli'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(imagefs.__file__).parents[1])


def test_every_public_name_is_there_and_others_are_not() -> None:
    for name in imagefs.__all__:
        assert getattr(imagefs, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        imagefs.nothing  # noqa: B018
    assert (Path(imagefs.__file__).parent / "py.typed").exists()


# ---- the store ----


def test_images_are_found_by_name_and_id_and_told_apart(store: imagefs.ImageStore) -> None:
    image = store["app:1"]
    assert image == store["docker.io/library/app:1"] == store[image.id] == store[image.id[7:19]]
    assert hash(image) == hash(store["ghcr.io/team/app:1"])
    assert image != store["app:0"]
    assert image != image.at_layer(1)
    assert len(store) == 2
    assert {one.id for one in store} == {image.id, store["app:0"].id}
    assert "app:1" in store
    assert "app:2" not in store
    assert "No Reference" not in store
    assert 5 not in store


def test_what_is_not_found_is_a_key_error_with_the_nearest_name(store: imagefs.ImageStore) -> None:
    with pytest.raises(KeyError) as caught:
        store["app:11"]
    assert isinstance(caught.value, ImageNotFound)
    assert str(caught.value) == "no such image: app:11; did you mean app:1 or app:0?"
    with pytest.raises(ValueError, match="invalid reference format"):
        store["No Reference"]


def test_a_store_is_made_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEFS_STORE", str(tmp_path / "elsewhere"))
    with pytest.raises(StoreUnusable):
        imagefs.open_store()
    with imagefs.open_store(create=True) as store:
        assert store.path == tmp_path / "elsewhere"
        assert list(store) == []


def test_a_closed_store_says_so_and_open_files_stay_readable(store_path: Path) -> None:
    with imagefs.open_store(store_path) as store:
        image = store["app:1"]
        path = image.path("etc/binary")
        file = path.open("rb")
        assert path.exists()
    for ask in (path.exists, path.read_bytes, lambda: image.layers, lambda: store["app:1"], lambda: len(store)):
        with pytest.raises(StoreUnusable, match="it was closed"):
            ask()
    assert file.read() == BINARY
    file.close()


def test_a_closed_store_keeps_no_file_open(store_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        with imagefs.open_store(store_path) as store:
            for image in (store["app:1"], store["app:1@layer:1"]):
                assert image.path("abs").read_bytes()
            assert len(os.listdir("/proc/self/fd")) > before
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_what_is_open_outlives_the_removal_of_its_image(store_path: Path, image: imagefs.Image) -> None:
    path = image.path("etc/conf")
    with path.open("rb", buffering=0) as file:
        with Store.open(store_path) as other:
            row = other.image("app:1")
            other.remove_names(row, tags=row.tags, digests=row.digests)
            other.sweep()
            assert not other.layer_path(row.diff_ids[1]).exists()
        assert file.read(100) == b"two\n"
    assert image.path("etc/binary").read_bytes() == BINARY  # it was entered as a whole


# ---- an image ----


def test_an_image_says_what_it_is(image: imagefs.Image) -> None:
    assert image.names == ("app:1", "ghcr.io/team/app:1")
    assert image.created == datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert image.size == len(BASE) + len(TOP) == sum(one.size for one in image.layers)
    assert [one.created_by for one in image.layers] == ["", ""]
    assert image.config.platform.architecture == "amd64"
    assert image.config.raw["rootfs"] == {"type": "layers", "diff_ids": [one.diff_id for one in image.layers]}
    assert image.manifest["config"]["digest"] == image.id  # type: ignore[index]  # a document
    assert repr(image) == f"<imagefs.Image 'app:1' {image.id[7:19]}>"


def test_a_config_is_typed_and_wrong_types_are_errors() -> None:
    from imagefs.api.config import typed_config

    document: dict[str, object] = {"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    container: dict[str, object] = {
        "Env": ["PATH=/bin:/sbin", "EMPTY=", "EQUALS=a=b", "PATH=/last"],
        "Entrypoint": ["/init"],
        "Cmd": None,
        "User": "1000:1000",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"b": "2", "a": "1"},
        "StopSignal": "SIGINT",
    }
    config = typed_config(parse_config(json.dumps(document | {"config": container}).encode()))
    assert dict(config.env) == {"PATH": "/last", "EMPTY": "", "EQUALS": "a=b"}
    assert (config.entrypoint, config.cmd, config.user) == (("/init",), (), "1000:1000")
    assert (config.exposed_ports, config.volumes) == (("80/tcp", "53/udp"), ("/data",))
    assert list(config.labels.items()) == [("b", "2"), ("a", "1")]
    assert (config.working_dir, config.stop_signal) == ("/srv", "SIGINT")
    for wrong in ({"Env": "PATH=/"}, {"Env": [5]}, {"Cmd": {"a": 1}}, {"User": 0}, {"ExposedPorts": ["80"]}):
        with pytest.raises(InvalidManifest, match=next(iter(wrong))):
            typed_config(parse_config(json.dumps(document | {"config": container | wrong}).encode()))


def test_an_image_can_be_seen_as_of_each_layer(store: imagefs.ImageStore, image: imagefs.Image) -> None:
    base = image.at_layer(1)
    assert base.path("etc/conf").read_bytes() == b"one\n"
    assert base.path("etc/gone").exists()
    assert not image.path("etc/gone").exists()
    assert base == store["app:1@layer:1"]
    assert len(base.layers) == 1
    assert base.at_layer(2) == image
    assert list(image.at_layer(0).root.iterdir()) == []
    for count in (3, -1):
        with pytest.raises(InvalidReference, match="2 layers"):
            image.at_layer(count)


# ---- paths ----


def test_a_path_alone_is_what_pathlib_makes_of_it(image: imagefs.Image) -> None:
    pure = PurePosixPath("/a/b/c.tar.gz")
    path = image.path("a/b") / "c.tar.gz"
    assert (str(path), path.name, path.stem, path.suffix) == (str(pure), pure.name, pure.stem, pure.suffix)
    assert (path.suffixes, path.parts) == (pure.suffixes, pure.parts)
    assert [str(parent) for parent in path.parents] == [str(parent) for parent in pure.parents]
    assert path.parent == image.path("/a/b") == image.path(b"a//b/.")
    assert path / "/etc" == image.path("etc")
    assert str(path.with_name("x")) == "/a/b/x"
    assert str(path.with_suffix(".y")) == "/a/b/c.tar.y"
    assert path.relative_to(path.parent) == PurePosixPath("c.tar.gz")
    assert path.is_relative_to("/a")
    assert path.match("*.gz")
    assert str(image.path("//etc")) == "/etc"
    assert image.root.name == ""
    assert sorted([path, image.root, path.parent]) == [image.root, path.parent, path]
    assert len({path, image.path("/a/b/c.tar.gz")}) == 1
    assert path != image.at_layer(1).path("a/b/c.tar.gz")
    assert repr(path) == "ImagePath('app:1', '/a/b/c.tar.gz')"


def test_attributes_are_those_that_stat_shows(image: imagefs.Image) -> None:
    status = image.at_layer(1).path("etc/conf").stat()
    assert isinstance(status, os.stat_result)
    assert (stat.S_ISREG(status.st_mode), status.st_size, status.st_nlink) == (True, 4, 2)
    assert (status.st_uid, status.st_gid, status.st_blocks) == (1, 2, 1)
    assert status.st_mtime_ns == status.st_ctime_ns == status.st_atime_ns == TIME_NS
    assert status.st_mtime == TIME_NS / 10**9
    assert int(status.st_mtime) == status[stat.ST_MTIME]
    assert os.path.samestat(status, image.at_layer(1).path("etc/same").stat())
    assert image.at_layer(1).path("etc/conf").xattrs() == {"user.k": b"v"}
    device = image.path("null").stat()
    assert (os.major(device.st_rdev), os.minor(device.st_rdev)) == (1, 3)
    assert stat.S_ISFIFO(image.path("fifo").stat().st_mode)
    assert image.path("holes").stat().st_size == 5 * 1024 * 1024
    assert image.path("holes").stat().st_blocks == 1


def test_where_a_thing_is_from_is_known_without_reading(image: imagefs.Image) -> None:
    layers = [one.diff_id for one in image.layers]
    assert image.path("etc/conf").layer() == image.path("abs").layer() == layers[1]
    assert image.path("abs").layer(follow_symlinks=False) == layers[0]
    assert image.path("a").layer() is None  # a directory that no layer mentions
    assert image.path("etc/conf").sha256() == "27dd8ed44a83ff94d557f9fd0412ed5a8cbca69ea04922d88c01184a07300a5a"
    assert image.path("etc").sha256() is None


def test_symlinks_are_followed_inside_the_image_only(image: imagefs.Image) -> None:
    for name in ("abs", "out", "lib/conf", "lib/../etc/conf", "../../etc/conf"):
        assert image.path(name).read_text() == "two\n"
        assert str(image.path(name).resolve()) == "/etc/conf"
    assert image.path("out").readlink() == "../../../../etc/conf"
    assert image.path("abs").is_symlink()
    assert image.path("abs").is_file()
    assert image.path("lib").is_dir()
    assert stat.S_ISLNK(image.path("lib").lstat().st_mode)
    assert not image.path("etc").is_symlink()
    for name in ("loop", "broken", "etc/conf/below", "nowhere"):
        path = image.path(name)
        assert not path.exists()
        assert not path.is_file()
        assert not path.is_dir()
    assert image.path("loop").exists(follow_symlinks=False)
    assert image.path("broken").is_symlink()


def test_what_fails_fails_as_python_programs_expect(image: imagefs.Image) -> None:
    for ask in (
        image.path("nowhere").stat,
        image.path("broken").read_bytes,
        image.path("etc/conf/below").open,
        image.path("nowhere").resolve,
        lambda: list(image.path("nowhere").iterdir()),
    ):
        with pytest.raises(FileNotFoundError, match="no such file or directory in app:1: /") as caught:
            ask()
        assert isinstance(caught.value, PathNotFound)
    assert caught.value.filename == "/nowhere"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.path) == (PathNotFound, str(caught.value), b"nowhere")
    with pytest.raises(NotADirectoryError):
        list(image.path("etc/conf").iterdir())
    with pytest.raises(IsADirectoryError):
        image.path("etc").open()
    with pytest.raises(OSError, match="Too many levels"):
        image.path("loop").stat()
    with pytest.raises(OSError, match="Invalid argument"):
        image.path("etc").readlink()
    for special in ("fifo", "null"):
        with pytest.raises(OSError, match="No such device"):
            image.path(special).open("rb")


def test_names_that_are_no_text_are_kept_whole(image: imagefs.Image) -> None:
    (path,) = image.root.glob("odd*")
    assert path.name == "odd\udcff\n"
    assert bytes(path) == b"/odd\xff\n"
    assert path.read_bytes() == image.path(b"odd\xff\n").read_bytes() == (image.root / path.name).read_bytes() == b"odd"


# ---- directories ----


def test_walks_are_as_os_walk_does_them(image: imagefs.Image) -> None:
    seen = [(str(top), directories, files) for top, directories, files in image.walk()]
    assert seen == [
        ("/", ["a", "etc"], ["abs", "broken", "fifo", "holes", "lib", "loop", "null", "odd\udcff\n", "out"]),
        ("/a", ["b"], []),
        ("/a/b", [], ["c.tar.gz"]),
        ("/etc", [], ["binary", "conf", "same"]),
    ]
    assert [str(top) for top, _, _ in image.walk(top_down=False)] == ["/a/b", "/a", "/etc", "/"]
    pruned = []
    for top, directories, _ in image.walk():
        pruned.append(str(top))
        directories[:] = [name for name in directories if name != "a"]
    assert pruned == ["/", "/etc"]
    with pytest.raises(NotADirectoryError):
        list(image.path("abs").walk())


@pytest.mark.parametrize(
    "pattern",
    ["*", "etc/*", "*/conf", "**/*", "**/b/*", "**/*.gz", "etc", "e?c/[bc]*", "**/**/conf", "nowhere/*", "lib/*",
     "*/", "etc/conf/*", "**/c.tar.gz", "[!e]*/*", "*/../etc/conf"],
)  # fmt: skip
def test_patterns_match_what_pathlib_matches_on_a_disk(image: imagefs.Image, tmp_path: Path, pattern: str) -> None:
    disk = tmp_path / "disk"
    for top, directories, files in image.walk():
        for name in directories:
            (disk / str(top)[1:] / name).mkdir(parents=True)
        for name in files:
            path = top / name
            target = disk / str(top)[1:] / name
            if path.is_symlink():
                text = path.readlink()
                # From the root of an image, not of the machine.
                target.symlink_to(f"{disk}/etc{text.partition('etc')[2]}" if "etc" in text else text)
            else:
                target.touch()
    expected = sorted({path.relative_to(disk).as_posix() for path in disk.glob(pattern)})
    assert sorted(str(path)[1:] or "." for path in image.root.glob(pattern)) == expected


def test_any_depth_at_the_end_of_a_pattern_means_directories(image: imagefs.Image) -> None:
    assert [str(path) for path in image.root.glob("**")] == ["/", "/a", "/a/b", "/etc"]
    assert [str(path) for path in image.root.glob("**/b/**")] == ["/a/b"]


@pytest.mark.parametrize("pattern", ["", "/etc", "a**", "."])
def test_patterns_that_mean_nothing_are_refused(image: imagefs.Image, pattern: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        image.root.glob(pattern)


def test_a_tree_deeper_than_python_recurses_is_walked(tmp_path: Path) -> None:
    depth = 1500
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [layer(file("/".join(["d"] * depth) + "/end", b"here"))], "deep:1")
    with imagefs.open_store(tmp_path / "store") as opened:
        image = opened["deep:1"]
        assert sum(1 for _ in image.walk()) == depth + 1
        assert sum(1 for _ in image.walk(top_down=False)) == depth + 1
        (end,) = image.root.rglob("end")
        assert end.read_bytes() == b"here"


# ---- content ----


def test_files_are_pythons_own_kinds_of_files(image: imagefs.Image) -> None:
    path = image.path("etc/binary")
    with path.open("rb") as file:
        assert isinstance(file, io.BufferedReader)
        assert file.seek(-3, os.SEEK_END) == len(BINARY) - 3
        assert file.read() == BINARY[-3:]
        assert file.read() == b""
        file.seek(1000)
        file.seek(5, os.SEEK_CUR)
        assert file.peek(1)[:1] == BINARY[1005:1006]
        into = bytearray(70_000)
        assert file.readinto(into) == len(into)
        assert bytes(into) == BINARY[1005:71_005]
        file.seek(len(BINARY) + 10)
        assert file.read(1) == b""
        with pytest.raises(ValueError, match="position"):
            file.seek(-1)
        assert not file.writable()
    raw = path.open("rb", 0)
    with pytest.raises(ValueError, match="position"):
        raw.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        raw.seek(0, 9)
    assert raw.readall() == path.read_bytes() == BINARY
    raw.close()
    raw.close()
    for ask in (raw.tell, raw.readable, raw.seekable, raw.readall, lambda: raw.seek(0)):
        with pytest.raises(ValueError, match="closed file"):
            ask()
    holes = image.path("holes").read_bytes()
    assert holes == bytes(1024 * 1024) + b"x" * 512 + bytes(4 * 1024 * 1024 - 512)


def test_text_is_read_as_text(image: imagefs.Image) -> None:
    with image.path("etc/conf").open() as lines:
        assert isinstance(lines, io.TextIOWrapper)
        assert list(lines) == ["two\n"]
    assert image.path("etc/conf").read_text("ascii") == "two\n"
    with pytest.raises(UnicodeDecodeError):
        image.path("etc/binary").read_text()
    assert "\ufffd" in image.path("etc/binary").read_text(errors="replace")


def test_nothing_can_be_opened_for_writing(image: imagefs.Image) -> None:
    for mode in ("w", "wb", "a", "xb", "r+", "rb+"):
        with pytest.raises(OSError, match="Read-only file system"):
            image.path("etc/conf").open(mode)
    for wrong in (("u", -1), ("rbt", -1), ("r", 0)):
        with pytest.raises(ValueError, match=r"mode|unbuffered"):
            image.path("etc/conf").open(*wrong)
    with pytest.raises(ValueError, match="binary mode"):
        image.path("etc/conf").open("rb", encoding="utf-8")


def test_what_was_changed_in_the_store_is_not_read(store_path: Path) -> None:
    with Store.open(store_path) as low:
        tar = low.layer_path(low.image("app:1").diff_ids[1])
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes().replace(b"two\n", b"2wo\n"))
    with imagefs.open_store(store_path) as store, pytest.raises(FileDamaged, match="etc/conf"):
        store["app:1"].path("etc/conf").read_bytes()
    with imagefs.open_store(store_path, verify=False) as store:
        assert store["app:1"].path("etc/conf").read_bytes() == b"2wo\n"
    tar.unlink()
    with imagefs.open_store(store_path) as store:
        with pytest.raises(BlobNotFound):
            store["app:1"].path("etc/conf").read_bytes()
        with pytest.raises(BlobNotFound):
            _ = store["app:1"].layers


def test_threads_share_a_store_its_images_and_their_paths(store: imagefs.ImageStore) -> None:
    image = store["app:1"].at_layer(2)
    path = image.path("etc/binary")
    before = [(str(top), directories, files) for top, directories, files in store["app:1"].walk()]

    def look(number: int) -> bool:
        one = store["app:1"] if number % 2 else image
        with path.open("rb") as file:
            file.seek(number * 1000)
            assert file.read(5000) == BINARY[number * 1000 : number * 1000 + 5000]
        assert [(str(top), directories, files) for top, directories, files in one.walk()] == before
        assert one.at_layer(1).path("abs").read_text() == "one\n"
        return path.stat().st_size == len(BINARY)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(64)))


# ---- differences ----


def test_differences_are_typed_and_lead_to_both_sides(store: imagefs.ImageStore) -> None:
    old, new = store["app:0"], store["app:1"]
    changes = {change.path: change for change in imagefs.diff(old, new)}
    assert {path: (change.kind, change.aspects) for path, change in changes.items()} == {
        "/a": ("added", ()),
        "/a/b": ("added", ()),
        "/a/b/c.tar.gz": ("added", ()),
        "/etc/binary": ("added", ()),
        "/etc/conf": ("changed", ("content", "owner", "xattrs")),
        "/etc/gone": ("deleted", ()),
        "/holes": ("added", ()),
    }
    conf = changes["/etc/conf"]
    assert conf.old is not None
    assert conf.new is not None
    assert (conf.old.read_text(), conf.new.read_text()) == ("one\n", "two\n")
    assert changes["/etc/gone"].new is changes["/a"].old is None
    assert list(imagefs.diff(new, new)) == []
    below = imagefs.diff(old, new, path="etc", ignore=["owner", "xattrs"])
    assert [(change.path, change.aspects) for change in below] == [
        ("/etc/binary", ()),
        ("/etc/conf", ("content",)),
        ("/etc/gone", ()),
    ]
    with pytest.raises(UsageError, match="found 'colour'"):
        imagefs.diff(old, new, ignore=["colour"])
    with pytest.raises(PathNotFound):
        imagefs.diff(old, new, path="nowhere")


def test_images_of_different_stores_can_be_compared(store: imagefs.ImageStore, tmp_path: Path) -> None:
    with Store.open(tmp_path / "other", create=True) as low:
        add_image(low, [BASE], "app:0")
        add_image(low, [BASE, TOP], "app:1")
    with imagefs.open_store(tmp_path / "other") as other:
        assert list(imagefs.diff(store["app:1"], other["app:1"])) == []
        assert len(list(imagefs.diff(store["app:1"], other["app:0"]))) == 7
