"""``inspect``: all that is known of an image, in docker's shape, or its documents byte for byte."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from imagefs.errors import ImagefsError
from imagefs.text import json_text, printable_json

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.store.catalog import Image
    from imagefs.store.store import Store


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "inspect",
        help="show an image's configuration as JSON",
        description="Print a JSON array with an object per REF, as docker image inspect does; those that are not there"
        " are reported after it.",
        epilog="(*) To a terminal, characters that are not printable are escaped; the JSON values are the same.",
    )
    output = command.add_mutually_exclusive_group()
    output.add_argument(
        "-f", "--format", metavar="FORMAT", help="a Go template such as '{{.Config.Env}}' for each; json: a line each"
    )
    output.add_argument("--raw", action="store_true", help="print the manifests, byte for byte (*)")
    output.add_argument("--config", action="store_true", help="print the configs, byte for byte (*)")
    command.add_argument("references", nargs="+", metavar="REF")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print what is known of the images that are there, and report the others."""
    from imagefs.cli.report import report
    from imagefs.cli.template import compiled
    from imagefs.store.store import Store

    fill = compiled(namespace.format) if namespace.format and namespace.format != "json" else None
    found: list[dict[str, object]] = []
    failures: list[ImagefsError] = []
    with Store.open(namespace.store, trust=namespace.trust_store) as store:
        for reference in namespace.references:
            try:
                image = store.image(reference)
                if namespace.raw or namespace.config:
                    _write_document(store.document(image.manifest_digest if namespace.raw else image.id))
                    continue
                described = _described(store, image)
                if fill is not None:
                    print(fill(described))
                elif namespace.format:
                    print(json_text(described))
                found.append(described)
            except ImagefsError as error:
                failures.append(error)
    if not (namespace.format or namespace.raw or namespace.config):
        print(json_text(found, indent=4))
    sys.stdout.flush()
    statuses = [report(failure) for failure in failures]
    return statuses[0] if statuses else 0


def _write_document(document: bytes) -> None:
    """Write a JSON *document*: its bytes to a pipe or file, JSON with equal values to a terminal."""
    if sys.stdout.isatty():
        print(printable_json(document.decode("utf-8", "replace")))
    else:
        sys.stdout.buffer.write(document)


def _described(store: "Store", image: "Image") -> dict[str, object]:
    """Return *image* in the shape of ``docker image inspect``, and where a mount shows it."""
    from imagefs.cli.ls import names
    from imagefs.cli.template import Open
    from imagefs.oci.config import parse_config
    from imagefs.view.namespace import mount_path
    from imagefs.view.namespace import namespace as names_of

    config = parse_config(store.document(image.id), algorithm=image.id.algorithm)
    root = names_of(store.images())
    raw = json.loads(config.raw)
    return {
        "Id": str(image.id),
        "RepoTags": [tag.familiar_tag for tag in image.tags],
        "RepoDigests": [f"{name.familiar_name}@{name.digest}" for name in image.digests],
        "Created": raw.get("created", ""),
        "Author": raw.get("author", ""),
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant,
        "Os": config.platform.os,
        "Size": image.size,
        "Config": {
            # As docker prints them: maps in the order of their keys.
            key: Open(sorted(value.items())) if isinstance(value, Mapping) else value
            for key, value in config.container.items()
        },
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in image.diff_ids]},
        "Manifest": str(image.manifest_digest),
        "MountPaths": [os.fsdecode(mount_path(root, image, name)) for name in names(image)],
    }
