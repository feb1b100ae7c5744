"""What ``docker save`` writes, old and new.

Receives members; hands on offers, documents and blobs.  Such archives have no manifests, so canonical ones are
written here: docker schema 2, whose layers are the archive's members as they are (the digest of an uncompressed one is
its diff_id).  Configs stay byte for byte what they were, so image IDs stay true.

* New (docker 1.10 and later, podman, skopeo, crane, kaniko, bazel): ``manifest.json``, a list of {Config, RepoTags,
  Layers}, paths into the archive.  Layers may be links to each other, and compressed.
* Old (docker up to 1.9): ``repositories``, {name: {tag: id}}, and ``<id>/json`` and ``<id>/layer.tar`` along a chain of
  parents.  There is no config; one is built from the chain as docker's own loader does.

Source: moby, image/tarexport/load.go and image/v1/imagev1.go; containers/image, docker/internal/tarfile.
"""

import contextlib
import hashlib
import json
import posixpath
import re
from collections.abc import Generator, Sequence

from imagefs.errors import InvalidArchive, printable
from imagefs.layer.compression import decompress
from imagefs.oci.config import MAX_CONFIG_BYTES
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest, verified
from imagefs.oci.document import parse_json
from imagefs.transfer.members import Members, read
from imagefs.transfer.source import Offer, joined

MAX_LIST_BYTES = 4 << 20
MAX_LAYER_MENTIONS = 1 << 16
"""Of manifest.json: 600 images of a hundred layers each.  Each is described again in a manifest."""
MAX_V1_BYTES = 8 << 20
"""Of the json files of old images, read along each chain of parents: thousands of the usual one to three kilobytes."""

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_COMPRESSED = ((b"\x1f\x8b", ".gzip"), (b"\x28\xb5\x2f\xfd", ".zstd"))
_MAX_LAYERS = 1000
_V1_ID = re.compile(r"[0-9a-f]{64}")
_V1_ONLY = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")


