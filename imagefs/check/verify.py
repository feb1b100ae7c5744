"""Compare what a store holds with what its names promise.

Every document and every layer is read whole and compared with its digest; every index and tree is made anew from its
layers and compared byte by byte; rows of the catalog are compared with the configs they were made of.  Memory is that
of the largest image's union; time that of reading all layers once.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from imagefs.errors import (
    BlobNotFound,
    ContentError,
    ImagefsError,
    InvalidLayer,
    LayerDamaged,
    LayerIndexDamaged,
    TreeDamaged,
    describe,
)
from imagefs.layer.index import decode
from imagefs.layer.indexed import scanned_index
from imagefs.oci.config import parse_config
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.attributes import Attributes
from imagefs.overlay.numbering import ROOT_INDEX
from imagefs.overlay.stored import Stack
from imagefs.overlay.tree_file import Row, TreeFile
from imagefs.store.catalog import Image
from imagefs.store.content import open_file
from imagefs.store.store import Store, needs

State = Literal["damaged", "missing", "surplus"]
Kind = Literal["catalog", "document", "layer", "index", "tree", "content", "file"]
"""*content* is what no image needs, a *file* is not of imagefs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: what *kind* of thing, its *name* (a digest or path), and *why*.

    *images* are those that need it.
    """

    state: State
    kind: Kind
    name: str
    why: str
    images: tuple[Digest, ...] = ()


def verify(
    store: Store, images: Iterable[Image] | None = None, *, looking_at: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Yield what is wrong with *images* (default: all, and then also what nobody needs).

    *looking_at* is told what is looked at next.  Other processes may go on using the store; what they are bringing in
    meanwhile is not looked at.
    """
    yield from (Finding("damaged", "catalog", "catalog.sqlite", why) for why in store.catalog_problems())
    if images is None:
        yield from _surplus(store)
    with store.keeping():  # nothing is swept meanwhile
        wanted = store.images() if images is None else tuple(images)
        for image in wanted:
            looking_at(f"image {image.id.short}")
            yield from _documents(store, image)
        users: dict[DiffId, list[Digest]] = {}
        for image in wanted:
            for diff_id in image.diff_ids:
                users.setdefault(diff_id, []).append(image.id)
        bad: set[DiffId] = set()
        for diff_id, ids in users.items():
            looking_at(f"layer {diff_id.short}")
            for finding in _layer(store, diff_id, tuple(dict.fromkeys(ids))):
                if finding.kind == "layer":
                    bad.add(diff_id)
                yield finding
        stacks = {Stack(image.diff_ids): image.id for image in wanted}
        stacks |= {
            Stack((diff_id,), alone=True): ids[0]
            for diff_id, ids in users.items()
            if store.lone_tree_path(diff_id).exists()
        }
        for stack, id_ in stacks.items():
            if bad.isdisjoint(stack.diff_ids):
                looking_at(f"tree of image {id_.short}")
                yield from _tree(store, stack, id_)


def _documents(store: Store, image: Image) -> Iterator[Finding]:
    for digest in (image.id, image.manifest_digest):
        try:
            raw = store.document(digest)
        except BlobNotFound:
            yield Finding("missing", "document", str(digest), "it is not there", (image.id,))
            continue
        except OSError as error:
            yield Finding("damaged", "document", str(digest), describe(error), (image.id,))
            continue
        actual = Digest.of(raw, digest.algorithm)
        if actual != digest:
            yield Finding("damaged", "document", str(digest), f"its content has {actual}", (image.id,))
        elif digest == image.id:
            yield from _row(image, raw)


def _row(image: Image, config: bytes) -> Iterator[Finding]:
    try:
        parsed = parse_config(config, algorithm=image.id.algorithm)
    except ContentError as error:
        yield Finding("damaged", "document", str(image.id), describe(error), (image.id,))
        return
    told = (image.diff_ids, image.created_ns, image.platform)
    if told != (parsed.diff_ids, parsed.created_ns, str(parsed.platform)):
        yield Finding(
            "damaged", "catalog", str(image.id), "the catalog says another thing than the config", (image.id,)
        )


