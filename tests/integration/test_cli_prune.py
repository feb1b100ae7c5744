"""``prune`` and ``df`` by their command line."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import imagefs
from tests.support.images import add_image
from tests.support.layers import file, layer
from tests.support.mounts import mounted, needs_fuse

SHARED = layer(file("shared", b"s" * 500_000))
OWN = layer(file("own", b"o" * 300_000))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as opened:
        add_image(opened, [SHARED, OWN], "app:1", created="2024-01-01T00:00:00Z", label="old")
        add_image(opened, [SHARED], "app:1", created="2024-02-01T00:00:00Z", label="new")  # the tag moves
        add_image(opened, [SHARED], "kept:1", created="2024-03-01T00:00:00Z", label="kept")
    return tmp_path / "store"


def names(store: Path) -> set[str]:
    with Store.open(store) as opened:
        return {name.familiar for image in opened.images() for name in image.tags or image.digests} | {
            "<none>" for image in opened.images() if not image.tags
        }


def layers(store: Path) -> int:
    return len(list((store / "layers" / "sha256").glob("*.tar")))


def test_an_image_that_lost_its_tag_stays_until_it_is_pruned(store: Path) -> None:
    assert names(store) == {"app:1", "kept:1", "<none>"}
    listing = imagefs("--store", store, "prune", "--dry-run").stdout
    assert "<none>" in listing
    assert "Would reclaim: 3" in listing
    assert names(store) == {"app:1", "kept:1", "<none>"}
    done = imagefs("--store", store, "prune", "-f").stdout.splitlines()
    assert done[0].split() == ["IMAGE", "ID", "NAME", "SIZE", "UNIQUE", "SIZE"]
    assert done[-2].startswith("deleted: sha256:")
    assert done[-1].startswith("Total reclaimed space: 3")
    assert names(store) == {"app:1", "kept:1"}
    assert layers(store) == 1
    assert imagefs("--store", store, "prune", "-f").stdout == "Total reclaimed space: 0B\n"


def test_nothing_is_removed_where_nobody_can_be_asked(store: Path) -> None:
    done = imagefs("--store", store, "prune", check=False)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert "<none>" in names(store)


def test_all_images_go_on_request_and_filters_limit_it(store: Path) -> None:
    imagefs("--store", store, "prune", "-af", "--filter", "label=label=kept")
    assert names(store) == {"app:1", "<none>"}
    imagefs("--store", store, "prune", "-af", "--filter", "until=2024-01-15T00:00:00Z")
    assert names(store) == {"app:1"}
    imagefs("--store", store, "prune", "-af", "--filter", "label!=label=new")
    assert names(store) == {"app:1"}
    imagefs("--store", store, "prune", "-af")
    assert names(store) == set()
    assert layers(store) == 0
    assert not list((store / "blobs" / "sha256").iterdir())


def test_what_is_not_ours_and_what_others_are_writing_stays(store: Path) -> None:
    for folder in ("layers/sha256", "blobs/sha256", "ingest", "."):
        (store / folder / "not-ours").write_text("x")
    writing, abandoned = store / "ingest" / ("a" * 16), store / "ingest" / ("b" * 16)
    abandoned.write_bytes(b"x" * 100_000)
    with writing.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        imagefs("--store", store, "prune", "-af")
        assert writing.exists()
    assert not abandoned.exists()
    for folder in ("layers/sha256", "blobs/sha256", "ingest", "."):
        assert (store / folder / "not-ours").read_text() == "x"


def test_interrupted_downloads_go_and_those_under_way_stay(store: Path) -> None:
    (store / "partial").mkdir()
    interrupted, under_way = (store / "partial" / f"sha256-{digit * 64}" for digit in "ab")
    interrupted.write_bytes(b"x" * 100_000)
    with under_way.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        imagefs("--store", store, "rm", "kept:1")
        assert interrupted.exists(), "whoever goes on with it may have it for a week"
        imagefs("--store", store, "prune", "-f")
        assert under_way.exists()
    assert not interrupted.exists()


def test_while_another_process_writes_space_is_freed_later(store: Path) -> None:
    with Store.open(store) as opened:
        with opened.writing():
            done = imagefs("--store", store, "prune", "-f").stdout
            assert "not known yet" in done
            assert layers(store) == 2
        assert layers(store) == 1


@pytest.mark.fuse
@pytest.mark.skipif(bool(needs_fuse[1].args[0]), reason="no FUSE here")
def test_an_image_that_is_mounted_alone_stays(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mnt", "-o", "image=app:1") as mountpoint:
        imagefs("--store", store, "prune", "-af")
        assert names(store) == {"app:1"}
        assert os.listdir(mountpoint) == ["shared"]


def test_df_tells_own_from_shared(store: Path) -> None:
    rows = [json.loads(line) for line in imagefs("--store", store, "df", "--json").stdout.splitlines()]
    by_name = {tuple(row["names"]): row for row in rows if row["kind"] == "image"}
    assert by_name[()]["unique"] > 300_000
    assert by_name[()]["shared"] > 500_000
    assert by_name["kept:1",]["unique"] < 100_000
    (total,) = [row for row in rows if row["kind"] == "total"]
    assert total["images"] == 3
    assert 800_000 < total["size"] < 1_200_000
    assert total["reclaimable"] == by_name[()]["unique"]
    table = imagefs("--store", store, "df").stdout
    assert table.splitlines()[0].split() == [
        "REPOSITORY",
        "TAG",
        "IMAGE",
        "ID",
        "CREATED",
        "SHARED",
        "SIZE",
        "UNIQUE",
        "SIZE",
    ]
    assert "3 images, 2 layers" in table
