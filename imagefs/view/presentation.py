"""Attributes as the person who mounts wants them shown.

Receives the attributes an image has; hands on those to show.  Knows nothing of where either comes from or goes to.
"""

import stat
from dataclasses import dataclass, replace

from imagefs.overlay.attributes import Attributes


@dataclass(frozen=True, slots=True)
class Presentation:
    """Owners and permissions to show in place of the image's own, as the mount options of the same names ask.

    None leaves the image's own; *umask* holds permission bits to take away from everything but symlinks, whose
    permissions mean nothing and are always shown as 0777.  With *rewrites_symlinks*, symlinks lead where they would
    with the image as root directory (see `symlinks`).
    """

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    rewrites_symlinks: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether all attributes but a symlink's size are shown as they are."""
        return self.uid is None and self.gid is None and self.umask is None

    def apply(self, attributes: Attributes) -> Attributes:
        """Return *attributes* as they are to be shown."""
        if self.changes_nothing:
            return attributes
        mode = attributes.mode
        if self.umask is not None and not stat.S_ISLNK(mode):
            mode &= ~(self.umask & 0o777)
        return replace(
            attributes,
            uid=attributes.uid if self.uid is None else self.uid,
            gid=attributes.gid if self.gid is None else self.gid,
            mode=mode,
        )
