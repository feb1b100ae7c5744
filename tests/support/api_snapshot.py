"""The same snapshot as `snapshot`, taken through the Python API."""

import hashlib
import os
import stat

from imagefs import Image, ImagePath
from tests.support.snapshot import Snapshot


def snapshot_api(image: Image) -> Snapshot:
    """Return every entry of *image* as `tests.support.snapshot.snapshot` describes it."""
    result: Snapshot = {}
    numbers: dict[bytes, int] = {}
    for folder, directories, files in image.walk():
        for name in (*directories, *files):
            path = folder / name
            inside = bytes(path)[1:]
            result[inside] = _described(path)
            numbers[inside] = path.lstat().st_ino
    result = dict(sorted(result.items(), key=lambda item: item[0].split(b"/")))
    first: dict[int, bytes] = {}
    for inside, described in result.items():
        if described["type"] != "d":
            described["same as"] = first.setdefault(numbers[inside], inside)
    return result


def _described(path: ImagePath) -> dict[str, object]:
    status = path.lstat()
    kind = status.st_mode
    described: dict[str, object] = {
        "type": stat.filemode(kind)[0],
        "mode": stat.S_IMODE(kind),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
        "xattrs": path.xattrs(follow_symlinks=False),
    }
    if stat.S_ISREG(kind):
        described["size"] = status.st_size
        with path.open("rb") as file:
            described["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        assert path.sha256() in (described["sha256"], None)
    elif stat.S_ISLNK(kind):
        described["target"] = os.fsencode(path.readlink())
        described["size"] = status.st_size
    elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        described["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if not stat.S_ISDIR(kind):
        described["nlink"] = status.st_nlink
    return described
