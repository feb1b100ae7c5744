"""The process that serves a mount: a child of the one that holds it.

Receives the holder's state and a line to it; puts together what answers, and answers until the mount is gone, the
holder wants it to stop, or it is killed.
"""

import os
import socket

from imagefs.mount import holder, protocol, serving
from imagefs.mount.holder import Line, Programs, State, opened_store, shown_image
from imagefs.mount.kernel import Server
from imagefs.mount.notices import Notices, tell
from imagefs.mount.pushing import Pusher, push
from imagefs.mount.tree_maker import TreeMaker, make
from imagefs.mount.upkeep import Upkeep
from imagefs.mount.walks import Walks
from imagefs.view.filesystem import Filesystem
from imagefs.view.kept import KeptFiles
from imagefs.view.presentation import Presentation
from imagefs.view.slots import Slots

_PUSHER, _TELLER, _TREE_MAKER = "pusher", "teller", "tree-maker"


def run(state: State, line: Line, stop: int) -> int:
    """Serve the mount of *state* in this process; see `holder.Serve`.

    Raises: StoreError, ContentError, where there is nothing to be shown.
    """

    def keep(path: str, descriptor: int | None) -> None:
        if descriptor is None:
            line.tell(drop=path)
        else:
            line.tell(descriptor, keep=path)

    files = KeptFiles(state.kept, keep)
    pusher = Pusher(lambda asking: line.tell(asking.fileno(), begin=_PUSHER))

    def note(journal_line: str) -> None:
        line.tell(note=journal_line)
        pusher.note(journal_line)

    slots = Slots(state.notes, note)
    with opened_store(state) as store:
        presentation = Presentation(**state.presentation)
        filesystem = Filesystem(
            store,
            shown_image(state),
            presentation=presentation,
            slots=slots,
            files=files,
            verify=state.verify,
            make=TreeMaker(store, lambda asking: line.tell(asking.fileno(), begin=_TREE_MAKER)),
        )
        server = Server(
            filesystem,
            state.session,
            settled=lambda session: line.tell(settled=[session.minor, int(session.flags)]),
            walks=Walks(pusher.push),
        )
        if state.owes:
            try:
                os.write(state.device, protocol.resend())
            except OSError:
                return holder.LOST
        notices = Notices(lambda asking: line.tell(asking.fileno(), begin=_TELLER))

        def let_go() -> None:
            server.forget_files()
            pusher.renew()

        upkeep = Upkeep(filesystem, notices, let_go)

        def answered() -> None:
            line.tell(was=holder.ANSWERED)
            upkeep.start()

        unmounted = serving.serve(
            state.device, server, asked=lambda: line.tell(was=holder.ASKED), answered=answered, stop=stop
        )
        return holder.UNMOUNTED if unmounted else holder.STOPPED


def _tell(state: State, asking: socket.socket) -> None:
    for descriptor in state.kept.values():
        os.close(descriptor)  # what is given up elsewhere must not stay open here
    tell(state.device, asking)


PROGRAMS = Programs(serve=run, helpers={_PUSHER: push, _TELLER: _tell, _TREE_MAKER: make})
"""What the processes of a mount with the kernel driver do."""
