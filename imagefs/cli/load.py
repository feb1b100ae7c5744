"""``load``: bring images from archives and layouts into the store."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from imagefs.cli.pull import add_expansion_option, add_platform_option, collector_paused, union_check, wanted_platform
from imagefs.errors import UsageError

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.oci.reference import Reference


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "load",
        help="bring images from an archive or a folder into the store",
        description="Load all images of a docker save archive (old or new), an OCI layout (folder or archive) or a"
        " dir: folder of skopeo. Archives may be compressed with gzip or zstd.",
    )
    command.add_argument("-q", "--quiet", action="store_true", help="draw no progress bars")
    command.add_argument(
        "--name",
        metavar="REPOSITORY[:TAG]",
        help="what to call the image; default: what the archive says, which if that is only a tag is combined with the"
        " name of the file or folder",
    )
    add_platform_option(command)
    add_expansion_option(command)
    command.add_argument("path", metavar="PATH", help="an archive or a folder, or - for an archive on standard input")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Load what is at the path."""
    from imagefs.cli.streams import unescaped
    from imagefs.store.store import Store
    from imagefs.transfer.archive_input import STANDARD_INPUT, open_archive
    from imagefs.transfer.load import load
    from imagefs.transfer.names import repository_from
    from imagefs.transfer.progress import Reporter

    platform = wanted_platform(namespace)
    wanted = _wanted_name(namespace.name)
    path: str = namespace.path
    repository = None if path == STANDARD_INPUT else repository_from(Path(path).resolve().name)
    reporter = Reporter(unescaped(sys.stdout), sys.stderr, quiet=namespace.quiet, layer_lines=False)
    with (
        collector_paused(),
        Store.open(namespace.store, create=True, trust=namespace.trust_store) as store,
        open_archive(path, spool_folder=store.path / "ingest", allow_expansion=namespace.allow_expansion) as source,
    ):
        load(
            store,
            source,
            repository=repository,
            wanted=wanted,
            platform=platform,
            check=union_check(store),
            reporter=reporter,
            allow_expansion=namespace.allow_expansion,
        )
    return 0


def _wanted_name(text: str | None) -> "Reference | None":
    from imagefs.oci.reference import Reference

    if text is None:
        return None
    wanted = Reference.parse(text)
    if wanted.digest is not None:
        raise UsageError("--name takes a repository and perhaps a tag; a digest cannot be chosen")
    return wanted
