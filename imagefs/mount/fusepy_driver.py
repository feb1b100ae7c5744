"""fusepy's and libfuse 2's way of mounting: the only module that knows them.

Receives a `Filesystem` and where and how to show it; hands paths on as node ids, and errors as errnos.  A protocol
adapter only: what a mount shows is decided by the view.

fusepy hands out paths as text; decoded as latin-1, every byte is one character and back, so names stay bytes.

libfuse 2 gives a path one node id for good, but after a tag has moved the same path is another file.  So there is no
``kernel_cache`` and no ``auto_cache``, with which the kernel would show old pages; and who opens the new file while
the old one is still open reads past the page cache, which those who read the old one share.  What remains: the kernel
knows one size for both, so the reader of an old file that is longer than the new one may find its end too early.
"""

import contextlib
import ctypes
import errno
import itertools
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from imagefs.errors import MountError, errno_of
from imagefs.mount.failures import log_failure
from imagefs.mount.options import WRITING_FLAGS, MountOptions
from imagefs.mount.upkeep import Upkeep
from imagefs.overlay.attributes import Attributes
from imagefs.view.attributes import NAMES_VALID_S, ROOT, NodeId

if TYPE_CHECKING:
    from imagefs.view.filesystem import Filesystem
    from imagefs.view.open_file import OpenFile

ENCODING = "latin-1"

_SWITCH_S = 0.0005
_UNKNOWN_INO = 0xFFFFFFFF  # libfuse's FUSE_UNKNOWN_INO

_log = logging.getLogger(__name__)


class _NoNotices:
    """libfuse 2 has no way to tell the kernel anything; what is open is held by its handle here."""

    def forget_name(self, parent: NodeId, name: bytes) -> None:
        pass

    def forget_content(self, nodes: Iterable[NodeId]) -> None:
        pass  # without kernel_cache, the kernel forgets pages whenever a file is opened

    def known(self, _nodes: Iterable[NodeId], *, only_first: bool = False) -> list[NodeId]:
        return []


class _FileInfo(Protocol):
    """What of libfuse's struct fuse_file_info is used here."""

    flags: int
    fh: int
    direct_io: int


@dataclass(frozen=True, slots=True)
class _Opened:
    path: str
    node: NodeId
    attributes: Attributes
    file: "OpenFile"


