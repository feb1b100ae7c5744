"""``blame``: which layer, made by which instruction, did what to a path."""

import argparse
from typing import TYPE_CHECKING

from imagefs.text import json_text, printable

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.compare.blame import Touch

_UNKNOWN = "<unknown>"
_INSTRUCTION_COLUMNS = 60


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "blame",
        help="tell which layers and instructions made a path what it is",
        description="Print the layers of an image that touched each PATH, newest first: what each did, and the"
        " instruction that made it.",
    )
    command.add_argument("--no-trunc", action="store_true", help="print digests and instructions in full")
    command.add_argument("--json", action="store_true", help="print a JSON object a line")
    command.add_argument("reference", metavar="REF", help="a name or ID of an image in the store")
    command.add_argument("paths", nargs="+", metavar="PATH")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print the blame of each path; one that no layer ever had is reported, the others are printed all the same."""
    from imagefs.cli.paths import clean, not_found
    from imagefs.cli.report import report
    from imagefs.compare.blame import blame
    from imagefs.oci.config import parse_config
    from imagefs.overlay.stored import Stack
    from imagefs.store.store import Store
    from imagefs.text import path_text
    from imagefs.view.kept import KeptFiles
    from imagefs.view.opened import OpenedImages
    from imagefs.view.tree import ImageTree

    status = 0
    with Store.open(namespace.store, trust=namespace.trust_store) as store:
        image = store.image(namespace.reference)
        config = parse_config(store.document(image.id), algorithm=image.id.algorithm)
        side = ImageTree(OpenedImages(store, KeptFiles()), Stack(image.diff_ids))
        asked = [clean(text) for text in namespace.paths]
        # What there is goes by its path without symlinks; what is gone, by the path as it was written.
        led = [found[0] if (found := side.find(path)) is not None else path for path in asked]
        for path, touches in zip(led, blame(store, config, led), strict=True):
            if not touches:
                status = report(not_found(side, path, namespace.reference))
            elif namespace.json:
                _print_json(path, touches)
            else:
                if len(asked) > 1 or path not in asked:
                    print(f"{path_text(path)}:")
                _print_table(touches, full=namespace.no_trunc)
    return status


def _print_table(touches: "list[Touch]", *, full: bool) -> None:
    from imagefs.cli.terminal import print_table
    from imagefs.text import size

    rows = [("LAYER", "DIFF ID", "WHAT", "SIZE", "CREATED BY")]
    for touch in touches:
        did = touch.action + (f" {', '.join(touch.aspects)}" if touch.aspects else "")
        did += f" ({printable(touch.how)})" if touch.how else ""
        by = printable(" ".join(touch.created_by.split()), limit=100_000 if full else _INSTRUCTION_COLUMNS)
        diff_id = str(touch.diff_id) if full else touch.diff_id.short
        rows.append((str(touch.number), diff_id, did, size(touch.size), by or _UNKNOWN))
    print_table(rows)


def _print_json(path: bytes, touches: "list[Touch]") -> None:
    for touch in touches:
        said = {
            "path": "/" + path.decode(errors="replace"),
            "layer": touch.number,
            "diff_id": str(touch.diff_id),
            "action": touch.action,
            "changes": list(touch.aspects),
            "how": touch.how,
            "size": touch.size,
            "created_by": touch.created_by,
        }
        print(json_text(said))
