"""What a person may call an image of the store.

Receives the images and what was typed; hands on the one image that is meant.  Pure.
"""

import re
from collections.abc import Sequence

from imagefs.errors import ImageNotFound, InvalidReference
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image

_ID = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{1,64})")


def find_image(images: Sequence[Image], wanted: str | Reference) -> Image:
    """Return the image that *wanted* names: a reference (``:latest`` understood), an ID, or the beginning of one.

    As with docker, a name wins over an ID that happens to look the same.  Of ``name:tag@digest`` the digest counts.

    Raises: ImageNotFound, InvalidReference.
    """
    text = wanted if isinstance(wanted, str) else wanted.familiar
    by_id = _ID.fullmatch(text)
    try:
        reference = (Reference.parse(wanted) if isinstance(wanted, str) else wanted).with_default_tag()
    except InvalidReference:
        if not by_id:
            raise
    else:
        for image in images:
            if is_named(image, reference):
                return image
    if by_id:
        matches = [image for image in images if image.id.hex.startswith(by_id["hex"])]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ImageNotFound(text, f"{len(matches)} image IDs begin like that; write more of it")
    raise ImageNotFound(text, _nearest(images, text))


def is_named(image: Image, reference: Reference) -> bool:
    """Return whether *reference*, which has a tag or a digest, is a name of *image*."""
    if reference.digest is not None:
        if any(known.name == reference.name and known.digest == reference.digest for known in image.digests):
            return True
        # An image loaded from an archive has no digest references, but its manifest's digest is no less true.
        return reference.digest == image.manifest_digest and any(tag.name == reference.name for tag in image.tags)
    return any(tag.name == reference.name and tag.tag == reference.tag for tag in image.tags)


def _nearest(images: Sequence[Image], text: str) -> str:
    import difflib  # only on the way to an error

    known = [tag.familiar_tag for image in images for tag in image.tags]
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.6)
    near += [name for name in known if name.startswith(f"{text}:") and name not in near][: 3 - len(near)]
    return f"did you mean {' or '.join(near)}?" if near else ""
