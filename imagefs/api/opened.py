"""A store that a program has open, with whatever of its images it looks at.

Receives a store; hands it on, and trees of its images, until it is closed.  It must never know what they are wanted
for.
"""

from imagefs.errors import StoreUnusable
from imagefs.overlay.stored import Stack
from imagefs.store.store import Store
from imagefs.view.kept import KeptFiles
from imagefs.view.opened import OpenedImages
from imagefs.view.tree import ImageTree, looked_at

_MOST_FILES = 256
"""Most files of a store kept open: the program that looks at images has others, and may have many of these."""


class OpenedStore:
    """A store until `close`, which it owns.  Thread-safe, but not to be used in a forked child.

    With *verify*, no content of a file is handed on before all of it was compared with its digest, once.
    """

    def __init__(self, store: Store, *, verify: bool) -> None:
        self._store = store
        self._files = KeptFiles(most=_MOST_FILES)
        self._images = OpenedImages(store, self._files, verify=verify)
        self._passing: set[Stack] = set()
        self._is_closed = False

    def store(self) -> Store:
        """Return the store.  Raises: StoreUnusable, once it is closed."""
        if self._is_closed:
            raise StoreUnusable(str(self._store.path), "it was closed; open it again with imagefs.open_store")
        return self._store

    def tree(self, stack: Stack, *, passing: bool) -> ImageTree:
        """Return the tree of *stack*, which is kept in the store unless it is only *passing*, no image's.

        Raises: StoreUnusable, once the store is closed; BlobNotFound, InvalidLayer.
        """
        self.store()
        tree = looked_at(self._images, stack, passing=passing and stack not in self._passing)
        if passing:
            self._passing.add(stack)
        return tree

    def close(self) -> None:
        """Close the store; files opened before stay readable until they are closed."""
        self._is_closed = True
        self._files.close()
        self._store.close()
