"""A damaged or missing catalog is one sentence, and `verify --repair` makes it again without a wrong name."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from imagefs.cli.main import main
from imagefs.errors import CatalogDamaged, ImagefsError
from imagefs.overlay.stored import store_tree
from imagefs.store.store import Store
from tests.support.images import add_image
from tests.support.layers import file, layer
from tests.support.mounts import mounted, needs_fuse, wait_until

BASE, TOP = layer(file("base", b"b")), layer(file("top", b"t"))
DIGEST = "sha256:" + "d" * 64
TARGETED = f"reg.example/a/b:2@{DIGEST}"
Names = dict[str, str]


def names(path: Path) -> Names:
    with Store.open(path) as store:
        return {str(name): str(image.id) for image in store.images() for name in (*image.tags, *image.digests)}


def content(path: Path) -> dict[Path, bytes]:
    """Return all content, and the damaged catalogs that are set aside."""
    paths = (*path.glob("*/sha256/*"), *path.glob("catalog.sqlite.damaged-*"))
    return {one.relative_to(path): one.read_bytes() for one in paths}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "store"
    with Store.open(path, create=True) as store:
        for layers, references in (
            ([BASE], ("one:1", TARGETED)),
            ([BASE, TOP], ("two:latest", "two:also")),
            ([TOP], ()),
        ):
            store_tree(store, add_image(store, layers, *references).diff_ids)
    assert main(["--store", str(path), "verify"]) == 0
    return path


@pytest.fixture
def store(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "store")
    return tmp_path / "store"


def used(raw: bytes) -> list[int]:
    return [position for position, byte in enumerate(raw) if byte]


def flipped(raw: bytes, chance: random.Random) -> bytes:
    """Return *raw* with one bit of it changed, where the database has something."""
    damaged = bytearray(raw)
    damaged[chance.choice(used(raw))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def test_no_damage_of_the_catalog_is_an_internal_error(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every fourth byte in use is changed; each of some commands meets a share of the damage."""
    catalog = store / "catalog.sqlite"
    raw = catalog.read_bytes()
    commands = (["ls"], ["ls", "-q"], ["df"], ["inspect", "one:1"], ["rm", "two:also"], ["tag", "one:1", "x:1"])
    failures = 0
    for number, position in enumerate(used(raw)[::4]):
        damaged = bytearray(raw)
        damaged[position] ^= (0x80, 0xFF, 1 << position % 8)[number % 3]
        catalog.write_bytes(damaged)
        status = main(["--store", str(store), *commands[number % len(commands)]])
        said = capsys.readouterr().err
        assert "internal error" not in said, (position, said)
        assert said.count("\n") == (1 if status else 0), (position, said)
        failures += "verify --repair" in said
    assert failures > 100


def test_undecodable_text_is_a_sentence_that_names_file_and_command(store: Path) -> None:
    catalog = store / "catalog.sqlite"
    catalog.write_bytes(catalog.read_bytes().replace(b"latest", b"l\xc3test"))
    with Store.open(store) as opened, pytest.raises(CatalogDamaged, match=r"catalog\.sqlite .*verify --repair"):
        opened.images()


