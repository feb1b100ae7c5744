"""``image://`` for fsspec: its own tests of reading, our rules for what a URL means, and pandas as a judge."""

import os
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

import imagefs
from imagefs.errors import PathNotFound, StoreUnusable
from imagefs.store.store import Store
from tests.support.images import add_image
from tests.support.layers import Member, dir_, fifo, file, layer, symlink

fsspec = pytest.importorskip("fsspec")  # the optional extra
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests  # noqa: E402

from imagefs.api.fsspec import ImageFileSystem  # noqa: E402

TIME_NS = 1_700_000_000 * 10**9


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """Make the URLs known also where imagefs is not installed, and forget open stores afterwards."""
    fsspec.register_implementation("image", ImageFileSystem, clobber=True)
    yield
    for kind in (ImageFileSystem, _Written):
        kind.clear_instance_cache()


# ---- fsspec's own tests, as far as they only read ----


def _files(folder: str, names: dict[str, bytes]) -> list[Member]:
    return [file(f"{folder}/{name}", data) for name, data in names.items()]


def _nested(*tops: str) -> dict[str, bytes]:
    return {"file1": b"", "file2": b""} | {
        f"{top}/{name}": b"" for top in tops for name in ("subfile1", "subfile2", "nesteddir/nestedfile")
    }


SCENARIOS = layer(
    *_files("src", {"file": b""}),
    *_files("bulk/source", _nested("subdir")),
    *_files("glob/source", _nested("subdir0", "subdir1")),
    *_files("prefix/source", {"subdir.txt": b"", "subdir/subfile.txt": b""}),
    *_files(
        "hashed/source", {f"{md5(b'%d' % i, usedforsecurity=False).hexdigest()}.txt": b"%d" % i for i in range(10)}
    ),
)


class _Written(ImageFileSystem):
    """For a test that first writes: what it writes is there already."""

    def mkdir(self, path: str, **_: Any) -> None:  # type: ignore[override]  # that one never returns
        assert self.isdir(path)

    def touch(self, path: str, **_: Any) -> None:  # type: ignore[override]  # that one never returns
        assert self.size(path) == 0


class TestGetOfFsspec(AbstractFixtures, AbstractGetTests):  # type: ignore[misc]  # fsspec has no types
    """The scenarios that fsspec's tests would write are in an image already."""

    @pytest.fixture(scope="class")
    @classmethod
    def local_fs(cls) -> Any:
        return fsspec.filesystem("file", auto_mkdir=True)

    @pytest.fixture
    def fs(self, tmp_path: Path) -> ImageFileSystem:
        with Store.open(tmp_path / "store", create=True) as store:
            add_image(store, [SCENARIOS], "ghcr.io/test/scenarios:1")
        return _Written(tmp_path / "store")

    @pytest.fixture
    def fs_path(self) -> str:
        return "ghcr.io/test/scenarios:1"

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, fs_path: str) -> str:
        return f"{fs_path}/bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self, fs_path: str) -> str:
        return f"{fs_path}/glob/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, fs_path: str) -> str:
        return f"{fs_path}/prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, fs_path: str) -> str:
        return f"{fs_path}/hashed/source"


# ---- what a URL means ----

BASE = layer(
    dir_("etc"),
    file("etc/conf", b"0123456789\n", mtime_ns=TIME_NS),
    symlink("etc/link", "/etc/conf"),
    symlink("lib", "/etc"),
    symlink("self", "."),
    symlink("broken", "nowhere"),
    fifo("fifo"),
    file("data/table.csv", b"name,count\napple,3\npear,4\n"),
    file(b"odd\xff", b"odd"),
)
TOP = layer(file("etc/conf", b"new\n"))


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [BASE, TOP], "app:1", "app:latest")
        add_image(store, [BASE], "ghcr.io/team/app:0", "localhost:5000/app:2", "ghcr.io/team:latest", label="other")
        add_image(store, [TOP], label="nameless")
    return tmp_path / "store"


@pytest.fixture
def fs(store_path: Path) -> ImageFileSystem:
    return ImageFileSystem(store_path)


