"""Where the store is when nobody says.

Receives the environment and the user; hands on a path, which need not exist.  ``mount`` and systemd start the mount
helper without HOME, so the password database stands in for it.
"""

import os
import pwd
from pathlib import Path

from imagefs.errors import StoreUnusable

SYSTEM_STORE = Path("/var/lib/imagefs")


def default_store_path() -> Path:
    """Return $IMAGEFS_STORE, or /var/lib/imagefs for root and $XDG_DATA_HOME/imagefs for everybody else.

    Raises: StoreUnusable, for a user without any home.
    """
    if chosen := os.environ.get("IMAGEFS_STORE"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return SYSTEM_STORE
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    if data.is_absolute():  # the XDG base directory specification: relative paths are invalid and ignored
        return data / "imagefs"
    home = os.environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            raise StoreUnusable("~", f"user {os.geteuid()} has no home; give --store or set IMAGEFS_STORE") from None
    return Path(home).absolute() / ".local/share/imagefs"
