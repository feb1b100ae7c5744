"""resolve against the extraction oracle on generated stacks, and what must not matter."""

import dataclasses
import os
import stat
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from imagefs.errors import InvalidLayer
from imagefs.layer.changeset import Changeset, Entry
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree import ROOT_INODE, InodeNumber, Tree
from tests.support.oracle import CannotApply, content_of, extract

# Few names, so that paths collide; symlinks that lead up, round and nowhere.
NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
TARGETS = st.sampled_from([b"a", b"b/c", b"/a", b"../b", b"/a/../c", b".", b"../../..", b"nowhere/x", b"/"])


def entry(path: bytes, mode: int, *, target: bytes = b"", is_hardlink: bool = False, offset: int = 0) -> Entry:
    return Entry(
        path=path,
        mode=mode,
        uid=0,
        gid=0,
        mtime_ns=0,
        size=7 if stat.S_ISREG(mode) else 0,
        target=target,
        is_hardlink=is_hardlink,
        rdev=(0, 0),
        xattrs=(),
        offset=offset,
        extents=None,
        sha256=b"",
    )


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    path = draw(PATHS)
    kind = draw(st.sampled_from("ddfffslh"))
    permissions = draw(st.sampled_from([0o644, 0o755, 0o700, 0o000]))
    if kind == "d":
        return entry(path, stat.S_IFDIR | permissions | 0o700)
    if kind in "sl":
        return entry(path, stat.S_IFLNK | 0o777, target=draw(TARGETS))
    if kind == "h":
        return entry(path, permissions, target=draw(PATHS), is_hardlink=True)
    return entry(path, stat.S_IFREG | permissions, offset=draw(st.integers(0, 9)))


CHANGESETS = st.builds(
    Changeset,
    entries=st.lists(entries(), max_size=7).map(tuple),
    whiteouts=st.frozensets(PATHS, max_size=2),
    opaques=st.frozensets(st.one_of(PATHS, st.just(b"")), max_size=1),
)
STACKS = st.lists(CHANGESETS, min_size=1, max_size=3)
THOROUGH = settings(deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.too_slow])


def shown(tree: Tree) -> dict[bytes, tuple[object, ...]]:
    """Return the tree as path → (mode, content or target, hard-link group, nlink)."""
    result: dict[bytes, tuple[object, ...]] = {}
    first: dict[InodeNumber, bytes] = {}

    def visit(number: InodeNumber, path: bytes) -> None:
        inode = tree.inode(number)
        group = first.setdefault(number, path)
        content = b""
        if stat.S_ISREG(inode.entry.mode):
            content = content_of(inode.entry)
        elif stat.S_ISLNK(inode.entry.mode):
            content = inode.entry.target
        result[path] = (inode.entry.mode, content, group, inode.nlink)
        if stat.S_ISDIR(inode.entry.mode):
            for dirent in tree.dirents(number):
                visit(dirent.inode, path + b"/" + dirent.name)

    visit(ROOT_INODE, b"")
    return result


def extracted(root: Path) -> dict[bytes, tuple[object, ...]]:
    result: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}

    def visit(host: bytes, path: bytes) -> None:
        status = os.lstat(host)
        content = b""
        if stat.S_ISREG(status.st_mode):
            content = Path(os.fsdecode(host)).read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(host)
        nlink = status.st_nlink
        if stat.S_ISDIR(status.st_mode):
            nlink = 2 + sum(1 for item in os.scandir(host) if item.is_dir(follow_symlinks=False))
        result[path] = (status.st_mode, content, first.setdefault(status.st_ino, path), nlink)
        if stat.S_ISDIR(status.st_mode):
            for name in sorted(os.listdir(host)):
                visit(host + b"/" + name, path + b"/" + name)

    visit(os.fsencode(root), b"")
    return result


@given(STACKS)
@THOROUGH
def test_resolve_gives_what_extraction_leaves(changesets: list[Changeset]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir(mode=0o755)
        root.chmod(0o755)
        try:
            extract(changesets, root)
        except CannotApply:
            expected = None
        else:
            expected = extracted(root)
    try:
        result = shown(resolve(changesets))
    except InvalidLayer:
        assert expected is None
    else:
        assert expected is not None
        assert result == expected


@given(STACKS, st.randoms())
@settings(deadline=None, max_examples=300)
def test_equal_stacks_give_equal_trees(changesets: list[Changeset], random: object) -> None:
    try:
        once = shown(resolve(changesets))
    except InvalidLayer:
        assume(False)
    assert once == shown(resolve([dataclasses.replace(changeset) for changeset in changesets]))


@given(STACKS)
@settings(deadline=None, max_examples=300)
def test_an_empty_layer_changes_nothing(changesets: list[Changeset]) -> None:
    try:
        once = resolve(changesets)
    except InvalidLayer:
        assume(False)
    empty = Changeset(entries=(), whiteouts=frozenset(), opaques=frozenset())
    assert shown(once) == shown(resolve([empty, *changesets, empty]))


@given(STACKS)
@settings(deadline=None, max_examples=300)
def test_an_opaque_root_makes_the_lower_layers_matter_no_more(changesets: list[Changeset]) -> None:
    top = dataclasses.replace(changesets[-1], opaques=frozenset([b""]))
    top = dataclasses.replace(top, entries=tuple(item for item in top.entries if not item.is_hardlink))
    alone = dataclasses.replace(top, whiteouts=frozenset(), opaques=frozenset())
    try:
        whole = resolve([*changesets[:-1], top])
        assert shown(whole) == shown(resolve([alone]))
    except InvalidLayer:
        assume(False)
