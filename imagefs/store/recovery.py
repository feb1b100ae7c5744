"""A damaged or missing catalog, made again from the stored documents and layers, and from what it still holds itself.

Images come from their manifests and configs, whose digests prove them.  Names are only in the catalog: a name is
restored if both of its copies there agree, or if only one can be read.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from imagefs.errors import ContentError, StoreUnusable
from imagefs.oci.config import MAX_CONFIG_BYTES, ImageConfig, parse_config
from imagefs.oci.digest import Digest
from imagefs.oci.manifest import Manifest, parse_manifest
from imagefs.oci.reference import Reference
from imagefs.store import layout
from imagefs.store.access import file_mode
from imagefs.store.catalog import Catalog, Copies, Image, Name, Remains, reference
from imagefs.store.content import Content, fsync_directory, is_file, locked_temporary
from imagefs.store.locking import READ_ONLY, can_write, locked

_NO_REMAINS = Remains((), {}, (Copies((), True), Copies((), True)), (Copies((), True), Copies((), True)))


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A catalog that was made again with *images*; the file *aside* is the damaged one, None if there was none.

    *lost* are names of images that are not in the store any more.  *doubtful* are names, each with the image that it
    may stand for, of which the two copies disagree: they are not restored.
    """

    images: tuple[Image, ...]
    aside: Path | None
    lost: tuple[str, ...]
    doubtful: tuple[tuple[str, Digest], ...]


def rebuild_catalog(path: Path, *, trust: bool = False) -> Rebuilt:
    """Make the catalog of the store at *path* again, and put it in place of the damaged one, which stays beside it.

    Content is neither changed nor removed.  Processes that use the store go on with the new catalog.

    Raises: StoreUnusable, also where another process writes to the store; OSError.
    """
    if not layout.check(path, create=False, trust=trust) or not can_write(path):
        raise StoreUnusable(str(path), READ_ONLY)
    try:
        with locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB, read_only=False):
            return _rebuild(path)
    except BlockingIOError:
        raise StoreUnusable(str(path), "another process writes to it; try again when that has ended") from None


def _rebuild(path: Path) -> Rebuilt:
    catalog = path / "catalog.sqlite"
    remains = Catalog.remains(catalog) if is_file(catalog) else _NO_REMAINS
    content = Content(path)
    found = _images(content, remains)
    names = _Names(found)
    names.add(*remains.digests, is_tag=False)
    names.add(*remains.tags, is_tag=True)
    images = tuple(names.of(image) for image in found.values())
    temporary, descriptor = locked_temporary(content.ingest_folder)
    try:
        now_ns = time.time_ns()
        Catalog.create(temporary, [(image, remains.added_ns.get(image.id, now_ns)) for image in images])
        os.fchmod(descriptor, file_mode(path))
        aside = _exchange(temporary, catalog)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)
    return Rebuilt(images, aside, tuple(names.lost), tuple(names.doubtful))


