"""Which images there are and what they are called, in one database.

Takes rows that are already true: everything that they name is durable on disk.  Knows nothing of files.

The schema is the canonical reference:

* ``images``: one row per image ID (the digest of its config).  *manifest* is the digest of the manifest it was stored
  with first; *created_ns* is the config's own claim and may be NULL; *size* the bytes of all its uncompressed layers.
* ``layers``: the stack of an image, *position* 0 at the base.
* ``tags``: (repository, tag) → image; *target* is the digest the tag pointed to in the registry (an index's for a
  multi-platform image) or '' where the image was loaded.  Repository is the canonical name, registry included.
* ``digests``: (repository, digest) → image, one row for each digest under which the image was seen in a registry.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagefs.oci.digest import DiffId, Digest
from imagefs.oci.reference import Reference
from imagefs.store.database import Connection, Database, Rows, create, salvage

SCHEMA_VERSION = 1
"""The user_version of the database.  A change of it changes the format of the store, too, which is read first: a file
of another version is thus a damaged one."""
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
_SALVAGED = (
    "SELECT id, manifest, created_ns, size, platform, added_ns FROM images ORDER BY id {0}",
    "SELECT image, position, diff_id FROM layers ORDER BY image {0}, position {0}",
    "SELECT repository, tag, image, target FROM tags NOT INDEXED ORDER BY repository {0}, tag {0}",
    "SELECT repository, tag, image FROM tags INDEXED BY tags_image ORDER BY image {0}, repository {0}, tag {0}",
    "SELECT repository, digest, image FROM digests NOT INDEXED ORDER BY repository {0}, digest {0}",
    "SELECT repository, digest, image FROM digests INDEXED BY digests_image ORDER BY image {0}, repository {0}",
)
"""Each name is read from its table and, a second copy, from the index of the table by image."""


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


@dataclass(frozen=True, slots=True)
class Name:
    """A name as a damaged catalog holds it: nothing of it is checked.  *target* is '' for a reference with a digest."""

    repository: object
    name: object
    """The tag, or the digest."""
    image: object
    target: object = ""


@dataclass(frozen=True, slots=True)
class Remains:
    """What a damaged catalog still holds.

    Its rows may be damaged without a trace: each name stands twice in the file, in a table and in an index, and only
    what both agree on is sure.  *images* have no names here; *added_ns* tells when each of them was added.
    """

    images: tuple[Image, ...]
    added_ns: dict[Digest, int]
    tags: tuple["Copies", "Copies"]
    digests: tuple["Copies", "Copies"]


@dataclass(frozen=True, slots=True)
class Copies:
    """Names from one of the two places; *is_complete* if all of it was readable."""

    names: tuple[Name, ...]
    is_complete: bool


class Catalog:
    """The catalog at one path.  Thread-safe; any number of processes may use it at once.

    Methods raise StoreUnusable.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._database = Database(path, version=SCHEMA_VERSION, read_only=read_only)

    def close(self) -> None:
        self._database.close()

    def generation(self) -> int:
        """Return a number that differs once another process has committed a change."""
        return self._database.generation()

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with the file, as SQLite reports it; empty where all is well."""
        return self._database.problems()

    @staticmethod
    def create(path: Path, images: Iterable[tuple[Image, int]] = ()) -> None:
        """Make a catalog of the empty file at *path*, which no other process knows yet.

        It holds *images*, each with the time when it was added, in ns.
        """

        def fill(connection: Connection) -> None:
            for image, added_ns in images:
                _insert(connection, image, added_ns)

        create(path, _SCHEMA, SCHEMA_VERSION, fill)

    @staticmethod
    def remains(path: Path) -> Remains:
        """Return what the damaged catalog at *path* still holds.

        Raises: OSError.
        """
        images, layers, *names = salvage(path, _SCHEMA, SCHEMA_VERSION, _SALVAGED)
        stacks: dict[object, dict[object, object]] = {}
        for image, position, diff_id in layers.rows:
            stacks.setdefault(image, {})[position] = diff_id
        intact: dict[Digest, tuple[Image, int]] = {}
        for row in images.rows:
            stack = stacks.get(row[0], {})
            try:
                decoded = _image(row[:5], [stack[position] for position in range(len(stack))])
                intact[decoded.id] = decoded, _integer(row[5])
            except (ValueError, TypeError, KeyError):
                continue
        tags, tags_index, digests, digests_index = (_copies(rows) for rows in names)
        return Remains(
            images=tuple(image for image, _ in intact.values()),
            added_ns={id_: added_ns for id_, (_, added_ns) in intact.items()},
            tags=(tags, tags_index),
            digests=(digests, digests_index),
        )

    def images(self) -> tuple[Image, ...]:
        """Return all images, newest first (by their own claim, then by when they came; ties by id)."""
        with self._database.reading() as connection:
            connection.execute("BEGIN")  # the four tables as of one moment
            try:
                rows = connection.execute(
                    "SELECT id, manifest, created_ns, size, platform FROM images"
                    " ORDER BY created_ns IS NULL, created_ns DESC, added_ns DESC, id"
                ).fetchall()
                # All rows at once: a cursor that an error leaves open would hold the database locked.
                stacks: dict[object, list[object]] = {}
                for image, position, diff_id in connection.execute(
                    "SELECT image, position, diff_id FROM layers ORDER BY image, position"
                ).fetchall():
                    stack = stacks.setdefault(image, [])
                    if position != len(stack):
                        raise ValueError(f"layer {len(stack)} of image {image} is missing")
                    stack.append(diff_id)
                tags: dict[object, list[Reference]] = {}
                for repository, tag, image, target in connection.execute(
                    "SELECT repository, tag, image, target FROM tags ORDER BY repository, tag"
                ).fetchall():
                    tags.setdefault(image, []).append(reference(repository, tag, target))
                digests: dict[object, list[Reference]] = {}
                for repository, digest, image in connection.execute(
                    "SELECT repository, digest, image FROM digests ORDER BY repository, digest"
                ).fetchall():
                    digests.setdefault(image, []).append(reference(repository, None, digest))
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
            return tuple(
                _image(row, stacks.get(row[0], ()), tuple(tags.get(row[0], ())), tuple(digests.get(row[0], ())))
                for row in rows
            )

    def manifest(self, image: Digest) -> Digest | None:
        """Return the digest of the manifest of *image*; None if the image is not here."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT manifest FROM images WHERE id = ?", (str(image),)).fetchone()
            return Digest.parse(row[0]) if row else None

    def add(self, image: Image) -> None:
        """Insert *image* with its tags and digests in one transaction; tags that pointed elsewhere move to it."""
        with self._database.transaction() as connection:
            _insert(connection, image, time.time_ns())

    def tag(self, image: Digest, reference: Reference) -> bool:
        """Let *reference* (with a tag) name *image*; return False where that image is gone."""
        with self._database.transaction() as connection:
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
        with self._database.transaction() as connection:
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


