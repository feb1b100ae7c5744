"""``cat``, ``cp`` and ``export``: what is in an image, without a mount."""

import argparse
import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from imagefs.cli.output import written
from imagefs.cli.paths import clean, found_at, opened_tree
from imagefs.cli.report import for_each
from imagefs.errors import EXIT_FAILURE, UsageError
from imagefs.text import printable

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.view.tree import ImageTree, Thing

_CHUNK_BYTES = 1024 * 1024


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these commands to the command line."""
    cat = commands.add_parser(
        "cat",
        help="print files of an image",
        description="Print files of an image to standard output. Symlinks are followed inside the image. REF@layer:N is"
        " the image as of its layer N.",
    )
    cat.add_argument("reference", metavar="REF")
    cat.add_argument("paths", nargs="+", metavar="PATH")
    cat.set_defaults(run=run_cat)

    cp = commands.add_parser(
        "cp",
        help="copy files and directories out of an image",
        description="Copy what is at PATH in an image to DEST, as docker cp does: a file, or a directory with all that"
        " is in it, or with PATH/. only that. If DEST is a directory, the copy is put into it. With - as DEST, a tar is"
        " written to standard output. Symlinks are copied as they are; below DEST none is followed.",
    )
    cp.add_argument("-a", "--archive", action="store_true", help="keep owners, setuid bits, attributes and devices")
    cp.add_argument("-L", "--follow-link", action="store_true", help="if PATH is a symlink, copy what it leads to")
    cp.add_argument("source", metavar="REF:PATH")
    cp.add_argument("destination", metavar="DEST")
    cp.set_defaults(run=run_cp)

    export = commands.add_parser(
        "export",
        help="write an image's tree as one tar",
        description="Write the tree of an image as one tar, as docker export does of a container: whiteouts applied,"
        " all metadata kept, the same bytes each time.",
    )
    export.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="made for its owner only; default: standard output"
    )
    export.add_argument("reference", metavar="REF", help="a name or ID of an image, or REF@layer:N")
    export.set_defaults(run=run_export)


def run_cat(namespace: argparse.Namespace) -> int:
    """Print the files; those that cannot be printed are reported, the others are printed all the same."""
    with opened_tree(namespace, namespace.reference) as tree:
        return for_each(namespace.paths, lambda path: _print_file(tree, path, namespace.reference))


def _print_file(tree: "ImageTree", text: str, reference: str) -> None:
    _, thing = found_at(tree, text, reference, follow=True)
    if not stat.S_ISREG(thing.attributes.mode):
        number = errno.EISDIR if thing.is_directory else errno.EINVAL
        raise OSError(number, "it is no regular file" if number == errno.EINVAL else os.strerror(number), f"/{text}")
    file = tree.open(thing)
    offset = 0
    while piece := file.read(offset, _CHUNK_BYTES):
        sys.stdout.buffer.write(piece)
        offset += len(piece)
    sys.stdout.buffer.flush()


def run_cp(namespace: argparse.Namespace) -> int:
    """Copy; things that cannot be copied as asked are reported, and make the exit status 1."""
    from imagefs.text import path_text
    from imagefs.view.flat_tar import write_tar

    # No reference has ":/" in it, so that is where a path begins; else a path may begin after the last colon.
    at = namespace.source.find(":/")
    at = at if at >= 0 else namespace.source.rfind(":")
    reference, text = namespace.source[:at], namespace.source[at + 1 :]
    if at < 1 or not text:
        raise UsageError(f"expected REF:PATH such as alpine:3.20:/etc, found '{printable(namespace.source)}'")
    left_out: list[str] = []
    with opened_tree(namespace, reference) as tree:
        only_content = text.endswith("/.") or not clean(text)
        top = found_at(tree, text, reference, follow=namespace.follow_link or text.endswith(("/", "/.")))
        name = b"" if only_content else clean(text).rpartition(b"/")[2]
        if namespace.destination == "-":
            with written(None) as out:
                write_tar(tree, out, top, name=name)
            return 0
        _copy(tree, top, name, namespace, lambda path, why: left_out.append(f"{path_text(path)}: {why}"))
    for line in left_out:
        print(f"imagefs: not copied: {line}", file=sys.stderr)
    return EXIT_FAILURE if left_out else 0


def _copy(
    tree: "ImageTree",
    top: "tuple[bytes, Thing]",
    name: bytes,
    namespace: argparse.Namespace,
    left_out: "Callable[[bytes, str], None]",
) -> None:
    """Copy *top* to where docker cp would: into DEST, or as DEST, under which *name* is then not used."""
    from imagefs.store.trusted_path import open_parent, refuse_links_of_others
    from imagefs.view.copying import Copy

    destination = namespace.destination
    folder, target = open_parent(destination, refuse_links_of_others)
    try:
        try:
            inner = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            is_file = isinstance(error, NotADirectoryError)
            if (top[1].is_directory and is_file) or (destination.endswith("/") and not top[1].is_directory):
                raise OSError(error.errno, error.strerror, destination) from None
            name = os.fsencode(target)
        else:
            os.close(folder)
            folder = inner
        with Copy(tree, folder, archive=namespace.archive, left_out=left_out) as copy:
            copy.copy(*top, name)
    finally:
        os.close(folder)


def run_export(namespace: argparse.Namespace) -> int:
    """Write the tar."""
    from imagefs.view.flat_tar import write_tar

    with opened_tree(namespace, namespace.reference) as tree, written(namespace.output) as out:
        write_tar(tree, out)
    return 0
