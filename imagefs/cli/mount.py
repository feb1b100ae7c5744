"""``mount``, ``umount``, ``remount``, ``mounts``: the store as a file system."""

import argparse
import functools
from pathlib import Path

from imagefs.cli.report import for_each
from imagefs.errors import InvalidMountOption, UsageError
from imagefs.mount.option_table import MOUNT_OPTIONS
from imagefs.text import json_text, printable

_APPEARING = "Whatever images come and go in the store while it is mounted appears and disappears in the mount."
_OPTION_COLUMNS = 22


def _epilog() -> str:
    lines = ["options for -o:"]
    for words, meaning in MOUNT_OPTIONS:
        names = f"  {', '.join(words)}"
        if len(names) < _OPTION_COLUMNS:
            names = f"{names:{_OPTION_COLUMNS}}{meaning}"
        else:
            names += f"\n{'':{_OPTION_COLUMNS}}{meaning}"
        lines.append(names)
    return "\n".join([*lines, "", _APPEARING])


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these commands to the command line."""
    mount = commands.add_parser(
        "mount",
        help="mount the store, or one image",
        description="Mount the whole store, every repo/tag a directory, or only image REF. Returns once it is there."
        " Without arguments, list the mounts that there are.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mount.add_argument("-f", "--foreground", action="store_true", help="serve until unmounted instead of going away")
    mount.add_argument("-o", dest="options", action="append", default=[], metavar="OPT[,OPT]", help="see below")
    mount.add_argument("--log-file", type=Path, metavar="FILE", help="where to log; default: syslog")
    mount.add_argument("reference", nargs="?", metavar="REF", help="an image, by name or ID; default: all of the store")
    mount.add_argument("mountpoint", nargs="?", metavar="MOUNTPOINT", help="an empty folder")
    mount.set_defaults(run=run_mount)

    umount = commands.add_parser(
        "umount", help="unmount what mount mounted", description="Unmount, and wait for the process that served it."
    )
    umount.add_argument("-l", "--lazy", action="store_true", help="even while it is in use: it vanishes at once")
    umount.add_argument("mountpoints", nargs="+", type=Path, metavar="MOUNTPOINT")
    umount.set_defaults(run=run_umount)

    remount = commands.add_parser(
        "remount",
        help="let the installed version take over a mount",
        description="After an upgrade: have a mount served by the program as it is installed now, without unmounting. "
        "Open files stay open, and who reads meanwhile notices nothing.",
    )
    remount.add_argument("mountpoints", nargs="+", type=Path, metavar="MOUNTPOINT")
    remount.set_defaults(run=run_remount)

    mounts = commands.add_parser("mounts", help="list imagefs mounts", description="List all imagefs mounts.")
    mounts.add_argument("--json", action="store_true", help="print an object a line")
    mounts.set_defaults(run=run_mounts)


def run_mount(namespace: argparse.Namespace) -> int:
    """Mount, and return when the mount answers; in the foreground, when it was unmounted."""
    if namespace.mountpoint is None:  # of one argument, argparse takes the first that it could be
        if namespace.reference is None:
            return run_mounts(namespace)
        if namespace.reference[:1] not in ("/", ".") and not Path(namespace.reference).exists():
            name = printable(namespace.reference)
            raise UsageError(
                f"there is no folder '{name}'; if it is an image, DIR is missing: imagefs mount {name} DIR"
            )
        namespace.reference, namespace.mountpoint = None, namespace.reference
    from dataclasses import replace

    from imagefs.mount.options import parse_options
    from imagefs.mount.session import mount

    options = parse_options(namespace.options)
    if options.read_write:
        raise InvalidMountOption("rw", "imagefs is read-only")
    if options.remount:
        raise InvalidMountOption("remount", "options stay as they are; to replace the program, use 'imagefs remount'")
    if namespace.log_file is not None:
        options = replace(options, log_file=namespace.log_file.absolute())
    if namespace.trust_store:
        options = replace(options, trust_store=True)
    if namespace.reference is not None and options.image is not None:
        raise InvalidMountOption(f"image={options.image}", f"another image is asked for: {namespace.reference}")
    mount(
        options.store or namespace.store,
        Path(namespace.mountpoint),
        reference=namespace.reference or options.image,
        options=options,
        foreground=namespace.foreground,
    )
    return 0


def run_umount(namespace: argparse.Namespace) -> int:
    """Unmount all that can be; those that cannot are reported."""
    from imagefs.mount.unmount import unmount

    return for_each(namespace.mountpoints, functools.partial(unmount, store=namespace.store, lazy=namespace.lazy))


def run_remount(namespace: argparse.Namespace) -> int:
    """Replace the processes behind all mounts that can be taken over; the others are reported."""
    from imagefs.mount.remount import remount

    return for_each(namespace.mountpoints, functools.partial(remount, store=namespace.store))


def run_mounts(namespace: argparse.Namespace) -> int:
    """Print the imagefs mounts this process sees, of whatever store and user."""
    from imagefs.cli.terminal import print_table
    from imagefs.mount.mountinfo import mounts

    found = [mount for mount in mounts() if mount.is_imagefs]
    if getattr(namespace, "json", False):
        for mount in found:
            print(json_text({"source": mount.source, "target": mount.target, "options": list(mount.options)}))
        return 0
    rows = [("SOURCE", "TARGET", "OPTIONS")]
    print_table(rows + [(mount.source, mount.target, ",".join(mount.options)) for mount in found])
    return 0
