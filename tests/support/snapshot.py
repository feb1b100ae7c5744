"""What a tree on disk looks like, entry by entry, in a form two trees can be compared by."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Snapshot = dict[bytes, dict[str, object]]


def snapshot(root: Path | str) -> Snapshot:
    """Return every entry below *root* (itself left out) by its path: type, mode, owner, size, mtime, content, target,
    device, xattrs and, for files with several names, the first of them.
    """
    top = os.fsencode(root)
    result: Snapshot = {}
    first: dict[int, bytes] = {}
    for path in _walk(top):
        relative = path[len(top) + 1 :]
        result[relative] = _described(path, relative, first)
    return result


def _walk(folder: bytes) -> Iterator[bytes]:
    for name in sorted(os.listdir(folder)):
        path = folder + b"/" + name
        yield path
        if stat.S_ISDIR(os.lstat(path).st_mode):
            yield from _walk(path)


def _described(path: bytes, relative: bytes, first: dict[int, bytes]) -> dict[str, object]:
    status = os.lstat(path)
    kind = status.st_mode
    described: dict[str, object] = {
        "type": stat.filemode(kind)[0],
        "mode": stat.S_IMODE(kind),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
        "xattrs": {name: os.getxattr(path, name, follow_symlinks=False) for name in _xattrs(path)},
    }
    if stat.S_ISREG(kind):
        described["size"] = status.st_size
        with open(path, "rb") as file:
            described["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(kind):
        described["target"] = os.readlink(path)
        described["size"] = status.st_size
    elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        described["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if not stat.S_ISDIR(kind):
        described["nlink"] = status.st_nlink
        described["same as"] = first.setdefault(status.st_ino, relative)
    return described


def _xattrs(path: bytes) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def differences(
    one: Snapshot, other: Snapshot, *, ignore: Callable[[bytes, str], bool] = lambda path, key: False
) -> list[str]:
    """Return a line for everything in which two snapshots differ, none if they are equal."""
    lines = []
    for path in sorted(one.keys() | other.keys()):
        if path not in one or path not in other:
            lines.append(f"{path!r} only in {'the first' if path in one else 'the second'}")
            continue
        for key in one[path].keys() | other[path].keys():
            left, right = one[path].get(key), other[path].get(key)
            if left != right and not ignore(path, key):
                lines.append(f"{path!r} {key}: {left!r} != {right!r}")
    return lines


def expected(jsonl: Path) -> dict[bytes, dict[str, Any]]:
    """Return a tree recorded as lines of JSON, by path, its root left out."""
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    return {os.fsencode(row["path"]): row for row in rows if row["path"] != "."}
