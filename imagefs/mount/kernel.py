"""A view served to the Linux kernel on /dev/fuse, without a library in between.

Receives a `Filesystem` and where and how to show it; answers the kernel's requests.  A protocol adapter only: what a
mount shows is decided by the view, what it looks like in bytes by `protocol`.

Why it is several times as fast as the portable driver: the content of an image never changes, so the kernel is told
to believe names, attributes, absent names, directories and pages of it for ever; entries come with their attributes
(READDIRPLUS); and the directory replies that are asked for again are kept as bytes.  Only names of images are
believed for a moment.  A request that comes soon after another finds the server still awake.
"""

import contextlib
import errno
import logging
import os
import select
import signal
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagefs.errors import ImagefsError, describe, errno_of
from imagefs.mount import device, protocol
from imagefs.mount.options import WRITING_FLAGS, MountOptions
from imagefs.mount.protocol import FOREVER_S, Opcode, Request
from imagefs.view.attributes import NAMES_VALID_S, NodeId

if TYPE_CHECKING:
    from imagefs.view.filesystem import Filesystem
    from imagefs.view.opened import OpenFile

MAX_KEPT_BYTES = 32 * 1024 * 1024
"""Of prepared directory replies."""
_SPINS = 200
"""Reads tried before sleeping, a tenth of a millisecond or two: on a virtual machine, waking up takes longer."""

_log = logging.getLogger(__name__)


class Server:
    """Answers requests from *filesystem*.  Not thread-safe: one thread reads and answers."""

    def __init__(self, filesystem: "Filesystem", options: MountOptions) -> None:
        self._filesystem = filesystem
        self._presentation = options.presentation
        self._files: dict[int, OpenFile] = {}
        self._next_handle = 1
        self._directories: OrderedDict[NodeId, list[bytes]] = OrderedDict()
        self._kept_bytes = 0
        self.initialised = False
        self._answers: dict[int, Callable[[Request], list[bytes]]] = {
            Opcode.INIT: self._init,
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.RELEASE: self._release,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: lambda _: [],
            Opcode.STATFS: lambda _: [protocol.statfs(self._filesystem.statfs())],
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.DESTROY: lambda _: [],
        }

    def answer(self, raw: bytes) -> Sequence[bytes]:
        """Return the pieces of the reply to the request in *raw*; none where it wants no reply.

        Whatever goes wrong becomes an errno; nothing is raised.
        """
        request = protocol.parse(raw)
        if request.opcode in protocol.UNANSWERED:
            return ()
        answering = self._answers.get(request.opcode)
        if answering is None:
            # ENOSYS: the kernel does it by itself, or without, and does not ask again.
            number = errno.EROFS if request.opcode in protocol.CHANGING else errno.ENOSYS
            return protocol.refusal(request.unique, number)
        try:
            return protocol.reply(request.unique, *answering(request))
        except ImagefsError as error:
            _log.error("request %d failed: %s", request.opcode, describe(error))
            number = errno_of(error)
        except OSError as error:
            number = errno_of(error)
        except Exception:
            _log.exception("request %d failed", request.opcode)
            number = errno.EIO
        return protocol.refusal(request.unique, number)

    def close(self) -> None:
        """Close what the kernel still has open."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _init(self, request: Request) -> list[bytes]:
        answer, session = protocol.negotiate(request.body)
        self.initialised = session is not None
        return [answer]

    # ---- names and attributes ----

    def _lookup(self, request: Request) -> list[bytes]:
        valid_s = FOREVER_S if self._filesystem.is_lasting(request.node) else NAMES_VALID_S
        try:
            child = self._filesystem.lookup(request.node, request.name)
        except FileNotFoundError:
            # Node 0 and not ENOENT: that the name is absent may be believed, too.
            return [protocol.entry(0, protocol.NO_ATTRIBUTES, name_valid_s=valid_s, attributes_valid_s=0)]
        return [self._entry(child, valid_s)]

    def _entry(self, node: NodeId, name_valid_s: float) -> bytes:
        return protocol.entry(
            node, self._attributes(node), name_valid_s=name_valid_s, attributes_valid_s=self._attributes_valid_s(node)
        )

    def _attributes(self, node: NodeId) -> bytes:
        return protocol.attributes(self._presentation.apply(self._filesystem.getattr(node)))

    def _attributes_valid_s(self, node: NodeId) -> float:
        return FOREVER_S if self._filesystem.is_lasting(node) else NAMES_VALID_S

    def _getattr(self, request: Request) -> list[bytes]:
        shown = self._attributes(request.node)
        return [protocol.attributes_reply(shown, valid_s=self._attributes_valid_s(request.node))]

    def _readlink(self, request: Request) -> list[bytes]:
        return [self._filesystem.readlink(request.node)]

    def _getxattr(self, request: Request) -> list[bytes]:
        return [protocol.sized(self._filesystem.getxattr(request.node, request.xattr_name), request.xattr_size)]

    def _listxattr(self, request: Request) -> list[bytes]:
        return [protocol.sized(protocol.listed(self._filesystem.listxattr(request.node)), request.xattr_size)]

    # ---- directories ----

    def _opendir(self, request: Request) -> list[bytes]:
        lasting = self._filesystem.is_lasting(request.node)
        return [protocol.opened(0, protocol.FOPEN_CACHE_DIR | protocol.FOPEN_KEEP_CACHE if lasting else 0)]

    def _readdirplus(self, request: Request) -> list[bytes]:
        offset, size = request.reading
        return [protocol.cut(self._directory(request.node), offset, size)]

    def _directory(self, node: NodeId) -> list[bytes]:
        """Return the entries of *node*, prepared; each one's cookie is the index of the next."""
        prepared = self._directories.get(node)
        if prepared is not None:
            self._directories.move_to_end(node)
            return prepared
        lasting = self._filesystem.is_lasting(node)
        nothing = protocol.entry(0, protocol.NO_ATTRIBUTES, name_valid_s=0, attributes_valid_s=0)
        here = self._filesystem.inode_number(node)
        prepared = [
            protocol.dirent(name, here, stat.S_IFDIR, cookie=cookie, made=nothing)
            for cookie, name in enumerate((b".", b".."), 1)
        ]
        for cookie, (name, child, mode) in enumerate(self._filesystem.readdir(node), 3):
            # Attributes of an image's root would cost resolving its layers, of all images there are: without them the
            # kernel asks for those it is asked for.
            made = nothing
            if lasting:
                with contextlib.suppress(Exception):  # one bad entry must not hide the others; its lookup tells
                    made = self._entry(child, FOREVER_S)
            prepared.append(protocol.dirent(name, self._filesystem.inode_number(child), mode, cookie=cookie, made=made))
        if lasting:
            self._directories[node] = prepared
            self._kept_bytes += sum(map(len, prepared))
            while self._kept_bytes > MAX_KEPT_BYTES and len(self._directories) > 1:
                _, dropped = self._directories.popitem(last=False)
                self._kept_bytes -= sum(map(len, dropped))
        return prepared

    # ---- content ----

    def _open(self, request: Request) -> list[bytes]:
        if request.open_flags & WRITING_FLAGS:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        file = self._filesystem.open(request.node)
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._files[handle] = file
        # A node is one content for ever, so pages read before are still its.
        return [protocol.opened(handle, protocol.FOPEN_KEEP_CACHE)]

    def _read(self, request: Request) -> list[bytes]:
        offset, size = request.reading
        return [self._files[request.handle].read(offset, size)]

    def _release(self, request: Request) -> list[bytes]:
        self._files.pop(request.handle).close()
        return []


