"""``prune`` and ``df``: what could go, and what takes how much."""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from imagefs.text import json_text

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.store.catalog import Image
    from imagefs.store.pruning import Usage
    from imagefs.store.store import Store

_NONE = "<none>"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these commands to the command line."""
    prune = commands.add_parser(
        "prune",
        help="remove images without a tag, and what pulls that never ended left",
        description="List images that have no tag and are not mounted alone, ask, and remove them. Space that no image"
        " needs is freed also where there are none. What other processes are pulling is left alone.",
    )
    prune.add_argument("-a", "--all", action="store_true", help="all images that are not mounted alone, tags or not")
    prune.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only images created before until=TIME|DURATION, or with label=NAME[=VALUE], or without (label!=…)",
    )
    prune.add_argument("-n", "--dry-run", action="store_true", help="only list")
    prune.add_argument("-f", "--force", action="store_true", help="do not ask")
    prune.set_defaults(run=run_prune)

    df = commands.add_parser(
        "df",
        help="show what of the disk images take",
        description="Print what each image takes of the disk: what would be freed with it, and what it shares.",
    )
    df.add_argument("--json", action="store_true", help="print a JSON object a line, bytes as numbers")
    df.set_defaults(run=run_df)


def run_prune(namespace: argparse.Namespace) -> int:
    """List, ask and remove."""
    from imagefs.cli.filters import PRUNE_KEYS, parse_filters
    from imagefs.cli.terminal import print_table
    from imagefs.errors import UsageError
    from imagefs.store.pruning import prunable, prune, reclaimable
    from imagefs.store.store import Store
    from imagefs.text import size

    with Store.open(namespace.store, trust=namespace.trust_store) as store:
        meant = parse_filters(namespace.filter, store, now_ns=time.time_ns(), known=PRUNE_KEYS)
        doomed = tuple(image for image in prunable(store, tagged=namespace.all) if meant(image, None))
        if doomed:
            print_table(_rows(store, doomed))
        if namespace.dry_run:
            print(f"Would reclaim: {size(reclaimable(store, doomed))}")
            return 0
        if doomed and not namespace.force:
            if not sys.stdin.isatty():
                raise UsageError("nobody is here to be asked; use --force, or --dry-run to only list")
            if input(f"Remove {'these images' if len(doomed) > 1 else 'this image'}? [y/N] ").lower() not in (
                "y",
                "yes",
            ):
                return 0
        pruned = prune(store, doomed)
    for name in pruned.untagged:
        print(f"untagged: {name}")
    for digest in pruned.deleted:
        print(f"deleted: {digest}")
    if pruned.freed is None:
        print("Total reclaimed space: not known yet; it is freed when the pull that is going on ends")
    else:
        print(f"Total reclaimed space: {size(pruned.freed)}")
    return 0


def _rows(store: "Store", images: "tuple[Image, ...]") -> list[tuple[str, ...]]:
    from imagefs.store.pruning import usage
    from imagefs.text import size

    unique = {one.image.id: one.unique for one in usage(store)}
    rows: list[tuple[str, ...]] = [("IMAGE ID", "NAME", "SIZE", "UNIQUE SIZE")]
    for image in images:
        names = [name.familiar for name in (*image.tags, *image.digests)] or [_NONE]
        rows += [(image.id.short, name, size(image.size), size(unique.get(image.id, 0))) for name in names]
    return rows


def run_df(namespace: argparse.Namespace) -> int:
    """Print a line for each image, and the sums."""
    from imagefs.store.pruning import prunable, reclaimable, usage
    from imagefs.store.store import Store

    with Store.open(namespace.store, trust=namespace.trust_store) as store:
        found = usage(store)
        total = sum(store.content_bytes().values())
        free = reclaimable(store, prunable(store))
    if namespace.json:
        for one in found:
            print(json_text(_described(one)))
        print(json_text({"kind": "total", "images": len(found), "size": total, "reclaimable": free}))
        return 0
    from imagefs.cli.terminal import print_table
    from imagefs.text import age, size

    now_s = time.time()
    rows = [("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SHARED SIZE", "UNIQUE SIZE")]
    for one in found:
        created_ns = one.image.created_ns
        created = f"{age(int(now_s - created_ns / 10**9))} ago" if created_ns else "N/A"
        sizes = (size(one.shared), size(one.unique))
        names = [(tag.familiar_name, tag.tag or _NONE) for tag in one.image.tags]
        names = names or [(digest.familiar_name, _NONE) for digest in one.image.digests] or [(_NONE, _NONE)]
        rows += [(*name, one.image.id.short, created, *sizes) for name in names]
    print_table(rows)
    layers = len({diff_id for one in found for diff_id in one.image.diff_ids})
    print(f"\n{len(found)} images, {layers} layers: {size(total)} of the disk, {size(free)} of it reclaimable by prune")
    return 0


def _described(one: "Usage") -> dict[str, object]:
    return {
        "kind": "image",
        "id": str(one.image.id),
        "names": [name.familiar for name in (*one.image.tags, *one.image.digests)],
        "unique": one.unique,
        "shared": one.shared,
    }
