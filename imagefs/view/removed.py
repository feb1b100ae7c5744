"""What was removed from the store while it was in use.

Receives paths and numbers; hands on the nodes that are known by them, for whoever can tell whether they still are.
"""

from collections.abc import Iterator, Sequence

from imagefs.view.attributes import SLOT_SHIFT, NodeId


class Removed:
    """Files of the store that are gone but in use here: *paths*, and the nodes that are known by them.

    *roots* are the roots of images among those.
    """

    __slots__ = ("_indexes", "paths", "roots", "slots")

    def __init__(
        self, paths: tuple[str, ...], slots: Sequence[int], indexes: range, roots: Sequence[NodeId] = ()
    ) -> None:
        self.paths = paths
        self.roots = roots
        self.slots = slots
        self._indexes = indexes

    def nodes(self) -> Iterator[NodeId]:
        """Yield every node whose content is in these files."""
        for slot in self.slots:
            for index in self._indexes:
                yield NodeId(slot << SLOT_SHIFT | index)
