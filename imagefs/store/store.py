"""One store: content and catalog together, and the rules that keep them consistent.

Receives verified layers and documents and the references that shall name them; hands on `Image` values, paths of
layer tars and bytes of documents.

The order that makes a crash harmless: content is durable before the catalog names it, and the catalog forgets it
before content is unlinked.  Writers hold a shared lock on ``lock`` from before their first look at what is there until
their catalog row is committed; sweeping unreferenced content takes it exclusively, so nothing a writer counts on can
vanish.  Locks are flocks: a dead process holds none.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Self

from imagefs.errors import StoreFull, StoreUnusable, describe
from imagefs.oci.config import parse_config
from imagefs.oci.digest import ChainId, DiffId, Digest, chain_id
from imagefs.oci.manifest import Manifest
from imagefs.oci.reference import Reference
from imagefs.store import layout, mounts
from imagefs.store.access import file_mode, make_folder
from imagefs.store.catalog import Catalog, Image
from imagefs.store.content import (
    Content,
    LayerIngest,
    disk_bytes,
    fsync_directory,
    is_file,
    locked_temporary,
    open_file,
)
from imagefs.store.database import damaged
from imagefs.store.locking import READ_ONLY, can_write, locked
from imagefs.store.naming import find_image
from imagefs.store.partial import KEPT_S, Partial, Partials
from imagefs.store.reserve import Reserve
from imagefs.store.secret import Secret, make_secret, read_secret

_log = logging.getLogger(__name__)


def needs(image: Image) -> set[Digest]:
    """Return the digests of all content that *image* needs: layers, the tree of their stack, documents."""
    named = {name.digest for name in image.digests if name.digest is not None}
    return {*image.diff_ids, chain_id(image.diff_ids), image.id, image.manifest_digest, *named}


def _make_catalog(path: Path) -> None:
    """Put an empty catalog into the store at *path*, whole, unless there is one."""
    target = path / "catalog.sqlite"
    if target.exists():
        return
    temporary, descriptor = locked_temporary(path / "ingest")
    try:
        Catalog.create(temporary)
        os.fchmod(descriptor, file_mode(path))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, target)
        fsync_directory(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _check_not_lost(path: Path) -> None:
    """Raise CatalogDamaged if the store at *path* holds content and no catalog, which is made before any content."""
    holds_content = next(Content(path).present(), None) is not None
    if holds_content and not (path / "catalog.sqlite").exists():  # in this order: another process may make both
        raise damaged(path / "catalog.sqlite", "is missing")


class Store:
    """The store at one folder.  Thread-safe; any number of processes may use one store at once.

    Open it after forking, not before: the catalog's connection must not be shared between processes.
    """

    def __init__(self, path: Path, catalog: Catalog, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._catalog = catalog
        self._content = Content(path)
        self._partials = Partials(path / "partial")
        self._reserve = Reserve(path / "reserve")
        self._secret: Secret | None = None
        self._random = Secret.of_process()

    @classmethod
    def open(cls, path: Path, *, create: bool = False, trust: bool = False) -> Self:
        """Open the store at *path*; with *create* make one there if there is none (the folder missing or empty).

        A store of another user, who made it readable for a group of this user, or on a read-only disk opens for
        reading.  Any other store that is not private to this user is refused, unless *trust*.

        Raises: StoreUnusable, with the reason: no store, another folder, another user's, or a newer format;
        CatalogDamaged, also where the catalog is missing.
        """
        path = path.absolute()
        is_owner = layout.check(path, create=create, trust=trust)
        if is_owner and (create or not (path / "catalog.sqlite").exists()):  # its maker may have died
            _check_not_lost(path)
            with layout.refusals_named(path):
                Content(path).create()
                make_folder(path / "mounts")
                _make_catalog(path)
        read_only = not is_owner or not os.access(path / "catalog.sqlite", os.W_OK) or not can_write(path)
        return cls(path, Catalog(path / "catalog.sqlite", read_only=read_only), read_only=read_only)

    def close(self) -> None:
        """Close the catalog.  Paths and open files stay usable."""
        self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- reading ----

    def generation(self) -> int:
        """Return a number that differs once another process has changed which images there are or their names."""
        return self._catalog.generation()

    def images(self) -> tuple[Image, ...]:
        """Return all images, newest first."""
        return self._catalog.images()

    def image(self, wanted: str | Reference) -> Image:
        """Return the image that *wanted* names: a reference, an image ID, or the unique beginning of one.

        Raises: ImageNotFound, with the nearest names as a hint; InvalidReference.
        """
        return find_image(self.images(), wanted)

    def has_layer(self, diff_id: DiffId) -> bool:
        """Return whether the layer is here; only inside `writing` does the answer stay true."""
        return is_file(self.layer_path(diff_id))

    def layer_path(self, diff_id: DiffId) -> Path:
        """Return where the layer's uncompressed tar is, or would be."""
        return self._content.layer_path(diff_id)

    def open_layer(self, diff_id: DiffId) -> BinaryIO:
        """Open the layer's uncompressed tar for reading.

        Raises: OSError.
        """
        return os.fdopen(open_file(self.layer_path(diff_id)), "rb")

    def layers_changed_ns(self) -> int:
        """Return a time that differs once a layer, or the index of one, was committed, replaced or removed."""
        return self._content.layers_changed_ns()

    def index_path(self, diff_id: DiffId) -> Path:
        """Return where the layer's index is, or would be."""
        return self._content.index_path(diff_id)

    def tree_path(self, chain_id: ChainId) -> Path:
        """Return where the tree of the stack *chain_id* is, or would be."""
        return self._content.tree_path(chain_id)

    def lone_tree_path(self, diff_id: DiffId) -> Path:
        """Return where the tree of layer *diff_id* by itself is, or would be."""
        return self._content.lone_tree_path(diff_id)

    def document_path(self, digest: Digest) -> Path:
        """Return where the manifest or config *digest* is, or would be."""
        return self._content.blob_path(digest)

    def layer_index(self, diff_id: DiffId) -> bytes:
        """Return the layer's stored index, b"" where there is none."""
        return self._content.index(diff_id)

    def document(self, digest: Digest) -> bytes:
        """Return a manifest or config, byte for byte as it was received.

        Raises: BlobNotFound.
        """
        return self._content.blob(digest)

    def secret(self, *, substitute: Secret | None = None) -> Secret:
        """Return the secret of this store, made at the first call ever; always the same for one `Store`.

        A process that can neither read nor make it gets *substitute* (by default random bytes) instead.
        """
        if self._secret is None:
            self._secret = self._own_secret() or substitute or self._random
        return self._secret

    def _own_secret(self) -> Secret | None:
        path = self.path / "secret"
        try:
            secret = read_secret(path)
            if secret is None and not self.read_only:
                secret = make_secret(path, ingest_folder=self._content.ingest_folder)
        except PermissionError:
            return None  # a reader of a store of another user
        except OSError as error:
            _log.warning("%s: %s", path, describe(error))
            return None
        return secret

    # ---- writing ----

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off sweeping: what is in the store on entering, or is committed inside, stays until leaving."""
        self.check_writable()
        with self.keeping():
            # A writer that was killed never comes to this, so whoever writes next does.
            self._content.remove_stale_ingests()
            if not self.read_only:
                self._reserve.fill()
            yield

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Hold off sweeping, like `writing`, for who only reads content for some time."""
        with locked(self.path, fcntl.LOCK_SH, read_only=self.read_only):
            yield
        if not self.read_only and (self.path / "sweep-wanted").exists():
            # The work of this caller succeeded; another process requested the sweep, and the request stays.
            with contextlib.suppress(OSError):
                self.sweep()

    def new_layer(self) -> LayerIngest:
        """Begin to write a layer; to be used inside `writing`."""
        return LayerIngest(self._content)

    def claim_partial(self, blob: Digest) -> Partial | None:
        """Return what is there of a compressed layer *blob*, perhaps nothing, for this caller alone to add to.

        None while another, here or in another process, does.
        """
        return self._partials.claim(blob)

    def drop_partial(self, blob: Digest) -> None:
        """Remove what is there of a compressed layer *blob*, unless somebody is adding to it."""
        self._partials.drop(blob)

    def partial_size(self, blob: Digest) -> int:
        """Return how many bytes of a compressed layer *blob* are there from downloads that were not finished."""
        return self._partials.size(blob)

    def replace_layer_index(self, diff_id: DiffId, pieces: Iterable[bytes]) -> None:
        """Keep the index that *pieces* make, rebuilt from the layer's tar; does nothing in a read-only store."""
        if not self.read_only:
            self._content.replace_index(diff_id, pieces)

    def replace_tree(self, chain_id: ChainId, pieces: Iterable[bytes]) -> None:
        """Keep the tree that *pieces* make for the stack *chain_id*; not for a store opened for reading.

        The tree of a stack that no image has is swept like a layer that no image has.
        """
        self.check_writable()
        self._content.replace_tree(chain_id, pieces)

    def drop_lone_tree(self, diff_id: DiffId) -> None:
        """Remove the tree of layer *diff_id* by itself; the next use makes it again."""
        self._content.drop_lone_tree(diff_id)

    def add_image(self, *, manifest: Manifest, config: bytes, references: Sequence[Reference]) -> Image:
        """Make an image visible, all of whose layers are committed; to be used inside `writing`.

        *manifest* and *config* are stored verbatim.  A reference with a tag becomes that tag (moving it if it pointed
        elsewhere); its digest, where it has one, is what the tag pointed to in the registry.  A reference with a
        digest only becomes a digest reference.  No reference at all makes an untagged image.

        An image that is already here keeps the manifest that it came with first.  Another one is stored only if a
        reference has its digest.

        Raises: StoreUnusable, if a layer is missing.
        """
        parsed = parse_config(config, algorithm=manifest.config.digest.algorithm)
        size = 0
        for diff_id in parsed.diff_ids:
            try:
                size += self.layer_path(diff_id).stat().st_size
            except FileNotFoundError:
                raise StoreUnusable(str(self.path), f"layer {diff_id} of a new image is not there") from None
        self._content.put_blob(config, manifest.config.digest)
        first = self._catalog.manifest(manifest.config.digest)
        manifest_digest = first if first and is_file(self.document_path(first)) else manifest.digest
        if manifest.digest in {manifest_digest, *(reference.digest for reference in references)}:
            self._content.put_blob(manifest.raw, manifest.digest)
        self._content.sync_names()
        image = Image(
            id=manifest.config.digest,
            manifest_digest=manifest_digest,
            tags=tuple(reference for reference in references if reference.tag is not None),
            digests=tuple(reference for reference in references if reference.tag is None),
            diff_ids=parsed.diff_ids,
            created_ns=parsed.created_ns,
            size=size,
            platform=str(parsed.platform),
        )
        self._catalog.add(image)
        return self.image(str(image.id))

    def tag(self, image: Image, reference: Reference) -> bool:
        """Let *reference*, which has a tag, name *image*; return False where the image is gone meanwhile."""
        return self._catalog.tag(image.id, reference)

    def remove_names(
        self, image: Image, *, tags: tuple[Reference, ...], digests: tuple[Reference, ...], keep: bool = False
    ) -> bool:
        """Remove names of *image*; with its last name the image goes too, its content only with the next `sweep`.

        With *keep* it stays, without a name.  Returns whether the image is gone.  Works on a full disk.

        Raises: StoreUnusable.
        """

        def remove() -> bool:
            return self._catalog.remove(image.id, tags=tags, digests=digests, keep=keep)

        self.check_writable()
        with locked(self.path, fcntl.LOCK_SH, read_only=False):
            try:
                return remove()
            except StoreFull:
                with self._reserve.released():
                    return remove()

    def sweep(self, *, unfinished_s: float = KEPT_S) -> int | None:
        """Remove content that no image needs, and downloads that did not grow for *unfinished_s* seconds.

        Returns the number of bytes of the disk that this freed; None if another process writes: the last writer then
        sweeps when it leaves `writing`.

        Raises: StoreUnusable, if the store is read-only or its catalog damaged; OSError, with the file's name.
        """
        self.check_writable()
        request = self.path / "sweep-wanted"
        try:
            return self._sweep_alone(request, unfinished_s)
        except BlockingIOError:
            # The request is written only now: a disk may be unable to take even an empty file.
            with contextlib.suppress(OSError):
                request.touch()
        try:
            return self._sweep_alone(request, unfinished_s)  # the last writer may have left before the request
        except BlockingIOError:
            return None

    def _sweep_alone(self, request: Path, unfinished_s: float) -> int:
        """Sweep; raises BlockingIOError if another process writes."""
        with locked(self.path, fcntl.LOCK_EX | fcntl.LOCK_NB, read_only=self.read_only):
            request.unlink(missing_ok=True)
            needed: set[Digest] = set()
            for image in self._catalog.images():
                needed |= needs(image)
            freed = 0
            for path, digest in self._content.present():
                if digest not in needed:
                    with contextlib.suppress(FileNotFoundError):
                        size = disk_bytes(path)
                        path.unlink()
                        freed += size
            freed += self._content.remove_stale_ingests() + self._partials.remove_old(unfinished_s)
        self._reserve.fill()
        return freed

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Tell whether no other process is writing, and keep it so while the context lasts."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path, fcntl.LOCK_EX | fcntl.LOCK_NB, read_only=self.read_only))
            except BlockingIOError:
                yield False
            else:
                yield True

    def content_files(self) -> Iterator[tuple[Path, Digest]]:
        """Yield every file of content with the digest in its name."""
        return self._content.present()

    def foreign_files(self) -> Iterator[Path]:
        """Yield files in the store's folder that are not of imagefs."""
        return layout.foreign_files(self.path, {path for path, _ in self._content.present()})

    def catalog_problems(self) -> tuple[str, ...]:
        """Return what is wrong with the catalog's file, as the database says; nothing where all is well."""
        return self._catalog.problems()

    def content_bytes(self) -> dict[Digest, int]:
        """Return how many bytes of the disk each piece of content takes, with what is derived from it."""
        found: dict[Digest, int] = {}
        for path, digest in self._content.present():
            with contextlib.suppress(FileNotFoundError):  # swept meanwhile
                found[digest] = found.get(digest, 0) + disk_bytes(path)
        return found

    def check_writable(self) -> None:
        """Raise StoreUnusable if the store can only be read: root could write to it all the same."""
        if self.read_only:
            raise StoreUnusable(str(self.path), READ_ONLY)

    def set_group(self, group: int | None) -> None:
        """Make the store readable for the members of *group*; with None, private.

        Raises: StoreUnusable, for another user than the owner, one that is no member of the group, or during writing.
        """
        self.check_writable()
        with self.keeping():
            pass  # makes the file of the lock, which readers lock, too
        with self.alone() as is_alone, layout.refusals_named(self.path):
            if not is_alone:
                raise StoreUnusable(str(self.path), "another process writes to it; try again when that has ended")
            try:
                layout.set_group(self.path, group)
            except PermissionError:
                raise StoreUnusable(
                    str(self.path), f"you are no member of group {group}, so it stays private"
                ) from None

    # ---- mounts ----

    def new_mount_record(self) -> mounts.RecordFile | None:
        """Return a file in which to say that the store is mounted; None where the store cannot be written to.

        What it says is true for as long as this process lives, or one that it passes the descriptor on to.  An image
        that it names is pinned against removal.
        """
        return None if self.read_only else mounts.RecordFile.begin(self.path / "mounts")

    def live_mounts(self) -> tuple[mounts.MountRecord, ...]:
        """Return the mounts of this store whose serving processes live, by mount point."""
        return mounts.live(self.path / "mounts")