def serve(
    filesystem: "Filesystem", mountpoint: Path, *, source: str, options: MountOptions, ready: Callable[[], None]
) -> None:
    """Mount *filesystem* at *mountpoint* and answer for it until it is unmounted or SIGTERM, SIGINT or SIGHUP comes.

    *ready* is called once the kernel has begun to ask.  *source* is what mountinfo shows as the mount's source.  To be
    called from the main thread, for the signals.

    Raises: MountError.
    """
    server = Server(filesystem, options)
    descriptor = device.mount(mountpoint, source=source, options=options)
    try:
        before = {
            ending: signal.signal(ending, lambda *_: device.unmount(mountpoint))
            for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            _answer_all(descriptor, server, ready)
        finally:
            for ending, handler in before.items():
                signal.signal(ending, handler)
    except BaseException:
        device.unmount(mountpoint)
        raise
    finally:
        os.close(descriptor)
        server.close()


def _answer_all(descriptor: int, server: Server, ready: Callable[[], None]) -> None:
    """Read and answer requests until the kernel says that there is no mount any more."""
    os.set_blocking(descriptor, False)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    told = False
    spins = _SPINS
    while True:
        try:
            raw = os.read(descriptor, protocol.REQUEST_BYTES)
        except BlockingIOError:
            spins -= 1
            if spins <= 0:
                poll.poll()
                spins = _SPINS
            continue
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.ENOENT, errno.EINTR):  # the asker gave up before the request was read
                continue
            raise
        spins = _SPINS
        pieces = server.answer(raw)
        if pieces:
            with contextlib.suppress(FileNotFoundError):  # the asker gave up
                os.writev(descriptor, pieces)
        if server.initialised and not told:
            told = True
            ready()
