"""An extraction oracle: what applying layers to a real folder leaves there.

Shares no code with the resolver.  It works on the disk with the system's own calls, one layer after the other: first
every marker of the layer, then its entries in order.  Symlinked parents are followed inside the root.  Needs root.
"""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from imagefs.layer.changeset import Changeset, Entry


class CannotApply(Exception):
    """The layer cannot be extracted."""


def extract(changesets: list[Changeset], root: Path) -> None:
    """Apply *changesets*, base first, to the empty folder *root*; see `content_of` for what files hold."""
    top = os.fsencode(root)
    for changeset in changesets:
        aside = tempfile.mkdtemp(dir=os.path.dirname(top))
        try:
            originals = _hard_link_sources(top, changeset, aside)
            places = [(_inside(top, folder), name) for folder, name in map(_split, changeset.whiteouts)]
            emptied = [_inside(top, path) for path in changeset.opaques]
            for folder, name in places:
                if folder and name and os.path.lexists(os.path.join(folder, name)):
                    _remove(os.path.join(folder, name))
            for folder in emptied:
                if folder and os.path.isdir(folder) and not os.path.islink(folder):
                    for name in os.listdir(folder):
                        _remove(os.path.join(folder, name))
            originals = {target: held for target, held in originals.items() if not _exists(top, target)}
            for entry in changeset.entries:
                _apply(top, entry, originals)
        finally:
            shutil.rmtree(aside)


def _split(path: bytes) -> tuple[bytes, bytes]:
    folder, _, name = path.rpartition(b"/")
    return folder, name


def _inside(top: bytes, path: bytes, *, hops: int = 0) -> bytes:
    """Return the host path that *path* leads to with all symlinks followed inside *top*; b"" for a loop."""
    done: list[bytes] = []
    rest = [part for part in path.split(b"/") if part not in (b"", b".")]
    while rest:
        part = rest.pop(0)
        if part == b"..":
            done = done[:-1]
            continue
        here = os.path.join(top, *done, part)
        if os.path.islink(here):
            hops += 1
            if hops > 255:
                return b""
            target = os.readlink(here)
            if target.startswith(b"/"):
                done = []
            rest = [part for part in target.split(b"/") if part not in (b"", b".")] + rest
        else:
            done.append(part)
    return os.path.join(top, *done)


def _hard_link_sources(top: bytes, changeset: Changeset, aside: bytes) -> dict[bytes, bytes]:
    """Give what hard links could bind to below another name, out of the markers' reach."""
    held: dict[bytes, bytes] = {}
    for entry in changeset.entries:
        folder, name = _split(entry.target)
        if entry.is_hardlink and entry.target not in held and name:
            path = os.path.join(_inside(top, folder), name)
            if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
                held[entry.target] = os.path.join(aside, b"%d" % len(held))
                os.link(path, held[entry.target], follow_symlinks=False)
    return held


def _exists(top: bytes, path: bytes) -> bool:
    folder, name = _split(path)
    return os.path.lexists(os.path.join(_inside(top, folder), name))


def _remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _make_folders(top: bytes, folder: bytes) -> None:
    path = top
    for part in os.path.relpath(folder, top).split(b"/"):
        if part == b".":
            continue
        path = os.path.join(path, part)
        if os.path.lexists(path) and not os.path.isdir(path):
            os.unlink(path)
        if not os.path.lexists(path):
            os.mkdir(path, 0o755)
            os.utime(path, ns=(0, 0))


def _apply(top: bytes, entry: Entry, originals: dict[bytes, bytes]) -> None:
    folder, name = _split(entry.path)
    if not name:
        os.chmod(top, stat.S_IMODE(entry.mode))
        return
    parent = _inside(top, folder)
    if not parent:
        raise CannotApply("loop")
    _make_folders(top, parent)
    path = os.path.join(parent, name)
    if entry.is_hardlink:
        target_folder, target_name = _split(entry.target)
        where = _inside(top, target_folder)
        target = os.path.join(where, target_name)
        if not where or entry.target == entry.path:
            raise CannotApply("hard link")
        if os.path.isdir(target) and not os.path.islink(target):
            raise CannotApply("hard link to a directory")
        if not os.path.lexists(target):
            if entry.target not in originals:
                raise CannotApply("hard link to nothing")
            target = originals[entry.target]
        if not (os.path.lexists(path) and os.path.samestat(os.lstat(path), os.lstat(target))):
            if os.path.lexists(path):
                # The target may be inside what is replaced.
                spare = os.path.join(os.path.dirname(top), b".spare")
                os.link(target, spare, follow_symlinks=False)
                _remove(path)
                os.link(spare, path, follow_symlinks=False)
                os.unlink(spare)
            else:
                os.link(target, path, follow_symlinks=False)
        return
    if os.path.lexists(path) and not (stat.S_ISDIR(entry.mode) and os.path.isdir(path) and not os.path.islink(path)):
        _remove(path)
    if stat.S_ISDIR(entry.mode):
        if not os.path.lexists(path):
            os.mkdir(path)
        os.chmod(path, stat.S_IMODE(entry.mode))
    elif stat.S_ISLNK(entry.mode):
        os.symlink(entry.target, path)
    else:
        with open(path, "wb") as file:
            file.write(content_of(entry))
        os.chmod(path, stat.S_IMODE(entry.mode))


def content_of(entry: Entry) -> bytes:
    """Return the bytes by which a file made from *entry* can be told from others."""
    return b"%d:%d" % (entry.offset, entry.size)
