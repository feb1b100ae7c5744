"""Command lines as users of docker and podman type them, in the spelling of imagefs.  Pure."""

from collections.abc import Sequence

_SAME = ("diff", "exists", "history", "inspect", "load", "ls", "mount", "prune", "pull", "rm", "save", "search", "tag")
IMAGE_COMMANDS = {name: name for name in (*_SAME, "tree", "umount", "untag")} | {
    "list": "ls",
    "remove": "rm",
    "unmount": "umount",
}
"""What may follow ``image``, and the command that it stands for."""

_OF_CONTAINERS = ("attach", "create", "exec", "kill", "logs", "ps", "restart", "run", "start", "stats", "stop", "top")
ABSENT = {name: f"imagefs runs no containers; 'podman {name}' and 'docker {name}' do" for name in _OF_CONTAINERS} | {
    "build": "imagefs builds no images; build with podman or docker, then: podman save NAME | imagefs load -",
    "commit": "imagefs makes no images; commit with podman or docker, then: podman save NAME | imagefs load -",
    "push": "imagefs pushes no images; 'imagefs save --format oci-archive -o FILE REF', then"
    " 'skopeo copy oci-archive:FILE docker://REF'",
}
"""Commands of docker and podman that imagefs does not have, and what to use instead."""


def command_index(words: Sequence[str]) -> int:
    """Return the index of the command in *words*, behind the options that all commands share.

    It is ``len(words)`` where there is none, and the index of an option that no command precedes, such as ``--help``.
    """
    at = 0
    while at < len(words):
        if words[at] == "--store":
            at += 2
        elif words[at] in ("--debug", "--trust-store") or words[at].startswith("--store="):
            at += 1
        else:
            return at
    return len(words)


def respelled(words: Sequence[str]) -> list[str]:
    """Return the command line *words* with the commands and options that imagefs has.

    ``help``, ``version``, ``-v``, ``image COMMAND`` and a line without a command are respelled; others stay.
    """
    at = command_index(words)
    before, rest = list(words[:at]), list(words[at:])
    match rest:
        case [] | ["help"] | ["image"] | ["image", "--help" | "-h"]:
            return [*before, "--help"]
        case ["version" | "-v", *more]:
            return [*before, "--version", *more]
        case ["help", *more]:
            return [*respelled([*before, *more]), "--help"]
        case ["image", name, *more]:
            return [*before, IMAGE_COMMANDS.get(name, f"image {name}"), *more]
    return [*before, *rest]