def test_the_longest_beginning_that_names_an_image_counts(store_path: Path, fs: ImageFileSystem) -> None:
    with imagefs.open_store(store_path) as store:
        app, nameless = store["app:1"], next(image for image in store if not image.names)
    for beginning in ("app:1", "app", "docker.io/library/app:1", app.id, f"app@{app.manifest_digest}", "image://app:1"):
        assert fs.cat(f"{beginning}/etc/conf") == b"new\n"
    for beginning in ("ghcr.io/team/app:0", "localhost:5000/app:2", "app:1@layer:1", "app@layer:1", "ghcr.io/team"):
        assert fs.cat(f"image://{beginning}/etc/conf") == b"0123456789\n"
    assert fs.cat(f"image://{nameless.id}/etc/conf") == b"new\n"
    with fsspec.open("image://app:1/etc/conf", "r", store=store_path) as text:
        assert text.read() == "new\n"


@pytest.mark.parametrize(
    "path",
    [
        "app:9/etc/conf",
        "app:1/nowhere",
        "app:1/etc/conf/x",
        "ghcr.io/nobody",
        "nothing",
        "No Image/x",
        "app@sha256:zz/etc",
        "app@layer:1/nowhere",
        "app@layer:9/etc",
        "app:1@layer:x/etc",
        "sha256:/etc",
        "sha256:ffffffffffffffffffff/etc",
        "@/etc",
        ":/etc",
        "app:1/\0",
        "app:1/\udcfe",
        "\udcff/x",
        "a" * 300 + "/x",
        "[::1]:5000/app",
        "http://app:1/etc",
    ],
    ids=ascii,
)
def test_what_leads_nowhere_is_a_file_not_found(fs: ImageFileSystem, path: str) -> None:
    assert not fs.exists(path)
    assert not fs.isdir(path)
    assert fs.find(path) == []
    for ask in (fs.info, fs.ls, fs.open, fs.cat_file):
        with pytest.raises(FileNotFoundError) as caught:
            ask(path)
        assert isinstance(caught.value, PathNotFound)


def test_names_of_images_are_folders(store_path: Path, fs: ImageFileSystem) -> None:
    with imagefs.open_store(store_path) as store:
        nameless = next(image.id for image in store if not image.names)
    tops = ["app:1", "app:latest", "ghcr.io", "localhost:5000", nameless]
    assert fs.ls("", detail=False) == fs.ls("image://", detail=False) == tops
    assert fs.ls("localhost:5000") == [{"name": "localhost:5000/app:2", "size": 0, "type": "directory"}]
    assert fs.ls("ghcr.io", detail=False) == ["ghcr.io/team", "ghcr.io/team:latest"]
    # Both an image, whose tag is implied, and a folder of images.
    both = fs.ls("ghcr.io/team", detail=False)
    assert {"ghcr.io/team/etc", "ghcr.io/team/app:0"} < set(both)
    for folder in ("", "ghcr.io", "ghcr.io/team", "app:1", "app:1/etc", "app:1/lib"):
        assert fs.isdir(folder)
        assert fs.info(folder)["type"] == "directory"
        with pytest.raises(IsADirectoryError):
            fs.open(folder)
    assert "ghcr.io/team/app:0/etc/conf" in fs.find("ghcr.io")
    images = ["app:1", "app:latest", "ghcr.io/team/app:0", "ghcr.io/team", "ghcr.io/team:latest"]
    images += ["localhost:5000/app:2", nameless]
    assert fs.glob("**/etc/conf") == [f"{top}/etc/conf" for top in images]


def test_images_that_come_and_go_are_noticed(store_path: Path, fs: ImageFileSystem) -> None:
    assert not fs.exists("later:1/etc/conf")
    with Store.open(store_path) as store:
        add_image(store, [TOP], "later:1", "app:1", label="later")
        assert fs.cat("later:1/etc/conf") == b"new\n"
        assert not fs.exists("app:1/lib")  # the tag has moved
        row = store.image("later:1")
        store.remove_names(row, tags=row.tags, digests=row.digests)
    assert not fs.exists("later:1")


# ---- listings and attributes ----


