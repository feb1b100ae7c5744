"""Small images made on the spot, in every packing, sound or broken on purpose."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def tar(files: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed tar of regular files."""
    return tar_of((name, content) for name, content in files.items())


def tar_of(members: Iterable[tuple[str, bytes] | tarfile.TarInfo]) -> bytes:
    """Return an uncompressed tar of regular files and, as TarInfo, of anything without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def link(name: str, target: str, *, hard: bool = False) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
    info.linkname = target
    return info


@dataclass(frozen=True)
class BuiltImage:
    """One image: its documents and its layers, both uncompressed and as blobs."""

    config: bytes
    manifest: bytes
    tars: tuple[bytes, ...]
    blobs: tuple[bytes, ...]

    @property
    def all_blobs(self) -> tuple[bytes, ...]:
        return (self.config, self.manifest, *self.blobs)

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": OCI_MANIFEST, "digest": sha256(self.manifest), "size": len(self.manifest), **more}


def image(
    layers: Sequence[bytes],
    *,
    architecture: str = "amd64",
    diff_ids: Sequence[str] | None = None,
    compress: bool = True,
    **config: Any,
) -> BuiltImage:
    """Return an OCI image with these tars as layers, base first; *diff_ids* may lie."""
    blobs = tuple(gzip.compress(layer, mtime=0) if compress else layer for layer in layers)
    raw_config = dump(
        {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": list(map(sha256, layers)) if diff_ids is None else diff_ids},
            **config,
        }
    )
    media_type = OCI_LAYER + ("+gzip" if compress else "")
    manifest = dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(raw_config), "size": len(raw_config)},
            "layers": [{"mediaType": media_type, "digest": sha256(blob), "size": len(blob)} for blob in blobs],
        }
    )
    return BuiltImage(raw_config, manifest, tuple(layers), blobs)


def index(descriptors: Sequence[Mapping[str, Any]]) -> bytes:
    return dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(descriptors)})


def layout(
    images: Iterable[BuiltImage], descriptors: Sequence[Mapping[str, Any]], *, documents: Iterable[bytes] = ()
) -> dict[str, bytes]:
    """Return the files of an OCI layout whose index.json lists *descriptors*."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index(descriptors)}
    for blob in (*documents, *(blob for one in images for blob in one.all_blobs)):
        files["blobs/" + sha256(blob).replace(":", "/")] = blob
    return files


def docker_archive(one: BuiltImage, *, names: Sequence[str] | None) -> dict[str, bytes]:
    """Return the files of what ``docker save`` writes since 1.10."""
    layers = {f"{hashlib.sha256(layer).hexdigest()}/layer.tar": layer for layer in one.tars}
    config = f"{hashlib.sha256(one.config).hexdigest()}.json"
    listed = [{"Config": config, "RepoTags": names, "Layers": list(layers)}]
    return {**layers, config: one.config, "manifest.json": dump(listed)}


def old_docker_archive(tars: Sequence[bytes], *, repository: str, tag: str) -> dict[str, bytes]:
    """Return the files of what ``docker save`` wrote up to 1.9."""
    files: dict[str, bytes] = {}
    parent = ""
    for position, layer in enumerate(tars):
        id_ = hashlib.sha256(f"{parent}{position}".encode()).hexdigest()
        described = {
            "id": id_,
            "created": "2015-10-20T22:51:30.123456789Z",
            "container_config": {"Cmd": ["/bin/sh", "-c", f"step {position}"]},
            "config": {"Env": ["A=1"]},
            "architecture": "amd64",
            "os": "linux",
            "Size": len(layer),
        }
        if parent:
            described["parent"] = parent
        files |= {f"{id_}/VERSION": b"1.0", f"{id_}/json": dump(described), f"{id_}/layer.tar": layer}
        parent = id_
    return {**files, "repositories": dump({repository: {tag: parent}})}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write *files* below *folder* and return it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
