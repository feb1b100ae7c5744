"""Who walks through an image, reading one file after the other.

Receives which directories were listed and which files were read; hands on the directories whose other files will be
read next.  Pure bookkeeping: what is done about it is others' business.

tar, grep -r and their like list a directory and then read its files in the order of the listing.  So who has read the
first file of a directory, and just before that the first one of another, will read the others, too; nobody else is
taken for somebody who will.
"""

from collections import OrderedDict
from collections.abc import Callable

from imagefs.overlay.listing import Listing
from imagefs.view.attributes import NodeId

_MOST_DIRECTORIES = 64
"""Listed and not come to yet: a walk goes down before it goes on."""
_MOST_LOOKED_AT = 100
"""Records of a directory in which its first file is looked for."""
_MOST_READS = 64
"""Of other files between two first ones of one walk."""


class Walks:
    """Not thread-safe."""

    def __init__(self, push: Callable[[NodeId, int], None]) -> None:
        """Have *push* told each directory that is being read through, and the number of its first file's record."""
        self._push = push
        self._firsts: OrderedDict[int, tuple[NodeId, int]] = OrderedDict()
        self._since = _MOST_READS

    def listed(self, directory: NodeId, listing: Listing) -> None:
        """Take note that *directory* was listed from its beginning."""
        first = next(listing.files(2, _MOST_LOOKED_AT), None)
        if first is not None:
            self._firsts[listing.node(first)] = directory, first
            if len(self._firsts) > _MOST_DIRECTORIES:
                self._firsts.popitem(last=False)

    def was_read(self, node: NodeId) -> None:
        """Take note that the beginning of file *node* was read."""
        found = self._firsts.pop(node, None)
        if found is None:
            self._since += 1
            return
        if self._since < _MOST_READS:
            self._push(*found)
        self._since = 0
