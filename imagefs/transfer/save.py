"""Save: images of the store as what other tools load.

Receives images with the names they shall have, and a place to put named blobs; hands on nothing.  Layers are stored
uncompressed, so manifests are written anew; configs go out byte for byte, so image IDs stay what they are.

The archive that docker 25 and later write is an OCI layout and a docker archive at once, and so is this one: every
tool finds in it what it knows.  Equal images give equal bytes.

Source: OCI image-spec, image-layout.md; moby, image/tarexport/save.go.
"""

import contextlib
import json
import os
import secrets
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from imagefs.errors import BlobNotFound, PathUnsafe
from imagefs.oci import media_type
from imagefs.oci.digest import DiffId, Digest, verified
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image
from imagefs.store.store import Store
from imagefs.store.trusted_path import check_own, failures_named, open_parent, refuse_links_of_others

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Saved:
    """An image to save and the names that it shall have, tags, perhaps none."""

    image: Image
    names: tuple[Reference, ...]


class Files(Protocol):
    """Where the files of a layout are put.  Each name is put once."""

    def put(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Keep the *size* bytes in *chunks* as *name*, a relative path with slashes."""


class TarFiles:
    """Files as members of a tar written to *out*, which need not seek."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def put(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        self._out.write(info.tobuf(tarfile.PAX_FORMAT))
        for chunk in chunks:
            self._out.write(chunk)
        self._out.write(bytes(-size % tarfile.BLOCKSIZE))

    def end(self) -> None:
        """Write what ends a tar."""
        self._out.write(bytes(2 * tarfile.BLOCKSIZE))


class FolderFiles:
    """Files below *folder*, for their owner only: layers hold files that an image keeps from ordinary users."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        path = self._folder / name
        for folder in reversed(Path(name).parents):
            with contextlib.suppress(FileExistsError):
                (self._folder / folder).mkdir(mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as out:
            for chunk in chunks:
                out.write(chunk)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[FolderFiles]:
    """Make the folder *path*, which is missing or empty, with the files that are put into it; all of it or nothing.

    Another user may own the folder above: nothing but what is made here is followed, entered or removed.

    Raises: OSError, also for a symlink of another user on the way.
    """
    above, name = open_parent(path, refuse_links_of_others)
    temporary = f".imagefs-{secrets.token_hex(8)}.partial"
    try:
        with failures_named(path, temporary):
            os.mkdir(temporary, 0o700, dir_fd=above)
            folder = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            if os.fstat(folder).st_uid != os.geteuid():
                raise PathUnsafe(str(path), "another process replaced it")
            os.fchmod(folder, 0o700)  # whatever the umask
            yield FolderFiles(Path(f"/proc/self/fd/{folder}"))
            with failures_named(path, temporary):
                check_own(folder, temporary, above)
                os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
        except BaseException:
            with contextlib.suppress(OSError):
                check_own(folder, temporary, above)
                shutil.rmtree(temporary, dir_fd=above)
            raise
        finally:
            os.close(folder)
    finally:
        os.close(above)


def save(store: Store, wanted: Sequence[Saved], files: Files, *, for_docker: bool) -> None:
    """Put an OCI layout of the images *wanted* into *files*; *for_docker* also what makes it a docker archive.

    Each layer is compared with its digest while it is written.

    Raises: BlobNotFound, DigestMismatch, SizeMismatch, OSError.
    """
    with store.keeping():
        files.put("oci-layout", len(_LAYOUT), [_LAYOUT])
        index: list[dict[str, object]] = []
        listed: list[dict[str, object]] = []
        put: set[Digest] = set()
        tags = Counter(name.tag for one in wanted for name in one.names)
        for one in wanted:
            config = store.document(one.image.id)
            for diff_id in one.image.diff_ids:
                if diff_id not in put:
                    put.add(diff_id)
                    _put_layer(store, diff_id, files)
            manifest = _manifest(store, one.image, config)
            described = {
                "mediaType": media_type.OCI_MANIFEST,
                "digest": str(Digest.of(manifest)),
                "size": len(manifest),
            }
            for digest, data in ((one.image.id, config), (Digest.of(manifest), manifest)):
                if digest not in put:
                    put.add(digest)
                    files.put(_blob_name(digest), len(data), [data])
            index += [described | {"annotations": _annotations(name, tags)} for name in one.names] or [described]
            listed.append(
                {
                    "Config": _blob_name(one.image.id),
                    # In whole: podman takes a short name for one of this machine's own.
                    "RepoTags": [f"{name.name}:{name.tag}" for name in one.names] or None,
                    "Layers": [_blob_name(diff_id) for diff_id in one.image.diff_ids],
                }
            )
        document = {"schemaVersion": 2, "mediaType": media_type.OCI_INDEX, "manifests": index}
        _put_json(files, "index.json", document)
        if for_docker:
            _put_json(files, "manifest.json", listed)


def _manifest(store: Store, image: Image, config: bytes) -> bytes:
    """Return a manifest of *image* whose layers are not compressed."""
    layers = [
        {"mediaType": _LAYER, "digest": str(diff_id), "size": store.layer_path(diff_id).stat().st_size}
        for diff_id in image.diff_ids
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": media_type.OCI_MANIFEST,
        "config": {"mediaType": media_type.OCI_CONFIG, "digest": str(image.id), "size": len(config)},
        "layers": layers,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _annotations(name: Reference, tags: Counter[str | None]) -> dict[str, str]:
    """Return what names an image in a layout: in whole for docker, podman and containerd, by its tag for skopeo."""
    short = name.tag if tags[name.tag] == 1 else name.familiar_tag
    whole = f"{name.name}:{name.tag}"
    return {"io.containerd.image.name": whole, "org.opencontainers.image.ref.name": short or ""}


def _put_layer(store: Store, diff_id: DiffId, files: Files) -> None:
    try:
        layer = store.open_layer(diff_id)
    except FileNotFoundError:
        raise BlobNotFound("layer", str(diff_id)) from None
    with layer:
        size = os.fstat(layer.fileno()).st_size
        chunks = iter(lambda: layer.read(_CHUNK_BYTES), b"")
        files.put(_blob_name(diff_id), size, verified(chunks, diff_id, size, what=f"layer {diff_id}"))


def _put_json(files: Files, name: str, document: object) -> None:
    data = json.dumps(document, separators=(",", ":")).encode()
    files.put(name, len(data), [data])


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