@pytest.mark.parametrize("seed", range(40))
def test_a_rebuilt_catalog_has_every_image_and_no_wrong_name(
    good: Path, store: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    catalog = store / "catalog.sqlite"
    before, kept = names(good), content(good)
    catalog.write_bytes(damaged := flipped(catalog.read_bytes(), random.Random(seed)))
    assert main(["--store", str(store), "verify", "--repair"]) == 0
    said = capsys.readouterr()
    after = names(store)
    if "all is well" not in said.out:
        (aside,) = store.glob("catalog.sqlite.damaged-*")
        assert aside.read_bytes() == damaged
        assert str(aside) in said.err
    for name, image in before.items():
        tag = name.removeprefix("docker.io/library/").partition("@")[0]
        if name == TARGETED and TARGETED not in after:  # what the tag pointed to may be lost alone
            name = TARGETED.partition("@")[0]
        assert after.get(name) == image or tag in said.err, (name, said.err)
    assert after.keys() <= before.keys() | {TARGETED.partition("@")[0]}
    with Store.open(store) as opened:
        assert len(opened.images()) == 3
        assert {image.id for image in opened.images()} == {image.id for image in Store.open(good).images()}
    assert content(store).items() >= kept.items()
    assert main(["--store", str(store), "verify"]) == 0


@pytest.mark.parametrize("page", range(1, 8))
def test_a_lost_page_of_the_catalog_costs_no_image(
    good: Path, store: Path, capsys: pytest.CaptureFixture[str], page: int
) -> None:
    catalog = store / "catalog.sqlite"
    raw = bytearray(catalog.read_bytes())
    raw[(page - 1) * 4096 : page * 4096] = bytes(4096)
    catalog.write_bytes(raw)
    assert main(["--store", str(store), "verify"]) == 7
    assert main(["--store", str(store), "verify", "--repair"]) == 0
    after = names(store)
    # Each name stands in two pages, so none is lost; what a tag pointed to in the registry may be.
    assert {name.partition("@")[0] for name in after} == {name.partition("@")[0] for name in names(good)}
    assert main(["--store", str(store), "verify"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("raw", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_catalog_of_which_nothing_is_left_is_made_of_the_documents(
    store: Path, capsys: pytest.CaptureFixture[str], raw: bytes
) -> None:
    (store / "catalog.sqlite").write_bytes(raw)
    with pytest.raises(CatalogDamaged):
        Store.open(store).images()
    assert main(["--store", str(store), "verify", "--repair"]) == 0
    said = capsys.readouterr().err
    with Store.open(store) as opened:
        images = opened.images()
    assert len(images) == 3
    for image in images:
        assert f"'imagefs tag {image.id} NAME' gives it one" in said
    assert main(["--store", str(store), "tag", str(images[0].id), "again:1"]) == 0


def test_a_deleted_catalog_is_refused_and_made_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = content(store)
    (store / "catalog.sqlite").unlink()
    for command in (["ls"], ["prune", "-a", "-f"], ["verify"], ["load", "-q", str(store)]):
        assert main(["--store", str(store), *command]) == 7
        said = capsys.readouterr().err
        assert "catalog.sqlite is missing" in said
        assert "verify --repair" in said
    assert not (store / "catalog.sqlite").exists()
    assert main(["--store", str(store), "verify", "--repair"]) == 0
    assert content(store) == kept
    assert main(["--store", str(store), "verify"]) == 0
    with Store.open(store) as opened:
        assert len(opened.images()) == 3


def test_a_store_that_was_only_begun_gets_its_catalog(tmp_path: Path) -> None:
    path = tmp_path / "store"
    Store.open(path, create=True).close()
    (path / "catalog.sqlite").unlink()
    with Store.open(path) as opened:
        assert opened.images() == ()


def test_a_row_that_its_config_contradicts_is_made_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(store / "catalog.sqlite") as connection:
        connection.execute("UPDATE images SET platform = 'plan9/mips'")
    connection.close()
    before = names(store)
    assert main(["--store", str(store), "verify"]) == 7
    assert main(["--store", str(store), "verify", "--repair"]) == 0
    assert names(store) == before
    assert main(["--store", str(store), "verify"]) == 0
    capsys.readouterr()


def test_a_name_of_an_image_that_is_gone_is_reported_as_lost(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(store) as opened:
        one = opened.image("one:1")
    for digest in (one.id, one.manifest_digest):
        (store / "blobs/sha256" / digest.hex).unlink()
    with sqlite3.connect(store / "catalog.sqlite") as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("DELETE FROM images WHERE id = ?", (str(one.id),))
    connection.close()
    assert main(["--store", str(store), "verify", "--repair"]) == 0
    assert "lost the name one:1" in capsys.readouterr().err
    assert "one:1" not in names(store)


def test_a_writer_keeps_the_catalog_from_being_exchanged(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(store) as writer, writer.writing():
        (store / "catalog.sqlite").rename(store / "gone")
        assert main(["--store", str(store), "verify", "--repair"]) == 7
        assert "another process writes" in capsys.readouterr().err
    assert not (store / "catalog.sqlite").exists()


def test_a_store_that_is_open_goes_on_with_the_catalog_made_again(store: Path) -> None:
    with Store.open(store) as opened:
        before, generation = opened.images(), opened.generation()
        with sqlite3.connect(store / "catalog.sqlite") as connection:
            connection.execute("UPDATE images SET platform = 'plan9/mips'")
        connection.close()
        assert main(["--store", str(store), "verify", "--repair"]) == 0
        assert opened.generation() != generation
        assert opened.images() == before
        assert opened.remove_names(opened.image("one:1"), tags=opened.image("one:1").tags, digests=()) is False
    with Store.open(store) as opened:
        assert "docker.io/library/one:1" not in {str(tag) for image in opened.images() for tag in image.tags}


@pytest.mark.fuse
@needs_fuse[1]
def test_a_mount_outlives_the_loss_of_the_catalog_and_sees_the_next(store: Path, tmp_path: Path) -> None:
    with mounted(store, tmp_path / "mnt") as mountpoint:
        assert (mountpoint / "one/1/base").read_bytes() == b"b"
        (store / "catalog.sqlite").unlink()
        assert (mountpoint / "two/latest/top").read_bytes() == b"t"
        assert main(["--store", str(store), "verify", "--repair"]) == 0
        with Store.open(store) as opened:
            image = opened.images()[0]
        assert main(["--store", str(store), "tag", str(image.id), "again:1"]) == 0
        wait_until((mountpoint / "again/1").is_dir, "the mount shows the name in the new catalog")


def test_damage_never_ends_a_read_in_another_error(good: Path, tmp_path: Path) -> None:
    """Many bytes are changed at once."""
    raw = (good / "catalog.sqlite").read_bytes()
    for seed in range(20):
        chance = random.Random(seed)
        damaged = raw
        for _ in range(chance.randrange(2, 200)):
            damaged = flipped(damaged, chance)
        path = tmp_path / f"store-{seed}"
        shutil.copytree(good, path)
        (path / "catalog.sqlite").write_bytes(damaged)
        try:
            with Store.open(path) as opened:
                opened.images()
        except ImagefsError:
            pass
        assert main(["--store", str(path), "verify", "--repair"]) == 0
        with Store.open(path) as opened:
            assert len(opened.images()) == 3
