"""One layer by itself, as a tree: what it adds, and, visible, what it hides of layers below.

Receives a changeset; hands on a `Tree` in which each marker is again the empty file that it was in the tar
(``.wh.name``, ``.wh..wh..opq``).  A hard link to a file of a layer below is a symlink to its path.  Pure.

Source: OCI image-spec, layer.md, "Whiteouts".
"""

import hashlib
import stat

from imagefs.layer.changeset import Changeset, Entry
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree import Tree

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_NOTHING = hashlib.sha256().digest()


def tree_alone(changeset: Changeset) -> Tree:
    """Return the tree of the layer *changeset* by itself.

    Raises: InvalidLayer.
    """
    markers = [_marker(folder + _WHITEOUT + name) for folder, name in map(_split, sorted(changeset.whiteouts))]
    markers += [_marker(path + b"/" + _OPAQUE if path else _OPAQUE) for path in sorted(changeset.opaques)]
    added = Changeset(changeset.entries, frozenset(), frozenset())
    return resolve([added], below_is_unknown=True, markers=markers)


def _split(path: bytes) -> tuple[bytes, bytes]:
    folder, slash, name = path.rpartition(b"/")
    return folder + slash, name


def _marker(path: bytes) -> Entry:
    return Entry(
        path=path,
        mode=stat.S_IFREG,
        uid=0,
        gid=0,
        mtime_ns=0,
        size=0,
        target=b"",
        is_hardlink=False,
        rdev=(0, 0),
        xattrs=(),
        offset=0,
        extents=None,
        sha256=_NOTHING,
    )
