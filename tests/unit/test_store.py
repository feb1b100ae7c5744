"""The store's contract: content is invisible until committed, names follow docker's rules, nothing needed is swept."""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from imagefs.errors import ImageInUse, ImageNotFound, StoreUnusable
from imagefs.oci.digest import DiffId, Digest
from imagefs.store.content import open_file
from imagefs.store.mounts import MountRecord
from imagefs.store.removal import remove
from imagefs.store.store import Store
from tests.support.images import add_image, add_layer, documents
from tests.support.layers import file, layer

ONE = layer(file("one", b"1"))
TWO = layer(file("two", b"2"))
DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


def files(store: Store, folder: str) -> list[Path]:
    return sorted(path for path in (store.path / folder).rglob("*") if path.is_file())


def test_opening_makes_a_private_store_and_opens_it_again(tmp_path: Path) -> None:
    Store.open(tmp_path / "deep" / "store", create=True).close()
    assert (tmp_path / "deep" / "store").stat().st_mode & 0o777 == 0o700
    Store.open(tmp_path / "deep" / "store").close()


def test_no_store_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="imagefs pull"):
        Store.open(tmp_path / "nothing")


def test_a_folder_with_other_files_is_never_taken_over(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(StoreUnusable, match=r"letters\.txt"):
        Store.open(tmp_path, create=True)
    assert os.listdir(tmp_path) == ["letters.txt"]


def test_a_newer_format_is_refused(store: Store) -> None:
    (store.path / "imagefs.json").write_text('{"format": 2}')
    with pytest.raises(StoreUnusable, match=r"format 2.*upgrade"):
        Store.open(store.path)


def test_a_damaged_mark_or_catalog_is_a_clear_error(store: Store) -> None:
    (store.path / "catalog.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreUnusable, match="catalog"):
        Store.open(store.path)
    (store.path / "imagefs.json").write_text("{")
    with pytest.raises(StoreUnusable, match="damaged"):
        Store.open(store.path)


def test_a_file_in_place_of_the_store_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable):
        Store.open(tmp_path / "file", create=True)


def test_a_layer_is_invisible_until_committed_and_leaves_nothing_when_not(store: Store) -> None:
    diff_id = DiffId(Digest.of(ONE))
    with store.new_layer() as ingest:
        ingest.write(ONE)
        assert not store.has_layer(diff_id)
        assert files(store, "layers") == []
    assert files(store, "ingest") == []


def test_committing_a_layer_twice_keeps_the_first(store: Store) -> None:
    diff_id = add_layer(store, ONE)
    first = store.layer_path(diff_id).stat().st_ino
    assert add_layer(store, ONE) == diff_id
    assert store.layer_path(diff_id).stat().st_ino == first
    assert store.layer_path(diff_id).read_bytes() == ONE
    assert files(store, "ingest") == []


def test_an_image_without_its_layers_is_not_added(store: Store) -> None:
    manifest, config = documents([ONE])
    with pytest.raises(StoreUnusable, match="layer"), store.writing():
        store.add_image(manifest=manifest, config=config, references=[])
    assert store.images() == ()


def test_documents_are_kept_byte_for_byte(store: Store) -> None:
    image = add_image(store, [ONE], "one:1")
    manifest, config = documents([ONE])
    assert store.document(image.id) == config
    assert store.document(image.manifest_digest) == manifest.raw


def test_images_are_found_by_name_by_digest_and_by_the_beginning_of_their_id(store: Store) -> None:
    image = add_image(store, [ONE], "one:latest", f"docker.io/library/one@{DIGEST}")
    for wanted in ("one", "one:latest", "docker.io/library/one", f"one@{DIGEST}", f"one:other@{DIGEST}"):
        assert store.image(wanted).id == image.id
    for wanted in (str(image.id), image.id.hex, image.id.hex[:4], f"sha256:{image.id.hex[:12]}"):
        assert store.image(wanted).id == image.id


def test_an_unknown_name_hints_at_near_ones(store: Store) -> None:
    add_image(store, [ONE], "alpine:3.20")
    with pytest.raises(ImageNotFound, match=r"did you mean alpine:3\.20"):
        store.image("alpin:3.20")
    with pytest.raises(ImageNotFound, match=r"did you mean alpine:3\.20"):
        store.image("alpine")


def test_a_moved_tag_leaves_the_old_image_without_it(store: Store) -> None:
    old = add_image(store, [ONE], "app:1")
    new = add_image(store, [TWO], "app:1")
    assert store.image("app:1").id == new.id
    assert store.image(str(old.id)).tags == ()


def test_a_tag_that_came_with_a_digest_is_known_by_both(store: Store) -> None:
    image = add_image(store, [ONE], f"app:1@{DIGEST}")
    assert [str(tag) for tag in image.tags] == [f"docker.io/library/app:1@{DIGEST}"]
    assert [str(name) for name in image.digests] == [f"docker.io/library/app@{DIGEST}"]


def test_another_process_sees_that_something_changed(store: Store) -> None:
    with Store.open(store.path) as other:
        before = other.generation()
        assert other.generation() == before
        add_image(store, [ONE], "one:1")
        assert other.generation() != before


def test_removing_a_name_keeps_the_image_until_its_last(store: Store) -> None:
    image = add_image(store, [ONE], "app:1", "app:2")
    first = remove(store, "app:1")
    assert (first.untagged, first.deleted) == (("app:1",), None)
    last = remove(store, "app:2")
    assert (last.untagged, last.deleted) == (("app:2",), image.id)
    assert store.images() == ()
    assert files(store, "layers") == files(store, "blobs") == []


def test_digests_of_a_repository_go_with_its_last_tag(store: Store) -> None:
    image = add_image(store, [ONE], f"app:1@{DIGEST}", "app:2")
    assert remove(store, "app:1").deleted is None
    removal = remove(store, "app:2")
    assert removal.untagged == ("app:2", f"app@{DIGEST}")
    assert removal.deleted == image.id


def test_shared_layers_stay(store: Store) -> None:
    add_image(store, [ONE], "one:1")
    both = add_image(store, [ONE, TWO], "both:1")
    remove(store, "one:1")
    assert all(store.has_layer(diff_id) for diff_id in both.diff_ids)
    remove(store, "both:1")
    assert files(store, "layers") == []


def test_removing_by_id_with_several_repositories_needs_force(store: Store) -> None:
    image = add_image(store, [ONE], "one:1", "uno:1")
    with pytest.raises(ImageInUse, match="multiple repositories"):
        remove(store, image.id.short)
    assert remove(store, image.id.short, force=True).deleted == image.id


@contextlib.contextmanager
def recorded(store: Store, mountpoint: str, image: Digest | None = None) -> Iterator[MountRecord]:
    file = store.new_mount_record()
    assert file is not None
    record = MountRecord(mountpoint, os.getpid(), image, None)
    file.write(record)
    yield record
    file.end()


def test_a_mounted_image_is_kept_unless_forced(store: Store) -> None:
    image = add_image(store, [ONE], "one:1", "one:2")
    with recorded(store, "/mnt/one", image.id):
        remove(store, "one:1")  # another name is left
        with pytest.raises(ImageInUse, match=r"mount at /mnt/one \(pid"):
            remove(store, "one:2")
        assert remove(store, "one:2", force=True).deleted == image.id


def test_a_mount_of_the_whole_store_keeps_nothing_from_being_removed(store: Store) -> None:
    image = add_image(store, [ONE], "one:1")
    with recorded(store, "/mnt/all") as record:
        assert store.live_mounts() == (record,)
        assert remove(store, "one:1").deleted == image.id
    assert store.live_mounts() == ()


def test_what_a_record_says_can_change_and_get_shorter(store: Store) -> None:
    file = store.new_mount_record()
    assert file is not None
    for server in (1234567, 1):
        record = MountRecord("/mnt", 5, None, "app:1", server, 3, 1)
        file.write(record)
        assert store.live_mounts() == (record,)
    file.end()


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_mount_does_not_depend_on_its_record(
    store: Store, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    file = store.new_mount_record()
    assert file is not None
    record = MountRecord("/mnt", 5, None, None)
    file.write(record)
    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", refuse)
        disk.setattr(os, "unlink", refuse)
        disk.setattr(os, "open", refuse)
        file.write(replace(record, starts=2))
        assert store.new_mount_record() is None
    assert store.live_mounts() == (record,)
    with monkeypatch.context() as disk:
        disk.setattr(os, "unlink", refuse)
        file.end()
        assert store.live_mounts() == ()
    assert [message.count(os.strerror(number)) for message in caplog.messages] == [1, 1, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"mountpoint": "/x", "pid": -1, "image": null, "reference": null}',
        b'{"mountpoint": "/x", "pid": 0, "image": null, "reference": null}',
        b'{"mountpoint": "/x", "pid": "7", "image": null, "reference": null}',
        b'{"mountpoint": "/x", "pid": true, "image": null, "reference": null}',
        b'{"mountpoint": 1, "pid": 7, "image": null, "reference": null}',
        b'{"mountpoint": "/x", "pid": 7, "server": -1, "image": null, "reference": null}',
        b'{"mountpoint": "/x", "pid": 7, "image": "sha256:1", "reference": null}',
    ],
)
def test_a_record_that_names_no_process_is_passed_over(store: Store, content: bytes) -> None:
    file = store.new_mount_record()
    assert file is not None
    os.pwrite(file.descriptor, content, 0)
    assert store.live_mounts() == ()
    file.end()


