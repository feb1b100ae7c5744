"""Which images there are and what they are called: one SQLite database.

Receives rows that are already true (everything they name is durable on disk) and hands on `Image` values.  Knows
nothing of files.  The only module that imports sqlite3; a sqlite3.Error leaves it as `StoreUnusable`.

The schema is the canonical reference:

* ``images``: one row per image ID (the digest of its config).  *manifest* is the digest of the manifest it was stored
  with first; *created_ns* is the config's own claim and may be NULL; *size* the bytes of all its uncompressed layers.
* ``layers``: the stack of an image, *position* 0 at the base.
* ``tags``: (repository, tag) → image; *target* is the digest the tag pointed to in the registry (an index's for a
  multi-platform image) or '' where the image was loaded.  Repository is the canonical name, registry included.
* ``digests``: (repository, digest) → image, one row for each digest under which the image was seen in a registry.

A rollback journal and not WAL: readers of a store they cannot write to (another user's, a read-only disk) must work.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagefs.errors import StoreFull, StoreUnusable
from imagefs.oci.digest import DiffId, Digest
from imagefs.oci.reference import Reference
from imagefs.store.locking import READ_ONLY, can_write

SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 60  # longer than any transaction here; several processes queue for the one writer's place
_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)
_SCHEMA = """
CREATE TABLE images (
    id TEXT PRIMARY KEY, manifest TEXT NOT NULL, created_ns INTEGER, added_ns INTEGER NOT NULL,
    size INTEGER NOT NULL, platform TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE layers (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, position INTEGER NOT NULL, diff_id TEXT NOT NULL,
    PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE TABLE tags (
    repository TEXT NOT NULL, tag TEXT NOT NULL, image TEXT NOT NULL REFERENCES images(id), target TEXT NOT NULL,
    PRIMARY KEY (repository, tag)
) WITHOUT ROWID;
CREATE TABLE digests (
    repository TEXT NOT NULL, digest TEXT NOT NULL, image TEXT NOT NULL REFERENCES images(id),
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX tags_image ON tags(image);
CREATE INDEX digests_image ON digests(image);
"""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the store.

    *id* is the digest of its config.  *tags* and *digests* are references to it, sorted; a tag's reference carries the
    digest it pointed to in the registry, where it came from one.  *diff_ids* run from base to top.  *size* counts the
    bytes of the uncompressed layers, shared or not.
    """

    id: Digest
    manifest_digest: Digest
    tags: tuple[Reference, ...]
    digests: tuple[Reference, ...]
    diff_ids: tuple[DiffId, ...]
    created_ns: int | None
    size: int
    platform: str


class Catalog:
    """The database at one path.  Thread-safe; any number of processes may use it at once."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._translated():
            mode = "ro" if read_only else "rw"
            self._connection = sqlite3.connect(
                f"file:{_quoted(path)}?mode={mode}",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._connection.execute("PRAGMA foreign_keys = ON")
                # A confined server may write nowhere but in the store.
                self._connection.execute("PRAGMA temp_store = MEMORY")
                # Not FULL: the journal's removal is the commit, and must outlive a loss of power, too.
                self._connection.execute("PRAGMA synchronous = EXTRA")
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            except BaseException:
                self._connection.close()
                raise
        if version != SCHEMA_VERSION:
            self.close()
            raise StoreUnusable(
                str(path.parent), f"its catalog has format {version}, this imagefs knows {SCHEMA_VERSION}"
            )

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty database of the empty file at *path*, which nobody else knows yet."""
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = MEMORY")  # nothing is left beside it, whatever happens
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _failure(error, self._path) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: all of it durable on leaving, or none of it."""
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def generation(self) -> int:
        """Return a number that differs once another process has committed a change."""
        with self._lock, self._translated():
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            return int(version)

    def problems(self) -> tuple[str, ...]:
        """Return what the database finds wrong with its own file; nothing where all is well."""
        with self._lock, self._translated():
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(100)")]
            found += [
                f"a row of {row[0]} names no image" for row in self._connection.execute("PRAGMA foreign_key_check")
            ]
        return tuple(why for why in found if why != "ok")

    def images(self) -> tuple[Image, ...]:
        """Return all images, newest first (by their own claim, then by when they came; ties by id)."""
        with self._lock, self._translated():
            self._connection.execute("BEGIN")  # the four tables as of one moment
            try:
                rows = self._connection.execute(
                    "SELECT id, manifest, created_ns, size, platform FROM images"
                    " ORDER BY created_ns IS NULL, created_ns DESC, added_ns DESC, id"
                ).fetchall()
                layers = self._connection.execute("SELECT image, diff_id FROM layers ORDER BY image, position")
                stacks: dict[str, list[DiffId]] = {}
                for image, diff_id in layers:
                    stacks.setdefault(image, []).append(DiffId(Digest.parse(diff_id)))
                tags: dict[str, list[Reference]] = {}
                for repository, tag, image, target in self._connection.execute(
                    "SELECT repository, tag, image, target FROM tags ORDER BY repository, tag"
                ):
                    tags.setdefault(image, []).append(_reference(repository, tag, target))
                digests: dict[str, list[Reference]] = {}
                for repository, digest, image in self._connection.execute(
                    "SELECT repository, digest, image FROM digests ORDER BY repository, digest"
                ):
                    digests.setdefault(image, []).append(_reference(repository, None, digest))
            finally:
                self._connection.execute("COMMIT")
        return tuple(
            Image(
                id=Digest.parse(id_),
                manifest_digest=Digest.parse(manifest),
                tags=tuple(tags.get(id_, ())),
                digests=tuple(digests.get(id_, ())),
                diff_ids=tuple(stacks.get(id_, ())),
                created_ns=created_ns,
                size=size,
                platform=platform,
            )
            for id_, manifest, created_ns, size, platform in rows
        )

    def add(self, image: Image) -> None:
        """Insert *image* with its tags and digests in one transaction; tags that pointed elsewhere move to it."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO images (id, manifest, created_ns, added_ns, size, platform)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest",
                (
                    str(image.id),
                    str(image.manifest_digest),
                    image.created_ns,
                    time.time_ns(),
                    image.size,
                    image.platform,
                ),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO layers (image, position, diff_id) VALUES (?, ?, ?)",
                [(str(image.id), position, str(diff_id)) for position, diff_id in enumerate(image.diff_ids)],
            )
            for tag in image.tags:
                _put_tag(connection, tag, str(image.id))
            for reference in image.digests:
                _put_digest(connection, reference, str(image.id))

    def manifest(self, image: Digest) -> Digest | None:
        """Return the digest of the manifest of *image*; None if the image is not here."""
        with self._lock, self._translated():
            row = self._connection.execute("SELECT manifest FROM images WHERE id = ?", (str(image),)).fetchone()
            return Digest.parse(row[0]) if row else None

    def tag(self, image: Digest, reference: Reference) -> bool:
        """Let *reference* (with a tag) name *image*; return False where that image is gone."""
        with self._transaction() as connection:
            if not connection.execute("SELECT 1 FROM images WHERE id = ?", (str(image),)).fetchone():
                return False
            _put_tag(connection, reference, str(image))
            return True

    def remove(
        self, image: Digest, *, tags: tuple[Reference, ...], digests: tuple[Reference, ...], keep: bool = False
    ) -> bool:
        """Remove these names of *image*, as far as they still are its; then the image, if none is left, unless *keep*.

        Returns whether the image is gone.
        """
        with self._transaction() as connection:
            for reference in tags:
                connection.execute(
                    "DELETE FROM tags WHERE repository = ? AND tag = ? AND image = ?",
                    (reference.name, reference.tag, str(image)),
                )
            for reference in digests:
                connection.execute(
                    "DELETE FROM digests WHERE repository = ? AND digest = ? AND image = ?",
                    (reference.name, str(reference.digest), str(image)),
                )
            if keep:
                return False
            named = connection.execute(
                "SELECT 1 FROM tags WHERE image = ?1 UNION ALL SELECT 1 FROM digests WHERE image = ?1", (str(image),)
            ).fetchone()
            if not named:
                connection.execute("DELETE FROM images WHERE id = ?", (str(image),))
            return not named


def _failure(error: sqlite3.Error, path: Path) -> StoreUnusable:
    """Return what *error* of the database at *path* means to a user."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    store = str(path.parent)
    if code == sqlite3.SQLITE_FULL or (code in _NO_ACCESS and not _has_space(path.parent)):
        return StoreFull(store)
    if code == sqlite3.SQLITE_READONLY or (code in _NO_ACCESS and not can_write(path.parent)):
        return StoreUnusable(store, READ_ONLY)
    if code == sqlite3.SQLITE_BUSY:
        return StoreUnusable(store, "another process has been changing its catalog for a minute; try again")
    return StoreUnusable(store, f"its catalog cannot be used ({error})")


def _has_space(folder: Path) -> bool:
    """Return whether the disk of *folder* can take another file, such as a journal."""
    disk = os.statvfs(folder)
    return disk.f_bavail > 0 and (disk.f_files == 0 or disk.f_ffree > 0)  # 0 files: their number has no limit


def _put_tag(connection: sqlite3.Connection, reference: Reference, image: str) -> None:
    connection.execute(
        "INSERT INTO tags (repository, tag, image, target) VALUES (?, ?, ?, ?) ON CONFLICT (repository, tag)"
        " DO UPDATE SET image = excluded.image, target = excluded.target",
        (reference.name, reference.tag, image, str(reference.digest or "")),
    )
    if reference.digest is not None:
        _put_digest(connection, reference, image)


def _put_digest(connection: sqlite3.Connection, reference: Reference, image: str) -> None:
    connection.execute(
        "INSERT INTO digests (repository, digest, image) VALUES (?, ?, ?) ON CONFLICT (repository, digest)"
        " DO UPDATE SET image = excluded.image",
        (reference.name, str(reference.digest), image),
    )


def _reference(repository: str, tag: str | None, digest: str) -> Reference:
    registry, _, path = repository.partition("/")
    return Reference(registry, path, tag, Digest.parse(digest) if digest else None)


def _quoted(path: Path) -> str:
    """Return *path* for a ``file:`` URI: only what would end or escape it is quoted."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
