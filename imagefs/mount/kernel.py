"""Answers to the Linux kernel's requests, from a view.

Receives requests as bytes and a `Filesystem`; hands on replies as bytes.  A protocol adapter only: what a mount shows
is decided by the view, what it looks like in bytes by `protocol`, when to answer by `serving`.

Why it is several times as fast as the portable driver: the content of an image never changes, so the kernel is told
to believe names, attributes, absent names, directories and pages of it for ever; entries come with their attributes
(READDIRPLUS), as bytes that were prepared when the image was pulled; and nobody asks before a file or directory is
opened, since node ids say all there is to know.  Only names of images are believed for a moment.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from imagefs.errors import errno_of
from imagefs.mount import protocol
from imagefs.mount.failures import log_failure
from imagefs.mount.options import WRITING_FLAGS
from imagefs.mount.protocol import Buffer, Flag, Opcode, Session
from imagefs.mount.read_ahead import ReadAhead
from imagefs.mount.walks import Walks
from imagefs.overlay.listing import Listing
from imagefs.overlay.record import (
    FOREVER_S,
    NO_ATTRIBUTES,
    packed,
    unattributed,
)
from imagefs.view import waiting
from imagefs.view.attributes import NAMES_VALID_S, NodeId
from imagefs.view.waiting import Duration, NotReady

if TYPE_CHECKING:
    from imagefs.view.filesystem import Filesystem
    from imagefs.view.open_file import OpenFile

_MOST_FILES = 256
"""Files whose places are at hand, for those that are read in several pieces."""

_ACL_PROBE_BYTES = 152
"""The buffer with which `ls -l` of coreutils 9.6 and newer lists the xattrs of every file, to mark ACLs with a "+".

EOPNOTSUPP ends that for the whole mount, where an empty list does not; Linux caches neither for FUSE.  Other programs
list with other buffers, and GNU tar warns at EOPNOTSUPP, so they see the empty list.  When gnulib changes the size,
`ls -l` is slower and nothing else.

