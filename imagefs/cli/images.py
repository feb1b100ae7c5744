"""``inspect``, ``tag``, ``untag``, ``rm``: what an image is, and what it is called."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from imagefs.errors import ImagefsError, InvalidReference

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.store.catalog import Image
    from imagefs.store.store import Store

_NONE = "<none>"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these commands to the command line."""
    inspect = commands.add_parser(
        "inspect",
        help="show an image's configuration as JSON",
        description="Print a JSON array with an object per REF.",
    )
    inspect.add_argument("references", nargs="+", metavar="REF")
    inspect.set_defaults(run=run_inspect)

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
        help="remove images",
        description="Remove names of images; an image goes with its last name, layers with the last image using them.",
    )
    rm.add_argument("-f", "--force", action="store_true", help="also if mounted, or if REF is an ID with many names")
    rm.add_argument("references", nargs="+", metavar="REF", help="a name, or an ID for all names of the image")
    rm.set_defaults(run=run_rm)


def run_inspect(namespace: argparse.Namespace) -> int:
    """Print a JSON array with what is known of each image; those not found are reported after it."""
    from imagefs.cli.report import report

    found: list[dict[str, object]] = []
    failures: list[ImagefsError] = []
    with _open(namespace.store) as store:
        for reference in namespace.references:
            try:
                found.append(_described(store, store.image(reference)))
            except ImagefsError as error:
                failures.append(error)
    json.dump(found, sys.stdout, indent=4, ensure_ascii=False)
    print()
    statuses = [report(failure) for failure in failures]
    return statuses[0] if statuses else 0


def _described(store: "Store", image: "Image") -> dict[str, object]:
    """Return *image* in the shape of ``docker image inspect``, and where a mount shows it."""
    from imagefs.cli.ls import names
    from imagefs.oci.config import parse_config
    from imagefs.view.namespace import mount_path
    from imagefs.view.namespace import namespace as names_of

    config = parse_config(store.document(image.id), algorithm=image.id.algorithm)
    root = names_of(store.images())
    raw = json.loads(config.raw)
    return {
        "Id": str(image.id),
        "RepoTags": [f"{tag.familiar_name}:{tag.tag}" for tag in image.tags],
        "RepoDigests": [f"{name.familiar_name}@{name.digest}" for name in image.digests],
        "Created": raw.get("created", ""),
        "Author": raw.get("author", ""),
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant,
        "Os": config.platform.os,
        "Size": image.size,
        "Config": dict(config.container),
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in image.diff_ids]},
        "Manifest": str(image.manifest_digest),
        "MountPaths": [os.fsdecode(mount_path(root, image, name)) for name in names(image)],
    }


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
    with _open(namespace.store) as store, store.writing():
        if not store.tag(store.image(namespace.source), target.with_default_tag()):
            raise ImageNotFound(namespace.source, "it was removed meanwhile")
    return 0


def run_untag(namespace: argparse.Namespace) -> int:
    """Take the names away; those that are not there are reported, the others go all the same."""
    from imagefs.cli.report import report
    from imagefs.store.removal import untag

    statuses = []
    with _open(namespace.store) as store:
        for reference in namespace.references:
            try:
                for name in untag(store, reference):
                    print(f"Untagged: {name}")
            except ImagefsError as error:
                statuses.append(report(error))
    return statuses[0] if statuses else 0


def run_rm(namespace: argparse.Namespace) -> int:
    """Remove names and images; what cannot be removed is reported, the others are removed all the same."""
    from imagefs.cli.report import report
    from imagefs.store.removal import remove

    statuses = []
    with _open(namespace.store) as store:
        for reference in namespace.references:
            try:
                removal = remove(store, reference, force=namespace.force)
            except ImagefsError as error:
                statuses.append(report(error))
                continue
            for name in removal.untagged:
                print(f"Untagged: {name}")
            if removal.deleted:
                print(f"Deleted: {removal.deleted}")
    return statuses[0] if statuses else 0


def _open(path: Path) -> "Store":
    from imagefs.store.store import Store

    return Store.open(path)
