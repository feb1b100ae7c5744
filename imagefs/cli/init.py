"""``init``: an empty store, and who may read it."""

import argparse
import grp

from imagefs.errors import UsageError, printable


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "init",
        help="make a store, or choose who can read it",
        description="Make an empty store if there is none ('pull' and 'load' do that as well). A store is private to"
        " its owner. With --group, the members of one group can read it: ls, cat, cp, diff, find, export, save and"
        " mount work for them; only the owner writes. Layers hold files, such as /etc/shadow, that an image keeps from"
        " ordinary users: the members can read all of them.",
    )
    access = command.add_mutually_exclusive_group()
    access.add_argument("--group", metavar="GROUP", help="let the members of this group read the store")
    access.add_argument("--private", action="store_true", help="let only the owner read it again")
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Make the store, and set its group."""
    from imagefs.store.store import Store

    group = None if namespace.group is None else _group_id(namespace.group)
    with Store.open(namespace.store, create=True, trust=namespace.trust_store) as store:
        if group is not None or namespace.private:
            store.set_group(group)
    return 0


def _group_id(text: str) -> int:
    """Return the ID of the group that *text* names.

    Raises: UsageError.
    """
    try:
        return int(text) if text.isascii() and text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise UsageError(f"there is no group '{printable(text)}'; 'getent group' lists them") from None