class DockerArchive:
    """A source over a docker archive."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self.label = members.label
        self._documents: dict[Digest, bytes] = {}
        """Those that were made here."""
        self._configs: dict[Digest, str] = {}
        self._layers: dict[Digest, str] = {}
        self._v1_bytes_left = MAX_V1_BYTES

    def offers(self) -> tuple[Offer, ...]:
        if self._members.has("manifest.json"):
            items = _list(self._members)
            if sum(len(_layers(self._members, item)) for item in items) > MAX_LAYER_MENTIONS:
                raise InvalidArchive(
                    self.label,
                    f"its manifest.json lists more than {MAX_LAYER_MENTIONS} layers; save fewer images at once",
                )
            return joined(self._listed(item) for item in items)
        return self._from_repositories()

    def has(self, descriptor: Descriptor) -> bool:
        return any(descriptor.digest in some for some in (self._documents, self._configs, self._layers))

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        name = self._configs.get(descriptor.digest)
        if name is not None:
            return read(self._members, name, limit_bytes=limit_bytes)
        raw = self._documents[descriptor.digest]
        if len(raw) > limit_bytes:
            raise InvalidArchive(self.label, f"its {what} has more than {limit_bytes} bytes")
        return raw

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        with contextlib.closing(self._members.chunks(self._layers[descriptor.digest])) as chunks:
            yield from verified(chunks, descriptor.digest, descriptor.size, what=f"layer {descriptor.digest}")

    # ---- new ----

    def _listed(self, item: dict[str, object]) -> Offer:
        config = _member(self._members, item.get("Config"))
        digest, size = self._members.identity(config)
        self._configs[digest] = config
        layers = [_member(self._members, layer) for layer in _layers(self._members, item)]
        return self._offer(_repo_tags(item), digest, size, layers)

    def _offer(self, names: Sequence[str], config: Digest, config_bytes: int, layers: Sequence[str]) -> Offer:
        described = [self._layer(name) for name in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "size": config_bytes, "digest": str(config)},
            "layers": [
                {"mediaType": layer.media_type, "size": layer.size, "digest": str(layer.digest)} for layer in described
            ],
        }
        raw = json.dumps(manifest, separators=(",", ":")).encode()
        self._documents[Digest.of(raw)] = raw
        return Offer(tuple(names), (Descriptor(media_type=_MANIFEST, digest=Digest.of(raw), size=len(raw)),))

    def _layer(self, name: str) -> Descriptor:
        digest, size = self._members.identity(name)
        self._layers[digest] = name
        return Descriptor(media_type=_LAYER + self._compression(name), digest=digest, size=size)

    def _compression(self, name: str) -> str:
        with contextlib.closing(self._members.chunks(name)) as chunks:
            magic = next(chunks, b"")[:4]
        return next((suffix for beginning, suffix in _COMPRESSED if magic.startswith(beginning)), "")

    # ---- old ----

    def _from_repositories(self) -> tuple[Offer, ...]:
        document = _json(self._members, "repositories", limit_bytes=MAX_LIST_BYTES)
        names: dict[str, list[str]] = {}
        for repository, tags in _object(self._members, document, "repositories").items():
            for tag, image in _object(self._members, tags, "repositories").items():
                names.setdefault(self._v1_id(image), []).append(f"{repository}:{tag}")
        return tuple(self._chained(top, tags) for top, tags in names.items())

    def _chained(self, top: str, names: Sequence[str]) -> Offer:
        chain: list[tuple[str, dict[str, object]]] = []
        seen: set[str] = set()
        image: object = top
        while image:
            id_ = self._v1_id(image)
            if id_ in seen or len(seen) == _MAX_LAYERS:
                raise InvalidArchive(self.label, f"the parents of image {top[:12]} do not end")
            seen.add(id_)
            name = f"{id_}/json"
            raw = read(self._members, name, limit_bytes=MAX_CONFIG_BYTES)
            self._v1_bytes_left -= len(raw)
            if self._v1_bytes_left < 0:
                raise InvalidArchive(
                    self.label, f"the json files of its images have more than {MAX_V1_BYTES} bytes; save it anew"
                )
            described = _object(self._members, parse_json(raw, what=name, limit_bytes=MAX_CONFIG_BYTES), name)
            chain.append((id_, described))
            image = described.get("parent")
        chain.reverse()
        layers = [f"{id_}/layer.tar" for id_, _ in chain]
        config = {key: value for key, value in chain[-1][1].items() if key not in _V1_ONLY}
        config.setdefault("architecture", "amd64")
        config.setdefault("os", "linux")
        config["rootfs"] = {"type": "layers", "diff_ids": [str(self._diff_id(name)) for name in layers]}
        config["history"] = [_history(described) for _, described in chain]
        raw = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        digest = Digest.of(raw)
        self._documents[digest] = raw
        return self._offer(names, digest, len(raw), layers)

    def _diff_id(self, name: str) -> Digest:
        if not self._compression(name):
            return self._members.identity(name)[0]
        hasher = hashlib.sha256()
        for piece in decompress(self._members.chunks(name)):
            hasher.update(piece)
        return Digest("sha256", hasher.hexdigest())

    def _v1_id(self, value: object) -> str:
        if not isinstance(value, str) or not _V1_ID.fullmatch(value):
            raise InvalidArchive(self.label, f"'{printable(str(value))}' is no image ID")
        return value


def named_configs(members: Members) -> dict[str, tuple[str, ...]]:
    """Return the names that manifest.json gives each image, by the path of its config.

    Raises: InvalidArchive, InvalidManifest.
    """
    return {_member(members, item.get("Config")): _repo_tags(item) for item in _list(members)}


def _list(members: Members) -> list[dict[str, object]]:
    document = _json(members, "manifest.json", limit_bytes=MAX_LIST_BYTES)
    if not isinstance(document, list) or not document:
        raise InvalidArchive(members.label, "its manifest.json is not a list of images")
    return [_object(members, item, "manifest.json") for item in document]


def _layers(members: Members, item: dict[str, object]) -> list[object]:
    layers = item.get("Layers") or []
    if not isinstance(layers, list):
        raise InvalidArchive(members.label, "Layers in its manifest.json is not a list")
    return layers


def _repo_tags(item: dict[str, object]) -> tuple[str, ...]:
    tags = item.get("RepoTags")
    return tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()


def _member(members: Members, path: object) -> str:
    """Return the clean name of the member that *path*, taken from manifest.json, means."""
    if not isinstance(path, str) or not path:
        raise InvalidArchive(members.label, "its manifest.json names no file where it should")
    clean = posixpath.normpath(path)
    if clean.startswith(("/", "../")) or clean in (".", "..") or "\0" in clean:
        raise InvalidArchive(members.label, f"its manifest.json names '{printable(path)}', outside of the archive")
    return clean


def _json(members: Members, name: str, *, limit_bytes: int) -> object:
    return parse_json(read(members, name, limit_bytes=limit_bytes), what=name, limit_bytes=limit_bytes)


def _object(members: Members, value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidArchive(members.label, f"its {name} is not built as docker builds it: expected an object")
    return value


def _history(described: dict[str, object]) -> dict[str, object]:
    command = described.get("container_config")
    words = command.get("Cmd") if isinstance(command, dict) else None
    history: dict[str, object] = {"created_by": " ".join(map(str, words)) if isinstance(words, list) else ""}
    for key in ("created", "author", "comment"):
        if described.get(key):
            history[key] = described[key]
    return history
