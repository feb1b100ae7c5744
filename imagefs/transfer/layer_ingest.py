"""One layer, from the bytes a source gives to a committed layer of the store, in one pass.

Receives a blob's (verified) chunks and the diff_id its image's config promises; hands the store the uncompressed tar
and its index.  Memory is bounded whatever the layer holds.  It must never know where the chunks come from.
"""

from collections.abc import Callable, Iterable, Iterator

from imagefs.errors import ContentError, DigestMismatch, InvalidLayer
from imagefs.layer.compression import decompressor
from imagefs.layer.index import encode
from imagefs.layer.tar import Scanner
from imagefs.oci.digest import DiffId, Digest
from imagefs.store.store import Store
from imagefs.transfer.parallel import Behind

_DRAIN_LIMIT_BYTES = 64 << 20


def ingest_layer(
    store: Store,
    chunks: Iterable[bytes],
    *,
    diff_id: DiffId,
    name: str = "",
    advance: Callable[[int], None],
    proceed: Callable[[], None],
) -> None:
    """Commit the layer that *chunks*, compressed or not, hold; afterwards it is durable under *diff_id*.

    *advance* is called with the length of every chunk that arrived, *proceed* before every piece of uncompressed data
    is taken; it raises to stop the work.  *name* is how errors call the layer.  To be used inside ``store.writing()``.

    Raises: InvalidLayer (not a tar, truncated, broken compression), DigestMismatch where the uncompressed bytes are
    not those of *diff_id*, whatever *chunks* and the store raise.  Nothing is kept then.
    """
    arriving = _counted(chunks, advance)
    hasher = diff_id.hasher()
    scanner = Scanner()
    decompress = decompressor()
    with store.new_layer() as layer:

        def keep(piece: bytes) -> None:
            hasher.update(piece)
            layer.write(piece)

        def inflate(chunk: bytes) -> None:
            for piece in decompress.feed(chunk):
                proceed()
                scanning.put(piece)
                keeping.put(piece)

        try:
            with Behind(scanner.feed) as scanning, Behind(keep) as keeping, Behind(inflate) as inflating:
                for chunk in arriving:
                    inflating.put(chunk)
                inflating.finish()
                decompress.finish()
                scanning.finish()
                keeping.finish()
            changeset = scanner.finish()
        except InvalidLayer as error:
            # Where the blob as a whole is not what was promised, that is the reason, and the broken tar a symptom.
            _drain(arriving)
            if not error.layer:
                error.layer = name
            raise
        actual = Digest(diff_id.algorithm, hasher.hexdigest())
        if actual != diff_id:
            raise DigestMismatch(f"layer {name}".rstrip(), f"diff_id {diff_id}", str(actual))
        layer.commit(diff_id, encode(changeset))


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
