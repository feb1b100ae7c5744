"""``ls``: the images of the store, as docker lists them; with a path, what is in one of them."""

import argparse
import datetime
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from imagefs.cli.listing import Lister, aligned
from imagefs.cli.paths import found_at, opened_tree
from imagefs.cli.report import for_each
from imagefs.errors import UsageError
from imagefs.text import json_text, path_text

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.oci.reference import Reference
    from imagefs.store.catalog import Image
    from imagefs.store.store import Store
    from imagefs.view.namespace import Directory
    from imagefs.view.tree import ImageTree, Thing

NONE = "<none>"
_HEADINGS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Labels": "LABELS",
    "MountPath": "MOUNT PATH",
}
_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_SORTS = ("created", "id", "repository", "size", "tag")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    ls = commands.add_parser(
        "ls",
        aliases=["images"],
        help="list images",
        description="List images, newest first, a line for each tag; or with PATH, what is there in the image REF.",
        epilog="--format takes json (an object a line), a Go template such as '{{.Repository}}:{{.Tag}}', or 'table'"
        f" and a template; fields are {', '.join(_HEADINGS)}. --filter may be given again: of one key any may match, of"
        " several keys all must. Keys are dangling, before, since, until, label, label! and reference, whose ** also"
        " matches slashes.",
    )
    ls.add_argument("-a", "--all", action="store_true", help="accepted as with docker; all images are listed anyway")
    ls.add_argument("-q", "--quiet", action="store_true", help="print image IDs only")
    ls.add_argument("-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help="list only what matches")
    ls.add_argument("--digests", action="store_true", help="also print what each tag pointed to in its registry")
    ls.add_argument("--mount-path", action="store_true", help="also print where a mount shows each image")
    ls.add_argument("--no-trunc", action="store_true", help="print IDs in full")
    ls.add_argument("--noheading", action="store_true", help="print no heading")
    ls.add_argument("--sort", choices=_SORTS, default="created", help="default: created, newest first")
    ls.add_argument("--format", metavar="FORMAT", help="see below")
    ls.add_argument(
        "reference", nargs="?", metavar="REF", help="only this repository, or repository:tag; * and ? match"
    )
    ls.add_argument("-l", "--long", action="store_true", help="with PATH: also print modes, owners, sizes and times")
    ls.add_argument("-n", "--numeric", action="store_true", help="with -l: owners as numbers, not the image's names")
    ls.add_argument("paths", nargs="*", metavar="PATH", help="in the image REF, which may be REF@layer:N")
    ls.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print the images.  A store that does not exist yet has none."""
    if namespace.paths:
        return _run_inside(namespace)
    if namespace.long:
        raise UsageError("-l lists what is in an image; give its name and a path, such as: imagefs ls -l alpine /")
    from imagefs.cli.filters import split_filter
    from imagefs.cli.template import compiled
    from imagefs.store import layout
    from imagefs.store.store import Store

    form = namespace.format or ""
    is_table = form.startswith("table")
    fill = compiled(form.removeprefix("table").strip()) if form and form != "json" and form.strip() != "table" else None
    # What is wrong with the question does not depend on what there is.
    if fill is not None:
        fill(_HEADINGS)
    for text in namespace.filter:
        split_filter(text)
    records: list[dict[str, str]] = []
    if namespace.store.exists() and (layout.is_store(namespace.store) or any(namespace.store.iterdir())):
        with Store.open(namespace.store, trust=namespace.trust_store) as store:
            records = _records(store, namespace, with_labels="Labels" in form or form == "json")
    if namespace.quiet:
        for record in records:
            print(record["ID"])
    elif form == "json":
        for record in records:
            print(json_text(record))
    elif fill is not None and not is_table:
        for record in records:
            print(fill(record))
    else:
        _print_table(records, namespace, fill)
    return 0


def _run_inside(namespace: argparse.Namespace) -> int:
    """List paths of an image; one that is not there is reported, the others are listed all the same."""
    with opened_tree(namespace, namespace.reference) as tree:
        lister = Lister(tree, numeric=namespace.numeric) if namespace.long else None

        def show(text: str) -> None:
            path, thing = found_at(tree, text, namespace.reference, follow=text.endswith("/") or not namespace.long)
            if len(namespace.paths) > 1 and thing.is_directory:
                print("\n" * (text is not namespace.paths[0]) + f"{text}:")
            _list_inside(tree, path, thing, lister)

        return for_each(namespace.paths, show)


def _list_inside(tree: "ImageTree", path: bytes, thing: "Thing", lister: Lister | None) -> None:
    if thing.is_directory:
        things = [(path_text(at.rpartition(b"/")[2], root=""), one) for at, one in tree.children(path, thing)]
    else:
        things = [(path_text(path), thing)]
    if lister is None:
        for name, _ in things:
            print(name)
    else:
        for line in aligned([lister.cells(name, one) for name, one in things]):
            print(line)


def _print_table(
    records: Sequence[dict[str, str]], namespace: argparse.Namespace, fill: Callable[[object], str] | None
) -> None:
    from imagefs.cli.terminal import print_table

    if fill is not None:
        rows = [fill(record).split("\t") for record in (_HEADINGS, *records)]
        width = max(map(len, rows))
        rows = [row + [""] * (width - len(row)) for row in rows]
    else:
        names = list(_COLUMNS)
        if namespace.digests:
            names.insert(2, "Digest")
        if namespace.mount_path:
            names.append("MountPath")
        rows = [[record[name] for name in names] for record in (_HEADINGS, *records)]
    print_table(rows[1:] if namespace.noheading else rows, heading=not namespace.noheading)


def _records(store: "Store", namespace: argparse.Namespace, *, with_labels: bool) -> list[dict[str, str]]:
    """Return what is to be listed, a record for each name, in order."""
    from imagefs.cli.filters import matches, parse_filters
    from imagefs.view.namespace import namespace as names_of

    images = store.images()
    root = names_of(images)
    now_ns = time.time_ns()
    meant = parse_filters(namespace.filter, store, now_ns=now_ns)
    found = [
        (image, name)
        for image in images
        for name in names(image)
        if (namespace.reference is None or (name is not None and matches(name, namespace.reference)))
        and meant(image, name)
    ]
    keys: dict[str, Callable[[tuple[Image, Reference | None]], Any]] = {
        "id": lambda one: one[0].id,
        "repository": lambda one: (one[1] is None, one[1].familiar if one[1] else ""),
        "size": lambda one: one[0].size,
        "tag": lambda one: (one[1] is None, (one[1].tag or "") if one[1] else ""),
    }
    if namespace.sort in keys:
        found.sort(key=keys[namespace.sort])
    labels: dict[object, str] = {}
    return [
        _record(image, name, root, now_ns, full=namespace.no_trunc, labels=_labels(store, image, labels, with_labels))
        for image, name in found
    ]


def names(image: "Image") -> "list[Reference | None]":
    """Return the references an image is listed under: its tags, and digests in repositories without one."""
    tagged = {tag.name for tag in image.tags}
    found: list[Reference | None] = [*image.tags]
    seen = set(tagged)
    for digest in image.digests:
        if digest.name not in seen:
            seen.add(digest.name)
            found.append(digest)
    return found or [None]


def _labels(store: "Store", image: "Image", known: dict[object, str], wanted: bool) -> str:
    """Return the labels of *image* as docker writes them; they are in its config, which is read only if *wanted*."""
    if not wanted:
        return ""
    if image.id not in known:
        from imagefs.oci.config import parse_config

        found = parse_config(store.document(image.id), algorithm=image.id.algorithm).labels
        known[image.id] = ",".join(f"{key}={value}" for key, value in found)
    return known[image.id]


def _record(
    image: "Image", name: "Reference | None", root: "Directory", now_ns: int, *, full: bool, labels: str
) -> dict[str, str]:
    from imagefs.text import age, size
    from imagefs.view.namespace import mount_path

    created_ns = image.created_ns
    return {
        "Repository": name.familiar_name if name else NONE,
        "Tag": (name.tag if name else None) or NONE,
        "Digest": str(name.digest) if name is not None and name.digest is not None else NONE,
        "ID": str(image.id) if full else image.id.short,
        "CreatedSince": f"{age((now_ns - created_ns) // 10**9)} ago" if created_ns else "N/A",
        "CreatedAt": _moment(created_ns) if created_ns else "N/A",
        "Size": size(image.size),
        "Labels": labels,
        "MountPath": os.fsdecode(mount_path(root, image, name)),
    }


def _moment(created_ns: int) -> str:
    """Return a time as Go prints it, which docker does."""
    try:
        moment = datetime.datetime.fromtimestamp(created_ns // 10**9, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return "N/A"
    return f"{moment:%Y-%m-%d %H:%M:%S} +0000 UTC"
