"""One selected image, from its source into the store.

Receives a manifest with its config, already verified and in agreement, and the references it shall have; hands on the
store's `Image`.  The image becomes visible last, all at once, after its layers are durable and form a valid union.
"""

import contextlib
import functools
from collections.abc import Callable, Generator, Sequence

from imagefs.errors import ContentError, ImageNotFound
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import DiffId
from imagefs.oci.platform import Platform
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.transfer.layer_ingest import ingest_layer
from imagefs.transfer.parallel import Proceed, run_all
from imagefs.transfer.progress import Reporter
from imagefs.transfer.selection import Selected
from imagefs.transfer.source import Source

UnionCheck = Callable[[Sequence[DiffId]], None]
"""Raises InvalidLayer unless the layers, base first and all in the store, form a valid union."""

_LAYERS_AT_ONCE = 3  # as docker's max-concurrent-downloads


def ingest_image(
    source: Source,
    store: Store,
    selected: Selected,
    *,
    references: Sequence[Reference],
    check: UnionCheck,
    reporter: Reporter,
) -> Image:
    """Bring *selected* from *source* into *store* under *references* and return it.

    Layers that the store has are not read again; a layer that the image has twice is read once.  After a failure no
    image is visible that was not before.  Complete layers stay for the next attempt when the network failed or the
    user interrupted, and are swept when the content is to blame or the disk refused.

    Raises: ContentError, RegistryError, OSError, KeyboardInterrupt.
    """
    try:
        with store.writing():
            _ingest_layers(source, store, selected, reporter)
            check(selected.config.diff_ids)
            return store.add_image(manifest=selected.manifest, config=selected.config.raw, references=tuple(references))
    except (ContentError, OSError):
        store.sweep()
        raise


def _ingest_layers(source: Source, store: Store, selected: Selected, reporter: Reporter) -> None:
    def ingest(layer: Descriptor, diff_id: DiffId, proceed: Proceed) -> None:
        with contextlib.closing(_content(source, layer)) as chunks:
            ingest_layer(
                store,
                chunks,
                diff_id=diff_id,
                name=str(layer.digest),
                advance=functools.partial(layers.advance, layer),
                proceed=proceed,
            )
        layers.complete(layer)

    with reporter.layers() as layers:
        jobs: dict[DiffId, Callable[[Proceed], None]] = {}
        for layer, diff_id in zip(selected.manifest.layers, selected.config.diff_ids, strict=True):
            if diff_id in jobs or store.has_layer(diff_id):
                layers.exists(layer)
            else:
                layers.begin(layer)
                jobs[diff_id] = functools.partial(ingest, layer, diff_id)
        run_all(jobs.values(), limit=_LAYERS_AT_ONCE)


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
