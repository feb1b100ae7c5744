"""One mount from beginning to end.

Receives which store (and image) to show where; hands on a mount that answers, or the reason why there is none.  Knows
no FUSE: a driver does, and is imported only by the process that serves.
"""

import contextlib
import functools
import os
import resource
from collections.abc import Callable
from pathlib import Path

from imagefs.errors import InvalidMountOption
from imagefs.mount import daemon
from imagefs.mount.mountpoint import check_fuse, check_mountpoint, confirm_mounted, raise_read_ahead
from imagefs.mount.options import MountOptions


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

    Returns once the mount answers, leaving a background process that serves it; with *foreground*, serves in this
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
    target = check_mountpoint(mountpoint, store=store, nonempty=options.nonempty)
    serve = functools.partial(_serve, store, target, reference, source or reference or str(store), options)
    if foreground:
        if options.log_file is not None:
            daemon.log_to(options.log_file)
        serve(lambda: None)
    else:
        daemon.start(serve, log_file=options.log_file)
        confirm_mounted(target)
        raise_read_ahead(target)


def _serve(
    store_path: Path,
    target: Path,
    reference: str | None,
    source: str,
    options: MountOptions,
    ready: Callable[[], None],
) -> None:
    # Imported late: only the process that serves needs a driver, and only the portable one needs libfuse.
    if options.driver == "kernel":
        from imagefs.mount.kernel import serve
    else:
        from imagefs.mount.fusepy_driver import serve
    from imagefs.store.store import Store
    from imagefs.view.filesystem import Filesystem

    # Every file open in the mount is a file open here.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store.open(store_path))
        image = store.image(reference) if reference is not None else None
        stack.enter_context(
            store.record_mount(mountpoint=str(target), image=image.id if image else None, reference=reference)
        )
        filesystem = Filesystem.for_image(store, image) if image else Filesystem.for_store(store)
        serve(filesystem, target, source=source, options=options, ready=ready)
