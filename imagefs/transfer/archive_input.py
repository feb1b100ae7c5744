"""From a path, or standard input, to a source.

Receives what the user typed; hands on the `ArchiveSource` for what is there: an OCI layout or a ``dir:`` folder, or a
tar of a layout or of ``docker save``, plain or compressed.  Only a plain tar in a seekable file is read in place;
everything else is first copied to an unnamed temporary file, so memory stays bounded and nothing is left behind.
"""

import contextlib
import functools
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imagefs.errors import InvalidArchive, InvalidLayer
from imagefs.oci.document import parse_json
from imagefs.transfer.docker_archive import MAX_LIST_BYTES, DockerArchive
from imagefs.transfer.layout import DirSource, LayoutSource
from imagefs.transfer.members import FolderMembers, Members, TarMembers, read
from imagefs.transfer.outer_compression import is_compressed
from imagefs.transfer.source import ArchiveSource
from imagefs.transfer.spool import spool

STANDARD_INPUT = "-"

_HEAD_BYTES = 512
_OTHER_MAGIC = (
    (b"PK\x03\x04", "a zip file"),
    (b"hsqs", "a squashfs file"),
)


@contextlib.contextmanager
def open_archive(path: str, *, spool_folder: Path, allow_expansion: bool = False) -> Iterator[ArchiveSource]:
    """Give a source for the archive or folder at *path*, ``-`` being standard input.

    *spool_folder* is where the temporary file goes where one is needed; it may get as large as the archive.  With
    *allow_expansion*, an archive that is compressed as a whole may expand to any size.

    Raises: InvalidArchive, saying what was found; DiskFull; OSError, where *path* cannot be read.
    """
    source_of = functools.partial(_tar_source, spool_folder=spool_folder, allow_expansion=allow_expansion)
    if path == STANDARD_INPUT:
        if sys.stdin.isatty():
            raise InvalidArchive("standard input", "it is a terminal; redirect an archive into it or name a file")
        with source_of(sys.stdin.buffer, label="standard input") as source:
            yield source
    elif Path(path).is_dir():
        yield _source(FolderMembers(Path(path), label=path))
    else:
        with Path(path).open("rb") as file, source_of(file, label=path) as source:
            yield source


@contextlib.contextmanager
def _tar_source(file: BinaryIO, *, label: str, spool_folder: Path, allow_expansion: bool) -> Iterator[ArchiveSource]:
    descriptor = file.fileno()
    seekable = stat.S_ISREG(os.fstat(descriptor).st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    if seekable:
        head = os.pread(descriptor, _HEAD_BYTES, 0)
        _refuse_others(head, label)
        try:
            in_place = not is_compressed(head)
        except InvalidLayer as error:
            raise InvalidArchive(label, error.reason) from error
        if in_place:
            yield _source(TarMembers(descriptor, label=label))
            return
    try:
        spooled = spool(file, spool_folder, allow_expansion=allow_expansion)
    except InvalidLayer as error:
        raise InvalidArchive(label, error.reason) from error
    with spooled:
        _refuse_others(os.pread(spooled.fileno(), _HEAD_BYTES, 0), label)
        yield _source(TarMembers(spooled.fileno(), label=label))


def _refuse_others(magic: bytes, label: str) -> None:
    if not magic:
        raise InvalidArchive(label, "it is empty")
    for beginning, kind in _OTHER_MAGIC:
        if magic.startswith(beginning):
            raise InvalidArchive(
                label, f"it is {kind}; expected a tar file, plain or compressed with gzip, zstd, bzip2 or xz"
            )


def _source(members: Members) -> ArchiveSource:
    """Return the source for the kind of archive that *members* are.

    An archive that is both, as docker has written since version 25, is read as a layout: only there are the
    manifests, and so the digests, that the images really have.
    """
    if members.has("index.json") and (members.has("oci-layout") or not members.has("manifest.json")):
        return LayoutSource(members)
    if members.has("manifest.json"):
        document = parse_json(
            read(members, "manifest.json", limit_bytes=MAX_LIST_BYTES), what="manifest.json", limit_bytes=MAX_LIST_BYTES
        )
        return DockerArchive(members) if isinstance(document, list) else DirSource(members)
    if members.has("repositories"):
        return DockerArchive(members)
    hint = ""
    if any(members.has(name) for name in ("etc", "bin", "usr", "rootfs")):
        hint = "; this looks like the files of an image (docker export) and not an image (docker save)"
    raise InvalidArchive(
        members.label,
        "it holds neither an OCI layout (oci-layout, index.json) nor a docker archive (manifest.json, repositories)"
        + hint,
    )