def test_things_are_described_as_fsspec_describes_local_ones(fs: ImageFileSystem) -> None:
    info = fs.info("app:1@layer:1/etc/conf")
    assert (info["name"], info["type"], info["size"]) == ("app:1@layer:1/etc/conf", "file", 11)
    assert (info["mode"], info["uid"], info["nlink"], info["islink"]) == (0o100644, 0, 1, False)
    assert fs.modified("app@layer:1/etc/conf").timestamp() == fs.created("app@layer:1/etc/conf").timestamp() == 1.7e9
    assert fs.size("app:1/etc/link") == 4
    assert fs.info("app:1/etc/link")["destination"] == "/etc/conf"
    assert fs.isfile("app:1/etc/link")
    types = {info["name"][6:]: info["type"] for info in fs.ls("app:1")}
    assert types == {
        "broken": "other",
        "data": "directory",
        "etc": "directory",
        "fifo": "other",
        "lib": "other",
        "odd\udcff": "file",
        "self": "other",
    }
    assert fs.ls("app:1/etc/conf", detail=False) == ["app:1/etc/conf"]
    assert fs.ls("app:1/lib", detail=False) == ["app:1/lib/conf", "app:1/lib/link"]
    with pytest.raises(NotImplementedError):
        fs.modified("ghcr.io")


def test_walks_end_also_where_symlinks_lead_round(fs: ImageFileSystem) -> None:
    walked = list(fs.walk("app:1"))
    assert [top for top, _, _ in walked] == ["app:1", "app:1/data", "app:1/etc"]
    assert walked[0][1:] == (["data", "etc"], ["broken", "fifo", "lib", "odd\udcff", "self"])
    assert [top for top, _, _ in fs.walk("app:1", topdown=False)] == ["app:1/data", "app:1/etc", "app:1"]
    assert [top for top, _, _ in fs.walk("app:1", maxdepth=1)] == ["app:1"]
    for top, directories, _ in fs.walk("app:1", detail=True):
        assert top != "app:1/data"
        directories.pop("data", None)
    assert fs.find("app:1/etc") == fs.find("app:1/etc/") == ["app:1/etc/conf", "app:1/etc/link"]
    assert fs.glob("app:1/**/*.csv") == ["app:1/data/table.csv"]
    assert fs.glob("app:1/e*/c?nf") == ["app:1/etc/conf"]
    assert fs.du("app:1/etc") == 8
    with pytest.raises(FileNotFoundError):
        list(fs.walk("nowhere", on_error="raise"))
    failures: list[OSError] = []
    assert list(fs.walk("nowhere", on_error=failures.append)) == []
    assert len(failures) == 1
    with pytest.raises(ValueError, match="maxdepth"):
        next(fs.walk("app:1", maxdepth=0))


def test_a_tree_deeper_than_python_recurses_is_found(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [layer(file("/".join(["d"] * 1100) + "/end", b"here"))], "deep:1")
    (end,) = ImageFileSystem(tmp_path / "store").find("deep:1")
    assert end.endswith("d/end")


# ---- reading ----


@pytest.mark.parametrize("start", [None, 0, 3, -4, 11, 20, -20])
@pytest.mark.parametrize("end", [None, 0, 5, -2, 11, 20, -20])
def test_parts_of_files_are_slices(fs: ImageFileSystem, start: int | None, end: int | None) -> None:
    assert fs.cat_file("app:1@layer:1/etc/conf", start, end) == b"0123456789\n"[start:end]


def test_files_are_read_in_every_way_that_fsspec_has(fs: ImageFileSystem) -> None:
    with fs.open("app:1@layer:1/etc/conf") as opened:
        assert (opened.size, opened.read(3), opened.tell()) == (11, b"012", 3)
        opened.seek(-2, os.SEEK_END)
        assert opened.read() == b"9\n"
    assert fs.head("app:1@layer:1/etc/conf", 4) == b"0123"
    assert fs.tail("app:1@layer:1/etc/conf", 4) == b"789\n"
    assert fs.cat(["app:1/etc/conf", "app/etc/link"]) == {"app:1/etc/conf": b"new\n", "app/etc/link": b"new\n"}
    assert fs.cat_ranges(["app@layer:1/etc/conf"] * 2, [0, 5], [2, 7]) == [b"01", b"56"]
    assert fs.read_text("app:1/etc/conf") == "new\n"
    assert fs.read_block("app:1@layer:1/etc/conf", 2, 3) == b"234"
    mapped = fs.get_mapper("app:1/data")
    assert mapped["table.csv"].startswith(b"name,count")
    again = ImageFileSystem.from_json(fs.to_json())
    assert again.cat("app:1/etc/conf") == b"new\n"


