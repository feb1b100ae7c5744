"""The same snapshot as `snapshot`, taken through the view without a kernel."""

import hashlib
import os
import stat

from imagefs.view.attributes import ROOT, NodeId
from imagefs.view.filesystem import Filesystem
from tests.support.snapshot import Snapshot

_READ_BYTES = 128 * 1024


def snapshot_view(filesystem: Filesystem, root: NodeId = ROOT) -> Snapshot:
    """Return every entry below *root* as `tests.support.snapshot.snapshot` describes it."""
    result: Snapshot = {}
    first: dict[int, bytes] = {}
    stack = [(b"", root)]
    while stack:
        folder, node = stack.pop()
        for name, child, mode, ino in filesystem.readdir(node):
            path = folder + b"/" + name if folder else name
            assert filesystem.lookup(node, name) == child
            result[path] = _described(filesystem, child, mode)
            assert result[path]["ino"] == ino
            if stat.S_ISDIR(mode):
                stack.append((path, child))
    result = dict(sorted(result.items(), key=lambda item: item[0].split(b"/")))
    for path, described in result.items():
        number = described.pop("ino")
        if described["type"] != "d":
            assert isinstance(number, int)
            described["same as"] = first.setdefault(number, path)
    return result


def _described(filesystem: Filesystem, node: NodeId, mode: int) -> dict[str, object]:
    attributes = filesystem.getattr(node)
    assert attributes.mode == mode
    described: dict[str, object] = {
        "ino": attributes.ino,
        "type": stat.filemode(mode)[0],
        "mode": stat.S_IMODE(mode),
        "uid": attributes.uid,
        "gid": attributes.gid,
        "mtime_ns": attributes.mtime_ns,
        "xattrs": {os.fsdecode(name): filesystem.getxattr(node, name) for name in filesystem.listxattr(node)},
    }
    if stat.S_ISREG(mode):
        described["size"] = attributes.size
        described["sha256"] = _content_hash(filesystem, node)
    elif stat.S_ISLNK(mode):
        described["target"] = filesystem.readlink(node)
        described["size"] = attributes.size
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        described["device"] = (os.major(attributes.rdev), os.minor(attributes.rdev))
    if not stat.S_ISDIR(mode):
        described["nlink"] = attributes.nlink
    return described


def _content_hash(filesystem: Filesystem, node: NodeId) -> str:
    file = filesystem.open(node)
    hasher = hashlib.sha256()
    offset = 0
    while chunk := file.read(offset, _READ_BYTES):
        hasher.update(chunk)
        offset += len(chunk)
    file.close()
    return hasher.hexdigest()