def _insert(connection: Connection, image: Image, added_ns: int) -> None:
    connection.execute(
        "INSERT INTO images (id, manifest, created_ns, added_ns, size, platform)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest",
        (str(image.id), str(image.manifest_digest), image.created_ns, added_ns, image.size, image.platform),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO layers (image, position, diff_id) VALUES (?, ?, ?)",
        [(str(image.id), position, str(diff_id)) for position, diff_id in enumerate(image.diff_ids)],
    )
    for tag in image.tags:
        _put_tag(connection, tag, str(image.id))
    for digest in image.digests:
        _put_digest(connection, digest, str(image.id))


def _put_tag(connection: Connection, name: Reference, image: str) -> None:
    connection.execute(
        "INSERT INTO tags (repository, tag, image, target) VALUES (?, ?, ?, ?) ON CONFLICT (repository, tag)"
        " DO UPDATE SET image = excluded.image, target = excluded.target",
        (name.name, name.tag, image, str(name.digest or "")),
    )
    if name.digest is not None:
        _put_digest(connection, name, image)


def _put_digest(connection: Connection, name: Reference, image: str) -> None:
    connection.execute(
        "INSERT INTO digests (repository, digest, image) VALUES (?, ?, ?) ON CONFLICT (repository, digest)"
        " DO UPDATE SET image = excluded.image",
        (name.name, str(name.digest), image),
    )


def reference(repository: object, tag: object, digest: object) -> Reference:
    """Return the reference of a row; *tag* is None, or *digest* empty, where it has none.

    Raises: ValueError, TypeError.
    """
    registry, _, path = _text(repository).partition("/")
    parsed = Digest.parse(_text(digest)) if digest != "" else None
    return Reference(registry, path, _text(tag) if tag is not None else None, parsed)


def _image(
    row: Sequence[object],
    stack: Sequence[object],
    tags: tuple[Reference, ...] = (),
    digests: tuple[Reference, ...] = (),
) -> Image:
    """Return the image of *row*: id, manifest, created_ns, size, platform.  Raises: ValueError, TypeError."""
    id_, manifest, created_ns, size, platform = row
    return Image(
        id=Digest.parse(_text(id_)),
        manifest_digest=Digest.parse(_text(manifest)),
        tags=tags,
        digests=digests,
        diff_ids=tuple(DiffId(Digest.parse(_text(diff_id))) for diff_id in stack),
        created_ns=_integer(created_ns) if created_ns is not None else None,
        size=_integer(size),
        platform=_text(platform),
    )


def _copies(rows: Rows) -> Copies:
    return Copies(tuple(Name(*row) for row in rows.rows), rows.is_complete)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a number, found {value!r}")
    return value
