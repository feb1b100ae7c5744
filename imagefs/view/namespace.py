"""Names of images as a tree of directories.

Receives the images of a store; hands on directories whose leaves are images.  Pure and immutable: a changed store
makes a new `Namespace`.

* ``alpine:3.20`` is ``alpine/3.20``, ``bitnami/postgresql:14`` is ``bitnami/postgresql/14``,
  ``localhost:5000/app:dev`` is ``localhost:5000/app/dev``: familiar names, each tag a directory.
* An image known by digest only is ``repository/@sha256:…``.  Where the repository has a tag for it, the digest
  resolves too but is not listed, so that nobody who walks the tree meets an image twice.
* ``alpine:3.20`` resolves, unlisted, as a symlink to ``alpine/3.20``.
* Where a tag and the beginning of a deeper repository have one name (``foo:bar`` and ``foo/bar:baz``), the tag wins;
  the image behind it is reachable by ID.
* ``.imagefs/images/<id>`` is every image by its ID (also ``sha256:<id>``), ``.imagefs/layers/<diff_id>`` every layer
  by itself, and ``.imagefs/meta/<repo>/<tag>/`` has the manifest and the config of each tag, byte for byte.
  ``.imagefs`` resolves but is not listed.
* A unique beginning of such an ID, of at least 12 digits, resolves as a symlink to the ID.  An ID has more than a
  hundred abbreviations; they are all one symlink, so looking them up does not take memory.

No tag begins with ``.`` or ``@`` and no path component of a repository does, so the control names cannot collide.
"""

import bisect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imagefs.oci.digest import DiffId, Digest
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image

CONTROL = b".imagefs"
_ID = re.compile(rb"(?:sha256:)?(?P<hex>[0-9a-f]{12,128})")


@dataclass(frozen=True, slots=True)
class ImageRoot:
    """Where an image's own tree begins."""

    image: Image


@dataclass(frozen=True, slots=True)
class LayerRoot:
    """Where the tree of one layer by itself begins."""

    diff_id: DiffId


@dataclass(frozen=True, slots=True)
class Document:
    """A file: the manifest or config *digest*; *mtime_ns* is when the image was created."""

    digest: Digest
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Symlink:
    """A name that stands for another, relative to the directory it is in.

    *name* is the one name by which this symlink is known where several names lead to it; None: its own.
    """

    target: bytes
    name: bytes | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of names.  *listed* is what readdir shows; *unlisted* resolves all the same.

    *ids* are the names of *listed*, sorted, in a directory where they are IDs and may be abbreviated.
    """

    listed: Mapping[bytes, "Directory | Leaf"] = field(default_factory=dict)
    unlisted: Mapping[bytes, "Directory | Leaf"] = field(default_factory=dict)
    ids: tuple[bytes, ...] = ()

    def resolve(self, name: bytes) -> "Found | None":
        """Return what *name* is in this directory, None where it is nothing."""
        found = self.listed.get(name) or self.unlisted.get(name)
        if found is not None:
            return found
        if self.ids and (match := _ID.fullmatch(name)):
            at = bisect.bisect_left(self.ids, match["hex"])
            matches = [known for known in self.ids[at : at + 2] if known.startswith(match["hex"])]
            if len(matches) != 1:
                return None
            return self.listed[matches[0]] if match["hex"] == matches[0] else Symlink(matches[0], name=matches[0][:-1])
        for separator in (b"@", b":"):  # name@sha256:… first: the digest's own colon is no tag
            repository, found_separator, rest = name.partition(separator)
            inner = self.listed.get(repository)
            if found_separator and isinstance(inner, Directory):
                leaf = (b"@" if separator == b"@" else b"") + rest
                return Symlink(repository + b"/" + leaf) if isinstance(inner.resolve(leaf), ImageRoot) else None
        return None


Leaf = ImageRoot | LayerRoot | Document
Found = Directory | Leaf | Symlink
"""What a name may be."""


@dataclass(slots=True)
class _Growing:
    """A directory being filled."""

    listed: "dict[bytes, _Growing | Leaf]" = field(default_factory=dict)
    unlisted: "dict[bytes, Leaf]" = field(default_factory=dict)

    def frozen(self) -> Directory:
        listed = {
            name: child.frozen() if isinstance(child, _Growing) else child
            for name, child in sorted(self.listed.items())
            if not isinstance(child, _Growing) or child.listed
        }
        return Directory(listed=listed, unlisted=dict(self.unlisted))


def tag_path(reference: Reference) -> bytes:
    """Return where, below the mount, the image that *reference* names is to be found, were nothing in its way."""
    leaf = f"@{reference.digest}" if reference.tag is None else reference.tag
    return f"{reference.familiar_name}/{leaf}".encode()


def namespace(images: Iterable[Image]) -> Directory:
    """Return the root directory of a mounted store that holds *images*."""
    images = tuple(images)
    root, meta = _Growing(), _Growing()
    # Tags first, shorter repositories before deeper ones: a tag is then in its place before a repository wants it.
    tags = sorted(
        ((tag_path(tag), image) for image in images for tag in image.tags), key=lambda item: item[0].count(b"/")
    )
    for path, image in tags:
        _put(root, path, ImageRoot(image), listed=True)
        _put_documents(meta, path, image)
    for image in images:
        tagged = {tag.name for tag in image.tags}
        for digest in image.digests:
            path = tag_path(digest)
            _put(root, path, ImageRoot(image), listed=digest.name not in tagged)
            _put_documents(meta, path, image)
    by_id = _by_id((image.id, ImageRoot(image)) for image in images)
    layers = _by_id((diff_id, LayerRoot(diff_id)) for image in images for diff_id in image.diff_ids)
    control = Directory(listed={b"images": by_id, b"layers": layers, b"meta": meta.frozen()})
    return Directory(listed=root.frozen().listed, unlisted={CONTROL: control})


def _by_id(leaves: Iterable[tuple[Digest, Leaf]]) -> Directory:
    listed = dict(sorted((digest.hex.encode(), leaf) for digest, leaf in dict(leaves).items()))
    return Directory(listed=listed, ids=tuple(listed))


def _put_documents(meta: _Growing, path: bytes, image: Image) -> None:
    for name, digest in ((b"manifest.json", image.manifest_digest), (b"config.json", image.id)):
        _put(meta, path + b"/" + name, Document(digest, image.created_ns or 0), listed=True)


def _put(root: _Growing, path: bytes, what: Leaf, *, listed: bool) -> None:
    *folders, leaf = path.split(b"/")
    directory = root
    for name in folders:
        child = directory.listed.setdefault(name, _Growing())
        if not isinstance(child, _Growing):
            return  # shadowed by a tag
        directory = child
    if listed:
        directory.listed.setdefault(leaf, what)
    else:
        directory.unlisted[leaf] = what


def mount_path(root: Directory, image: Image, reference: Reference | None) -> bytes:
    """Return where below the mount *image* is, by *reference* if that name is not shadowed, else by its ID."""
    if reference is not None:
        path = tag_path(reference)
        found: Found | None = root
        for name in path.split(b"/"):
            found = found.resolve(name) if isinstance(found, Directory) else None
        if isinstance(found, ImageRoot) and found.image.id == image.id:
            return path
    return CONTROL + b"/images/" + image.id.hex.encode()
