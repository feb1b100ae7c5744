"""Images that nobody needs, and what disk space images take.

Receives a store; hands on which images could go, and how much of the disk each image has for itself or shares.
Removes only what it is told to.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imagefs.oci.digest import Digest
from imagefs.store.catalog import Image
from imagefs.store.store import Store, needs


@dataclass(frozen=True, slots=True)
class Usage:
    """What of the disk *image* takes, in bytes: *unique* would be freed with it, *shared* other images need, too."""

    image: Image
    unique: int
    shared: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went: names and images, in order.  *freed* is None where that is left to a writer that is at work."""

    untagged: tuple[str, ...]
    deleted: tuple[Digest, ...]
    freed: int | None


def usage(store: Store) -> tuple[Usage, ...]:
    """Return what each image takes, newest image first."""
    images, taken = store.images(), store.content_bytes()
    users = Counter(digest for image in images for digest in needs(image))
    found = []
    for image in images:
        sizes = [(taken.get(digest, 0), users[digest]) for digest in needs(image)]
        unique = sum(size for size, count in sizes if count == 1)
        found.append(Usage(image, unique, sum(size for size, _ in sizes) - unique))
    return tuple(found)


def reclaimable(store: Store, doomed: Iterable[Image]) -> int:
    """Return how many bytes of the disk would be freed if all of *doomed* went."""
    gone = {image.id for image in doomed}
    kept: set[Digest] = set()
    for image in store.images():
        if image.id not in gone:
            kept |= needs(image)
    return sum(size for digest, size in store.content_bytes().items() if digest not in kept)


def prunable(store: Store, *, tagged: bool = False) -> tuple[Image, ...]:
    """Return the images without a tag, with *tagged* those that have one, too; never those that are mounted alone."""
    mounted = {mount.image for mount in store.live_mounts()}
    return tuple(image for image in store.images() if (tagged or not image.tags) and image.id not in mounted)


def prune(store: Store, images: Sequence[Image]) -> Pruned:
    """Remove *images* with the names that they had when they were listed, and content that nobody needs.

    An image that got another name meanwhile stays.  What other processes are bringing in is not touched; downloads that
    were interrupted go.
    """
    # Leftovers go first: a disk that is full of them may have no space for a change of the catalog.
    leftovers = store.sweep(unfinished_s=0)
    untagged: list[str] = []
    deleted: list[Digest] = []
    for image in images:
        if store.remove_names(image, tags=image.tags, digests=image.digests):
            deleted.append(image.id)
        untagged += [name.familiar for name in (*image.tags, *image.digests)]
    freed = store.sweep(unfinished_s=0)
    if freed is not None:
        freed += leftovers or 0
    return Pruned(tuple(untagged), tuple(deleted), freed)
