"""A file system as small as can be, with the interface of the view: for tests of drivers without a store.

python -m tests.support.fake_filesystem MOUNTPOINT [OPTION[,OPTION]]   serves it in the foreground
"""

import errno
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from imagefs.mount import device, fusepy_driver, serving
from imagefs.mount.kernel import Server
from imagefs.mount.options import MountOptions, parse_options
from imagefs.overlay.attributes import Attributes
from imagefs.overlay.listing import Listing
from imagefs.overlay.record import packed, record, unattributed
from imagefs.view.attributes import ROOT, NodeId, StatFs
from imagefs.view.filesystem import Filesystem
from tests.support.commands import DRIVER_VARIABLE

NONE = Attributes(0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass
class FakeNode:
    mode: int = stat.S_IFREG | 0o644
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    rdev: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, int] = field(default_factory=dict)
    failure: BaseException | None = None
    """Raised by whatever is asked of this node, except its name."""
    unreadable: BaseException | None = None
    """Raised by opening this node."""


class FakeFile:
    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.closed = False

    @property
    def size(self) -> int:
        return len(self.node.data)

    is_sparse = True
    has_big_map = False

    def is_brief(self, _offset: int, _size: int) -> bool:
        return True

    def read(self, offset: int, size: int) -> bytes:
        return self.node.data[offset : offset + max(0, size)]

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class FakeFilesystem:
    """Node ids count from 1; the inode numbers shown are far above 32 bits."""

    def __init__(self) -> None:
        self.lasting = True
        self.nodes = [FakeNode(mode=stat.S_IFDIR | 0o755)]
        self.opened: list[FakeFile] = []

    def add(self, path: bytes, node: FakeNode) -> NodeId:
        folder, _, name = path.rpartition(b"/")
        parent = ROOT
        for part in folder.split(b"/") if folder else ():
            parent = self.lookup(parent, part)
        self.nodes.append(node)
        number = NodeId(len(self.nodes))
        self.nodes[parent - 1].children[name] = number
        return number

    def as_filesystem(self) -> Filesystem:
        return cast(Filesystem, self)  # by shape: what drivers use of it is all here

    def _node(self, node: NodeId) -> FakeNode:
        found = self.nodes[node - 1]
        if found.failure is not None:
            raise found.failure
        return found

    def lookup(self, parent: NodeId, name: bytes) -> NodeId:
        folder = self.nodes[parent - 1]
        if not stat.S_ISDIR(folder.mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        if name not in folder.children:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return NodeId(folder.children[name])

    def getattr(self, node: NodeId) -> Attributes:
        found = self._node(node)
        size = 0 if stat.S_ISDIR(found.mode) else len(found.data)
        return Attributes(
            ino=self.inode_number(node),
            mode=found.mode,
            nlink=2 if stat.S_ISDIR(found.mode) else 1,
            uid=found.uid,
            gid=found.gid,
            size=size,
            blocks=-(-size // 512),
            mtime_ns=found.mtime_ns,
            rdev=found.rdev,
        )

    def is_lasting(self, node: NodeId) -> bool:
        return self.lasting

    def inode_number(self, node: NodeId) -> int:
        return (1 << 40) + node

    def readdir(self, node: NodeId) -> Sequence[tuple[bytes, NodeId, int, int]]:
        children = sorted(self._node(node).children.items())
        return [
            (name, NodeId(child), self.nodes[child - 1].mode, self.inode_number(NodeId(child)))
            for name, child in children
        ]

    def listing(self, node: NodeId) -> Listing:
        records = [
            unattributed(name, self.inode_number(node), stat.S_IFDIR, cookie=len(name)) for name in (b".", b"..")
        ]
        for cookie, (name, child, mode, ino) in enumerate(self.readdir(node), 3):
            attributes = self.getattr(child) if self.nodes[child - 1].failure is None else NONE
            records.append(record(name, child, packed(attributes), cookie=cookie, ino=ino, mode=mode))
        return Listing.of(records)

    def readlink(self, node: NodeId) -> bytes:
        return self._node(node).data

    def open(self, node: NodeId) -> FakeFile:
        found = self._node(node)
        if found.unreadable is not None:
            raise found.unreadable
        file = FakeFile(found)
        self.opened.append(file)
        return file

    def listxattr(self, node: NodeId) -> tuple[bytes, ...]:
        return tuple(sorted(self._node(node).xattrs))

    def getxattr(self, node: NodeId, name: bytes) -> bytes:
        value = self._node(node).xattrs.get(name)
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return value

    def departed(self) -> None:
        return None

    def removed(self) -> list[object]:
        return []

    def statfs(self) -> StatFs:
        return StatFs(bsize=4096, blocks=1000, bfree=0, bavail=0, files=len(self.nodes), ffree=0, namemax=255)

    def close(self) -> None:
        for file in self.opened:
            assert file.closed


def curiosities() -> FakeFilesystem:
    """Return a file system of everything that has ever been lost on the way through a FUSE library."""
    fake = FakeFilesystem()
    fake.add(b"plain", FakeNode(data=b"hello\n", mtime_ns=1_700_000_000_123_456_789))
    fake.add(b"big", FakeNode(data=bytes(range(256)) * 4096))
    fake.add(b"not-utf8-\xff\xfe", FakeNode(data=b"bytes"))
    fake.add(b"line\nbreak", FakeNode(data=b"newline"))
    fake.add(b"old", FakeNode(mtime_ns=-1_500_000_000))
    fake.add(b"late", FakeNode(mtime_ns=(1 << 33) * 10**9 + 1))
    fake.add(b"foreign", FakeNode(uid=4_000_000_000, gid=4_000_000_001))
    fake.add(b"setuid", FakeNode(mode=stat.S_IFREG | 0o6755))
    fake.add(b"secret", FakeNode(mode=stat.S_IFREG | 0o600, data=b"secret"))
    fake.add(b"device", FakeNode(mode=stat.S_IFBLK | 0o660, rdev=os.makedev(259, 70_000)))
    fake.add(b"fifo", FakeNode(mode=stat.S_IFIFO | 0o600))
    fake.add(b"link", FakeNode(mode=stat.S_IFLNK | 0o777, data=b"/absolute/\xff"))
    fake.add(b"attributed", FakeNode(xattrs={b"user.empty": b"", b"user.bytes": b"\x00\xff", b"user.\xff": b"1"}))
    fake.add(b"broken", FakeNode(data=b"?", unreadable=RuntimeError("broken on purpose")))
    folder = fake.add(b"folder", FakeNode(mode=stat.S_IFDIR | 0o755))
    for number in range(3000):
        fake.nodes.append(FakeNode())
        fake.nodes[folder - 1].children[b"entry-%04d" % number] = len(fake.nodes)
    return fake


def serve_to_the_kernel(filesystem: Filesystem, mountpoint: Path, *, source: str, options: MountOptions) -> None:
    """Mount *filesystem* with the kernel driver, held by nobody, and serve it until it is unmounted."""
    never, _ = os.pipe()
    with device.opened(mountpoint) as folder:
        descriptor = device.mount(folder, mountpoint, source=source, options=options).device
    serving.serve(descriptor, Server(filesystem), asked=lambda: None, answered=lambda: None, stop=never)


if __name__ == "__main__":
    fake = curiosities()
    where, what = Path(sys.argv[1]), parse_options(sys.argv[2:])
    if os.environ.get(DRIVER_VARIABLE) == "kernel":
        serve_to_the_kernel(fake.as_filesystem(), where, source="fake,source \\", options=what)
    else:
        fusepy_driver.serve(fake.as_filesystem(), where, source="fake,source \\", options=what, ready=lambda: None)
        fake.close()
