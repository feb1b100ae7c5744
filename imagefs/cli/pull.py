"""``pull``: bring images from registries into the store."""

import argparse
import contextlib
import gc
import os
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from imagefs.errors import EXIT_INTERRUPTED, NoMatchingPlatform, RegistryError, UnsupportedMediaType, UsageError

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from collections.abc import Iterator, Sequence

    from imagefs.oci.digest import DiffId
    from imagefs.oci.platform import Platform
    from imagefs.oci.reference import Reference
    from imagefs.store.store import Store
    from imagefs.transfer.image_ingest import UnionCheck
    from imagefs.transfer.progress import Reporter

_POLICIES = ("always", "missing", "newer", "never")
_SIGNATURE = re.compile(r"sha256-[0-9a-f]{64}(\..*)?")
"""Tags under which registries keep what belongs to an image: signatures, attestations, lists of these."""
_DEFAULT_PLATFORM_VARIABLE = "DOCKER_DEFAULT_PLATFORM"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "pull",
        help="bring images from registries into the store",
        description="Pull images from registries into the store. Layers that are there already are not fetched again;"
        " a download that was interrupted goes on where it was.",
        epilog="With several REFs all are tried; the exit status is that of the first that failed.",
    )
    add_platform_option(command)
    command.add_argument("-q", "--quiet", action="store_true", help="print only the full name of each image")
    command.add_argument(
        "--policy",
        choices=_POLICIES,
        default="always",
        help="ask the registry always (the default), only if the image is missing, never, or, newer: use what is there"
        " where the registry fails",
    )
    command.add_argument("-a", "--all-tags", action="store_true", help="pull all tags that the registry lists")
    command.add_argument("-n", "--dry-run", action="store_true", help="only say what would be downloaded")
    add_registry_options(command)
    add_expansion_option(command)
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


def add_expansion_option(command: argparse.ArgumentParser) -> None:
    """Add ``--allow-expansion`` to *command*."""
    command.add_argument(
        "--allow-expansion",
        action="store_true",
        help="accept layers that expand to many times their compressed size, which otherwise are taken for an attack",
    )


def run(namespace: argparse.Namespace) -> int:
    """Pull all references and return the exit status of the first that failed, 0 if none did."""
    from imagefs.cli.report import report
    from imagefs.cli.streams import unescaped
    from imagefs.oci.reference import Reference
    from imagefs.transfer.progress import Reporter

    platform = wanted_platform(namespace)
    references = [Reference.parse(text) for text in namespace.references]
    if namespace.all_tags and any(reference.tag or reference.digest for reference in references):
        raise UsageError("a tag or digest can't be used with --all-tags/-a")
    reporter = Reporter(unescaped(sys.stdout), sys.stderr, quiet=namespace.quiet)
    status = 0
    with collector_paused(), _store(namespace) as store:
        for reference in references:
            try:
                _pull(store, reference, platform, namespace, reporter)
            except BrokenPipeError:
                raise
            except KeyboardInterrupt:
                print("imagefs: interrupted; what was downloaded is kept, the next pull goes on there", file=sys.stderr)
                return EXIT_INTERRUPTED
            except Exception as error:  # the others are still tried
                if namespace.debug:
                    traceback.print_exc()
                code = report(error)
                status = status or code
    return status


def _pull(
    store: "Store | None",
    reference: "Reference",
    platform: "Platform | None",
    asked: argparse.Namespace,
    reporter: "Reporter",
) -> None:
    from imagefs.transfer.pull import foretell, pull, settled

    if not asked.all_tags and settled(store, reference, policy=asked.policy, platform=platform, reporter=reporter):
        return
    from imagefs.registry.mirrors import open_endpoints

    client = open_endpoints(reference, tls_verify=asked.tls_verify, authfile=asked.authfile)
    with contextlib.closing(client):
        wanted = [reference]
        if asked.all_tags:
            tags = [tag for tag in client.tags(reference.repository) if not _SIGNATURE.fullmatch(tag)]
            wanted = [reference.with_tag(tag) for tag in tags]
        for one in wanted:
            try:
                if asked.all_tags and settled(store, one, policy=asked.policy, platform=platform, reporter=reporter):
                    continue
                if store is None or asked.dry_run:
                    foretell(store, one, client=client, platform=platform, reporter=reporter)
                else:
                    pull(
                        store,
                        one,
                        client=client,
                        platform=platform,
                        check=union_check(store),
                        reporter=reporter,
                        allow_expansion=asked.allow_expansion,
                    )
            except (UnsupportedMediaType, NoMatchingPlatform) as error:
                if not asked.all_tags:
                    raise
                reporter.warn(f"{one.familiar} is left out: {error}")
            except RegistryError as error:
                if asked.policy != "newer" or not _is_there(store, one, platform):
                    raise
                reporter.warn(f"{error}; the image that is there is used")
                reporter.result(str(one.with_default_tag()))


def _is_there(store: "Store | None", reference: "Reference", platform: "Platform | None") -> bool:
    from imagefs.transfer.pull import in_store

    return store is not None and in_store(store, reference.with_default_tag(), platform) is not None


def _store(namespace: argparse.Namespace) -> "contextlib.AbstractContextManager[Store | None]":
    """Return the store, made if need be; None instead of one that is only made to say what it would hold."""
    from imagefs.store.layout import is_store
    from imagefs.store.store import Store

    if namespace.dry_run and not is_store(namespace.store):
        return contextlib.nullcontext()
    return Store.open(namespace.store, create=not namespace.dry_run, trust=namespace.trust_store)


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
    from imagefs.oci.digest import chain_id

    def check(diff_ids: "Sequence[DiffId]") -> None:
        paths = [store.tree_path(chain_id(diff_ids)), *(store.index_path(diff_id) for diff_id in diff_ids)]
        if all(path.is_file() for path in paths):
            return  # nothing is new: then there is no need to wait for the import either
        from imagefs.overlay.stored import store_tree

        store_tree(store, diff_ids)

    return check


@contextlib.contextmanager
def collector_paused() -> "Iterator[None]":
    """Keep the cycle collector from walking again and again all that a layer is made of, where there are no cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected true or false, not '{text}'") from None
