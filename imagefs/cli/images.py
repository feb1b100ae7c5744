"""``tag``, ``untag``, ``rm``, ``exists``: names of images, and what goes with the last name."""

import argparse
from typing import TYPE_CHECKING

from imagefs.cli.report import for_each
from imagefs.errors import EXIT_FAILURE, InvalidReference

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.store.store import Store


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these commands to the command line."""
    tag = commands.add_parser(
        "tag", help="give an image another name", description="Let TARGET name the image that SOURCE names."
    )
    tag.add_argument("source", metavar="SOURCE", help="a name or ID of an image in the store")
    tag.add_argument("target", metavar="TARGET", help="REPOSITORY[:TAG]")
    tag.set_defaults(run=run_tag)

    untag = commands.add_parser(
        "untag",
        help="take names from images",
        description="Take names from images; an image without a name stays in the store until it is pruned.",
    )
    untag.add_argument("references", nargs="+", metavar="REF", help="a name, or an ID for all names of the image")
    untag.set_defaults(run=run_untag)

    rm = commands.add_parser(
        "rm",
        aliases=["rmi"],
        help="remove images",
        description="Remove names of images; an image goes with its last name, layers with the last image using them.",
    )
    rm.add_argument("-f", "--force", action="store_true", help="also if mounted, or if REF is an ID with many names")
    rm.add_argument("references", nargs="+", metavar="REF", help="a name, or an ID for all names of the image")
    rm.set_defaults(run=run_rm)

    exists = commands.add_parser(
        "exists",
        help="tell whether an image is in the store",
        description="Print nothing; the exit status tells whether the image REF is in the store.",
        epilog="exit status: 0 it is in the store, 1 it is not",
    )
    exists.add_argument("reference", metavar="REF", help="a name or ID of an image")
    exists.set_defaults(run=run_exists)


def run_tag(namespace: argparse.Namespace) -> int:
    """Let a new name stand for an image; a name that stood for another image moves."""
    from imagefs.errors import ImageNotFound
    from imagefs.oci.reference import Reference

    target = Reference.parse(namespace.target)
    if target.digest is not None:
        raise InvalidReference(namespace.target, "refusing to create a tag with a digest reference")
    if target.familiar_name == "sha256":
        reason = "refusing to create an ambiguous tag using digest algorithm as name"
        raise InvalidReference(namespace.target, reason)
    with _open(namespace) as store, store.writing():
        if not store.tag(store.image(namespace.source), target.with_default_tag()):
            raise ImageNotFound(namespace.source, "it was removed meanwhile")
    return 0


def run_untag(namespace: argparse.Namespace) -> int:
    """Take the names away; those that are not there are reported, the others go all the same."""
    from imagefs.store.removal import untag

    with _open(namespace) as store:

        def take(reference: str) -> None:
            for name in untag(store, reference):
                print(f"Untagged: {name}")

        return for_each(namespace.references, take)


def run_rm(namespace: argparse.Namespace) -> int:
    """Remove names and images; what cannot be removed is reported, the others are removed all the same."""
    from imagefs.store.removal import remove

    with _open(namespace) as store:

        def take(reference: str) -> None:
            removal = remove(store, reference, force=namespace.force)
            for name in removal.untagged:
                print(f"Untagged: {name}")
            if removal.deleted:
                print(f"Deleted: {removal.deleted}")

        return for_each(namespace.references, take)


def run_exists(namespace: argparse.Namespace) -> int:
    """Return 0 where the store holds the image, 1 where it does not, as ``podman image exists`` does."""
    from imagefs.errors import ImageNotFound
    from imagefs.store.layout import is_store

    if not is_store(namespace.store):
        return EXIT_FAILURE
    with _open(namespace) as store:
        try:
            store.image(namespace.reference)
        except ImageNotFound:
            return EXIT_FAILURE
    return 0


def _open(namespace: argparse.Namespace) -> "Store":
    from imagefs.store.store import Store

    return Store.open(namespace.store, trust=namespace.trust_store)
