"""One image: what it is called, what it says of itself, what it is made of, and the way to its files.

Receives an image of an open store; hands on values and paths.  Must never know how images come into a store.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from imagefs.api.path import ImagePath
from imagefs.errors import BlobNotFound, InvalidReference
from imagefs.oci.config import ImageConfig, parse_config
from imagefs.overlay.stored import Stack
from imagefs.store import catalog

if TYPE_CHECKING:
    from imagefs.api.config import Config
    from imagefs.api.opened import OpenedStore
    from imagefs.overlay.listing import Listing
    from imagefs.view.tree import ImageTree, Thing

_MOST_DIRECTORIES = 4096
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: *size* counts the bytes of its uncompressed tar; *created_by* is "" where the history cannot tell."""

    diff_id: str
    size: int
    created_by: str


class Directories:
    """The directories of an image that were looked at last, by path: nobody goes there from the root for each name.

    Thread-safe, as far as it matters: what is lost is looked for again.
    """

    def __init__(self) -> None:
        self._things: dict[bytes, Thing] = {}
        self._last: tuple[bytes, Listing] | None = None

    def put(self, path: bytes, directory: "Thing") -> None:
        """Remember that *directory* is at *path*."""
        if len(self._things) >= _MOST_DIRECTORIES:
            self._things.clear()
        self._things[path] = directory

    def find(self, tree: "ImageTree", folder: bytes, name: bytes) -> "Thing | None":
        """Return what is called *name*, neither "." nor "..", in the directory at *folder* of *tree*, if it is there.

        Raises: OSError(ELOOP).
        """
        listing = self._listing(tree, folder)
        number = listing.find(name) if listing is not None else None
        return None if listing is None or number is None else tree.thing(listing, number)

    def _listing(self, tree: "ImageTree", path: bytes) -> "Listing | None":
        # One is kept, which may be big: names are mostly looked for in the same directory as before.
        last = self._last
        if last is not None and last[0] == path:
            return last[1]
        directory = self._things.get(path)
        if directory is None:
            found = tree.find(path, follow=True)
            if found is None or not found[1].is_directory:
                return None
            directory = found[1]
            self.put(path, directory)
        listing = tree.listing(directory)
        self._last = path, listing
        return listing


class Image:
    """An image as it was when it was asked for: names may move later, what is in it never changes.

    Made by `ImageStore`.  Usable until its store is closed, then methods raise StoreUnusable.  Thread-safe.
    """

    def __init__(self, opened: "OpenedStore", found: catalog.Image, stack: Stack, reference: str) -> None:
        self._opened = opened
        self._found = found
        self._stack = stack
        self.reference = reference
        """What it was asked for by, for messages."""
        self.directories = Directories()
        """For paths in it."""

    def __repr__(self) -> str:
        return f"<imagefs.Image {self.reference!r} {self._found.id.short}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple["OpenedStore", str, Stack]:
        return self._opened, self.id, self._stack

    # ---- what it is called ----

    @property
    def id(self) -> str:
        """The digest of its config, which tools call the image ID."""
        return str(self._found.id)

    @property
    def names(self) -> tuple[str, ...]:
        """Its tags, as people write them: ``alpine:3.20``; sorted."""
        return tuple(tag.familiar_tag for tag in self._found.tags)

    @property
    def digests(self) -> tuple[str, ...]:
        """The names by digest under which registries gave it: ``alpine@sha256:…``; sorted."""
        return tuple(reference.familiar for reference in self._found.digests)

    # ---- what it says of itself ----

    @property
    def created(self) -> datetime.datetime | None:
        """When it was made, in UTC, by its own account; None where that is absent or no time."""
        created_ns = self._found.created_ns
        return None if created_ns is None else _EPOCH + datetime.timedelta(microseconds=created_ns // 1000)

    @property
    def size(self) -> int:
        """How many bytes its uncompressed layers have, shared or not."""
        return self._found.size

    @cached_property
    def config(self) -> "Config":
        """What a container of it would be started with.  Raises: BlobNotFound, InvalidManifest."""
        from imagefs.api.config import typed_config

        return typed_config(self._config)

    @cached_property
    def _config(self) -> ImageConfig:
        return parse_config(self._opened.store().document(self._found.id), algorithm=self._found.id.algorithm)

    @property
    def manifest_digest(self) -> str:
        """The digest of the manifest that it was stored with."""
        return str(self._found.manifest_digest)

    @cached_property
    def manifest(self) -> dict[str, object]:
        """The manifest that it was stored with, as the document it is.  Raises: BlobNotFound."""
        from imagefs.oci.document import mapping, parse_json
        from imagefs.oci.manifest import MAX_MANIFEST_BYTES

        raw = self._opened.store().document(self._found.manifest_digest)
        return dict(mapping(parse_json(raw, what="manifest", limit_bytes=MAX_MANIFEST_BYTES), what="manifest"))

    # ---- what it is made of ----

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers, base first.  Raises: BlobNotFound."""
        store = self._opened.store()
        made = iter([step.created_by for step, diff_id in self._config.steps() if diff_id is not None])
        layers = []
        for diff_id in self._stack.diff_ids:
            try:
                size = store.layer_path(diff_id).stat().st_size
            except FileNotFoundError:
                raise BlobNotFound("layer", str(diff_id)) from None
            layers.append(Layer(str(diff_id), size, next(made, "")))
        return tuple(layers)

    def at_layer(self, count: int) -> "Image":
        """Return the image as of the first *count* of all its layers: the same but for its tree and its layers.

        Raises: InvalidReference, where there are not that many.
        """
        reference = f"{self.reference.partition('@layer:')[0]}@layer:{count}"
        every = self._found.diff_ids
        if not 0 <= count <= len(every):
            raise InvalidReference(reference, f"the image has {len(every)} layers, counted from the base as layer:1")
        return Image(self._opened, self._found, Stack(every[:count]), reference)

    # ---- its files ----

    @property
    def root(self) -> ImagePath:
        """Its root directory."""
        return ImagePath(self, "/")

    def path(self, path: str | bytes) -> ImagePath:
        """Return what *path* names, which need not be there; relative paths are from the root, too."""
        return self.root / path

    def walk(self, *, top_down: bool = True) -> Iterator[tuple[ImagePath, list[str], list[str]]]:
        """Yield (directory, names of directories, names of all else) as `ImagePath.walk` does of the root."""
        return self.root.walk(top_down=top_down)

    @cached_property
    def _kept_tree(self) -> "ImageTree":
        return self._opened.tree(self._stack, passing=self._stack.diff_ids != self._found.diff_ids)

    def tree(self) -> "ImageTree":
        """Return its tree, of which the rest of this package is made.

        Raises: StoreUnusable, once the store is closed; BlobNotFound, InvalidLayer.
        """
        self._opened.store()
        return self._kept_tree
