"""``save``: images as archives or layouts for other tools and other machines."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from imagefs.cli.output import written
from imagefs.errors import InvalidReference, UsageError

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.store.catalog import Image
    from imagefs.store.store import Store
    from imagefs.transfer.save import Saved

_ARCHIVE = "docker-archive"
_FORMATS = (_ARCHIVE, "oci-archive", "oci", "oci-dir")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "save",
        help="write images as an archive that docker, podman and others load",
        description="Write images to an archive or an OCI layout. Image IDs stay the same; layers are not compressed. A"
        " docker-archive is an oci-archive, too, so every tool can load it.",
    )
    command.add_argument(
        "-o", "--output", type=Path, metavar="PATH", help="made for its owner only; default: standard output"
    )
    command.add_argument(
        "--format", choices=_FORMATS, default=_ARCHIVE, help=f"default: {_ARCHIVE}; oci and oci-dir make a folder"
    )
    command.add_argument("references", nargs="+", metavar="REF", help="a name, or an ID for an image without name")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Write the images; an error leaves nothing half written."""
    from imagefs.store.store import Store
    from imagefs.transfer.save import TarFiles, new_folder, save

    with Store.open(namespace.store, trust=namespace.trust_store) as store:
        wanted = _wanted(store, namespace.references)
        if namespace.format in ("oci", "oci-dir"):
            if namespace.output is None:
                raise UsageError("an OCI layout is a folder: name one that does not exist yet with --output")
            with new_folder(namespace.output.absolute()) as files:
                save(store, wanted, files, for_docker=False)
        else:
            with written(namespace.output) as out:
                archive = TarFiles(out)
                save(store, wanted, archive, for_docker=namespace.format == _ARCHIVE)
                archive.end()
    return 0


def _wanted(store: "Store", texts: list[str]) -> "list[Saved]":
    """Return the images that *texts* name, each once, with those of the names that are tags."""
    from imagefs.oci.reference import Reference
    from imagefs.store.naming import is_named
    from imagefs.transfer.save import Saved

    names: dict[Image, list[Reference]] = {}
    for text in texts:
        image = store.image(text)
        known = names.setdefault(image, [])
        try:
            reference = Reference.parse(text).with_default_tag()
        except InvalidReference:
            continue  # an ID
        if reference.digest is None and is_named(image, reference) and reference not in known:
            known.append(reference)
    return [Saved(image, tuple(found)) for image, found in names.items()]