Source: gnulib, lib/file-has-acl.c (`__gl_acl_ch`).
"""

_MOST_NAME_LISTINGS = 8


class NotInMemory(Exception):
    """The data of *file* at *offset*, with which to answer *unique*, must be waited for.

    Until they come from the disk; unless it *is_brief*, also until they are put together.
    """

    def __init__(self, unique: int, file: "OpenFile", offset: int, size: int, *, is_brief: bool) -> None:
        self.is_brief = is_brief
        self.unique = unique
        self.file = file
        self.offset = offset
        self.size = size


class Interrupted(Exception):
    """The process that waits for the reply to request *unique* has received a signal."""

    def __init__(self, unique: int) -> None:
        self.unique = unique


class Server:
    """Answers requests from *filesystem*.  Not thread-safe: one thread reads and answers."""

    def __init__(
        self,
        filesystem: "Filesystem",
        session: Session | None = None,
        *,
        settled: Callable[[Session], None] = lambda _: None,
        walks: Walks | None = None,
    ) -> None:
        """Answer for a connection that has settled on *session*, or is about to: then *settled* is told on what.

        *walks* is told what is listed and read.
        """
        self._walks = walks
        self._filesystem = filesystem
        self._settled = settled
        self.session = session
        self._files: dict[int, OpenFile] = {}
        self._listed_names: dict[NodeId, tuple[float, Listing]] = {}
        """By directory of names, when it was begun to list, and its names."""
        self._read_ahead = ReadAhead()
        self._answers: dict[int, Callable[[int, NodeId, Buffer], Sequence[Buffer]]] = {
            Opcode.INIT: self._init,
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.LSEEK: self._lseek,
            Opcode.RELEASE: _nothing,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: _nothing,
            Opcode.STATFS: self._statfs,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.DESTROY: _nothing,
        }

    def answer(self, raw: Buffer) -> Sequence[Buffer]:
        """Return the pieces of the reply to the request *raw*; none where it wants no reply.

        They are good until the next call.  Whatever goes wrong becomes an errno.

        Raises: NotInMemory, Interrupted and, where this thread must not wait, NotReady; nothing else.
        """
        _, opcode, unique, node, _, _, _, _ = protocol.HEADER.unpack_from(raw)
        if opcode in protocol.UNANSWERED:
            return ()
        if opcode == Opcode.INTERRUPT:
            raise Interrupted(protocol.interrupted(raw))
        answering = self._answers.get(opcode)
        if answering is None:
            # ENOSYS: the kernel does it by itself, or without, and does not ask again.
            number = errno.EROFS if opcode in protocol.CHANGING else errno.ENOSYS
            return protocol.refusal(unique, number)
        try:
            return protocol.reply(unique, *answering(unique, NodeId(node), raw))
        except (NotInMemory, NotReady):
            raise
        except Exception as error:
            return failed(unique, error, f"request {opcode}")

    def forget_files(self) -> None:
        """Hold no file any more that was read from."""
        self._files.clear()

    def _init(self, _unique: int, _node: NodeId, raw: Buffer) -> Sequence[Buffer]:
        answer, self.session = protocol.negotiate(bytes(raw[protocol.HEADER.size :]))
        if self.session is not None:
            self._settled(self.session)
        return [answer]

    # ---- names and attributes ----

    def _lookup(self, _unique: int, node: NodeId, raw: Buffer) -> Sequence[Buffer]:
        name = protocol.name(raw)
        if self._filesystem.is_lasting(node):
            listing = self._filesystem.listing(node)
            number = listing.find(name)
            # Node 0 and not ENOENT: that the name is absent may be believed, too.
            return [_absent(FOREVER_S) if number is None else listing.entry(number)]
        try:
            child = self._filesystem.lookup(node, name)
        except FileNotFoundError:
            return [_absent(NAMES_VALID_S)]
        shown = packed(self._filesystem.getattr(child))
        valid_s = self._valid_s(child)
        return [protocol.entry(child, shown, name_valid_s=NAMES_VALID_S, attributes_valid_s=valid_s)]

    def _valid_s(self, node: NodeId) -> float:
        return FOREVER_S if self._filesystem.is_lasting(node) else NAMES_VALID_S

    def _getattr(self, _unique: int, node: NodeId, _raw: Buffer) -> Sequence[Buffer]:
        return [protocol.attributes_reply(packed(self._filesystem.getattr(node)), valid_s=self._valid_s(node))]

    def _readlink(self, _unique: int, node: NodeId, _raw: Buffer) -> Sequence[Buffer]:
        return [self._filesystem.readlink(node)]

    def _getxattr(self, _unique: int, node: NodeId, raw: Buffer) -> Sequence[Buffer]:
        value = self._filesystem.getxattr(node, protocol.xattr_name(raw))
        return [protocol.sized(value, protocol.xattr_room(raw))]

    def _listxattr(self, _unique: int, node: NodeId, raw: Buffer) -> Sequence[Buffer]:
        names = self._filesystem.listxattr(node)
        room = protocol.xattr_room(raw)
        if not names and room == _ACL_PROBE_BYTES:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return [protocol.sized(protocol.listed(names), room)]

    def _statfs(self, _unique: int, _node: NodeId, _raw: Buffer) -> Sequence[Buffer]:
        return [protocol.statfs(self._filesystem.statfs())]

    # ---- directories ----

    def _opendir(self, _unique: int, node: NodeId, _raw: Buffer) -> Sequence[Buffer]:
        self._decline(Flag.NO_OPENDIR_SUPPORT)
        lasting = self._filesystem.is_lasting(node)
        return [protocol.opened(protocol.FOPEN_CACHE_DIR | protocol.FOPEN_KEEP_CACHE if lasting else 0)]

    def _decline(self, support: Flag) -> None:
        """Refuse to be asked before anything is opened, if the kernel knows how to take that: it never asks again."""
        if self.session is not None and support in self.session.flags:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def _readdirplus(self, _unique: int, node: NodeId, raw: Buffer) -> Sequence[Buffer]:
        lasting = self._filesystem.is_lasting(node)
        first, size = protocol.reading(raw)
        listing = self._filesystem.listing(node) if lasting else self._names(node, first)
        if first == 0 and lasting and self._walks is not None:
            self._walks.listed(node, listing)
        return listing.cut(first, size)

    def _names(self, node: NodeId, first: int) -> Listing:
        """Return the names in *node*: as of now for a reader that begins, the same ones for one that goes on."""
        begun_s, listing = self._listed_names.get(node, (float("-inf"), None))
        if listing is not None and (first > 0 or waiting.is_since_request(begun_s)):
            return listing
        return waiting.do(("names", node), partial(self._list_names, node), Duration.BRIEF)

    def _list_names(self, node: NodeId) -> Listing:
        begun_s = waiting.now_s()
        # Without attributes, for they would cost opening all images there are; the kernel asks for those it needs.
        records = [
            unattributed(name, node, stat.S_IFDIR, cookie=cookie) for cookie, name in enumerate((b".", b".."), 1)
        ]
        for cookie, (name, _, mode, ino) in enumerate(self._filesystem.readdir(node), 3):
            records.append(unattributed(name, ino, mode, cookie=cookie))
        listing = Listing.of(records)
        names = {**self._listed_names, node: (begun_s, listing)}
        self._listed_names = dict(list(names.items())[-_MOST_NAME_LISTINGS:])  # replaced at once: threads share it
        return listing

    # ---- content ----

    def _open(self, _unique: int, _node: NodeId, raw: Buffer) -> Sequence[Buffer]:
        if protocol.open_flags(raw) & WRITING_FLAGS:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self._decline(Flag.NO_OPEN_SUPPORT)
        # A node is one content for ever, so pages read before are still its.
        return [protocol.opened(protocol.FOPEN_KEEP_CACHE)]

    def _read(self, unique: int, node: NodeId, raw: Buffer) -> Sequence[Buffer]:
        offset, size = protocol.reading(raw)
        if offset == 0 and self._walks is not None:
            self._walks.was_read(node)
        file = self._file(node)
        size = min(size, file.size - offset)
        if size <= 0:
            return []
        if file.is_sparse:
            if file.is_brief(offset, size):
                return [file.read(offset, size)]
            raise NotInMemory(unique, file, offset, size, is_brief=False)
        self._read_ahead.passed(*file.place(offset), size)
        if file.is_at_hand(offset, size):
            return [file.view(offset, size)]
        raise NotInMemory(unique, file, offset, size, is_brief=True)

    def _lseek(self, _unique: int, node: NodeId, raw: Buffer) -> Sequence[Buffer]:
        offset, whence = protocol.seeking(raw)
        return [protocol.place(self._file(node).seek(offset, whence))]

    def _file(self, node: NodeId) -> "OpenFile":
        """Return the file *node*; files that were read are kept at hand."""
        file = self._files.get(node)
        if file is None:
            if len(self._files) >= _MOST_FILES:
                self._files.clear()
            file = self._filesystem.open(node)
            if not file.has_big_map:
                self._files[node] = file
        return file


def failed(unique: int, error: Exception, what: str) -> Sequence[Buffer]:
    """Return the refusal that *error* of *what* means, and log it unless it is a file system's everyday answer."""
    log_failure(error, what)
    return protocol.refusal(unique, errno_of(error))


def _nothing(_unique: int, _node: NodeId, _raw: Buffer) -> Sequence[Buffer]:
    return []


def _absent(valid_s: float) -> bytes:
    return protocol.entry(0, NO_ATTRIBUTES, name_valid_s=valid_s, attributes_valid_s=0)
