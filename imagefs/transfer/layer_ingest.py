"""One layer, from the bytes a source gives to a committed layer of the store, in one pass.

Receives a blob's (verified) chunks and the diff_id its image's config promises; hands the store the uncompressed tar
and its index.  Memory is bounded whatever the layer holds.  It must never know where the chunks come from.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from imagefs.errors import ContentError, DigestMismatch, InvalidLayer
from imagefs.layer.compression import decompressor
from imagefs.layer.index import IndexWriter
from imagefs.layer.scan_process import ScanProcess
from imagefs.layer.tar import Scanner
from imagefs.oci.digest import DiffId, Digest
from imagefs.store.content import LayerIngest
from imagefs.store.space import check_space
from imagefs.store.store import Store
from imagefs.transfer.expansion import Expansion
from imagefs.transfer.parallel import Behind

_DRAIN_LIMIT_BYTES = 64 << 20
_BIG_BYTES = 16 << 20  # scanning that takes several times as long as starting a process


def ingest_layer(
    store: Store,
    chunks: Iterable[bytes],
    *,
    diff_id: DiffId,
    name: str = "",
    advance: Callable[[int], None],
    proceed: Callable[[], None],
    received: Callable[[], object] = lambda: None,
    size: int = 0,
    allow_expansion: bool = False,
) -> None:
    """Commit the layer that *chunks*, compressed or not, hold; afterwards it is durable under *diff_id*.

    *advance* is called with the length of every chunk that arrived, *proceed* before every piece of uncompressed data
    is taken; it raises to stop the work.  *received* is called when all is there and right, and only the tar is yet to
    be made durable.  *size* is the number of bytes that *chunks* will have; a big layer is worth a process to scan it.
    With *allow_expansion* it may expand to any size.  *name* is how errors call the layer.
    To be used inside ``store.writing()``.

    Raises: InvalidLayer (not a tar, truncated, broken compression, expands too much); DigestMismatch where the
    uncompressed bytes are not those of *diff_id*; DiskFull; what *chunks* and the store raise.  Nothing is kept then.
    """
    arriving = _counted(chunks, advance)
    hasher = diff_id.hasher()
    decompress = decompressor()
    expansion = Expansion(allowed=allow_expansion)
    left = size
    check_space(store.path, size)
    with store.new_layer() as layer, _scanning(layer, diff_id, elsewhere=size >= _BIG_BYTES) as scan:

        def keep(piece: bytes) -> None:
            hasher.update(piece)
            layer.write(piece)
            expansion.check(layer.size, stored=layer.stored)
            scan.written(piece)

        def inflate(chunk: bytes) -> None:
            nonlocal left
            left -= len(chunk)
            layer.expect(max(0, left))
            expansion.arrived(len(chunk))
            for piece in decompress.feed(chunk):
                proceed()
                scan.made(piece)
                keeping.put(piece)

        try:
            with Behind(keep) as keeping, Behind(inflate) as inflating:
                for chunk in arriving:
                    inflating.put(chunk)
                inflating.finish()
                decompress.finish()
                keeping.finish()
            index = scan.finish()
        except InvalidLayer as error:
            # Where the blob as a whole is not what was promised, that is the reason, and the broken tar a symptom.
            _drain(arriving)
            if not error.layer:
                error.layer = name
            raise
        actual = Digest(diff_id.algorithm, hasher.hexdigest())
        if actual != diff_id:
            raise DigestMismatch(f"layer {name}".rstrip(), f"diff_id {diff_id}", str(actual))
        layer.keep_index(diff_id, index)
        received()
        layer.commit(diff_id)


class _Scan(Protocol):
    """Told of every piece twice, each time in order: when it is made, and when it is in the layer's file."""

    def made(self, piece: bytes) -> None: ...
    def written(self, piece: bytes) -> None: ...
    def finish(self) -> Iterator[bytes]: ...


class _Here:
    """The scan in a thread of this process."""

    def __init__(self, scanner: Scanner, writer: IndexWriter, scanning: Behind, diff_id: DiffId) -> None:
        self._scanner = scanner
        self._writer = writer
        self._diff_id = diff_id
        self._scanning = scanning
        self.made = scanning.put

    def written(self, piece: bytes) -> None:
        pass

    def finish(self) -> Iterator[bytes]:
        self._scanning.finish()
        return self._writer.pieces(self._scanner.finish(), self._diff_id)


class _Elsewhere:
    """The scan in another process, which reads what was written."""

    def __init__(self, process: ScanProcess) -> None:
        self._process = process
        self.finish = process.finish

    def made(self, piece: bytes) -> None:
        pass

    def written(self, piece: bytes) -> None:
        self._process.grown(len(piece))


@contextlib.contextmanager
def _scanning(layer: LayerIngest, diff_id: DiffId, *, elsewhere: bool) -> Iterator[_Scan]:
    process = None
    if elsewhere:
        with contextlib.suppress(OSError):  # too many processes, or none allowed
            process = ScanProcess(layer.path, diff_id)
    if process is not None:
        with process:
            yield _Elsewhere(process)
    else:
        writer = IndexWriter()
        scanner = Scanner(writer)
        with Behind(scanner.feed) as scanning:
            yield _Here(scanner, writer, scanning, diff_id)


def _counted(chunks: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        advance(len(chunk))
        yield chunk


def _drain(chunks: Iterator[bytes]) -> None:
    """Read on, so that a wrong size or digest is raised; give up after a while, and on other errors at once."""
    seen = 0
    try:
        for chunk in chunks:
            seen += len(chunk)
            if seen > _DRAIN_LIMIT_BYTES:
                return
    except ContentError:
        raise
    except Exception:
        return
