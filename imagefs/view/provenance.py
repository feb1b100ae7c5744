"""Where a thing inside an image comes from, as extended attributes.

Receives the layer and the entry behind an inode; hands on values of attributes that can be asked for by name and are
never listed, so that no copy carries them.

``imagefs.layer`` is the diff_id of the layer that the inode is from, ``imagefs.sha256`` the digest of a regular file's
content in hexadecimal; both below ``user.`` and, for symlinks and devices, where Linux lets nobody ask for ``user.``,
below ``trusted.`` for root.  An image's own attributes of these names are not shown: they would be taken for ours.
"""

import stat

from imagefs.layer.changeset import Entry
from imagefs.oci.digest import DiffId

_LAYER, _SHA256 = b"imagefs.layer", b"imagefs.sha256"
NAMES = frozenset(prefix + name for prefix in (b"user.", b"trusted.") for name in (_LAYER, _SHA256))


def provenance(name: bytes, layer: DiffId, entry: Entry) -> bytes | None:
    """Return the value of *name*, one of NAMES, for what is *entry* of *layer*; None if it has no such value."""
    if name.endswith(_LAYER):
        return str(layer).encode()
    return entry.sha256.hex().encode() if stat.S_ISREG(entry.mode) and entry.sha256 else None