def _exchange(temporary: Path, catalog: Path) -> Path | None:
    """Put *temporary* in place of *catalog*; return where the old file is now.  A crash leaves one of the two there."""
    aside = None
    if os.path.lexists(catalog):
        aside = catalog.with_name(f"{catalog.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        # The journal goes first: SQLite would play it back into the new file.
        with contextlib.suppress(FileNotFoundError):
            Path(f"{catalog}-journal").rename(f"{aside}-journal")
        if is_file(catalog):
            os.link(catalog, aside)
        else:
            catalog.rename(aside)
        fsync_directory(catalog.parent)
    temporary.replace(catalog)
    fsync_directory(catalog.parent)
    return aside


def _images(content: Content, remains: Remains) -> dict[Digest, Image]:
    """Return all images by ID, without names.

    A row of the old catalog alone proves nothing: a bit of its ID may have changed.  With a document that names the ID
    or has it as its digest, it stands for an image of which the other document must be fetched again.
    """
    listed = {image.id: image for image in remains.images}
    documents = dict(_whole_documents(content))
    images: dict[Digest, Image] = {}
    for digest, raw in documents.items():
        manifest = _manifest(raw, digest)
        if manifest is None:
            continue
        id_ = manifest.config.digest
        before = images.get(id_)
        if before is not None and (id_ not in listed or listed[id_].manifest_digest != digest):
            continue  # of several manifests, the one that the catalog lists
        config = _config(documents[id_], manifest) if id_ in documents else None
        if config is None and id_ in listed:
            images[id_] = replace(listed[id_], manifest_digest=digest)
        if config is None:
            continue
        sizes = [path.stat().st_size for path in map(content.layer_path, config.diff_ids) if is_file(path)]
        if len(sizes) < len(config.diff_ids) and id_ not in listed:
            continue  # left of an image that was removed
        images[id_] = Image(
            id=id_,
            manifest_digest=digest,
            tags=(),
            digests=(),
            diff_ids=config.diff_ids,
            created_ns=config.created_ns,
            size=sum(sizes) if len(sizes) == len(config.diff_ids) else listed[id_].size,
            platform=str(config.platform),
        )
    return {**{id_: image for id_, image in listed.items() if id_ in documents}, **images}


def _whole_documents(content: Content) -> Iterator[tuple[Digest, bytes]]:
    """Yield every document whose digest is right, in order of their paths."""
    for path, digest in sorted(content.present()):
        if path == content.blob_path(digest) and path.stat().st_size <= MAX_CONFIG_BYTES:
            with contextlib.suppress(OSError):
                raw = path.read_bytes()
                if Digest.of(raw, digest.algorithm) == digest:
                    yield digest, raw


def _manifest(raw: bytes, digest: Digest) -> Manifest | None:
    try:
        manifest = parse_manifest(raw, algorithm=digest.algorithm)
    except ContentError:
        return None
    return manifest if isinstance(manifest, Manifest) else None


def _config(raw: bytes, manifest: Manifest) -> ImageConfig | None:
    try:
        config = parse_config(raw, algorithm=manifest.config.digest.algorithm)
    except ContentError:
        return None
    return config if len(config.diff_ids) == len(manifest.layers) else None


class _Names:
    """The names of *images* that are sure; what becomes of the others."""

    def __init__(self, images: dict[Digest, Image]) -> None:
        self._images = images
        self._tags: dict[Digest, list[Reference]] = {}
        self._digests: dict[Digest, list[Reference]] = {}
        self.lost: list[str] = []
        self.doubtful: list[tuple[str, Digest]] = []

    def of(self, image: Image) -> Image:
        """Return *image* with its names."""
        tags, digests = self._tags.get(image.id, []), self._digests.get(image.id, [])
        return replace(image, tags=tuple(sorted(tags, key=str)), digests=tuple(sorted(digests, key=str)))

    def add(self, table: Copies, index: Copies, *, is_tag: bool) -> None:
        """Judge the names in *table* and *index*; digests come before tags, whose targets they confirm."""
        copies = (table, index)
        keys = [{(name.repository, name.name) for name in copy.names} for copy in copies]
        candidates: dict[Reference, set[Digest]] = {}
        targets: dict[Reference, Reference] = {}
        unknown: dict[Reference, object] = {}
        for name in (name for copy in copies for name in copy.names):
            parsed = _parsed(name, is_tag=is_tag)
            if parsed is None:
                continue
            image = _known(name, self._images)
            if image is None:
                unknown[parsed] = name.image
                continue
            candidates.setdefault(parsed, set()).add(image)
            if (target := _target(name)) is not None and target in self._digests.get(image, ()):
                targets[parsed] = target
        for parsed, images in sorted(candidates.items(), key=lambda item: str(item[0])):
            key = (parsed.name, parsed.tag if is_tag else str(parsed.digest))
            agree = all(key in seen or not copy.is_complete for seen, copy in zip(keys, copies, strict=True))
            if len(images) == 1 and agree:
                named = replace(parsed, digest=targets[parsed].digest) if parsed in targets else parsed
                (self._tags if is_tag else self._digests).setdefault(next(iter(images)), []).append(named)
            else:
                self.doubtful += [(parsed.familiar, image) for image in sorted(images, key=str)]
        self.lost += sorted(parsed.familiar for parsed in unknown.keys() - candidates.keys())


def _parsed(name: Name, *, is_tag: bool) -> Reference | None:
    with contextlib.suppress(ValueError, TypeError):
        return reference(name.repository, name.name, "") if is_tag else reference(name.repository, None, name.name)
    return None


def _target(name: Name) -> Reference | None:
    if name.target == "":
        return None
    with contextlib.suppress(ValueError, TypeError):
        return reference(name.repository, None, name.target)
    return None


def _known(name: Name, images: dict[Digest, Image]) -> Digest | None:
    with contextlib.suppress(ValueError, TypeError):
        id_ = Digest.parse(str(name.image))
        return id_ if id_ in images else None
    return None
