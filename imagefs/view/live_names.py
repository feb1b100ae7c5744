"""The names of a store's images as they are now.

Receives a store; hands on its `namespace`, made anew when the catalog has changed.  Knows nothing of nodes.
"""

import threading
import time

from imagefs.oci.digest import Digest
from imagefs.store.store import Store
from imagefs.view import waiting
from imagefs.view.namespace import Directory, Found, namespace
from imagefs.view.waiting import Duration

REFRESH_S = 0.2
"""How old the names may be: with the kernel's own caching a change shows within a second."""


class LiveNames:
    """The names in *store*.  Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._names = Directory()
        self._digests: set[Digest] = set()
        self._generation = -1
        self._checked_s = float("-inf")
        self.changed_ns = time.time_ns()
        """When the names were last seen to have changed, or first seen at all."""
        self.bytes = 0
        """The size of all images together."""

    def now(self, *, max_age_s: float | None = None) -> Directory:
        """Return the names, not older than *max_age_s* (default: REFRESH_S); the same object while nothing changes.

        Raises: StoreUnusable.
        """
        age_s = time.monotonic() - self._checked_s
        if age_s >= (REFRESH_S if max_age_s is None else max_age_s) and not waiting.is_since_request(self._checked_s):
            # The catalog may be locked for as long as another process commits.
            waiting.do("names", self._refresh, Duration.BRIEF)
        return self._names

    def has(self, digest: Digest) -> bool:
        """Return whether an image in the store needs the document or layer *digest*."""
        self.now()
        return digest in self._digests

    def _refresh(self) -> None:
        with self._lock:
            now_s = time.monotonic()
            generation = self._store.generation()
            if generation != self._generation:
                images = self._store.images()
                documents = [digest for image in images for digest in (image.id, image.manifest_digest)]
                self._digests = {*documents, *(diff_id for image in images for diff_id in image.diff_ids)}
                self.bytes = sum(image.size for image in images)
                self.changed_ns = time.time_ns()
                self._names = namespace(images)
                self._generation = generation
            self._checked_s = now_s


def walk(names: Directory, path: bytes) -> Found | None:
    """Return what *path* leads to in *names*, None where that is nothing."""
    found: Found | None = names
    for name in path.split(b"/") if path else ():
        found = found.resolve(name) if isinstance(found, Directory) else None
    return found