def test_only_regular_files_are_records(store: Store, tmp_path: Path) -> None:
    file = store.new_mount_record()
    assert file is not None
    file.write(MountRecord("/mnt", 5, None, None))
    file.path.rename(tmp_path / "elsewhere")
    file.path.symlink_to(tmp_path / "elsewhere")
    os.mkfifo(store.path / "mounts" / "pipe")
    assert store.live_mounts() == ()
    file.end()


def test_records_of_dead_mounts_are_removed(store: Store) -> None:
    (store.path / "mounts" / "0123").write_text('{"mountpoint": "/x", "pid": 1, "image": null, "reference": null}')
    assert store.live_mounts() == ()
    assert files(store, "mounts") == []


def test_nothing_is_swept_while_somebody_writes_and_then_it_is(store: Store) -> None:
    add_image(store, [ONE], "one:1")
    with Store.open(store.path) as other:
        with other.writing():
            diff_id = add_layer(other, TWO)
            remove(store, "one:1")
            assert other.has_layer(diff_id)
            assert len(files(store, "layers")) == 4
        assert files(store, "layers") == []


def test_files_that_are_not_ours_are_left_alone(store: Store) -> None:
    add_image(store, [ONE], "one:1")
    for name in ("layers/sha256/notes.txt", "ingest/mine", "blobs/sha256/readme"):
        (store.path / name).write_text("hands off")
    (store.path / "ingest" / ("0" * 16)).write_text("left by a writer that died")
    remove(store, "one:1")
    assert [path.name for folder in ("layers", "ingest", "blobs") for path in files(store, folder)] == [
        "notes.txt",
        "mine",
        "readme",
    ]


