"""``history``: the steps that made an image, and which layer each made."""

import argparse
import time
from typing import TYPE_CHECKING

from imagefs.text import json_text

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.oci.config import ImageConfig
    from imagefs.store.store import Store

_MISSING = "<missing>"
_HEADINGS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
    "Layer": "LAYER",
    "CreatedAt": "CREATED AT",
}
_COLUMNS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment", "Layer")
_INSTRUCTION_CHARACTERS = 45


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "history",
        help="show the steps that made an image",
        description="Print the steps that made an image, newest first, with the layer (diff_id) that each made. Steps"
        " that changed no file made none.",
        epilog="--format takes json (an object a line) or a Go template; fields are " + ", ".join(_HEADINGS) + ".",
    )
    command.add_argument("--no-trunc", action="store_true", help="print IDs and instructions in full")
    command.add_argument("-q", "--quiet", action="store_true", help="print IDs only")
    command.add_argument("--human", choices=("true", "false"), default="true", help="false: bytes and dates in full")
    command.add_argument("--format", metavar="FORMAT", help="see below")
    command.add_argument("reference", metavar="REF")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print the history of one image."""
    from imagefs.cli.template import compiled
    from imagefs.cli.terminal import print_table
    from imagefs.oci.config import parse_config
    from imagefs.store.store import Store

    form = namespace.format or ""
    fill = compiled(form) if form and form != "json" else None
    with Store.open(namespace.store, trust=namespace.trust_store) as store:
        image = store.image(namespace.reference)
        config = parse_config(store.document(image.id), algorithm=image.id.algorithm)
        records = _records(store, config, namespace)
    if namespace.quiet:
        for record in records:
            print(record["ID"])
    elif form == "json":
        for record in records:
            print(json_text(record))
    elif fill is not None:
        for record in records:
            print(fill(record))
    else:
        print_table([[record[name] for name in _COLUMNS] for record in (_HEADINGS, *records)])
    return 0


def _records(store: "Store", config: "ImageConfig", namespace: argparse.Namespace) -> list[dict[str, str]]:
    from imagefs.oci.config import History, parse_time_ns
    from imagefs.text import age, size

    human = namespace.human == "true"
    unknown = History("", "", "", empty_layer=False)
    steps = config.steps() or tuple((unknown, diff_id) for diff_id in config.diff_ids)
    records = []
    for number, (step, diff_id) in enumerate(steps, 1):
        created_ns = parse_time_ns(step.created) if step.created else None
        since = f"{age(int(time.time() - created_ns / 10**9))} ago" if created_ns else "N/A"
        stored = store.layer_path(diff_id).stat().st_size if diff_id is not None else 0
        is_last = number == len(steps)
        limit = None if namespace.no_trunc else _INSTRUCTION_CHARACTERS
        records.append(
            {
                "ID": (str(config.digest) if namespace.no_trunc else config.digest.short) if is_last else _MISSING,
                "CreatedSince": since if human else step.created or "N/A",
                "CreatedAt": step.created or "N/A",
                "CreatedBy": _cut(" ".join(step.created_by.split()), limit),
                "Size": size(stored) if human else str(stored),
                "Comment": step.comment,
                "Layer": "" if diff_id is None else str(diff_id) if namespace.no_trunc else diff_id.short,
            }
        )
    return records[::-1]


def _cut(text: str, limit: int | None) -> str:
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
