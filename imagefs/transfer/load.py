"""Load: from an archive or folder, all images it holds.

Receives a source that knows what it holds, and a store; hands on the store's images.  Names are the archive's own, or
what the user says; a tag that moves away from another image is announced.
"""

from imagefs.errors import UnsupportedMediaType, UsageError, printable
from imagefs.oci.platform import Platform
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.transfer.image_ingest import UnionCheck, ingest_image, named_image, warn_mismatch
from imagefs.transfer.names import name_image
from imagefs.transfer.progress import Reporter
from imagefs.transfer.selection import BoundedDocuments, Selected, select_image
from imagefs.transfer.source import ArchiveSource, Offer


def load(
    store: Store,
    source: ArchiveSource,
    *,
    repository: str | None,
    wanted: Reference | None,
    platform: Platform | None,
    check: UnionCheck,
    reporter: Reporter,
    allow_expansion: bool = False,
) -> tuple[Image, ...]:
    """Bring all images of *source* into *store*, in order, and return them.

    *repository* is for images whose archive gives them only a tag (None: there is no such name); *wanted* is the name
    the user wants (see `names.name_image`).  *platform* chooses within indexes (None: this machine's).  What is in
    the archive beside images, such as signatures, is left out with a warning.

    Raises: UsageError, where *wanted* has a tag and there are several images; ContentError, NoMatchingPlatform,
    OSError.  Images loaded before the failing one stay.
    """
    offers = _loadable(source, platform, reporter)
    if wanted is not None and wanted.tag is not None and len(offers) > 1:
        raise UsageError(
            f"{printable(source.label)} holds {len(offers)} images, which cannot all be {wanted.familiar};"
            " give --name without a tag"
        )
    namings = [name_image(offer.names, repository=repository, wanted=wanted) for offer in offers]
    images: list[Image] = []
    for offer, naming in zip(offers, namings, strict=True):
        selected = select_image(source, offer.candidates, platform=platform)
        for name in naming.unusable:
            reporter.warn(f"'{name}' is no name an image can have here; ignored")
        warn_mismatch(selected, _called(naming.references, selected), reporter)
        before = {reference: named_image(store, reference) for reference in naming.references}
        image = ingest_image(
            source,
            store,
            selected,
            references=naming.references,
            check=check,
            reporter=reporter,
            allow_expansion=allow_expansion,
        )
        images.append(image)
        for reference in naming.references:
            old = before[reference]
            if old is not None and old.id != image.id:
                reporter.warn(
                    f"{reference.familiar} was image {old.id.short} and is now {image.id.short};"
                    f" the old one stays as {old.id}"
                )
            reporter.result(f"Loaded image: {reference.familiar}")
        if not naming.references:
            reporter.result(f"Loaded image ID: {image.id}")
    return tuple(images)


def _loadable(source: ArchiveSource, platform: Platform | None, reporter: Reporter) -> list[Offer]:
    """Return the offers of *source* that are images, at least one, and warn of the others."""
    documents = BoundedDocuments(source)
    refusals: list[UnsupportedMediaType] = []
    offers: list[Offer] = []
    for offer in source.offers():
        try:
            # The result is not kept: parsed documents take many times their size.
            select_image(documents, offer.candidates, platform=platform)
            offers.append(offer)
        except UnsupportedMediaType as error:
            refusals.append(error)
    if not offers:
        raise refusals[0] if refusals else UsageError(f"there is no image in {printable(source.label)}")
    for refusal in refusals:
        reporter.warn(f"left out: {refusal}")
    return offers


def _called(references: tuple[Reference, ...], selected: Selected) -> str:
    return references[0].familiar if references else f"image {selected.manifest.config.digest.short}"
