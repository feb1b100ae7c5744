"""One folder after the other below a top folder, in time linear to the steps between them.

Receives an open folder and relative paths; returns open folders.  Other users may own the folders and move them
meanwhile: no symlink is followed, and no step leads out of the top folder.
"""

import os
from dataclasses import dataclass

from imagefs.errors import PathUnsafe

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 32
"""Folders kept open on the way: few enough for any RLIMIT_NOFILE, enough that trees of usual depth never reopen one."""


@dataclass(slots=True)
class _Step:
    """A folder on the way: its identity (device, inode) and its descriptor, -1 once closed."""

    identity: tuple[int, int]
    descriptor: int


class Descent:
    """The way from the folder open as *top*, which the caller keeps open, to the folder entered last."""

    def __init__(self, top: int) -> None:
        self._path = b""
        self._steps = [_step(os.dup(top))]

    def close(self) -> None:
        """Close all descriptors."""
        for step in self._steps:
            _close(step)

    def enter(self, path: bytes) -> int:
        """Return the folder *path* below the top, open until the next call; b"" is the top itself.

        Raises: OSError, if a component is no folder (ENOTDIR); PathUnsafe, if it was moved away meanwhile.
        """
        while not _is_within(path, self._path):
            self._leave()
        rest = path[len(self._path) :].lstrip(b"/")
        for name in rest.split(b"/") if rest else ():
            self._steps.append(_step(os.open(name, _FOLDER, dir_fd=self._steps[-1].descriptor)))
            self._path = self._path + b"/" + name if self._path else name
            if len(self._steps) > _MOST_OPEN:
                _close(self._steps[-_MOST_OPEN])
        return self._steps[-1].descriptor

    def _leave(self) -> None:
        """Go one folder up."""
        inner, above = self._steps[-1], self._steps[-2]
        if above.descriptor < 0:
            parent = _step(os.open("..", _FOLDER, dir_fd=inner.descriptor))
            if parent.identity != above.identity:
                _close(parent)
                raise PathUnsafe(os.fsdecode(self._path), "another process moved it during the copy")
            above.descriptor = parent.descriptor
        self._steps.pop()
        _close(inner)
        self._path = self._path.rpartition(b"/")[0]


def _step(descriptor: int) -> _Step:
    status = os.fstat(descriptor)
    return _Step((status.st_dev, status.st_ino), descriptor)


def _close(step: _Step) -> None:
    if step.descriptor >= 0:
        os.close(step.descriptor)
        step.descriptor = -1


def _is_within(path: bytes, folder: bytes) -> bool:
    return not folder or path == folder or path.startswith(folder + b"/")
