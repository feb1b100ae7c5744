"""Mend what `verify` found, as far as it can be made from what is there.

Receives findings; hands on those that are mended, and what must come from outside again.
"""

from imagefs.check.verify import Finding
from imagefs.layer.indexed import scanned_index
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.stored import Stack
from imagefs.store.store import Store


def rebuild(store: Store, finding: Finding) -> bool:
    """Make an index or a tree again, or remove content that no image needs; return whether that mended *finding*.

    To be called for layers, then indexes, then trees: each is made from what came before.

    Raises: StoreError, ContentError, OSError.
    """
    if finding.kind == "index":
        diff_id = DiffId(Digest.parse(finding.name))
        store.replace_layer_index(diff_id, scanned_index(store, diff_id))
        return True
    if finding.kind == "tree":
        for image in store.images():
            if image.id in finding.images:
                Stack(image.diff_ids).keep(store)
                for diff_id in image.diff_ids:  # made again when somebody looks
                    store.drop_lone_tree(diff_id)
        return True
    if finding.kind == "content":
        return store.sweep() is not None
    return False
