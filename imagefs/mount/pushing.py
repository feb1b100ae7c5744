"""Files put into the kernel's page cache before they are asked for, by a process that does nothing else.

Receives directories that somebody reads through (see `walks`); hands their files to the kernel, which then need not
ask for each of them and let the reader wait.  A process of its own, not a thread of the one that serves: to put a page
into the cache may mean to wait until that process has answered for it.
"""

import errno
import json
import os
import socket
from collections.abc import Callable

from imagefs.errors import ImagefsError
from imagefs.mount import protocol
from imagefs.mount.holder import State, opened_store, shown_image
from imagefs.view.attributes import NodeId
from imagefs.view.filesystem import Filesystem
from imagefs.view.kept import KeptFiles
from imagefs.view.slots import Slots

_MOST_FILE_BYTES = 128 * 1024
"""In longer ones the kernel reads ahead by itself."""
_MOST_BYTES = 16 * 1024 * 1024
"""Of one directory: so much may turn out not to be wanted."""
_MOST_UNKNOWN = 8
"""Files in a row of which the kernel has never heard: then it has forgotten the directory."""
_IDLE_S = 5.0
"""After which the process ends; it keeps files open."""
_MOST_MESSAGE_BYTES = 1 << 18


class Pusher:
    """The server's end.  Never waits: what cannot be said at once is not worth saying.  Not thread-safe."""

    def __init__(self, begin: Callable[[socket.socket], None]) -> None:
        """Have *begin* start a process that runs `push` with the socket it is given, when there is something to do."""
        self._begin = begin
        self._process: socket.socket | None = None
        self._is_stale = False

    def renew(self) -> None:
        """Use another process from now on: the one there is keeps files open that are to be given up.  Thread-safe.

        If nothing is to be done, that one ends soon by itself.
        """
        self._is_stale = True

    def push(self, directory: NodeId, first: int) -> None:
        """Have the files of *directory* that follow record *first* put into the page cache."""
        if self._is_stale and self._process is not None:
            self._process.close()
            self._process = None
        if self._process is None:
            self._is_stale = False
            self._process, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._process.setblocking(False)
            with theirs:
                self._begin(theirs)
        self._say([directory, first])

    def note(self, line: str) -> None:
        """Pass on a line of the journal of slots that was written since the process began."""
        if self._process is not None:
            self._say(line)

    def _say(self, said: object) -> None:
        assert self._process is not None
        try:
            self._process.send(json.dumps(said).encode())
        except BlockingIOError:
            if isinstance(said, str):  # without this line it would not know what it is asked about
                self._process.close()
                self._process = None
        except OSError:  # it has ended; another is begun when there is more to do
            self._process.close()
            self._process = None


def push(state: State, asking: socket.socket) -> None:
    """Do what is asked for on *asking* about the mount of *state*, until nothing is for a while.

    Raises: StoreError.
    """
    asking.settimeout(_IDLE_S)
    slots = Slots(state.notes)
    with opened_store(state) as store:
        filesystem = Filesystem(
            store, shown_image(state), slots=slots, files=KeptFiles(state.kept), verify=state.verify
        )
        while True:
            try:
                message = asking.recv(_MOST_MESSAGE_BYTES)
            except TimeoutError:
                return
            if not message:
                return
            said = json.loads(message)
            if isinstance(said, str):
                slots.add(said)
                continue
            try:
                _push_files(filesystem, state.device, NodeId(said[0]), said[1])
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ENOTCONN):
                    return
            except ImagefsError:
                pass  # told to who reads it


def _push_files(filesystem: Filesystem, device: int, directory: NodeId, first: int) -> None:
    listing = filesystem.listing(directory)
    room = _MOST_BYTES
    unknown = 0
    for number in listing.files(first + 1):
        node, size = NodeId(listing.node(number)), listing.size(number)
        if size > _MOST_FILE_BYTES:
            continue
        room -= size
        if room < 0 or unknown > _MOST_UNKNOWN:
            return
        file = filesystem.open(node)
        if file.is_sparse:
            continue
        try:
            os.writev(device, protocol.store(node, file.view(0, size)))
            unknown = 0
        except FileNotFoundError:
            unknown += 1
