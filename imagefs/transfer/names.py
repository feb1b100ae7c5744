"""What a loaded image shall be called.

Receives what an archive says, what the user says and what the file is called; hands on references.  Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imagefs.errors import InvalidReference, UsageError
from imagefs.oci.reference import DEFAULT_TAG, Reference, is_valid_tag

_EXTENSIONS = re.compile(r"(\.oci)?(\.tar)?(\.(gz|tgz|zst|zstd|tzst|bz2|tbz2?|xz|txz|tar))?$", re.IGNORECASE)
_ALLOWED_RUN = re.compile(r"[._]|__|-+")


@dataclass(frozen=True, slots=True)
class Naming:
    """The references for one image, and the names that the archive gives it but nobody can use."""

    references: tuple[Reference, ...]
    unusable: tuple[str, ...] = ()


def name_image(names: Sequence[str], *, repository: str | None, wanted: Reference | None) -> Naming:
    """Return the references of an image that its archive calls *names*.

    A name is a whole reference (it has a ``/`` or ``:``) or a bare tag, which goes to *repository*, a name made from
    the archive's own (`repository_from`); where that is None, a bare tag without *wanted* is a UsageError.  *wanted*,
    what the user asked for, replaces the repository and, where it has a tag, also the tag.

    Raises: UsageError.
    """
    references: dict[Reference, None] = {}
    unusable: list[str] = []
    for name in names:
        if name.startswith("<none>"):
            continue  # how docker writes that there is no name
        if "/" not in name and ":" not in name:
            if not is_valid_tag(name):
                unusable.append(name)
            elif wanted is None and repository is None:
                raise UsageError(f"the archive only says that the image's tag is '{name}'; give it a name with --name")
            else:
                base = wanted or Reference.parse(repository or "")
                references[base if base.tag else base.with_tag(name)] = None
            continue
        whole = _whole(name)
        if whole is None:
            unusable.append(name)
        elif wanted is not None:
            references[wanted if wanted.tag else wanted.with_tag(whole.tag or DEFAULT_TAG)] = None
        else:
            references[whole] = None
    if not references and wanted is not None:
        references[wanted.with_default_tag()] = None
    return Naming(tuple(references), tuple(unusable))


def _whole(name: str) -> Reference | None:
    """Return the reference with a tag that *name* is, or None where it is none."""
    try:
        reference = Reference.parse(name)
    except InvalidReference:
        return None
    if reference.digest is not None and reference.tag is None:
        return None
    # A digest in a name was true where the archive comes from; only a registry can say so again.
    return (
        reference.with_default_tag() if reference.digest is None else reference.with_tag(reference.tag or DEFAULT_TAG)
    )


def repository_from(filename: str) -> str:
    """Return a valid repository name made from that of a file or folder.

    ``Some Image_1.2.tar.gz`` gives ``some-image_1.2``.
    """
    base = _EXTENSIONS.sub("", filename, count=1)
    name = re.sub(r"[^a-z0-9]+", _separator, base.lower()).strip("._-")[:200].rstrip("._-")
    try:
        Reference.parse(name)
    except InvalidReference:
        return f"image-{name[:12]}".rstrip("._-")
    return name


def _separator(match: re.Match[str]) -> str:
    return match[0] if _ALLOWED_RUN.fullmatch(match[0]) else "-"
