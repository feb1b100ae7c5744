"""One mount from beginning to end.

Receives which store (and image) to show where; hands on a mount that answers, or the reason why there is none.  Knows
no FUSE: a driver does, and is imported only by the process that serves.
"""

import contextlib
import functools
import os
import resource
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagefs.errors import InvalidMountOption
from imagefs.mount import daemon
from imagefs.mount.mountpoint import canonical, check_fuse, confirm_mounted, raise_read_ahead
from imagefs.mount.options import MountOptions

if TYPE_CHECKING:
    from imagefs.mount.holder import State
    from imagefs.store.mounts import RecordFile


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be shown: of *store* all, or the image that *reference* names."""

    store: Path
    target: Path
    reference: str | None
    source: str
    options: MountOptions
    foreground: bool


def mount(
    store: Path,
    mountpoint: Path,
    *,
    reference: str | None = None,
    options: MountOptions | None = None,
    source: str | None = None,
    foreground: bool = False,
) -> None:
    """Mount *store*, or its one image *reference*, at *mountpoint*.

    Returns once the mount answers, leaving background processes that serve it; with *foreground*, holds it in this
    process and returns after the unmount.  *options.store* and *options.image* are the caller's to obey.
    *source* is what mountinfo shows; default: *reference* or *store*.

    Raises: MountError, InvalidMountOption; with *foreground* also StoreError and the rest of what opening a store
    raises, which in the background arrives as a MountError with that error's text and exit status.
    """
    options = options or MountOptions()
    for name in ("suid", "dev"):
        if getattr(options, name) and os.geteuid() != 0:
            raise InvalidMountOption(name, "only root may ask for it")
    check_fuse()
    store = store.absolute()
    target = canonical(mountpoint)
    wanted = _Wanted(store, target, reference, source or reference or str(store), options, foreground)
    serve = functools.partial(_serve, wanted)
    if foreground:
        if options.log_file is not None:
            daemon.log_to(options.log_file)
        serve(lambda: None)
    else:
        daemon.start(serve, log_file=options.log_file)
        confirm_mounted(target)
        raise_read_ahead(target)


def _serve(wanted: _Wanted, ready: Callable[[], None]) -> None:
    # Every file open in the mount is a file open here.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if wanted.options.driver == "kernel":
        _begin_to_hold(wanted, ready)
    else:
        _serve_portably(wanted, ready)


def _serve_portably(wanted: _Wanted, ready: Callable[[], None]) -> None:
    from imagefs.confinement import keep_mounting
    from imagefs.mount.fusepy_driver import serve
    from imagefs.mount.mountpoint import check_only_root_can_redirect, open_mountpoint
    from imagefs.store.mounts import MountRecord
    from imagefs.store.store import Store
    from imagefs.view.filesystem import Filesystem, Shown

    os.close(open_mountpoint(wanted.target, store=wanted.store, nonempty=wanted.options.nonempty))
    if os.geteuid() == 0:
        check_only_root_can_redirect(wanted.target)
    with Store.open(wanted.store, trust=wanted.options.trust_store) as store, contextlib.ExitStack() as stack:
        image = store.image(wanted.reference) if wanted.reference is not None else None
        options = wanted.options
        shown = Shown.of(image) if image else None
        filesystem = Filesystem(store, shown, presentation=options.presentation, verify=options.verify)
        file = store.new_mount_record()
        if file is not None:
            stack.callback(file.end)
            pid = os.getpid()
            file.write(MountRecord(str(wanted.target), pid, image.id if image else None, wanted.reference, pid, 1))
        keep_mounting(wanted.store)
        serve(filesystem, wanted.target, source=wanted.source, options=wanted.options, ready=ready)


# ---- the kernel driver: one process holds the mount, its children serve it ----


def _begin_to_hold(wanted: _Wanted, ready: Callable[[], None]) -> None:
    from imagefs.mount import device, holder
    from imagefs.mount.mountpoint import open_mountpoint
    from imagefs.store.store import Store

    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as until_mounted:
            folder = open_mountpoint(wanted.target, store=wanted.store, nonempty=wanted.options.nonempty)
            until_mounted.callback(os.close, folder)
            opened = Store.open(wanted.store, trust=wanted.options.trust_store)
            store = until_mounted.enter_context(opened)  # children must not share its connection
            image = store.image(wanted.reference) if wanted.reference is not None else None
            file = store.new_mount_record()
            if file is not None:
                stack.callback(file.end)
            mounted = device.mount(folder, wanted.target, source=wanted.source, options=wanted.options)
        state = holder.State(
            device=mounted.device,
            identity=astuple(mounted.identity),
            store=str(wanted.store),
            mountpoint=str(wanted.target),
            reference=wanted.reference,
            image=str(image.id) if image else None,
            layers=[str(diff_id) for diff_id in image.diff_ids] if image else [],
            size=image.size if image else 0,
            presentation=asdict(wanted.options.presentation),
            log_file=str(wanted.options.log_file) if wanted.options.log_file else None,
            record=(str(file.path), file.descriptor) if file else None,
            in_foreground=wanted.foreground,
            verify=wanted.options.verify,
            trust_store=wanted.options.trust_store,
        )
        _hold(state, file, ready)


def resume(descriptor: int) -> None:
    """Go on holding the mount whose state a predecessor, in this very process, left in *descriptor*; then end.

    Called by a program that `holder` writes.
    """
    from imagefs.mount import holder
    from imagefs.store.mounts import RecordFile

    state = holder.received_state(descriptor)
    if not state.in_foreground or state.log_file is not None:
        daemon.log_to(Path(state.log_file) if state.log_file is not None else None)
    file = RecordFile(Path(state.record[0]), state.record[1]) if state.record is not None else None
    try:
        _hold(state, file, lambda: None)
    except Exception as error:
        daemon.log_end(error)
        raise SystemExit(1) from None
    finally:
        if file is not None:
            file.end()


def _hold(state: "State", file: "RecordFile | None", ready: Callable[[], None]) -> None:
    # All that serving takes is loaded here, once: children that load it would, after an upgrade, be of another version.
    from imagefs.mount import holder, server_process
    from imagefs.oci.digest import Digest
    from imagefs.store.mounts import MountRecord

    image = Digest.parse(state.image) if state.image is not None else None

    def started(child: int) -> None:
        if file is not None:
            said = MountRecord(state.mountpoint, os.getpid(), image, state.reference, child, state.starts)
            file.write(replace(said, format=holder.STATE_FORMAT))

    holder.Holder(state, server_process.PROGRAMS, started).hold(ready)