def test_a_whole_image_is_copied_but_for_what_is_no_file(
    fs: ImageFileSystem, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fs.get("app:1", str(tmp_path / "copy"), recursive=True)
    found = sorted(os.fsencode(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*"))
    assert found == [b"data", b"data/table.csv", b"etc", b"etc/conf", b"etc/link", b"odd\xff"]
    assert (tmp_path / "copy/etc/link").read_bytes() == b"new\n"
    said = sorted(record.getMessage().split()[2] for record in caplog.records)
    assert said == ["app:1/broken", "app:1/fifo", "app:1/lib", "app:1/self"]
    with pytest.raises(FileNotFoundError):
        fs.get("app:1/broken", str(tmp_path / "broken"))
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize(
    "write",
    [
        lambda fs: fs.open("app:1/new", "wb"),
        lambda fs: fs.open("app:1/etc/conf", "ab"),
        lambda fs: fs.open("app:1/etc/conf", "w"),
        lambda fs: fs.open("app:1/etc/conf", "r+b"),
        lambda fs: fs.mkdir("app:1/new"),
        lambda fs: fs.mkdirs("app:1/new"),
        lambda fs: fs.makedirs("app:1/new", exist_ok=True),
        lambda fs: fs.makedir("app:1/new"),
        lambda fs: fs.rmdir("app:1/etc"),
        lambda fs: fs.rm("app:1", recursive=True),
        lambda fs: fs.rm_file("app:1/etc/conf"),
        lambda fs: fs.delete("app:1/etc/conf"),
        lambda fs: fs.touch("app:1/etc/conf"),
        lambda fs: fs.pipe("app:1/etc/conf", b"x"),
        lambda fs: fs.pipe_file("app:1/etc/conf", b"x"),
        lambda fs: fs.write_text("app:1/etc/conf", "x"),
        lambda fs: fs.put(__file__, "app:1/new"),
        lambda fs: fs.upload(__file__, "app:1/new"),
        lambda fs: fs.put_file(__file__, "app:1/new"),
        lambda fs: fs.cp("app:1/etc/conf", "app:1/new"),
        lambda fs: fs.copy("app:1/etc/conf", "app:1/new"),
        lambda fs: fs.mv("app:1/etc/conf", "app:1/new"),
        lambda fs: fs.rename("app:1/etc/conf", "app:1/new"),
    ],
)
def test_everything_that_writes_is_refused(fs: ImageFileSystem, write: Callable[[ImageFileSystem], object]) -> None:
    with pytest.raises(OSError, match="Read-only file system"):
        write(fs)
    assert fs.cat("app:1/etc/conf") == b"new\n"
    assert not fs.exists("app:1/new")


def test_pandas_reads_a_table_out_of_an_image(store_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv("image://ghcr.io/team/app:0/data/table.csv", storage_options={"store": str(store_path)})
    assert table.to_dict("list") == {"name": ["apple", "pear"], "count": [3, 4]}


def test_other_file_systems_of_fsspec_build_on_it(store_path: Path, tmp_path: Path) -> None:
    options = {"store": str(store_path)}
    with fsspec.open(
        "simplecache::image://app:1/etc/conf", image=options, simplecache={"cache_storage": str(tmp_path / "c")}
    ) as file:
        assert file.read() == b"new\n"
    below = fsspec.filesystem("dir", path="app:1/etc", target_protocol="image", target_options=options)
    assert below.ls("", detail=False) == ["conf", "link"]
    assert below.cat("link") == b"new\n"


def test_threads_share_a_file_system(fs: ImageFileSystem) -> None:
    def look(number: int) -> tuple[bytes, int]:
        return fs.cat_file("app@layer:1/etc/conf", number % 10, number % 10 + 1), len(fs.find(""))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(look, range(40)))
    assert [part for part, _ in found] == [b"%d" % (number % 10) for number in range(40)]
    assert len({count for _, count in found}) == 1


# ---- where it is found ----


def test_the_store_is_that_of_the_command_line(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEFS_STORE", str(store_path))
    with fsspec.open("image://app:1/etc/conf") as file:
        assert file.read() == b"new\n"
    monkeypatch.setenv("IMAGEFS_STORE", str(store_path / "nowhere"))
    ImageFileSystem.clear_instance_cache()
    with pytest.raises(StoreUnusable):
        fsspec.open("image://app:1/etc/conf")


def test_the_package_says_where_fsspec_finds_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["fsspec.specs"][ImageFileSystem.protocol].partition(":")
    assert (module, name) == (ImageFileSystem.__module__, ImageFileSystem.__name__)
