"""Pull: from a registry, by reference.

Receives a reference as typed, a client for its registry and a store; hands on the store's image.  Says what it does in
docker's words.
"""

import dataclasses

from imagefs.errors import ImageNotFound
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import DiffId
from imagefs.oci.platform import Platform, select
from imagefs.oci.reference import DEFAULT_TAG, Reference
from imagefs.registry.mirrors import Client
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.transfer.image_ingest import UnionCheck, ingest_image, named_image, warn_mismatch
from imagefs.transfer.progress import Reporter, decimal
from imagefs.transfer.registry_source import RegistrySource
from imagefs.transfer.selection import Selected, select_image


def pull(
    store: Store,
    reference: Reference,
    *,
    client: Client,
    platform: Platform | None,
    check: UnionCheck,
    reporter: Reporter,
    allow_expansion: bool = False,
) -> Image:
    """Bring the image *reference* names, for *platform* (None: this machine's), from its registry into *store*.

    Without tag and digest, ``:latest`` is meant; with both, the digest decides and no tag is made.  A tag remembers the
    digest it pointed to, which for an index is the index's.  Pulling again is cheap and repairs what is missing.
    With *allow_expansion*, layers may expand to any size.

    Raises: RegistryError, ContentError, StoreError, OSError; the image is then not visible, or as it was before.
    """
    asked, source, root, selected = _selected(reference, client=client, platform=platform, reporter=reporter)
    before = named_image(store, asked)
    named = dataclasses.replace(asked, digest=root.digest)
    image = ingest_image(
        source,
        store,
        selected,
        references=(named,),
        check=check,
        reporter=reporter,
        remote=source,
        allow_expansion=allow_expansion,
    )
    reporter.note(f"Digest: {root.digest}")
    if before is not None and before.id == image.id:
        reporter.note(f"Status: Image is up to date for {asked.familiar}")
    else:
        reporter.note(f"Status: Downloaded newer image for {asked.familiar}")
    reporter.result(str(asked))
    return image


def settled(
    store: Store | None, reference: Reference, *, policy: str, platform: Platform | None, reporter: Reporter
) -> bool:
    """Return whether *policy* is content with what *store* has, without asking the registry; then say so.

    *policy*, in podman's words: ``always`` and ``newer`` ask, ``missing`` only where no image of that name, for the
    *platform* if one is given, is there, ``never`` does not.

    Raises: ImageNotFound, for ``never`` where there is none.
    """
    if policy not in ("missing", "never"):
        return False
    asked = reference.with_default_tag()
    if store is None or in_store(store, asked, platform) is None:
        if policy == "never":
            raise ImageNotFound(asked.familiar, "the policy is never to pull")
        return False
    reporter.note(f"Status: Image is in the store, the registry was not asked for {asked.familiar}")
    reporter.result(str(asked))
    return True


def in_store(store: Store, reference: Reference, platform: Platform | None) -> Image | None:
    """Return the image that *reference*, with a tag or digest, names in *store*; None if it is not for *platform*."""
    image = named_image(store, reference)
    if image is None or platform is None:
        return image
    there = Platform.parse(image.platform, default=platform)
    return None if select(platform, [there], same_architecture=True) is None else image


def foretell(
    store: Store | None,
    reference: Reference,
    *,
    client: Client,
    platform: Platform | None,
    reporter: Reporter,
) -> None:
    """Say what `pull` would download into *store*, None for one yet to be made; change nothing.

    For each layer that it is there, how much of it is, or its size; then the bytes in all.

    Raises: RegistryError, ContentError.
    """
    _, _, _, selected = _selected(reference, client=client, platform=platform, reporter=reporter)
    missing = 0
    seen: set[DiffId] = set()
    for layer, diff_id in zip(selected.manifest.layers, selected.config.diff_ids, strict=True):
        if diff_id in seen or (store is not None and store.has_layer(diff_id)):
            reporter.note(f"{layer.digest.short}: Already exists")
        elif layer.data is None:
            kept = store.partial_size(layer.digest) if store is not None else 0
            kept = kept if kept <= layer.size else 0
            missing += layer.size - kept
            already = f", {decimal(kept)} of it already there" if kept else ""
            reporter.note(f"{layer.digest.short}: To download, {decimal(layer.size)}{already}")
        seen.add(diff_id)
    reporter.result(f"Would download {missing} bytes ({decimal(missing)})")


def _selected(
    reference: Reference, *, client: Client, platform: Platform | None, reporter: Reporter
) -> tuple[Reference, RegistrySource, Descriptor, Selected]:
    """Return the reference that is meant, where it is, what it points to now, and the image chosen there."""
    asked = reference.with_default_tag()
    if reference.tag is None and reference.digest is None:
        reporter.note(f"Using default tag: {DEFAULT_TAG}")
    if reference.tag is not None and reference.digest is not None:
        reporter.warn(f"the digest decides, the tag '{reference.tag}' is not used; pull it without digest to have it")
    source = RegistrySource(client, asked)
    root = source.root()
    reporter.note(f"{asked.tag or asked}: Pulling from {asked.repository}")
    selected = select_image(source, (root,), platform=platform)
    warn_mismatch(selected, source.label, reporter)
    return asked, source, root, selected
