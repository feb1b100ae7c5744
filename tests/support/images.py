"""Small images put straight into a store, for tests above it."""

import hashlib
import json
from collections.abc import Sequence

from imagefs.layer import index
from imagefs.layer.tar import scan
from imagefs.oci.digest import DiffId, Digest
from imagefs.oci.manifest import Manifest, parse_manifest
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image
from imagefs.store.store import Store


def documents(
    layers: Sequence[bytes], *, created: str = "2024-01-02T03:04:05Z", label: str = ""
) -> tuple[Manifest, bytes]:
    """Return the manifest and config of an image of uncompressed *layers*."""
    digests = [hashlib.sha256(raw).hexdigest() for raw in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": created,
            "config": {"Labels": {"label": label}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
            "size": len(config),
        },
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{digest}", "size": len(raw)}
            for digest, raw in zip(digests, layers, strict=True)
        ],
    }
    parsed = parse_manifest(json.dumps(manifest).encode())
    assert isinstance(parsed, Manifest)
    return parsed, config


def add_layer(store: Store, raw: bytes) -> DiffId:
    """Put an uncompressed layer into *store*."""
    diff_id = DiffId(Digest.of(raw))
    with store.new_layer() as ingest:
        ingest.write(raw)
        ingest.commit(diff_id, index.encode(scan([raw]), diff_id))
    return diff_id


def add_image(
    store: Store, layers: Sequence[bytes], *references: str, created: str = "2024-01-02T03:04:05Z", label: str = ""
) -> Image:
    """Put an image of uncompressed *layers* into *store* under *references*."""
    manifest, config = documents(layers, created=created, label=label)
    with store.writing():
        for raw in layers:
            add_layer(store, raw)
        return store.add_image(
            manifest=manifest, config=config, references=[Reference.parse(text) for text in references]
        )
