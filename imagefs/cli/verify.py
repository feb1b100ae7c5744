"""``verify``: is all that the store holds what it should be?"""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from imagefs.errors import CatalogDamaged, ImagefsError, StoreUnusable, describe
from imagefs.text import json_text, printable

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.check.verify import Finding
    from imagefs.store.store import Store

_DAMAGED = StoreUnusable.exit_code


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "verify",
        help="compare everything in the store with its digest, and mend it",
        description="Read every document and layer and compare it with its digest; make every index and tree anew and"
        " compare. Prints what is damaged, missing or surplus. --repair makes indexes and trees again, frees what no"
        " image needs, pulls damaged or missing layers and documents again from where their image came, and makes a"
        " damaged or missing catalog again.",
        epilog=f"exit status: 0 all is well, or mended; {_DAMAGED} something is not",
    )
    command.add_argument("--repair", action="store_true", help="mend what is found")
    command.add_argument("--json", action="store_true", help="print a JSON object a line")
    command.add_argument("references", nargs="*", metavar="REF", help="only these images; default: all of the store")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print what is found; with --repair, what became of it."""
    from imagefs.check.verify import Finding, verify
    from imagefs.cli.terminal import print_status
    from imagefs.store.store import Store

    findings: list[Finding] = []
    if namespace.repair and (damage := _catalog_damage(namespace)):
        findings.append(Finding("damaged", "catalog", "catalog.sqlite", damage))
        _print(findings[0], namespace)
        _rebuild_catalog(namespace)
    mended = len(findings)
    with Store.open(namespace.store, trust=namespace.trust_store) as store:
        images = [store.image(reference) for reference in namespace.references] or None
        checked = len(images) if images is not None else len(store.images())
        for finding in verify(store, images, looking_at=print_status):
            print_status("")
            _print(finding, namespace)
            findings.append(finding)
        print_status("")
        open_ = _repaired(store, findings[mended:], namespace) if namespace.repair else findings
        bad = [finding for finding in open_ if finding.kind != "file"]
        if not namespace.json:
            print(_summary(checked, findings, bad, repaired=namespace.repair))
    return _DAMAGED if bad else 0


def _summary(checked: int, findings: "list[Finding]", bad: "list[Finding]", *, repaired: bool) -> str:
    mended = len([finding for finding in findings if finding.kind != "file"]) - len(bad)
    text = f"{checked} image{'s' if checked != 1 else ''} checked: "
    if not bad and not mended:
        return text + "all is well"
    if repaired:
        return text + f"{mended} mended, {len(bad)} left as they are"
    return text + f"{len(bad)} things are not as they should be; --repair mends what it can"


def _print(finding: "Finding", namespace: argparse.Namespace) -> None:
    if namespace.json:
        print(json_text({**dataclasses.asdict(finding), "images": [str(image) for image in finding.images]}))
    else:
        print(f"{finding.state} {finding.kind} {printable(finding.name)}: {printable(finding.why)}", flush=True)


def _repaired(store: "Store", findings: "list[Finding]", namespace: argparse.Namespace) -> "list[Finding]":
    """Mend what can be mended; return what could not."""
    from imagefs.check.repair import rebuild
    from imagefs.oci.digest import Digest
    from imagefs.store.store import needs

    left = []
    fetched: dict[object, bool] = {}
    if _is_catalog_wrong(findings):
        _rebuild_catalog(namespace)
    needed = set().union(*(needs(image) for image in store.images()))
    order = {"document": 0, "layer": 0, "index": 1, "tree": 2, "content": 3}
    for finding in sorted(findings, key=lambda finding: order.get(finding.kind, 4)):
        try:
            if finding.kind in ("document", "layer"):
                key = (finding.kind, finding.name)
                if Digest.parse(finding.name) not in needed:  # only the damaged catalog named it
                    fetched[key] = True
                if key not in fetched:
                    fetched[key] = _fetched(store, finding)
                mended = fetched[key]
            else:
                mended = finding.kind == "catalog" or rebuild(store, finding)
        except (ImagefsError, OSError) as error:
            print(f"imagefs: {finding.kind} {finding.name}: {describe(error)}", file=sys.stderr)
            mended = False
        if not mended:
            left.append(finding)
    return left


def _is_catalog_wrong(findings: "list[Finding]") -> bool:
    """Return whether the catalog is to be made again: it contradicts a config, or seems to misspell a digest.

    Heuristic: one document is missing, and another one is there that no image needs.
    """
    is_missing = any(finding.kind == "document" and finding.state == "missing" for finding in findings)
    is_spare = any(finding.kind == "content" and finding.name.startswith("blobs/") for finding in findings)
    return any(finding.kind == "catalog" for finding in findings) or (is_missing and is_spare)


def _catalog_damage(namespace: argparse.Namespace) -> str | None:
    """Return what is wrong with the catalog of the store; None where all of it can be read."""
    from imagefs.store.store import Store

    try:
        with Store.open(namespace.store, trust=namespace.trust_store) as store:
            store.images()
            return next(iter(store.catalog_problems()), None)
    except CatalogDamaged as error:
        return error.reason


def _rebuild_catalog(namespace: argparse.Namespace) -> None:
    """Make the catalog of the store again, and tell what is not in it any more."""
    from imagefs.store.recovery import rebuild_catalog

    rebuilt = rebuild_catalog(namespace.store, trust=namespace.trust_store)
    messages = [f"lost the name {name}: the image that it stood for is not in the store" for name in rebuilt.lost]
    messages += [
        f"did not restore the name {name} of image {image}: its two copies differ"
        + ("" if "@" in name else f"; if it is right, 'imagefs tag {image} {name}' restores it")
        for name, image in rebuilt.doubtful
    ]
    messages += [
        f"image {image.id} has no name: 'imagefs tag {image.id} NAME' gives it one"
        for image in rebuilt.images
        if not image.tags and not image.digests
    ]
    if rebuilt.aside is not None:
        messages.append(f"the damaged catalog is kept as {rebuilt.aside}")
    for message in messages:
        print(f"imagefs: {printable(message, limit=None)}", file=sys.stderr)


def _fetched(store: "Store", finding: "Finding") -> bool:
    """Pull an image again that needs the layer or document of *finding*; a damaged file is set aside meanwhile.

    Raises: what the pull raises; the damaged file is then back in its place.
    """
    from imagefs.cli.pull import union_check
    from imagefs.oci.digest import DiffId, Digest
    from imagefs.oci.platform import Platform
    from imagefs.registry.mirrors import open_endpoints
    from imagefs.store.content import is_file, set_aside
    from imagefs.transfer.progress import Reporter
    from imagefs.transfer.pull import pull

    digest = Digest.parse(finding.name)
    names = [
        (name, image.platform)
        for image in store.images()
        if image.id in finding.images
        for name in (*image.digests, *image.tags)
        if name.digest is not None
    ]
    if not names:
        print(
            f"imagefs: {finding.kind} {finding.name}: no image that needs it came from a registry; load it again",
            file=sys.stderr,
        )
        return False
    name, platform = names[0]
    path = store.layer_path(DiffId(digest)) if finding.kind == "layer" else store.document_path(digest)
    store.check_writable()
    aside = set_aside(path) if finding.state == "damaged" else None
    client = open_endpoints(name, tls_verify=None, authfile=None)
    try:
        pull(
            store,
            dataclasses.replace(name, tag=None),
            client=client,
            platform=Platform.parse(platform),
            check=union_check(store),
            reporter=Reporter(sys.stdout, sys.stderr, quiet=True),
            allow_expansion=True,  # the user has accepted this image before
        )
    except BaseException:
        if aside is not None:
            aside.rename(path)
        raise
    finally:
        client.close()
    if aside is not None and is_file(aside):
        aside.unlink()
    elif aside is not None:
        print(f"imagefs: what was in place of {path.name} is now {printable(str(aside))}", file=sys.stderr)
    return True
