"""What removing an image, or its names, by name or by ID means: docker's rules, over the store.

Receives what the user typed; hands on what was untagged and deleted.
"""

from dataclasses import dataclass

from imagefs.errors import ImageInUse, InvalidReference
from imagefs.oci.digest import Digest
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image
from imagefs.store.naming import is_named
from imagefs.store.store import Store


@dataclass(frozen=True, slots=True)
class Removal:
    """*untagged*: the names that went, in the order they went; *deleted*: the image, if it went with them."""

    untagged: tuple[str, ...]
    deleted: Digest | None


def remove(store: Store, wanted: str, *, force: bool = False) -> Removal:
    """Remove the name *wanted*, or the image of the ID *wanted*.

    By name only that name goes; with the last tag in a repository go the digests known from there; with the last name
    goes the image.  By ID all names go, if they are of one repository or with *force*.  An image that a mount shows
    alone is kept unless *force*: files open there then keep working, the names go.

    Raises: ImageNotFound, ImageInUse, InvalidReference.
    """
    image = store.image(wanted)
    tags, digests = _names_meant(image, wanted)
    if not tags and not digests:  # by ID
        if len({tag.name for tag in image.tags}) > 1 and not force:
            raise ImageInUse(
                image.id.short, "is referenced in multiple repositories; remove it by name, or use --force"
            )
        tags, digests = image.tags, image.digests
    if len(tags) == len(image.tags) and len(digests) == len(image.digests) and not force:
        for mount in store.live_mounts():
            if mount.image == image.id:
                where = f"is in use by a mount at {mount.mountpoint} (pid {mount.pid}); unmount it or use --force"
                raise ImageInUse(wanted, where)
    gone = store.remove_names(image, tags=tags, digests=digests)
    if gone:
        store.sweep()
    return Removal(untagged=_shown(tags, digests), deleted=image.id if gone else None)


def untag(store: Store, wanted: str) -> tuple[str, ...]:
    """Remove the name *wanted*, or all names of the image of the ID *wanted*, and return them; the image stays.

    Raises: ImageNotFound, InvalidReference.
    """
    image = store.image(wanted)
    tags, digests = _names_meant(image, wanted)
    if not tags and not digests:
        tags, digests = image.tags, image.digests
    store.remove_names(image, tags=tags, digests=digests, keep=True)
    return _shown(tags, digests)


def _shown(tags: tuple[Reference, ...], digests: tuple[Reference, ...]) -> tuple[str, ...]:
    return tuple(tag.familiar_tag for tag in tags) + tuple(name.familiar for name in digests)


def _names_meant(image: Image, wanted: str) -> tuple[tuple[Reference, ...], tuple[Reference, ...]]:
    """Return the tags and digests of *image* that go with the name *wanted*; both empty where it is an ID."""
    try:
        reference = Reference.parse(wanted).with_default_tag()
    except InvalidReference:
        return (), ()
    if not is_named(image, reference):
        return (), ()
    if reference.digest is not None:
        # Tags in that repository keep the image reachable there; removing what they point to by digest removes them.
        tags = tuple(tag for tag in image.tags if tag.name == reference.name)
        return tags, tuple(name for name in image.digests if name.name == reference.name)
    tags = tuple(tag for tag in image.tags if tag.name == reference.name and tag.tag == reference.tag)
    others = any(tag.name == reference.name and tag.tag != reference.tag for tag in image.tags)
    return tags, () if others else tuple(name for name in image.digests if name.name == reference.name)
