"""A small stack of layers that holds everything a layer can hold, for tests that must not depend on other data."""

from pathlib import Path

from tests.support.built_images import image, layout, sha256, write
from tests.support.layers import block, char, dir_, fifo, file, layer, link, opaque, symlink, whiteout

_T = 1_600_000_000_123_456_789

BASE = layer(
    dir_("bin", mtime_ns=_T),
    file("bin/tool", b"#!/bin/sh\n" * 5000, mode=0o4755, mtime_ns=_T),
    link("bin/same", "bin/tool"),
    symlink("bin/abs", "/bin/tool", mtime_ns=_T),
    symlink("bin/dangling", "nowhere/at all", mtime_ns=_T),
    dir_("secret", mode=0o700, uid=12, gid=34, mtime_ns=_T),
    file("secret/none", b"hidden", mode=0o000, uid=12, gid=34, mtime_ns=_T),
    dir_("tmp", mode=0o1777, mtime_ns=_T),
    dir_("dev", mtime_ns=_T),
    char("dev/null", 1, 3, mtime_ns=_T),
    block("dev/loop7", 7, 7, mtime_ns=_T),
    fifo("dev/pipe", mtime_ns=_T),
    dir_("etc", mtime_ns=_T),
    file("etc/conf", b"one\n", mtime_ns=_T, xattrs={"user.note": b"hello\x00\xff"}),
    file("etc/old", b"goes\n", mtime_ns=_T),
    file("etc/early", b"before the epoch\n", mtime_ns=-1_500_000_000),
    file(b"etc/not \xff utf8", b"x", mtime_ns=_T),
    file("etc/new\nline", b"x", uid=4_000_000_000, mtime_ns=_T),
    file("etc/a.wh.b", b"no whiteout", mtime_ns=_T),
    dir_("opt", mtime_ns=_T),
    dir_("opt/all", mtime_ns=_T),
    file("opt/all/lower", b"hidden by an opaque directory", mtime_ns=_T),
    file("swap", b"file, then directory", mtime_ns=_T),
    dir_("paws", mtime_ns=_T),
    file("paws/inside", b"goes with its directory", mtime_ns=_T),
)
TOP = layer(
    dir_("etc", mode=0o755, mtime_ns=_T + 1),
    file("etc/conf", b"two\n", mtime_ns=_T + 1),
    whiteout("etc/old"),
    dir_("opt/all", mode=0o711, mtime_ns=_T + 1),
    opaque("opt/all"),
    file("opt/all/upper", b"only this", mtime_ns=_T + 1),
    dir_("swap", mtime_ns=_T + 1),
    file("swap/inside", b"new", mtime_ns=_T + 1),
    symlink("paws", "swap", mtime_ns=_T + 1),
    link("late link", "bin/tool"),
)


def nasty_layout(folder: Path) -> Path:
    """Write an OCI layout with the tags 1 (BASE) and 2 (BASE and TOP) to *folder* and return it."""
    images = {"1": image([BASE]), "2": image([BASE, TOP])}
    descriptors = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha256(one.manifest),
            "size": len(one.manifest),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }
        for tag, one in images.items()
    ]
    return write(folder, layout(images.values(), descriptors))
