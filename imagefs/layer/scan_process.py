"""A tar scanned by another process while it is being written.

Receives the path of a file that grows, and word of how much; hands on the index of what is in it, encoded.  It
must never know what the file is for.

Scanning is the one stage of a pull that is Python and not a library's C, and holds the interpreter's lock.  A thread
that scans keeps all others waiting, and a pull of a big layer keeps one processor busy; this way it keeps two.  The
bytes do not travel: the process reads them from the page cache.  If it dies, this one scans the file itself.
"""

import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from imagefs.confinement import confine
from imagefs.errors import InvalidLayer
from imagefs.layer.index import IndexWriter
from imagefs.layer.tar import Scanner
from imagefs.oci.digest import DiffId, Digest

_COUNT_BYTES = 8
_CHUNK_BYTES = 256 * 1024
_FOUND, _REFUSED = b"I", b"E"
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from imagefs.layer.scan_process import main; main()"


class ScanProcess:
    """The scan of one file from its beginning.  A context manager: on leaving it, the process is gone.

    The process opens the file for itself, so that locks on it stay whose they are.  Not for several threads at once.

    Raises: OSError, where no process can be started.
    """

    def __init__(self, path: Path, diff_id: DiffId) -> None:
        """Begin to scan the layer *diff_id* at *path*; whether it has that digest is not this module's concern."""
        self._path = path
        self._diff_id = diff_id
        self._size = 0
        self._has_ended = False
        self._answers = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  # closed on leaving the context
        self._is_index = False
        root = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            # Neither site nor environment: it needs nothing but this package, soon.
            [sys.executable, "-I", "-S", "-c", _PROGRAM, root, str(path), str(diff_id)],
            stdin=subprocess.PIPE,
            stdout=self._answers,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for its parent, whose end it notices
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._answers.close()
        self._process.kill()
        with self._process:  # closes the pipes and waits
            pass

    def grown(self, count: int) -> None:
        """Take note that *count* more bytes are in the file.

        Raises: InvalidLayer, at some time after the bytes that it is about.
        """
        self._size += count
        if not self._has_ended and not self._told(count):
            # It may have died, too: then there is time to scan the file when all of it is there.
            self._is_index = self._answer()

    def finish(self) -> Iterator[bytes]:
        """Return in pieces the encoded index of all that is in the file, to be taken before leaving the context.

        Raises: InvalidLayer.
        """
        if not self._has_ended:
            self._told(0)
            self._is_index = self._answer()
        if self._is_index:
            return iter(lambda: self._answers.read(_CHUNK_BYTES), b"")
        with self._path.open("rb", buffering=0) as file:
            return _index(_pieces(file, iter([self._size])), self._diff_id)

    def _told(self, count: int) -> bool:
        """Tell the process and return True, False if it does not listen any more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(count.to_bytes(_COUNT_BYTES, "little"))
        except BrokenPipeError:
            return False
        return True

    def _answer(self) -> bool:
        """Return whether the answer is an index, which can then be read; False if the process died.

        The process has ended in any case.

        Raises: InvalidLayer, for what it did not like.
        """
        self._has_ended = True
        if self._process.wait() != 0:
            return False
        self._answers.seek(0)
        kind = self._answers.read(1)
        if kind == _REFUSED:
            refusal = json.loads(self._answers.read())
            entry = refusal["entry"]
            raise InvalidLayer(
                refusal["reason"], entry=None if entry is None else bytes.fromhex(entry), offset=refusal["offset"]
            )
        return kind == _FOUND


def main() -> None:
    """Be the process: read counts from standard input, 0 for the end, and write what was found to standard output."""
    gc.disable()  # nothing here forms cycles
    counts: Iterator[int] = iter(lambda: int.from_bytes(_read_exactly(0, _COUNT_BYTES), "little"), 0)
    try:
        with Path(sys.argv[2]).open("rb", buffering=0) as file:
            confine(None)
            index = _index(_pieces(file, counts), DiffId(Digest.parse(sys.argv[3])))
        answer = itertools.chain([_FOUND], index)
    except InvalidLayer as error:
        entry = None if error.entry is None else error.entry.hex()
        refusal = json.dumps({"reason": error.reason, "entry": entry, "offset": error.offset})
        answer = itertools.chain([_REFUSED, refusal.encode()])
    for piece in answer:
        view = memoryview(piece)
        while view:
            view = view[os.write(1, view) :]


def _index(pieces: Iterator[memoryview], diff_id: DiffId) -> Iterator[bytes]:
    """Return the index of the tar that *pieces* hold together.

    Raises, before the first piece: InvalidLayer.
    """
    writer = IndexWriter()
    scanner = Scanner(writer)
    for piece in pieces:
        scanner.feed(piece)
    return writer.pieces(scanner.finish(), diff_id)


def _pieces(file: FileIO, counts: Iterator[int]) -> Iterator[memoryview]:
    """Yield the content of *file* as *counts* announce it; a piece is only good until the next one."""
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    for count in counts:
        left = count
        while left:
            got = file.readinto(buffer[: min(_CHUNK_BYTES, left)])
            if not got:
                raise OSError("the file is shorter than announced")
            left -= got
            yield buffer[:got]


def _read_exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(descriptor, count - len(data))
        if not more:
            sys.exit(1)  # whoever wanted to know is gone
        data += more
    return data
