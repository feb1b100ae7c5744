"""``completion``: what the Tab key offers in bash, zsh and fish.

The script for a shell only calls the program again, with the line so far in its environment; `complete` then asks the
same parser that reads command lines what may come next.  So nothing about commands and options is said twice, and names
of images and paths in them are those that there are at that moment.
"""

import argparse
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from imagefs.store.location import default_store_path

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from pathlib import Path

    from imagefs.store.store import Store

_SHELLS = ("bash", "zsh", "fish")
_OFFERABLE = re.compile(r"[\w.,:=+@%~-]+")
"""Names inside images are anybody's: only those are offered that no shell or terminal takes for more than letters."""

_REFERENCES = ("REF", "OLD", "NEW", "SOURCE", "TARGET")
_FOLDERS = ("DIR", "MOUNTPOINT")
_MAX_PATHS = 1000


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Print a script that makes the Tab key complete commands, options, names of images and paths in"
        " them.",
        epilog="To try it: source <(imagefs completion bash), source <(imagefs completion zsh), or imagefs completion"
        " fish | source. To keep it, put the output where the shell looks, as"
        " ~/.local/share/bash-completion/completions/imagefs, _imagefs in a folder of zsh's $fpath, and"
        " ~/.config/fish/completions/imagefs.fish.",
    )
    command.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print the script."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["imagefs"], use_defaults=False, shell=namespace.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the script of a shell with what may come next on its command line, and end the process.

    Where something fails, nothing is offered; the script sends what is printed nowhere.
    """
    import argcomplete
    from argcomplete.completers import BaseCompleter

    # A function is called just as an instance would be; a class would have to be made here, where its base is at hand.
    values = cast("BaseCompleter", _values)
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=values)


def _values(*, prefix: str, action: argparse.Action, parsed_args: argparse.Namespace, **_: object) -> Iterable[str]:
    """Return what *action* may be; the caller chooses what begins with *prefix*."""
    from argcomplete.completers import DirectoriesCompleter, FilesCompleter

    what = action.metavar if isinstance(action.metavar, str) else ""
    reference = getattr(parsed_args, "reference", None) or getattr(parsed_args, "old", None)
    if what in _REFERENCES:
        return _references(parsed_args)
    if what == "REPOSITORY":
        return sorted({name.rpartition(":")[0] for name in _references(parsed_args)})
    if what == "REF:PATH":
        return _source(prefix, parsed_args)
    if what == "PATH" and reference and not action.option_strings:
        return _paths(prefix, reference, parsed_args)
    if action.dest == "mountpoints":
        return _mountpoints()
    if action.dest == "options":
        return _mount_options(prefix)
    if what in _FOLDERS:
        return DirectoriesCompleter()(prefix=prefix)
    if what in ("FILE", "PATH", "DEST"):
        return FilesCompleter()(prefix=prefix)
    return ()


def _store_path(namespace: argparse.Namespace) -> "Path":
    path: Path | None = getattr(namespace, "store", None)
    return path or default_store_path()


def _opened(namespace: argparse.Namespace) -> "Store":
    from imagefs.store.store import Store

    return Store.open(_store_path(namespace), trust=getattr(namespace, "trust_store", False))


def _references(namespace: argparse.Namespace) -> list[str]:
    from imagefs.store.layout import is_store

    if not is_store(_store_path(namespace)):
        return []
    with _opened(namespace) as store:
        images = store.images()
    return sorted(tag.familiar_tag for image in images for tag in image.tags)


def _source(prefix: str, namespace: argparse.Namespace) -> list[str]:
    """Return what ``REF:PATH`` may be: a name and a colon, then paths."""
    reference, colon, path = prefix.partition(":/")
    if not colon:
        return [f"{name}:/" for name in _references(namespace)]
    return [f"{reference}:{found}" for found in _paths(f"/{path}", reference, namespace)]


def _paths(prefix: str, reference: str, namespace: argparse.Namespace) -> list[str]:
    """Return the paths in the image *reference* that begin with *prefix*, as it is written, one component further."""
    import os

    from imagefs.cli.paths import clean
    from imagefs.view.kept import KeptFiles
    from imagefs.view.opened import OpenedImages
    from imagefs.view.tree import looked_at, named

    written = prefix[: prefix.rfind("/") + 1]
    with _opened(namespace) as store:
        image, stack = named(store, reference)
        tree = looked_at(OpenedImages(store, KeptFiles()), stack, passing=stack.diff_ids != image.diff_ids)
        above = tree.find(clean(written), follow=True)
        if above is None or not above[1].is_directory:
            return []
        listing = tree.listing(above[1])
        found = []
        for number in range(2, len(listing)):  # after "." and ".."
            name = os.fsdecode(listing.name(number))
            if name.startswith(prefix[len(written) :]) and _OFFERABLE.fullmatch(name):
                ending = "/" if tree.thing(listing, number).is_directory else ""
                found.append(f"{written}{name}{ending}")
                if len(found) == _MAX_PATHS:
                    break
        return found


def _mountpoints() -> list[str]:
    from imagefs.mount.mountinfo import mounts

    return [mount.target for mount in mounts() if mount.is_imagefs]


def _mount_options(prefix: str) -> dict[str, str]:
    from imagefs.mount.option_table import MOUNT_OPTIONS

    before = prefix[: prefix.rfind(",") + 1]
    return {f"{before}{word}": meaning for words, meaning in MOUNT_OPTIONS for word in words}
