"""One SQLite file: its connection, its errors as ours, its exchange, and what a damaged one still holds.

The only module that imports sqlite3.  Knows no table.

A rollback journal and not WAL: readers of a store that they cannot write to (another user's, a read-only disk) must
work.
"""

import contextlib
import itertools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagefs.errors import CatalogDamaged, StoreFull, StoreUnusable
from imagefs.store.locking import READ_ONLY, can_write
from imagefs.text import printable

Connection = sqlite3.Connection

_BUSY_TIMEOUT_S = 60  # longer than any transaction here; several processes queue for the one writer's place
_ACCESS_CODES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_LEAST_ROW_BYTES = 8
"""What a row takes of the file at least: a damaged file must not yield rows without end."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a query yields of a damaged file; *is_complete* if it came to its end without an error."""

    rows: tuple[tuple[object, ...], ...]
    is_complete: bool


class Database:
    """The database at one path.  Thread-safe; any number of processes may use it at once.

    Another file that takes the place of the first is used from then on.
    """

    def __init__(self, path: Path, *, version: int, read_only: bool) -> None:
        """Connect; *version* is the user_version that the file must have.

        Raises: StoreUnusable.
        """
        self._path = path
        self._version = version
        self._read_only = read_only
        self._lock = threading.RLock()
        self._connections = 0
        with self._translated():
            self._connection, self._file = self._connected()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend the connection; what the caller cannot understand of a row is to be a ValueError or TypeError.

        Raises: StoreUnusable; CatalogDamaged for both of these.
        """
        with self._lock, self._translated():
            yield self._current()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Begin a write transaction: all of it is durable on leaving, or none of it.

        Raises: StoreUnusable.
        """
        with self._lock, self._translated():
            connection = self._current()
            if not self._path.exists():
                raise damaged(self._path, "is missing")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def generation(self) -> int:
        """Return a number that differs once another process has committed a change or exchanged the file."""
        with self.reading() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            return self._connections << 32 | int(version)

    def problems(self) -> tuple[str, ...]:
        """Return what SQLite reports as wrong with the file; empty where all is well."""
        with self.reading() as connection:
            messages = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(100)")]
            messages += [f"a row of {row[0]} names no image" for row in connection.execute("PRAGMA foreign_key_check")]
        return tuple(message for message in messages if message != "ok")

    def _current(self) -> Connection:
        """Return a connection to the file that has the path now; to the last one if none has."""
        with contextlib.suppress(FileNotFoundError):
            if not self._connection.in_transaction and _identity(self._path) != self._file:
                connection, file = self._connected()
                self._connection.close()
                self._connection, self._file = connection, file
        return self._connection

    def _connected(self) -> tuple[Connection, tuple[int, int]]:
        connection = sqlite3.connect(
            f"file:{_quoted(self._path)}?mode={'ro' if self._read_only else 'rw'}",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            # A confined server may write nowhere but in the store.
            connection.execute("PRAGMA temp_store = MEMORY")
            # Not FULL: the journal's removal is the commit, and must outlive a loss of power, too.
            connection.execute("PRAGMA synchronous = EXTRA")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != self._version:
                raise damaged(self._path, f"has format {version} instead of {self._version}")
            file = _identity(self._path)
        except BaseException:
            connection.close()
            raise
        self._connections += 1
        return connection, file

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StoreUnusable:
            raise
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            raise _failure(error, self._path) from error


def damaged(path: Path, why: str) -> CatalogDamaged:
    """Return the error for the catalog at *path*, which is damaged or missing, as *why* says."""
    store = printable(str(path.parent))
    command = f"'imagefs --store {store} verify --repair' makes it again from the stored images"
    return CatalogDamaged(str(path.parent), f"{path.name} {printable(why)}", command)


def create(path: Path, schema: str, version: int, fill: Callable[[Connection], None]) -> None:
    """Make a database of the empty file at *path*, which no other process knows yet; *fill* inserts its first rows.

    It is durable afterwards.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = MEMORY")  # nothing is left beside it, whatever happens
        _make(connection, schema, version, fill)


def salvage(path: Path, schema: str, version: int, queries: Sequence[str]) -> tuple[Rows, ...]:
    """Return what each of *queries* still yields of the damaged file at *path*, which is not written to.

    A query has ``{0}`` where ASC and DESC go: both are tried, because what lies behind a damaged page is read from the
    other end.  Undecodable text has replacement characters.  The journal is left out: half a transaction may show.

    Raises: OSError.
    """
    data = path.read_bytes()
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _make(connection, schema, version, lambda _: None)
        pristine = connection.serialize()
    size = int.from_bytes(pristine[16:18], "big")
    pages = (len(data) // size).to_bytes(4, "big")
    # The first page says where each table begins, and that is always the same.
    # Source: SQLite, "Database File Format", 1.3: size in pages at 28, list of free pages at 32.
    first = pristine[:28] + pages + bytes(8) + pristine[40:size]
    found = [Rows((), is_complete=False)] * len(queries)
    for variant in (data, first + data[size:]):
        found = [
            Rows(tuple(dict.fromkeys(before.rows + now.rows)), before.is_complete or now.is_complete)
            for before, now in zip(found, (_readable(variant, query) for query in queries), strict=True)
        ]
    return tuple(found)


def _readable(data: bytes, query: str) -> Rows:
    rows: list[tuple[object, ...]] = []
    is_complete = False
    most = len(data) // _LEAST_ROW_BYTES
    for order in ("ASC", "DESC"):
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            with contextlib.suppress(sqlite3.Error, ValueError, OverflowError, MemoryError):  # sizes may be damaged
                connection.deserialize(data)
                rows.extend(itertools.islice(connection.execute(query.format(order)), most))
                is_complete = True
    return Rows(tuple(rows), is_complete)


def _make(connection: Connection, schema: str, version: int, fill: Callable[[Connection], None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in schema.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {version}")
    fill(connection)
    connection.execute("COMMIT")


def _failure(error: Exception, path: Path) -> StoreUnusable:
    """Return what *error* of the database at *path* means to a user."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    store = str(path.parent)
    if code == sqlite3.SQLITE_FULL or (code in _ACCESS_CODES and not _has_space(path.parent)):
        return StoreFull(store, "its disk is full", "'imagefs prune' or 'imagefs rm' makes space")
    if code == sqlite3.SQLITE_READONLY or (code in _ACCESS_CODES and not can_write(path.parent)):
        return StoreUnusable(store, READ_ONLY)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnusable(store, "another process has been changing its catalog for a minute; try again")
    if code in (*_ACCESS_CODES, sqlite3.SQLITE_NOMEM) or isinstance(error, sqlite3.ProgrammingError):
        return StoreUnusable(store, f"its catalog {path} cannot be read or written ({error})")
    return damaged(path, f"is damaged ({error})")


def _has_space(folder: Path) -> bool:
    """Return whether the disk of *folder* can take another file, such as a journal."""
    disk = os.statvfs(folder)
    return disk.f_bavail > 0 and (disk.f_files == 0 or disk.f_ffree > 0)  # 0 files: their number has no limit


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _quoted(path: Path) -> str:
    """Return *path* for a ``file:`` URI: only what would end or escape it is quoted."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
