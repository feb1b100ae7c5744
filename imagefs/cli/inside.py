"""``cat`` and ``export``: what is in an image, without a mount."""

import argparse
import contextlib
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from imagefs.errors import ImagefsError, UsageError

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.view.tree import ImageTree

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

    export = commands.add_parser(
        "export",
        help="write an image's tree as one tar",
        description="Write the tree of an image as one tar, as docker export does of a container: whiteouts applied,"
        " all metadata kept, the same bytes each time.",
    )
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    export.add_argument("reference", metavar="REF", help="a name or ID of an image, or REF@layer:N")
    export.set_defaults(run=run_export)


def run_cat(namespace: argparse.Namespace) -> int:
    """Print the files; those that cannot be printed are reported, the others are printed all the same."""
    from imagefs.cli.report import report

    statuses = []
    with _tree(namespace) as tree:
        for path in namespace.paths:
            try:
                _print_file(tree, path, namespace.reference)
            except BrokenPipeError:
                raise
            except (ImagefsError, OSError) as error:
                statuses.append(report(error))
    return statuses[0] if statuses else 0


def _print_file(tree: "ImageTree", text: str, reference: str) -> None:
    import errno
    import os

    from imagefs.cli.paths import clean, not_found

    path = clean(text)
    found = tree.find(path, follow=True)
    if found is None:
        raise not_found(tree, path, reference)
    if not stat.S_ISREG(found[1].attributes.mode):
        number = errno.EISDIR if found[1].is_directory else errno.EINVAL
        raise OSError(number, "it is no regular file" if number == errno.EINVAL else os.strerror(number), f"/{text}")
    file = tree.open(found[1])
    offset = 0
    while piece := file.read(offset, _CHUNK_BYTES):
        sys.stdout.buffer.write(piece)
        offset += len(piece)
    sys.stdout.buffer.flush()


def run_export(namespace: argparse.Namespace) -> int:
    """Write the tar; a file that could not be written to its end is removed."""
    from imagefs.view.flat_tar import write_tar

    if namespace.output is None and sys.stdout.isatty():
        raise UsageError("refusing to write a tar to a terminal; use --output FILE, or a pipe")
    with _tree(namespace) as tree:
        if namespace.output is None:
            write_tar(tree, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return 0
        with _whole(namespace.output) as out:
            write_tar(tree, out)
    return 0


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Open *path* for writing; what is there when the context ends with an error is removed."""
    with path.open("wb") as out:
        try:
            yield out
        except BaseException:
            if path.is_file():
                path.unlink()
            raise


@contextlib.contextmanager
def _tree(namespace: argparse.Namespace) -> "Iterator[ImageTree]":
    from imagefs.store.store import Store
    from imagefs.view.kept import KeptFiles
    from imagefs.view.opened import OpenedImages
    from imagefs.view.tree import looked_at, named

    with Store.open(namespace.store) as store:
        image, stack = named(store, namespace.reference)
        images = OpenedImages(store, KeptFiles(), verify=True)
        yield looked_at(images, stack, passing=stack.diff_ids != image.diff_ids)