class Operations:
    """What libfuse asks, answered from *filesystem*.  Thread-safe, as libfuse calls from several threads.

    Not a subclass of fusepy's class of this name, which adds nothing but defaults that claim success.
    """

    use_ns = True  # fusepy: times are integers of nanoseconds, so negative and very late ones survive

    def __init__(self, filesystem: "Filesystem", options: MountOptions, ready: Callable[[], None]) -> None:
        self._filesystem = filesystem
        self._ready = ready
        self._lock = threading.Lock()
        self._handles = itertools.count(1)
        self._open: dict[int, _Opened] = {}
        self._open_at: dict[str, list[NodeId]] = {}

    def __call__(self, operation: str, *args: Any) -> Any:
        """Do *operation*; whatever goes wrong leaves as an OSError with a positive errno.

        fusepy 3.0.1 answers everything else wrongly: EINVAL for exceptions, success for SystemExit and the like
        (its handler for them refers to a ``self`` it does not have).
        """
        try:
            return getattr(self, operation)(*args)
        except Exception as error:
            log_failure(error, operation)
            number = errno_of(error)
        except BaseException:
            _log.exception("%s failed", operation)
            number = errno.EIO
        raise OSError(number if number > 0 else errno.EIO, os.strerror(number))

    def close(self) -> None:
        """Close what the kernel still has open."""
        with self._lock:
            handles, self._open = self._open, {}
        for opened in handles.values():
            opened.file.close()

    def init(self, _path: str) -> None:
        Upkeep(self._filesystem, _NoNotices()).start()
        self._ready()

    # ---- names and attributes ----

    def getattr(self, path: str, info: "_FileInfo | None" = None) -> dict[str, int]:
        # An open file keeps its attributes, wherever its path leads now, and when its image is gone.
        opened = self._open.get(info.fh) if info is not None else None
        if opened is not None and opened.path == path:  # libfuse numbers folders itself, maybe alike
            attributes = opened.attributes
        else:
            attributes = self._filesystem.getattr(self._node(path))
        return {
            "st_ino": attributes.ino,
            "st_mode": attributes.mode,
            "st_nlink": attributes.nlink,
            "st_uid": attributes.uid,
            "st_gid": attributes.gid,
            "st_rdev": attributes.rdev,
            "st_size": attributes.size,
            "st_blocks": attributes.blocks,
            "st_atime": attributes.mtime_ns,
            "st_mtime": attributes.mtime_ns,
            "st_ctime": attributes.mtime_ns,
        }

    def access(self, path: str, mode: int) -> None:
        self._node(path)
        if mode & os.W_OK:
            self._refuse()

    def readdir(self, path: str, _handle: int) -> Iterator[tuple[str, dict[str, int], int]]:
        # Complete before the first name leaves: an error while fusepy iterates would not pass through __call__.
        children = self._filesystem.readdir(self._node(path))
        folder = {"st_mode": stat.S_IFDIR, "st_ino": _UNKNOWN_INO}
        listed = [(".", folder, 0), ("..", folder, 0)]
        for name, _, mode, ino in children:
            listed.append((name.decode(ENCODING), {"st_mode": mode, "st_ino": ino}, 0))
        return iter(listed)

    def readlink(self, path: str) -> str:
        return self._filesystem.readlink(self._node(path)).decode(ENCODING)

    def listxattr(self, path: str) -> list[str]:
        return [name.decode(ENCODING) for name in self._filesystem.listxattr(self._node(path))]

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        return self._filesystem.getxattr(self._node(path), name.encode(ENCODING))

    def statfs(self, _path: str) -> dict[str, int]:
        found = self._filesystem.statfs()
        return {
            "f_bsize": found.bsize,
            "f_frsize": found.bsize,
            "f_blocks": found.blocks,
            "f_bfree": found.bfree,
            "f_bavail": found.bavail,
            "f_files": found.files,
            "f_ffree": found.ffree,
            "f_favail": found.ffree,
            "f_namemax": found.namemax,
        }

    # ---- content ----

    def open(self, path: str, info: "_FileInfo") -> None:
        if info.flags & WRITING_FLAGS:
            self._refuse()
        node = self._node(path)
        opened = _Opened(path, node, self._filesystem.getattr(node), self._filesystem.open(node))
        with self._lock:
            info.fh = next(self._handles)
            self._open[info.fh] = opened
            others = self._open_at.setdefault(path, [])
            info.direct_io = any(other != node for other in others)
            others.append(node)

    def read(self, _path: str, size: int, offset: int, info: "_FileInfo") -> bytes:
        return self._open[info.fh].file.read(offset, size)

    def release(self, _path: str, info: "_FileInfo") -> None:
        with self._lock:
            opened = self._open.pop(info.fh)
            others = self._open_at[opened.path]
            others.remove(opened.node)
            if not others:
                del self._open_at[opened.path]
        opened.file.close()

    # ---- everything that would change something ----

    def _refuse(self, *_: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    chmod = chown = create = link = mkdir = mknod = removexattr = rename = rmdir = setxattr = symlink = _refuse
    truncate = unlink = utimens = write = _refuse

    def _node(self, path: str) -> NodeId:
        node = ROOT
        for name in path.encode(ENCODING).split(b"/"):
            if name:
                node = self._filesystem.lookup(node, name)
        return node


def serve(
    filesystem: "Filesystem", mountpoint: Path, *, source: str, options: MountOptions, ready: Callable[[], None]
) -> None:
    """Mount *filesystem* at *mountpoint* and answer for it until it is unmounted or SIGTERM, SIGINT or SIGHUP comes.

    *ready* is called once, from another thread, when the kernel has begun to ask.  *source* is what mountinfo shows
    as the mount's source.  What libfuse and fusermount say of a failure is on standard error.

    Raises: MountError.
    """
    library = _library()
    # libfuse answers from several threads: one that computes must not keep the interpreter's lock from the others.
    sys.setswitchinterval(_SWITCH_S)
    operations = Operations(filesystem, options, ready)
    try:
        library.FUSE(
            operations,
            os.fsencode(mountpoint).decode(ENCODING),
            raw_fi=True,
            encoding=ENCODING,
            foreground=True,
            **libfuse_options(source, options),
        )
    except RuntimeError as error:  # what fusepy raises for libfuse's exit status
        raise MountError(f"mounting at {mountpoint} failed") from error
    finally:
        operations.close()


def libfuse_options(source: str, options: MountOptions) -> dict[str, bool | str | float]:
    """Return *options* in libfuse's words; False leaves an option out."""
    # libfuse splits its list at commas; the backslash is its escape, also for itself.
    escaped = os.fsencode(source).decode(ENCODING).replace("\\", "\\\\").replace(",", "\\,")
    return {
        "fsname": escaped,
        "subtype": "imagefs",
        "ro": True,
        "suid" if options.suid else "nosuid": True,
        "dev" if options.dev else "nodev": True,
        "noexec": options.noexec,
        "allow_other": options.allow_other,
        # Whoever mounted may read all of an image, for it is their store; others only what its modes let them.
        "default_permissions": options.allow_other or options.default_permissions,
        "nonempty": True,  # libfuse would list the folder, which an autofs there answers only after we are mounted
        "use_ino": True,
        "entry_timeout": NAMES_VALID_S,
        "attr_timeout": NAMES_VALID_S,
        "negative_timeout": NAMES_VALID_S,
    }


def _library() -> Any:
    """Return the module ``fuse``, which loads libfuse when imported."""
    if sys.platform == "linux" and "FUSE_LIBRARY_PATH" not in os.environ:
        # By its name at run time; fusepy's search runs ldconfig, gcc and ld, which may be missing.
        with contextlib.suppress(OSError):
            ctypes.CDLL("libfuse.so.2")
            os.environ["FUSE_LIBRARY_PATH"] = "libfuse.so.2"
    try:
        import fuse
    except ImportError as error:
        raise MountError(f"the Python package fusepy is not installed ({error}); install it with pip") from error
    except OSError as error:
        raise MountError(
            "libfuse 2 was not found; on Debian and Ubuntu install fuse3 and libfuse2 (newer releases: libfuse2t64)"
        ) from error
    if not hasattr(fuse, "FUSE"):
        raise MountError("the Python module 'fuse' is not fusepy's; uninstall fuse-python and install fusepy")
    return fuse
