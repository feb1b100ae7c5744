"""``tags``: what a registry has of a repository."""

import argparse
import contextlib
import itertools

from imagefs.cli.pull import add_registry_options
from imagefs.text import json_text


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "tags",
        help="list the tags that a registry has of a repository",
        description="Print the tags of REPOSITORY in its registry, one a line, in the registry's order.",
    )
    command.add_argument("-n", "--limit", type=int, metavar="N", help="print only the first N")
    command.add_argument("--json", action="store_true", help="print one JSON array")
    add_registry_options(command)
    command.add_argument("repository", metavar="REPOSITORY", help="such as alpine or ghcr.io/owner/app")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print the tags as they come."""
    from imagefs.errors import InvalidReference
    from imagefs.oci.reference import Reference
    from imagefs.registry.mirrors import open_endpoints

    reference = Reference.parse(namespace.repository)
    if reference.tag is not None or reference.digest is not None:
        raise InvalidReference(namespace.repository, "expected a repository, without tag or digest")
    client = open_endpoints(reference, tls_verify=namespace.tls_verify, authfile=namespace.authfile)
    with contextlib.closing(client):
        tags = itertools.islice(client.tags(reference.repository), namespace.limit)
        if namespace.json:
            print(json_text(list(tags)))
        else:
            for tag in tags:
                print(tag)
    return 0
