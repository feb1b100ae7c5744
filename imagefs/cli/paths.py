"""Paths inside images as people type them."""

import os
from typing import TYPE_CHECKING

from imagefs.errors import PathNotFound, printable

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.view.tree import ImageTree


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
