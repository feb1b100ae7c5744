"""The order of durability: write, fsync the file, rename, fsync the folder, commit the catalog.

A loss of power between two of them must leave what was before or what comes after.  No crash of a process shows a
wrong order, so the calls themselves are recorded and judged.
"""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imagefs.overlay.stored import store_tree
from imagefs.store import content
from imagefs.store.content import Ingest, fsync_directory
from imagefs.store.recovery import rebuild_catalog
from imagefs.store.store import Store
from tests.support.images import add_image, add_layer, documents
from tests.support.layers import file, layer

BASE, TOP = layer(file("base", b"b" * 5000)), layer(file("top", b"t" * 5000))


@dataclass(frozen=True)
class Event:
    """*kind* is write, fsync, publish or commit; *inode* what it is about, *folder* where a name was published."""

    kind: str
    inode: int = 0
    folder: int = 0
    name: str = ""


class Recorder:
    """The calls of one thread or more that matter, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.pragmas: list[str] = []

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def violations(self) -> list[str]:
        """Return which names a loss of power could leave without their content, or take away from the catalog."""
        wrong = []
        for position, event in enumerate(self.events):
            if event.kind != "publish" or ".damaged-" in event.name:  # set aside: nothing of it is new
                continue
            before, after = self.events[:position], self.events[position + 1 :]
            synced = max((n for n, e in enumerate(before) if e == Event("fsync", event.inode)), default=-1)
            if synced < 0:
                wrong.append(f"{event.name} got its name before its content was synced")
            elif any(e.kind == "write" and e.inode == event.inode for e in before[synced:]):
                wrong.append(f"{event.name} was written to after it was synced")
            commit = next((number for number, later in enumerate(after) if later.kind == "commit"), len(after))
            if Event("fsync", event.folder) not in after[:commit]:
                wrong.append(f"the folder of {event.name} was not synced before the catalog's commit")
        return wrong


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()

    def add(event: Event) -> None:
        recorder.events.append(event)

    def of_descriptor(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *args: Any) -> Any:
            result = real(descriptor, *args)
            add(Event(kind, os.fstat(descriptor).st_ino))
            return result

        return call

    def of_names(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **options: Any) -> Any:
            status = os.stat(source, dir_fd=options.get("src_dir_fd"), follow_symlinks=False)
            folder = options.get("dst_dir_fd")
            parent = os.stat(Path(target).parent if folder is None else folder)
            result = real(source, target, **options)
            if stat.S_ISREG(status.st_mode):
                add(Event("publish", status.st_ino, parent.st_ino, Path(target).name))
            return result

        return call

    for name in ("write", "pwrite", "ftruncate"):
        monkeypatch.setattr(os, name, of_descriptor("write", getattr(os, name)))
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, of_descriptor("fsync", getattr(os, name)))
    for name in ("rename", "replace", "link"):
        monkeypatch.setattr(os, name, of_names(getattr(os, name)))
    real_connect = sqlite3.connect

    def connect(database: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real_connect(database, **options)
        committed = 0
        path = Path(str(database).removeprefix("file:").partition("?")[0])

        def ran(statement: str) -> None:
            nonlocal committed
            if statement == "COMMIT":
                add(Event("fsync", path.stat().st_ino))  # SQLite syncs its file itself, in C
                if path.name == "catalog.sqlite" and connection.total_changes > committed:
                    committed = connection.total_changes
                    add(Event("commit"))
            elif statement.startswith("PRAGMA synchronous"):
                recorder.pragmas.append(statement)

        connection.set_trace_callback(ran)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    yield recorder
    monkeypatch.undo()


def suffixes(recorder: Recorder) -> set[str]:
    """Return the suffixes of all names that were published."""
    return {Path(event.name).suffix for event in recorder.events if event.kind == "publish"}


def test_a_new_image_is_durable_before_the_catalog_names_it(tmp_path: Path, recorder: Recorder) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        made = [event.name for event in recorder.events if event.kind == "publish"]
        assert {"imagefs.json", "catalog.sqlite"} <= set(made)
        image = add_image(store, [BASE, TOP], "app:1")
        store_tree(store, image.diff_ids)
    assert recorder.violations() == []
    assert suffixes(recorder) >= {".tar", ".index", ".tree", ""}
    published = [(number, event.name) for number, event in enumerate(recorder.events) if event.kind == "publish"]
    assert recorder.kinds().count("commit") == 1
    commit = recorder.kinds().index("commit")
    for suffix in (".tar", ".index", ""):
        names = [n for n, name in published if Path(name).suffix == suffix and name != "secret"]
        assert len(names) >= 2
        assert max(names) < commit
    # The removal of the journal is the commit: NORMAL and FULL do not sync the folder after it.
    assert set(recorder.pragmas) == {"PRAGMA synchronous = EXTRA"}


def test_an_index_is_durable_before_its_tar(tmp_path: Path, recorder: Recorder) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        recorder.events.clear()
        add_layer(store, BASE)
        folder = store.layer_path(next(iter(store.content_files()))[1]).parent.stat().st_ino  # type: ignore[arg-type]
    assert [Path(event.name).suffix for event in recorder.events if event.kind == "publish"] == [".index", ".tar"]
    tar = next(n for n, event in enumerate(recorder.events) if event.name.endswith(".tar"))
    assert Event("fsync", folder) in recorder.events[:tar]
    assert recorder.violations() == []


def test_names_that_another_process_has_just_made_are_durable_before_the_commit(
    tmp_path: Path, recorder: Recorder
) -> None:
    """The other process may have renamed a file, and not yet synced its folder."""
    manifest, config = documents([BASE])
    with Store.open(tmp_path / "store", create=True) as store:
        add_layer(store, BASE)
        for digest, raw in ((manifest.config.digest, config), (manifest.digest, manifest.raw)):
            store.document_path(digest).write_bytes(raw)
        recorder.events.clear()
        with store.writing():
            store.add_image(manifest=manifest, config=config, references=())
        before = recorder.events[: recorder.kinds().index("commit")]
        for name in ("layers/sha256", "layers", "blobs/sha256", "blobs"):
            assert Event("fsync", (store.path / name).stat().st_ino) in before, name


def test_what_is_made_again_is_durable_before_it_takes_the_place_of_the_old(tmp_path: Path, recorder: Recorder) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        image = add_image(store, [BASE], "app:1")
        store_tree(store, image.diff_ids)
        recorder.events.clear()
        store.replace_layer_index(image.diff_ids[0], [store.layer_index(image.diff_ids[0])])
        store.tree_path(image.diff_ids[0]).unlink()  # type: ignore[arg-type]  # one layer: the chain is its name
        store_tree(store, image.diff_ids)
    rebuild_catalog(tmp_path / "store")
    assert suffixes(recorder) >= {".index", ".tree", ".sqlite"}
    assert recorder.violations() == []


def test_the_secret_is_durable_before_it_is_used(tmp_path: Path, recorder: Recorder) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        recorder.events.clear()
        store.secret()
    assert "secret" in {event.name for event in recorder.events}
    assert recorder.violations() == []


def _renamed_first(self: Ingest, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    self.path.replace(target)
    os.fsync(self._descriptor)
    fsync_directory(target.parent)
    self.discard()


def _not_synced(self: Ingest, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    self.path.replace(target)
    fsync_directory(target.parent)
    self.discard()


@pytest.mark.parametrize(
    ("attribute", "fault", "message"),
    [
        (Ingest, _renamed_first, "before its content was synced"),
        (Ingest, _not_synced, "before its content was synced"),
        (content, lambda _path: None, "was not synced before"),
    ],
    ids=["renamed first", "file not synced", "folder not synced"],
)
def test_a_wrong_order_is_noticed(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, attribute: Any, fault: Any, message: str
) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        monkeypatch.setattr(attribute, "replace" if attribute is Ingest else "fsync_directory", fault)
        add_image(store, [BASE], "app:1")
    assert any(message in violation for violation in recorder.violations())
