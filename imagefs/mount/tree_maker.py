"""Trees computed by a process of their own.

Computing the tree of a big layer takes seconds of Python, and memory in proportion.  In the process that serves, even
another thread would take the interpreter's lock from the one that answers.
"""

import gc
import json
import os
import socket
from collections.abc import Callable

from imagefs.errors import BlobNotFound, InvalidLayer, MountError
from imagefs.mount.holder import State, opened_store
from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.stored import Stack
from imagefs.store.store import Store
from imagefs.view.opened import make_tree

_NICENESS = 5
"""Requests of others come first."""
_MOST_MESSAGE_BYTES = 1 << 20
_HERE = b"here"


class TreeMaker:
    """The server's end: one process for each tree.  Thread-safe."""

    def __init__(self, store: Store, begin: Callable[[socket.socket], None]) -> None:
        """Have *begin* start a process that runs `make` with the socket given."""
        self._store = store
        self._begin = begin

    def __call__(self, stack: Stack) -> int | None:
        """Compute the tree of *stack*; see `view.opened.MakeTree`.

        Raises: BlobNotFound, InvalidLayer, OSError; MountError, if the process died.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self._begin(theirs)
            layers = [str(diff_id) for diff_id in stack.diff_ids]
            try:
                ours.send(json.dumps({"layers": layers, "alone": stack.alone}).encode())
                is_there = ours.recv(_MOST_MESSAGE_BYTES) == _HERE
            except (BrokenPipeError, ConnectionResetError):
                is_there = False
            if not is_there:  # nobody can begin it: the holder is dead
                return make_tree(self._store, stack)
            try:
                answer, descriptors, _, _ = socket.recv_fds(ours, _MOST_MESSAGE_BYTES, 1)
            except ConnectionResetError:
                answer = b""
        if not answer:
            raise MountError(f"the process that computed the tree of {stack} died")
        outcome = json.loads(answer)
        if "missing" in outcome:
            raise BlobNotFound(*outcome["missing"])
        if "invalid" in outcome:
            reason, entry, offset = outcome["invalid"]
            raise InvalidLayer(reason, entry=None if entry is None else bytes.fromhex(entry), offset=offset)
        if "errno" in outcome:
            raise OSError(outcome["errno"], os.strerror(outcome["errno"]))
        return descriptors[0] if descriptors else None


def make(state: State, asking: socket.socket) -> None:
    """Compute the tree that *asking* names, of the store of *state*, and answer with a descriptor of it."""
    for kept in state.kept.values():
        os.close(kept)  # of files that the server may close meanwhile
    asking.send(_HERE)
    gc.disable()  # nothing here forms cycles
    os.nice(_NICENESS)
    request = json.loads(asking.recv(_MOST_MESSAGE_BYTES))
    stack = Stack(tuple(DiffId(Digest.parse(diff_id)) for diff_id in request["layers"]), request["alone"])
    descriptors: list[int] = []
    outcome: dict[str, object] = {}
    try:
        with opened_store(state) as store:
            descriptor = make_tree(store, stack)
        if descriptor is not None:
            descriptors.append(descriptor)
    except BlobNotFound as error:
        outcome["missing"] = error.args
    except InvalidLayer as error:
        outcome["invalid"] = [error.reason, None if error.entry is None else error.entry.hex(), error.offset]
    except OSError as error:
        outcome["errno"] = error.errno
    socket.send_fds(asking, [json.dumps(outcome).encode()], descriptors)
