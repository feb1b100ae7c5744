"""Files named by digest, and the only way to make one: ingest, verify, commit.

Receives bytes and, at the end, the digest they were found to have; hands on paths and bytes.  Content is invisible
until it is committed and never changes afterwards.  Knows nothing of images or tags.

On disk, below the store::

    blobs/<algorithm>/<hex>            manifests and configs, byte for byte as received
    layers/<algorithm>/<hex>.tar       a layer's uncompressed tar, named by diff_id
    layers/<algorithm>/<hex>.index     its changeset, derived from the tar (may be rebuilt at any time)
    trees/<algorithm>/<hex>.tree       the union of a stack of layers, named by ChainID (may be rebuilt at any time)
    trees/<algorithm>/<hex>.layer      the tree of a layer by itself, named by diff_id, made when somebody looks at it
    ingest/<random>                    being written; an flock is held while its writer lives

What is not content yet, the beginnings of compressed layers, is elsewhere (see `store.partial`).

Commit order: write, fsync the file, rename, fsync the folder.  A layer's index is committed before its tar, so a tar
that is there has its index.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from imagefs.errors import BlobNotFound
from imagefs.oci.digest import ChainId, DiffId, Digest
from imagefs.store.access import file_mode, make_folder
from imagefs.store.space import check_space, write_with_holes

_CONTENT_NAME = re.compile(r"(?P<hex>[0-9a-f]{64}|[0-9a-f]{128})(?P<suffix>\.tar|\.index|\.tree|\.layer)?")
_WRITEBACK_BYTES = 16 * 1024 * 1024
_SUFFIXES: dict[str, set[str | None]] = {"blobs": {None}, "layers": {".tar", ".index"}, "trees": {".tree", ".layer"}}

_WRITTEN_BYTES = 256 * 1024


def disk_bytes(path: Path) -> int:
    """Return how many bytes of the disk the file at *path* takes."""
    return path.stat().st_blocks * 512


def fsync_directory(path: Path) -> None:
    """Make the names in folder *path* durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_file(path: Path) -> bool:
    """Return whether a regular file is at *path*; content is never a folder or a link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def set_aside(path: Path) -> Path | None:
    """Give what is at *path* another name beside it, and return that; remove an empty folder and return None."""
    with contextlib.suppress(OSError):
        path.rmdir()
        return None
    aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
    path.rename(aside)
    return aside


def clear(target: Path) -> None:
    """Set aside what is at *target* unless it is a file, so that a file can be renamed to it."""
    make_folder(target.parent)
    if target.is_symlink() or (target.exists() and not target.is_file()):
        set_aside(target)


def open_file(path: str | os.PathLike[str]) -> int:
    """Open a file of content, at *path*, for reading; return its descriptor.

    Neither the file nor the two folders that it is in may be symlinks: the owner of a store must not lead another
    user, perhaps root, to files elsewhere.

    Raises: FileNotFoundError, also where something else than a regular file is; NotADirectoryError, where something
    else than a folder is above it; OSError.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    *_, store, kind, algorithm, name = os.fspath(path).rsplit("/", 3)
    try:
        folder = os.open(store or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for inner in (kind, algorithm):
                above, folder = folder, os.open(inner, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=folder)
                os.close(above)
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        number = errno.ENOENT if error.errno == errno.ELOOP else error.errno or 0
        raise OSError(number, os.strerror(number), os.fspath(path)) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return file


class Ingest:
    """One file being written, invisible until `commit`; discarded on leaving the context otherwise.

    Not thread-safe: one writer each.
    """

    def __init__(self, folder: Path) -> None:
        check_space(folder, 0)
        self.path, self._descriptor = locked_temporary(folder)
        self.size = 0
        self.stored = 0
        """Bytes that are not in holes."""
        self.left = 0
        """Bytes that are known to come."""
        self._begun = self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, data: bytes | memoryview) -> None:
        """Append all of *data*; runs of zeros take no space.

        Raises: DiskFull; OSError (ENOSPC, EDQUOT, EIO, ...) with the file's name.
        """
        if self.stored - self._begun >= _WRITEBACK_BYTES:
            check_space(self.path.parent, self.left)
            self._begin_writeback()
        try:
            self.stored += write_with_holes(self._descriptor, data, self.size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.size += len(data)

    def _begin_writeback(self) -> None:
        """Let the disk begin with what was written, so that `commit` has not to wait for all of it.

        Left to itself, the kernel begins late, and then makes who writes wait.  Pages that are dirty stay in memory.
        Source: mm/fadvise.c, POSIX_FADV_DONTNEED.
        """
        with contextlib.suppress(OSError, AttributeError):
            os.posix_fadvise(self._descriptor, self._written, self.size - self._written, os.POSIX_FADV_DONTNEED)
        self._begun, self._written = self.stored, self.size

    def commit(self, target: Path) -> None:
        """Make what was written durable under *target*; a file that is already there stays."""
        if is_file(target):
            self.discard()
        else:
            self.replace(target)

    def replace(self, target: Path) -> None:
        """Make what was written durable under *target*, in place of a file that may be there.

        A folder or link at *target* is set aside.
        """
        make_folder(target.parent)
        os.fchmod(self._descriptor, file_mode(target.parent))
        os.fsync(self._descriptor)
        clear(target)
        self.path.replace(target)
        fsync_directory(target.parent)
        self.discard()

    def discard(self) -> None:
        """Forget whatever was not committed.  May be called again."""
        if self._descriptor >= 0:
            # Unlink before the lock is freed: afterwards the name could already be another writer's.
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1


def locked_temporary(folder: Path) -> tuple[Path, int]:
    """Return a new file in *folder* and its descriptor, locked for as long as the descriptor is open."""
    while True:
        path = folder / secrets.token_hex(8)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Between open and flock a sweep may have taken the file for a dead writer's and removed it.
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _content(path: Path) -> bytes:
    with os.fdopen(open_file(path), "rb") as file:
        return file.read()


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield *pieces*, of which there may be very many very small ones, joined to some of a good size to write."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _WRITTEN_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


class LayerIngest:
    """One layer being written: bytes of its uncompressed tar first, its diff_id and index at the end.

    A context manager; whatever was not committed is discarded.  Not thread-safe.
    """

    def __init__(self, content: "Content") -> None:
        self._content = content
        self._tar = Ingest(content.ingest_folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tar.discard()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._tar.size

    @property
    def stored(self) -> int:
        """Bytes written so far that are not in holes."""
        return self._tar.stored

    def expect(self, left: int) -> None:
        """Take note that at least *left* more bytes come, which must fit on the disk.

        Raises: DiskFull, now or from `write`.
        """
        self._tar.left = left

    @property
    def path(self) -> Path:
        """Where the first `size` bytes of the tar can be read until it is committed or discarded."""
        return self._tar.path

    def write(self, data: bytes | memoryview) -> None:
        """Append all of *data* to the tar."""
        self._tar.write(data)

    def keep_index(self, diff_id: DiffId, pieces: Iterable[bytes]) -> None:
        """Put the index that *pieces* make where that of *diff_id*, which the caller has verified, belongs.

        One that is there is replaced.

        What reads only the index need not wait until the tar is durable; one that was left there may be damaged.
        """
        self._content.replace_index(diff_id, pieces)

    def commit(self, diff_id: DiffId, index: bytes | None = None) -> None:
        """Make the layer durable under *diff_id*, which the caller has verified, with *index*, if not kept before.

        If another writer committed the same layer first, that one stays: both hold the same bytes.
        """
        if index is not None:
            self.keep_index(diff_id, [index])
        self._tar.commit(self._content.layer_path(diff_id))


class Content:
    """All content-addressed files of one store.  Thread-safe; any number of processes may use one store at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.ingest_folder = root / "ingest"

    def create(self) -> None:
        """Make the folders that content lives in; existing ones stay."""
        for name in ("blobs/sha256", "layers/sha256", "trees/sha256", "ingest"):
            make_folder(self._root / name)

    def blob_path(self, digest: Digest) -> Path:
        return self._root / "blobs" / digest.algorithm / digest.hex

    def layer_path(self, diff_id: DiffId) -> Path:
        return self._root / "layers" / diff_id.algorithm / f"{diff_id.hex}.tar"

    def layers_changed_ns(self) -> int:
        """Return when a file was last made, renamed or removed among the layers, in nanoseconds since 1970."""
        changed_ns = 0
        for algorithm in ("sha256", "sha512"):
            with contextlib.suppress(FileNotFoundError):
                changed_ns = max(changed_ns, (self._root / "layers" / algorithm).stat().st_mtime_ns)
        return changed_ns

    def index_path(self, diff_id: DiffId) -> Path:
        return self._root / "layers" / diff_id.algorithm / f"{diff_id.hex}.index"

    def put_blob(self, raw: bytes, digest: Digest) -> None:
        """Store *raw*, whose digest the caller knows to be *digest*; afterwards it is durable.  Idempotent."""
        path = self.blob_path(digest)
        if not is_file(path):
            with Ingest(self.ingest_folder) as file:
                file.write(raw)
                file.commit(path)

    def sync_names(self) -> None:
        """Make the names of all content durable, also of what another process has just renamed."""
        for kind in ("layers", "blobs"):
            for name in ("sha256", "sha512", "."):  # the folder itself last: it names the other two
                with contextlib.suppress(FileNotFoundError):
                    fsync_directory(self._root / kind / name)

    def blob(self, digest: Digest) -> bytes:
        """Return the blob *digest*.

        Raises: BlobNotFound.
        """
        try:
            return _content(self.blob_path(digest))
        except FileNotFoundError:
            raise BlobNotFound("document", str(digest)) from None

    def index(self, diff_id: DiffId) -> bytes:
        """Return the stored index of layer *diff_id*, b"" where there is none."""
        try:
            return _content(self.index_path(diff_id))
        except FileNotFoundError:
            return b""

    def replace_index(self, diff_id: DiffId, pieces: Iterable[bytes]) -> None:
        """Put the index that *pieces* make in place of a missing, damaged or older one."""
        self._replace(self.index_path(diff_id), pieces)

    def tree_path(self, chain_id: ChainId) -> Path:
        return self._root / "trees" / chain_id.algorithm / f"{chain_id.hex}.tree"

    def replace_tree(self, chain_id: ChainId, pieces: Iterable[bytes]) -> None:
        """Put the tree that *pieces* make in place of a missing, damaged or older one."""
        self._replace(self.tree_path(chain_id), pieces)

    def lone_tree_path(self, diff_id: DiffId) -> Path:
        return self._root / "trees" / diff_id.algorithm / f"{diff_id.hex}.layer"

    def drop_lone_tree(self, diff_id: DiffId) -> None:
        """Remove the tree of layer *diff_id* by itself; the next use makes it again."""
        path = self.lone_tree_path(diff_id)
        if is_file(path):
            path.unlink(missing_ok=True)
        else:
            clear(path)

    def _replace(self, path: Path, pieces: Iterable[bytes]) -> None:
        with Ingest(self.ingest_folder) as file:
            for together in _joined(pieces):
                file.write(together)
            file.replace(path)

    def present(self) -> Iterator[tuple[Path, Digest]]:
        """Yield every committed file with the digest in its name.

        Files of other names, folders and links are not content.
        """
        for kind, suffixes in _SUFFIXES.items():
            for algorithm in ("sha256", "sha512"):
                folder = self._root / kind / algorithm
                try:
                    entries = list(os.scandir(folder))
                except FileNotFoundError:
                    continue
                for entry in entries:
                    match = _CONTENT_NAME.fullmatch(entry.name)
                    if match and match["suffix"] in suffixes and entry.is_file(follow_symlinks=False):
                        yield folder / entry.name, Digest(algorithm, match["hex"])

    def remove_stale_ingests(self) -> int:
        """Remove the files of dead writers from the ingest folder; return the number of bytes that they took.

        A file that cannot be removed stays: it must not keep a new writer from its work.
        """
        freed = 0
        for entry in os.scandir(self.ingest_folder):
            if not re.fullmatch(r"[0-9a-f]{16}", entry.name):
                continue
            with contextlib.suppress(OSError):
                descriptor = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    size = disk_bytes(Path(entry.path))
                    Path(entry.path).unlink()
                    freed += size
                finally:
                    os.close(descriptor)
        return freed
