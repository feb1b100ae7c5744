"""The named files of an archive or a folder, readable in any order and by several threads.

Receives an open tar file or a folder's path; hands on bounded bytes by member name.  It must never know what the
members mean.  Everything is taken to be hostile: a folder's members must be regular files reached without symbolic
links, an archive's links lead only to its own members.
"""

import contextlib
import os
import posixpath
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from imagefs.errors import InvalidArchive, InvalidLayer, printable
from imagefs.layer.changeset import Entry
from imagefs.layer.tar import Scanner
from imagefs.oci.digest import Digest

_CHUNK_BYTES = 1 << 20
_MAX_LINKS = 16
MAX_MEMBERS = 1 << 17
"""Of an archive, whose table of members is kept in memory: 40,000 layers, each with the three files of old archives."""


class Members(Protocol):
    """Named files.  Names are relative, with single slashes.  Thread-safe."""

    @property
    def label(self) -> str:
        """What a person calls the archive."""

    def has(self, name: str) -> bool:
        """Return whether there is a member *name*, of whatever kind."""

    def identity(self, name: str) -> tuple[Digest, int]:
        """Return digest (sha256) and size of member *name*.  Raises: InvalidArchive."""

    def chunks(self, name: str) -> Generator[bytes, None, None]:
        """Yield the content of member *name*, a regular file.  Raises: InvalidArchive, at once or while reading."""


def read(members: Members, name: str, *, limit_bytes: int) -> bytes:
    """Return the whole member *name*.

    Raises: InvalidArchive, where there is none, it is no regular file, or has more than *limit_bytes*.
    """
    content = bytearray()
    with contextlib.closing(members.chunks(name)) as chunks:
        for chunk in chunks:
            content += chunk
            if len(content) > limit_bytes:
                raise InvalidArchive(members.label, f"its '{printable(name)}' has more than {limit_bytes} bytes")
    return bytes(content)


class FolderMembers:
    """The files below one folder."""

    def __init__(self, folder: Path, *, label: str) -> None:
        self._folder = folder
        self.label = label

    def has(self, name: str) -> bool:
        return os.path.lexists(self._folder / name)

    def identity(self, name: str) -> tuple[Digest, int]:
        digest = Digest.of(b"")
        hasher = digest.hasher()
        size = 0
        for chunk in self.chunks(name):
            hasher.update(chunk)
            size += len(chunk)
        return Digest(digest.algorithm, hasher.hexdigest()), size

    def chunks(self, name: str) -> Generator[bytes, None, None]:
        descriptor = self._open(name)
        try:
            while chunk := os.read(descriptor, _CHUNK_BYTES):
                yield chunk
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        """Open *name* one component at a time, so that no symbolic link anywhere below the folder is followed."""
        *folders, last = name.split("/")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        current = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                below = os.open(folder, flags | os.O_DIRECTORY, dir_fd=current)
                os.close(current)
                current = below
            # Without O_NONBLOCK a FIFO in the place of a blob would keep us waiting for a writer.
            opened = os.open(last, flags | os.O_NONBLOCK, dir_fd=current)
        except FileNotFoundError:
            raise InvalidArchive(self.label, f"'{printable(name)}' is missing") from None
        except OSError as error:
            if self._goes_through_link(name):
                raise InvalidArchive(
                    self.label, f"'{printable(name)}' is or goes through a symbolic link, which is not followed"
                ) from None
            raise OSError(error.errno, error.strerror, str(self._folder / name)) from None
        finally:
            os.close(current)
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise InvalidArchive(self.label, f"'{printable(name)}' is not a regular file")
        return opened

    def _goes_through_link(self, name: str) -> bool:
        parts = name.split("/")
        return any(self._folder.joinpath(*parts[: count + 1]).is_symlink() for count in range(len(parts)))


class TarMembers:
    """The members of an uncompressed tar file, found in one scan.

    Owns nothing: *descriptor* stays open for as long as this is used and is closed by the caller.  Where a name occurs
    twice the later member counts, as with tar itself.

    Raises: InvalidArchive, where the file is no complete tar.
    """

    def __init__(self, descriptor: int, *, label: str) -> None:
        self._descriptor = descriptor
        self.label = label
        scanner = Scanner(max_members=MAX_MEMBERS)
        offset = 0
        try:
            while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
                offset += len(chunk)
                scanner.feed(chunk)
            changeset = scanner.finish()
        except InvalidLayer as error:
            where = f" (offset {error.offset})" if error.offset is not None else ""
            raise InvalidArchive(label, f"it is not a complete tar file: {error.reason}{where}") from error
        self._entries = {entry.path: entry for entry in changeset.entries}

    def has(self, name: str) -> bool:
        return os.fsencode(name) in self._entries

    def identity(self, name: str) -> tuple[Digest, int]:
        entry = self._entry(name)
        return Digest("sha256", entry.sha256.hex()), entry.size

    def chunks(self, name: str) -> Generator[bytes, None, None]:
        entry = self._entry(name)
        done = 0
        while done < entry.size:
            chunk = os.pread(self._descriptor, min(_CHUNK_BYTES, entry.size - done), entry.offset + done)
            if not chunk:
                raise InvalidArchive(self.label, "the file became shorter while it was read")
            done += len(chunk)
            yield chunk

    def _entry(self, name: str) -> Entry:
        """Return the regular file that member *name* is or, through links inside the archive, leads to."""
        path = os.fsencode(name)
        for _ in range(_MAX_LINKS):
            entry = self._entries.get(path)
            if entry is None:
                raise InvalidArchive(self.label, f"'{printable(path)}' is missing")
            if entry.is_hardlink:
                path = entry.target
            elif stat.S_ISLNK(entry.mode):
                path = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.target))
                if path.startswith((b"/", b"../")):
                    raise InvalidArchive(self.label, f"'{printable(name)}' is a symbolic link out of the archive")
            elif not stat.S_ISREG(entry.mode):
                raise InvalidArchive(self.label, f"'{printable(path)}' is not a regular file")
            elif entry.extents is not None:
                raise InvalidArchive(
                    self.label, f"'{printable(path)}' is stored with holes; make the archive without tar's --sparse"
                )
            else:
                return entry
        raise InvalidArchive(self.label, f"'{printable(name)}' is a chain of links without an end")
