"""Numbers for what a mount shows, given once and kept for good.

Receives paths, images and layers as they are first met; hands on small numbers: the high halves of node ids.  The
kernel remembers node ids longer than a serving process may live, so every number given is noted in a journal, and
whoever takes over reads the journal first.  Knows neither store nor kernel.

Slot 0 holds the names outside of images.  A slot above is one tree at one path, one layer wherever it is used, or one
document.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.stored import Stack
from imagefs.view.namespace import Document


@dataclass(frozen=True, slots=True)
class Binding:
    """One image, or layer by itself, at one path; *stack* is known here also when the store forgets it."""

    path: bytes
    digest: Digest
    """The image's ID or the layer's diff_id."""
    stack: Stack


Owner = Binding | DiffId | Document
"""What has a slot above 0."""


class Slots:
    """All numbers given so far.  Not thread-safe."""

    def __init__(self, journal: Iterable[str] = (), note: Callable[[str], None] | None = None) -> None:
        """Begin with what *journal*'s lines say; *note* is called with each line to add to it."""
        self._note: Callable[[str], None] | None = None
        self._paths: list[bytes] = []
        self._path_numbers: dict[bytes, int] = {}
        self._slots: list[Owner | None] = [None]
        self._numbers: dict[tuple[bytes, Digest] | DiffId | Document, int] = {}
        self.name(b"")
        for line in journal:
            self.add(line)
        self._note = note

    def __len__(self) -> int:
        """Return how many numbers were given."""
        return len(self._paths) + len(self._slots) - 1

    def add(self, line: str) -> None:
        """Give the number that *line* of a journal says, if it is not known yet.  Lines must come in order."""
        self._replay(json.loads(line))

    def name(self, path: bytes) -> int:
        """Return the number, from 1, of *path* among the names outside of images; b"" has 1."""
        number = self._path_numbers.get(path)
        if number is None:
            self._write({"name": path.decode("latin-1")})
            self._paths.append(path)
            number = self._path_numbers[path] = len(self._paths)
        return number

    def path(self, number: int) -> bytes:
        """Return the path that `name` gave *number* to."""
        return self._paths[number - 1]

    def binding(self, path: bytes, digest: Digest, stack: Stack) -> int:
        """Return the slot of the image or layer *digest*, which consists of *stack*, at *path*."""
        slot = self._numbers.get((path, digest))
        if slot is None:
            layers = [str(diff_id) for diff_id in stack.diff_ids]
            said = {"at": path.decode("latin-1"), "digest": str(digest), "layers": layers, "alone": stack.alone}
            self._write(said)
            slot = self._new((path, digest), Binding(path, digest, stack))
        return slot

    def document(self, document: Document) -> int:
        """Return the slot of *document*."""
        slot = self._numbers.get(document)
        if slot is None:
            self._write({"document": str(document.digest), "mtime_ns": document.mtime_ns})
            slot = self._new(document, document)
        return slot

    def layer(self, diff_id: DiffId) -> int:
        """Return the slot of layer *diff_id*."""
        slot = self._numbers.get(diff_id)
        if slot is None:
            self._write({"layer": str(diff_id)})
            slot = self._new(diff_id, diff_id)
        return slot

    def what(self, slot: int) -> Owner:
        """Return what has *slot*, which is above 0.

        Raises: IndexError, if nothing has.
        """
        found = self._slots[slot]
        assert found is not None
        return found

    def bindings(self) -> list[tuple[int, Binding]]:
        """Return all trees at paths with their slots."""
        return [(slot, found) for slot, found in enumerate(self._slots) if isinstance(found, Binding)]

    def documents(self) -> list[tuple[int, Document]]:
        """Return all documents with their slots."""
        return [(slot, found) for slot, found in enumerate(self._slots) if isinstance(found, Document)]

    def _new(self, key: tuple[bytes, Digest] | DiffId | Document, found: Owner) -> int:
        # The journal's line is there first: a number that was given to the kernel is never given again.
        self._slots.append(found)
        self._numbers[key] = slot = len(self._slots) - 1
        return slot

    def _write(self, said: dict[str, object]) -> None:
        if self._note is not None:
            self._note(json.dumps(said))

    def _replay(self, said: dict[str, Any]) -> None:
        if "name" in said:
            self.name(said["name"].encode("latin-1"))
        elif "layer" in said:
            self.layer(DiffId(Digest.parse(said["layer"])))
        elif "document" in said:
            self.document(Document(Digest.parse(said["document"]), said["mtime_ns"]))
        else:
            layers = tuple(DiffId(Digest.parse(diff_id)) for diff_id in said["layers"])
            self.binding(said["at"].encode("latin-1"), Digest.parse(said["digest"]), Stack(layers, said["alone"]))
