"""Names inside a layer: made clean, and told apart into paths and markers.

Receives names as a tar has them; hands on paths that cannot leave the image root, and what a name hides where it is a
whiteout.  Pure.

Cleaning is lexical, as ``filepath.Join("/", name)`` in Go: every ``..`` takes one component away and stops at the
root.  containerd and umoci do the same, so that a hostile ``../../etc/passwd`` is the image's own ``etc/passwd``.

Only the last component of a name makes it a marker, whatever the member's type: ``a/.wh.b/c`` is an ordinary file in
an ordinary directory ``.wh.b``, as with docker, containerd and umoci.  The names ``.wh..wh.*`` (but for the opaque
marker) are bookkeeping of the AUFS storage driver that old builders left in layers; they and what is below them are
ignored as docker does.

Source: OCI image-spec, layer.md, "Whiteouts"; umoci oci/layer/tar_extract.go; moby pkg/archive/diff.go.
"""

from enum import Enum, auto

from imagefs.errors import InvalidLayer

MAX_PATH_BYTES = 16 * 1024
"""Four times PATH_MAX: kernels know trees that deep, by opening them folder after folder; no layer needs more."""

MAX_PATH_DEPTH = 2048
"""As many names as PATH_MAX (4096 bytes) can hold: no process can name a deeper file.  Each name may stand for a folder
that the layer does not have, so a deep path makes much of little."""

MAX_NAME_BYTES = 255
"""NAME_MAX: no Linux file system holds, and no FUSE reply may carry, a longer component."""

_WHITEOUT = b".wh."
_AUFS = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_AUFS_LINKS = b".wh..wh.plnk"


class Meaning(Enum):
    """What a member's name makes of it; the subject that goes with it is explained for each."""

    ENTRY = auto()
    """A file of the image; the subject is its path."""
    WHITEOUT = auto()
    """The subject is the path it hides."""
    OPAQUE = auto()
    """The subject is the directory whose lower children it hides."""
    AUFS_LINK = auto()
    """A file that AUFS kept for its hard links; the subject is its key for `aufs_link_key`."""
    IGNORED = auto()


def clean(name: bytes) -> bytes:
    """Return *name* as a path relative to the image root, without empty, "." or ".." components; b"" is the root.

    Raises: InvalidLayer, if it is too long.
    """
    if len(name) > MAX_PATH_BYTES:
        raise InvalidLayer(f"expected a path of at most {MAX_PATH_BYTES} bytes, found one of {len(name)}")
    if b"//" not in name:
        if name.startswith(b"./"):
            name = name[2:]
        if name.endswith(b"/"):
            name = name[:-1]
        if b"/." not in name and not name.startswith((b"/", b".")):
            return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def meaning(path: bytes) -> tuple[Meaning, bytes]:
    """Return what a member with the clean *path* means, and for what path.

    Raises: InvalidLayer, for markers that name nothing and for components that no file system could hold.
    """
    if _WHITEOUT not in path:
        return Meaning.ENTRY, _possible(path)
    folder, slash, name = path.rpartition(b"/")
    if path.startswith(_AUFS_LINKS + b"/"):
        return Meaning.AUFS_LINK, name
    if any(part.startswith(_AUFS) for part in folder.split(b"/")):
        return Meaning.IGNORED, b""
    if name == _OPAQUE:
        return Meaning.OPAQUE, _possible(folder)
    if name.startswith(_AUFS):
        return Meaning.IGNORED, b""
    if not name.startswith(_WHITEOUT):
        return Meaning.ENTRY, _possible(path)
    hidden = name.removeprefix(_WHITEOUT)
    if hidden in (b"", b".", b".."):
        raise InvalidLayer(f"expected the whiteout of a name, found one of {hidden.decode()!r}")
    # The marker's own name may be longer than a file name can be: no extractor makes a file of it.
    return Meaning.WHITEOUT, _possible(folder + slash + hidden)


def aufs_link_key(target: bytes) -> bytes | None:
    """Return the key of the AUFS link file that the clean hard link *target* names; None for other targets."""
    if not target.startswith(_AUFS_LINKS + b"/"):
        return None
    return target.rpartition(b"/")[2]


def _possible(path: bytes) -> bytes:
    if len(path) > MAX_NAME_BYTES:
        longest = max(map(len, path.split(b"/")))
        if longest > MAX_NAME_BYTES:
            raise InvalidLayer(f"expected names of at most {MAX_NAME_BYTES} bytes, found one of {longest}")
        check_depth(path.count(b"/") + 1)
    return path


def check_depth(depth: int) -> None:
    """Raise InvalidLayer if a path of *depth* names is deeper than `MAX_PATH_DEPTH`."""
    if depth > MAX_PATH_DEPTH:
        raise InvalidLayer(
            f"expected a path of at most {MAX_PATH_DEPTH} names, found one of {depth};"
            " build the image again with a flatter tree"
        )
