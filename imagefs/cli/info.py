"""``info``: which imagefs, store and machine this is, and what they can do."""

import argparse
import platform
from typing import TYPE_CHECKING, Any

from imagefs import __version__
from imagefs.text import json_text

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from pathlib import Path


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "info",
        help="tell about this imagefs, its store and this machine",
        description="Print versions, what is in the store, where configuration comes from, and how mounts work here.",
    )
    output = command.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object")
    output.add_argument("-f", "--format", metavar="FORMAT", help="a Go template such as '{{.Store.Path}}'")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print what there is to say; a store that is not there yet is no error."""
    from imagefs.cli.template import compiled

    fill = compiled(namespace.format) if namespace.format else None
    found = _found(namespace)
    if fill is not None:
        print(fill(found))
    elif namespace.json:
        print(json_text(found, indent=4))
    else:
        _print(found, 0)
    return 0


def _found(namespace: argparse.Namespace) -> dict[str, Any]:
    from imagefs.mount import abilities
    from imagefs.oci.platform import Platform
    from imagefs.oci.reference import DEFAULT_REGISTRY
    from imagefs.registry.configuration import configuration_files
    from imagefs.registry.credentials import credential_files

    return {
        "Version": __version__,
        "Python": platform.python_version(),
        "Store": _store(namespace.store, trust=namespace.trust_store),
        "Registries": {
            "Default": DEFAULT_REGISTRY,
            "Configuration": [str(path) for path in configuration_files()],
            "Credentials": [str(path) for path in credential_files()],
        },
        "Machine": {"Platform": str(Platform.host()), "Kernel": abilities.kernel()},
        "Mounting": {
            "Driver": abilities.driver(),
            "Way": abilities.way_to_mount(),
            "Features": list(abilities.features()),
        },
    }


def _store(path: "Path", *, trust: bool) -> dict[str, Any]:
    from imagefs.store import layout
    from imagefs.store.store import Store

    if not layout.is_store(path):
        return {"Path": str(path), "State": "there is none yet; 'imagefs pull' or 'imagefs load' makes one"}
    with Store.open(path, trust=trust) as store:
        images = store.images()
        return {
            "Path": str(path),
            "Format": layout.FORMAT,
            "State": "can only be read" if store.read_only else "can be read and written",
            "Images": len(images),
            "Tags": sum(len(image.tags) for image in images),
            "Layers": len({diff_id for image in images for diff_id in image.diff_ids}),
            "Size": sum(store.content_bytes().values()),
            "Mounts": [record.mountpoint for record in store.live_mounts()],
        }


def _print(found: dict[str, Any], depth: int) -> None:
    from imagefs.text import printable, size

    for key, value in found.items():
        prefix = f"{'  ' * depth}{key}:"
        match value:
            case dict():
                print(prefix)
                _print(value, depth + 1)
            case list():
                print(prefix if value else f"{prefix} none")
                for one in value:
                    print(f"{'  ' * (depth + 1)}{printable(one)}")
            case int() if key == "Size":
                print(f"{prefix} {size(value)}")
            case _:
                print(f"{prefix} {printable(str(value))}")
