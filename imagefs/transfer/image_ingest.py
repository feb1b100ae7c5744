"""One selected image, from its source into the store.

Receives a manifest with its config, already verified and in agreement, and the references it shall have; hands on the
store's `Image`.  The image becomes visible last, all at once, after its layers are durable and form a valid union.
"""

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence

from imagefs.errors import ContentError, DigestMismatch, ImageNotFound, SizeMismatch, StoreError
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import DiffId
from imagefs.oci.platform import Platform
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image
from imagefs.store.space import check_space
from imagefs.store.store import Store
from imagefs.transfer.layer_download import download_layer
from imagefs.transfer.parallel import Job, Proceed, run_all
from imagefs.transfer.progress import Reporter
from imagefs.transfer.selection import Selected
from imagefs.transfer.source import RemoteSource, Source

UnionCheck = Callable[[Sequence[DiffId]], None]
"""Raises InvalidLayer unless the layers, base first and their indexes all in the store, form a valid union."""

_LAYERS_AT_ONCE = 3  # as docker's max-concurrent-downloads
_POLL_S = 0.1


def ingest_image(
    source: Source,
    store: Store,
    selected: Selected,
    *,
    references: Sequence[Reference],
    check: UnionCheck,
    reporter: Reporter,
    remote: RemoteSource | None = None,
    allow_expansion: bool = False,
) -> Image:
    """Bring *selected* from *source* into *store* under *references* and return it.

    Layers that the store has are not read again; a layer that the image has twice is read once.  After a failure no
    image is visible that was not before.  Complete layers stay for the next attempt when the network failed, *remote*
    sent other bytes than those of a digest, or the user interrupted; they are swept when the content is to blame or the
    disk refused.  So does and is what came of the others, if they come from *remote*, which is *source* where that is
    one.

    Raises: ContentError, RegistryError, OSError, KeyboardInterrupt.
    """
    try:
        with store.writing():
            _ingest_layers(source, remote, store, selected, check, reporter, allow_expansion=allow_expansion)
            return store.add_image(manifest=selected.manifest, config=selected.config.raw, references=tuple(references))
    except (ContentError, OSError) as error:
        if remote is not None and isinstance(error, DigestMismatch | SizeMismatch):
            raise  # the wrong layer is gone already; the others are verified, and not to be downloaded again
        with contextlib.suppress(OSError, StoreError):  # a disk that failed once fails again: the first error counts
            if remote is not None:
                for layer in selected.manifest.layers:
                    store.drop_partial(layer.digest)
            store.sweep()
        raise


def _ingest_layers(
    source: Source,
    remote: RemoteSource | None,
    store: Store,
    selected: Selected,
    check: UnionCheck,
    reporter: Reporter,
    *,
    allow_expansion: bool,
) -> None:
    """Bring all layers into the store, durably, and check their union; return when both is done."""
    # A layer whose bytes are all there gives up its slot: while the disk makes it durable, the next one is downloaded.
    # In the same time, after the last one, the union is computed, for which the indexes suffice.
    slots = threading.Semaphore(_LAYERS_AT_ONCE)
    missing: set[DiffId] = set()
    fewer_missing = threading.Condition()
    jobs: deque[Job] = deque()
    to_read: list[Descriptor] = []

    def fetch(layer: Descriptor, diff_id: DiffId, wait: bool, proceed: Proceed) -> None:
        from imagefs.transfer.layer_ingest import ingest_layer  # and codecs: not to be waited for where nothing is new

        def received() -> None:
            slot.close()
            with fewer_missing:
                missing.discard(diff_id)
                fewer_missing.notify()

        with contextlib.ExitStack() as slot:
            slots.acquire()
            slot.callback(slots.release)
            proceed()
            ingest = functools.partial(
                ingest_layer,
                store,
                diff_id=diff_id,
                name=str(layer.digest),
                advance=functools.partial(layers.advance, layer),
                proceed=proceed,
                received=received,
                size=layer.size,
                allow_expansion=allow_expansion,
            )
            if remote is None or layer.data is not None:
                with contextlib.closing(_content(source, layer)) as chunks:
                    ingest(chunks)
            elif not download_layer(
                store, remote, layer, diff_id, ingest=ingest, wait=wait, proceed=proceed, layers=layers
            ):
                # What others are downloading is waited for last, when there is nothing better to do.
                layers.wait(layer)
                jobs.append(functools.partial(fetch, layer, diff_id, True))
                return
        received()
        layers.complete(layer)

    def unite(proceed: Proceed) -> None:
        with fewer_missing:
            while missing:
                proceed()
                fewer_missing.wait(_POLL_S)
        check(selected.config.diff_ids)

    with reporter.layers() as layers:
        for layer, diff_id in zip(selected.manifest.layers, selected.config.diff_ids, strict=True):
            if diff_id in missing or store.has_layer(diff_id):
                layers.exists(layer)
                if remote is not None and diff_id not in missing:
                    store.drop_partial(layer.digest)  # left by one that died when the layer was just there
            else:
                layers.begin(layer)
                to_read.append(layer)
                missing.add(diff_id)
                jobs.append(functools.partial(fetch, layer, diff_id, False))
        check_space(store.path, sum(layer.size for layer in to_read))
        if not jobs:
            check(selected.config.diff_ids)
        else:
            jobs.appendleft(unite)
            run_all(jobs, limit=1 + 2 * _LAYERS_AT_ONCE, minimum=2)  # `unite` waits for the others


def _content(source: Source, layer: Descriptor) -> Generator[bytes, None, None]:
    if layer.data is not None:  # embedded, and verified when the descriptor was read
        yield layer.data
    else:
        yield from source.blob(layer)


def named_image(store: Store, reference: Reference) -> Image | None:
    """Return the image that *reference* names in *store* now, if any."""
    try:
        return store.image(reference)
    except ImageNotFound:
        return None


def warn_mismatch(selected: Selected, name: str, reporter: Reporter) -> None:
    """Say so if the image is the only one there is, but for another machine than this."""
    if selected.mismatch:
        reporter.warn(f"{name} is for {selected.config.platform}, this machine is {Platform.host()}")
