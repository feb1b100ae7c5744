"""``pull``: bring images from registries into the store."""

import argparse
import contextlib
import functools
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.oci.platform import Platform
    from imagefs.store.store import Store
    from imagefs.transfer.image_ingest import UnionCheck

_DEFAULT_PLATFORM_VARIABLE = "DOCKER_DEFAULT_PLATFORM"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "pull",
        help="bring images from registries into the store",
        description="Pull images from registries into the store. Layers that are there already are not fetched again.",
        epilog="With several REFs all are tried; the exit status is that of the first that failed.",
    )
    add_platform_option(command)
    command.add_argument("-q", "--quiet", action="store_true", help="print only the full name of each image")
    add_registry_options(command)
    command.add_argument("references", nargs="+", metavar="REF", help="NAME[:TAG] or NAME@DIGEST")
    command.set_defaults(run=run)


def add_registry_options(command: argparse.ArgumentParser) -> None:
    """Add what says how to speak to a registry to *command*."""
    command.add_argument(
        "--tls-verify",
        type=_boolean,
        metavar="true|false",
        help="false: also accept registries with bad certificates or plain http; default: only on this machine",
    )
    command.add_argument(
        "--authfile",
        type=Path,
        metavar="FILE",
        help="credentials, as docker and podman write them; default: theirs",
    )


def add_platform_option(command: argparse.ArgumentParser) -> None:
    """Add ``--platform`` to *command*."""
    command.add_argument(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help=f"the image for this platform; default: ${_DEFAULT_PLATFORM_VARIABLE}, this machine's",
    )


def run(namespace: argparse.Namespace) -> int:
    """Pull all references and return the exit status of the first that failed, 0 if none did."""
    from imagefs.cli.report import report
    from imagefs.oci.reference import Reference
    from imagefs.registry.mirrors import open_endpoints
    from imagefs.store.store import Store
    from imagefs.transfer.progress import Reporter
    from imagefs.transfer.pull import pull

    platform = wanted_platform(namespace)
    references = [Reference.parse(text) for text in namespace.references]
    reporter = Reporter(sys.stdout, sys.stderr, quiet=namespace.quiet)
    status = 0
    with Store.open(namespace.store, create=True) as store:
        for reference in references:
            try:
                client = open_endpoints(reference, tls_verify=namespace.tls_verify, authfile=namespace.authfile)
                with contextlib.closing(client):
                    pull(
                        store, reference, client=client, platform=platform, check=union_check(store), reporter=reporter
                    )
            except BrokenPipeError:
                raise
            except Exception as error:  # the others are still tried
                if namespace.debug:
                    traceback.print_exc()
                code = report(error)
                status = status or code
    return status


def wanted_platform(namespace: argparse.Namespace) -> "Platform | None":
    """Return the platform asked for by option or environment, None where neither says.

    Raises: InvalidPlatform.
    """
    from imagefs.oci.platform import Platform

    text = namespace.platform or os.environ.get(_DEFAULT_PLATFORM_VARIABLE)
    return Platform.parse(text, default=Platform.host()) if text else None


def union_check(store: "Store") -> "UnionCheck":
    """Return a function that raises InvalidLayer unless the given layers of *store* form a valid union.

    What that takes, computing the union, is kept: the first look into the image is then for nothing.
    """
    from imagefs.overlay.stored import store_tree

    return functools.partial(store_tree, store)


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected true or false, not '{text}'") from None
