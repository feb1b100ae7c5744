"""Lines about things in an image as ``ls -l`` prints them, and objects for scripts.

Receives things of an `ImageTree`; hands on text.  Owners have the names that the image's own ``/etc/passwd`` and
``/etc/group`` give them: those of the machine mean other people.
"""

import os
import re
import stat
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from imagefs.text import path_text

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.view.tree import ImageTree, Thing

_MAX_NAMES_BYTES = 1 << 20
"""Of a passwd or group file: some ten thousand accounts; what comes after is shown by number."""

_ACCOUNT = re.compile(rb"([A-Za-z0-9_.][A-Za-z0-9_.$-]{0,31}):[^:\n]*:([0-9]{1,10}):", re.ASCII)
TYPES = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}


class Lister:
    """Describes things of *tree*; with *numeric* owners are numbers."""

    def __init__(self, tree: "ImageTree", *, numeric: bool = False) -> None:
        self._tree = tree
        self._users = {} if numeric else self._names(b"etc/passwd")
        self._groups = {} if numeric else self._names(b"etc/group")

    def _names(self, path: bytes) -> dict[int, str]:
        found = self._tree.find(path, follow=True)
        if found is None or not stat.S_ISREG(found[1].attributes.mode):
            return {}
        text = self._tree.open(found[1]).read(0, _MAX_NAMES_BYTES)
        names: dict[int, str] = {}
        for line in text.split(b"\n"):
            if account := _ACCOUNT.match(line):
                names.setdefault(int(account[2]), account[1].decode())
        return names

    def cells(self, shown: str, thing: "Thing") -> list[str]:
        """Return what a line says of *thing*, *shown* as its name: mode, links, owner, group, size, time, name."""
        attributes = thing.attributes
        size = str(attributes.size)
        if stat.S_ISCHR(attributes.mode) or stat.S_ISBLK(attributes.mode):
            size = f"{os.major(attributes.rdev)}, {os.minor(attributes.rdev)}"
        if stat.S_ISLNK(attributes.mode):
            shown = f"{shown} -> {path_text(self._tree.entry(thing).target, root='')}"
        return [
            stat.filemode(attributes.mode),
            str(attributes.nlink),
            self._users.get(attributes.uid, str(attributes.uid)),
            self._groups.get(attributes.gid, str(attributes.gid)),
            size,
            moment(attributes.mtime_ns),
            shown,
        ]

    def record(self, path: bytes, thing: "Thing") -> dict[str, object]:
        """Return all that is known of *thing* at *path*, ready for JSON.  Bytes that are no UTF-8 are surrogates."""
        attributes, entry = thing.attributes, self._tree.entry(thing)
        found: dict[str, object] = {
            "path": os.fsdecode(b"/" + path),
            "type": TYPES.get(stat.S_IFMT(attributes.mode), "?"),
            "mode": f"{stat.S_IMODE(attributes.mode):04o}",
            "uid": attributes.uid,
            "gid": attributes.gid,
            "user": self._users.get(attributes.uid),
            "group": self._groups.get(attributes.gid),
            "size": attributes.size,
            "links": attributes.nlink,
            "inode": attributes.ino,
            "mtime_ns": attributes.mtime_ns,
            "layer": str(thing.place.layer) if thing.place is not None else None,
        }
        if entry.sha256:
            found["sha256"] = entry.sha256.hex()
        if stat.S_ISLNK(attributes.mode):
            found["target"] = os.fsdecode(entry.target)
        if attributes.rdev:
            found["device"] = [os.major(attributes.rdev), os.minor(attributes.rdev)]
        if entry.xattrs:
            found["xattrs"] = {os.fsdecode(name): value.hex() for name, value in entry.xattrs}
        return found


def aligned(rows: Sequence[Sequence[str]], *, least: Sequence[int] = (0, 0, 0, 0, 0, 0, 0)) -> list[str]:
    """Return *rows* of `Lister.cells` as lines; links and sizes go to the right, *least* are the least widths."""
    widths = [max(least[column], *(len(row[column]) for row in rows)) for column in range(6)] if rows else []
    return [
        " ".join(
            cell.rjust(width) if column in (1, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row[:6], widths, strict=True))
        )
        + f" {row[6]}"
        for row in rows
    ]


def moment(mtime_ns: int) -> str:
    """Return a time as ``ls --time-style=long-iso`` does, in this machine's time zone; far ones as seconds."""
    seconds = mtime_ns // 10**9
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"