def test_a_store_that_was_killed_while_it_was_made_is_made(tmp_path: Path) -> None:
    (tmp_path / f".imagefs-{'0' * 16}").write_text('{"for')
    with Store.open(tmp_path, create=True):
        pass
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".imagefs-")]
    Store.open(tmp_path).close()


def test_who_writes_next_removes_what_a_dead_writer_left(store: Store) -> None:
    left = store.path / "ingest" / ("0" * 16)
    left.write_text("left by a writer that died")
    with store.new_layer() as live, store.writing():
        assert not left.exists()
        live.write(ONE)
        live.commit(DiffId(Digest.of(ONE)), b"index")
    assert store.has_layer(DiffId(Digest.of(ONE)))


def test_what_a_live_writer_is_at_is_not_taken_for_stale(store: Store) -> None:
    image = add_image(store, [ONE], "one:1")
    with store.new_layer() as ingest:
        ingest.write(TWO)
        remove(store, "one:1")
        ingest.commit(DiffId(Digest.of(TWO)), b"index")
    assert store.has_layer(DiffId(Digest.of(TWO)))
    assert not store.has_layer(image.diff_ids[0])


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_regular_file_is_no_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "blobs/sha256" / ("0" * 64)
    path.parent.mkdir(parents=True)
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(FileNotFoundError):
        open_file(path)
