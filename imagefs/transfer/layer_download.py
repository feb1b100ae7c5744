"""One layer over a network: downloaded once, whoever else wants it, and taken up where an attempt before ended.

Receives a descriptor, a source that can go on in the middle, and a function that makes a layer of the bytes; hands that
function all bytes in order, those of an earlier attempt first.  It must never know what becomes of them.

What arrives is kept as it arrives (see `store.partial`), and is gone when the layer is there.  It stays when the
network fails, the user interrupts, or the process dies.  It goes when the content is to blame, or the disk refused.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable

from imagefs.errors import ContentError
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import DiffId
from imagefs.store.partial import Partial
from imagefs.store.store import Store
from imagefs.transfer.parallel import Proceed
from imagefs.transfer.progress import LayerReporter
from imagefs.transfer.source import RemoteSource

_POLL_S = 0.05


def download_layer(
    store: Store,
    source: RemoteSource,
    layer: Descriptor,
    diff_id: DiffId,
    *,
    ingest: Callable[[Iterable[bytes]], None],
    wait: bool,
    proceed: Proceed,
    layers: LayerReporter,
) -> bool:
    """Let *ingest* make *diff_id* of the bytes of *layer*, unless the store has it; return True.

    Where somebody else is downloading it, wait for that, or, without *wait*, return False.  Where what was kept of it
    proves wrong, it is downloaded once more from its beginning.  To be used inside ``store.writing()``.

    Raises: what *source* and *ingest* raise.
    """
    is_second = False
    while True:
        partial = store.claim_partial(layer.digest)
        if partial is None:
            if not wait:
                return False
            proceed()
            time.sleep(_POLL_S)
            continue
        with contextlib.closing(partial):
            if store.has_layer(diff_id):
                partial.discard()
                return True
            if partial.size > layer.size:
                partial.clear()
            kept = partial.size
            if kept:
                layers.resume(layer, kept)
            try:
                with contextlib.closing(_kept(source, layer, partial)) as chunks:
                    ingest(chunks)
            except ContentError:
                partial.discard()
                if is_second or not kept:
                    raise
                is_second = True
                layers.restart(layer)
            except OSError:
                partial.discard()
                raise
            else:
                partial.discard()
                return True


def _kept(source: RemoteSource, layer: Descriptor, partial: Partial) -> Generator[bytes, None, None]:
    known = partial.size
    seen = 0
    with contextlib.closing(source.resumed(layer, partial.chunks())) as pieces:
        for piece in pieces:
            seen += len(piece)
            if seen > known:
                partial.append(piece)
            yield piece
