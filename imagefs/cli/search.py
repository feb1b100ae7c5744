"""``search``: repositories that Docker Hub, or another registry, finds by a word."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from imagefs.cli.pull import add_registry_options
from imagefs.errors import InvalidFilter
from imagefs.text import json_text

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.registry.search import Found

_HEADINGS = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
_DESCRIPTION_CHARACTERS = 45
_MOST = 100
_FILTERS = ("is-official", "stars")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "search",
        help="search Docker Hub, or another registry, for images",
        description="Search Docker Hub for repositories; with HOST/TERM the registry HOST, whose catalog is looked"
        " through where it knows no search: HOST/ alone lists all of it. Official images are marked.",
    )
    command.add_argument("-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help=", ".join(_FILTERS))
    command.add_argument("--limit", type=_limit, default=25, metavar="N", help=f"at most N, up to {_MOST}; default: 25")
    command.add_argument("--no-trunc", action="store_true", help="print descriptions in full")
    output = command.add_mutually_exclusive_group()
    output.add_argument("--format", metavar="FORMAT", help=f"a Go template; fields are {', '.join(_HEADINGS)}")
    output.add_argument("--json", action="store_true", help="print an object a line")
    add_registry_options(command)
    command.add_argument("term", metavar="[HOST/]TERM")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print what is found."""
    from imagefs.cli.template import compiled
    from imagefs.cli.terminal import print_table
    from imagefs.oci.reference import DEFAULT_REGISTRY
    from imagefs.registry.search import search

    fill = compiled(namespace.format) if namespace.format else None
    wanted = [_predicate(text) for text in namespace.filter]
    host, slash, rest = namespace.term.partition("/")
    is_host = slash and ("." in host or ":" in host or host == "localhost")
    registry, term = (host, rest) if is_host else (DEFAULT_REGISTRY, namespace.term)
    found = search(registry, term, limit=namespace.limit, tls_verify=namespace.tls_verify, authfile=namespace.authfile)
    records = [_record(one) for one in found if all(meant(one) for meant in wanted)]
    if namespace.json:
        for record in records:
            print(json_text(record))
    elif fill is not None:
        for record in records:
            print(fill(record | {"IsOfficial": _mark(record)}))
    else:
        rows = [[*_HEADINGS.values()]]
        for record in records:
            description = str(record["Description"])
            if not namespace.no_trunc and len(description) > _DESCRIPTION_CHARACTERS:
                description = f"{description[: _DESCRIPTION_CHARACTERS - 1]}…"
            rows.append([str(record["Name"]), description, str(record["StarCount"]), _mark(record)])
        print_table(rows)
    return 0


def _mark(record: dict[str, object]) -> str:
    """Return what docker shows, in columns and templates, of whether an image is official; "" is false there too."""
    return "[OK]" if record["IsOfficial"] else ""


def _record(one: "Found") -> dict[str, object]:
    return {
        "Name": one.name,
        "Description": one.description,
        "StarCount": one.stars,
        "IsOfficial": one.is_official,
    }


def _predicate(text: str) -> "Callable[[Found], bool]":
    from imagefs.cli.filters import split_filter

    key, value = split_filter(text, _FILTERS)
    if key == "stars":
        if not value.isascii() or not value.isdigit() or len(value) > 9:
            raise InvalidFilter(text, "expected a number of stars")
        return lambda one: one.stars >= int(value)
    if value not in ("true", "false"):
        raise InvalidFilter(text, "expected true or false")
    return lambda one: one.is_official == (value == "true")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= _MOST:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {_MOST}, not '{text}'")
    return int(text)
