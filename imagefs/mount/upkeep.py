"""Removed images: their names taken from the kernel, and their space given back once nobody uses them.

Mended layers, too: what the kernel remembers of their files is taken from it.

Receives a `Filesystem` and, from a driver, the means to tell the kernel something; hands on nothing.  Nothing is
counted here: which of a removed image's nodes the kernel still knows is asked of the kernel itself.  So a server that
takes over from a dead one need not know what that one knew.
"""

import errno
import itertools
import logging
import stat
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from imagefs.view.attributes import NodeId

if TYPE_CHECKING:
    from imagefs.view.filesystem import Filesystem
    from imagefs.view.removed import Removed

_PERIOD_S = 0.5
_CLOSE_LOOK_S = 10.0
"""How long after a change of names removed files are looked for in every period: content goes after its names."""
_WIDE_PERIOD_S = 60.0
"""And how often otherwise: whoever removed it may have had to leave the content to a writer that was at work."""

_log = logging.getLogger(__name__)


class Kernel(Protocol):
    """What can be told to the kernel; raises OSError(ENODEV) when the mount is gone."""

    def forget_name(self, parent: NodeId, name: bytes) -> None:
        """Let it ask again what *name* in *parent* leads to, and drop what nobody uses below."""

    def forget_content(self, nodes: Iterable[NodeId]) -> None:
        """Let it read the content of *nodes* again."""

    def known(self, nodes: Iterable[NodeId], *, only_first: bool = False) -> list[NodeId]:
        """Return those of *nodes* that it knows, or at most the first of them."""


class Upkeep:
    """A thread that looks after what was removed, from `start` until the mount is gone.

    A thread of its own, for who tells the kernel something may have to wait for an answer that the server owes it.
    """

    def __init__(
        self, filesystem: "Filesystem", kernel: Kernel, forget_files: Callable[[], None] = lambda: None
    ) -> None:
        """Look after *filesystem*; *forget_files* lets go of files that were read before one is given up."""
        self._filesystem = filesystem
        self._kernel = kernel
        self._forget_files = forget_files
        self._told: set[tuple[NodeId, bytes]] = set()
        self._known: dict[tuple[str, ...], NodeId] = {}
        self._looked_s = self._changed_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_PERIOD_S)
            try:
                self.look()
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ENOTCONN):
                    return
                if error.errno == errno.EPIPE:  # who tells the kernel has died; the next look finds another
                    continue
                _log.exception("looking after removed images failed")
            except Exception:
                _log.exception("looking after removed images failed")

    def look(self) -> None:
        """Do once what the thread does in every period."""
        departed = self._filesystem.departed()
        now_s = time.monotonic()
        if departed is not None:
            self._changed_s = now_s
            for parent, name in departed - self._told:
                self._kernel.forget_name(parent, name)
            self._told = departed
        is_close = now_s - self._changed_s < _CLOSE_LOOK_S or self._known
        is_due = bool(is_close) or now_s - self._looked_s >= _WIDE_PERIOD_S
        for replaced in self._filesystem.replaced(thoroughly=is_due):
            self._forget_files()
            self._kernel.forget_content(replaced.nodes())
        if is_due:
            self._looked_s = now_s
            for removed in self._filesystem.removed():
                for root in self._kernel.known(removed.roots):
                    self._unname(root)
                if not self._is_known(removed):
                    self._forget_files()
                    self._filesystem.give_up(removed)

    def _is_known(self, removed: "Removed") -> bool:
        last = self._known.get(removed.paths)
        nodes = itertools.chain([last] if last is not None else [], removed.nodes())
        known = self._kernel.known(nodes, only_first=True)
        if not known:
            self._known.pop(removed.paths, None)
            return False
        self._known[removed.paths] = known[0]
        return True

    def _unname(self, directory: NodeId) -> None:
        """Have the kernel drop the name of everything in use in *directory*, which it knows, and below.

        Names that lead to nothing in use it dropped with the image's own.  Those that do it would keep, and so what
        they lead to, when that is not used any more.
        """
        listing = self._filesystem.listing(directory)
        numbers = {NodeId(listing.node(number)): number for number in range(2, len(listing))}
        for node in self._kernel.known(numbers):
            number = numbers[node]
            self._kernel.forget_name(directory, listing.name(number))
            if stat.S_ISDIR(listing.mode(number)):
                self._unname(node)