def _layer(store: Store, diff_id: DiffId, images: tuple[Digest, ...]) -> Iterator[Finding]:
    """Compare a layer's tar with its digest and, from the same pass, its index with what the tar gives.

    An index of an older version is made again at its first use; it is not damaged.
    """
    try:
        pieces = scanned_index(store, diff_id)
    except BlobNotFound:
        yield Finding("missing", "layer", str(diff_id), "it is not there", images)
        return
    except LayerDamaged as error:
        yield Finding("damaged", "layer", str(diff_id), error.reason, images)
        return
    except (InvalidLayer, OSError) as error:
        yield Finding("damaged", "layer", str(diff_id), describe(error), images)
        return
    index = store.layer_index(diff_id)
    if not index:
        yield Finding("missing", "index", str(diff_id), "it is not there", images)
    elif not _is_made_of(index, pieces):
        try:
            decode(index, diff_id)
            why = "it is not what its layer gives"
        except LayerIndexDamaged as error:
            if error.is_outdated:
                return
            why = error.reason
        yield Finding("damaged", "index", str(diff_id), why, images)


def _is_made_of(raw: bytes, pieces: Iterator[bytes]) -> bool:
    at = 0
    for piece in pieces:
        if raw[at : at + len(piece)] != piece:
            return False
        at += len(piece)
    return at == len(raw)


def _tree(store: Store, stack: Stack, image: Digest) -> Iterator[Finding]:
    """Compare a tree with what its layers give.  An outdated one is not damaged, as in `_layer`."""
    path = stack.path(store)
    name = path.stem
    try:
        with os.fdopen(open_file(path), "rb") as file:
            stored = file.read()
        reader = _reader(store, stack, stored)
        computed = b"".join(stack.computed(store, mend=False))
        # Without the store's secret, this process cannot compute the inode numbers.
        is_equal = (
            stored == computed if store.secret().is_stored else _are_alike(reader, _reader(store, stack, computed))
        )
        if not is_equal:
            yield Finding("damaged", "tree", name, "it is not what its layers give", (image,))
    except FileNotFoundError:
        if not stack.alone:
            yield Finding("missing", "tree", name, "it is not there", (image,))
    except TreeDamaged as error:
        if not error.is_outdated:
            yield Finding("damaged", "tree", name, error.reason, (image,))
    except (ImagefsError, OSError) as error:
        yield Finding("damaged", "tree", name, describe(error), (image,))


def _reader(store: Store, stack: Stack, raw: bytes) -> TreeFile:
    return stack.reader(store, lambda size, offset: raw[offset : offset + size], len(raw))


def _are_alike(one: TreeFile, other: TreeFile) -> bool:
    """Return whether two trees differ in nothing but inode numbers.

    Raises: TreeDamaged.
    """

    def records(tree: TreeFile, row: Row, index: int) -> list[tuple[bytes, tuple[int, int], Attributes]]:
        if not row.records:
            return []
        listing = tree.listing(index)
        return [
            (listing.name(number), listing.owner(number), replace(listing.attributes(number), ino=0))
            for number in range(2, len(listing))
        ]

    def unnumbered(row: Row) -> Row:
        return replace(row, attributes=replace(row.attributes, ino=0), listing_crc=0)

    if one.rows != other.rows:
        return False
    for index in range(ROOT_INDEX, one.rows + 1):
        row, other_row = one.row(index), other.row(index)
        if unnumbered(row) != unnumbered(other_row):
            return False
        if records(one, row, index) != records(other, other_row, index):
            return False
    return True


def _surplus(store: Store) -> Iterator[Finding]:
    """Yield content that no image needs, and files that are not ours; nothing while others write."""
    with store.alone() as is_alone:
        if not is_alone:
            return
        needed = set().union(*(needs(image) for image in store.images()))
        for path, digest in store.content_files():
            if digest not in needed:
                yield Finding("surplus", "content", _relative(store, path), "no image needs it")
    for path in store.foreign_files():
        yield Finding("surplus", "file", _relative(store, path), "it is not of imagefs, and is left alone")


def _relative(store: Store, path: Path) -> str:
    return os.fsencode(path.relative_to(store.path)).decode(errors="backslashreplace")
