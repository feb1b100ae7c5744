"""Images as people name them to look inside, and paths in there as people type them."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from imagefs.errors import PathNotFound
from imagefs.text import printable

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.view.tree import ImageTree, Thing


@contextlib.contextmanager
def opened_tree(namespace: argparse.Namespace, reference: str) -> "Iterator[ImageTree]":
    """Open the tree of the image *reference*, which may end in ``@layer:N``, in the store of *namespace*.

    Files are compared with their digests before any of them is read.

    Raises: StoreError, InvalidReference.
    """
    from imagefs.store.store import Store
    from imagefs.view.kept import KeptFiles
    from imagefs.view.opened import OpenedImages
    from imagefs.view.tree import looked_at, named

    with Store.open(namespace.store, trust=namespace.trust_store) as store:
        image, stack = named(store, reference)
        images = OpenedImages(store, KeptFiles(), verify=True)
        yield looked_at(images, stack, passing=stack.diff_ids != image.diff_ids)


def found_at(tree: "ImageTree", text: str, reference: str, *, follow: bool) -> "tuple[bytes, Thing]":
    """Return what the path *text* leads to in *tree*, the image *reference*, and its path without symlinks.

    Raises: PathNotFound, OSError.
    """
    path = clean(text)
    found = tree.find(path, follow=follow)
    if found is None:
        raise not_found(tree, path, reference)
    return found


def clean(text: str) -> bytes:
    """Return the path that *text* means, from the root of an image; ".." does not lead out of it."""
    return os.path.normpath(os.fsencode("/" + text)).lstrip(b"/")


def not_found(side: "ImageTree", path: bytes, reference: str) -> PathNotFound:
    """Return the error that says that *side*, the image *reference*, has nothing at *path*, with the nearest name."""
    import difflib

    folder, _, name = path.rpartition(b"/")
    found = side.find(folder)
    hint = ""
    if found is not None and found[1].is_directory:
        listing = side.listing(found[1])
        names = [os.fsdecode(listing.name(number)) for number in range(2, len(listing))]
        near = difflib.get_close_matches(os.fsdecode(name), names, n=1)
        if near:
            hint = f"did you mean /{printable(folder + b'/' if folder else b'')}{printable(near[0])}?"
    return PathNotFound(path, reference, hint)
