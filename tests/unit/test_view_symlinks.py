"""Rewritten symlinks lead where they would with the image as root directory, and never out of it."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.overlay.numbering import climbs
from imagefs.view.symlinks import Seen, rewritten

# Directory indexes; names lead to directories (a number) or are symlinks (bytes).
DIRECTORIES: dict[int, dict[bytes, int | bytes]] = {
    1: {b"usr": 2, b"etc": 3, b"lib": b"usr/lib", b"up": b"usr/lib/deep", b"abs": b"/usr/lib", b"loop": b"loop/x"},
    2: {b"lib": 4, b"bin": 5},
    3: {b"escape": b"../../../etc", b"abs": b"/usr/lib"},
    4: {b"deep": 6},
    5: {},
    6: {},
}


def look(directory: int, name: bytes) -> Seen:
    found = DIRECTORIES[directory].get(name)
    return Seen(target=found) if isinstance(found, bytes) else Seen(directory=found)


@pytest.mark.parametrize(
    ("way", "target", "shown"),
    [
        ([1], b"/etc/passwd", b"etc/passwd"),
        ([1, 2, 5], b"/etc/passwd", b"../../etc/passwd"),
        ([1], b"/", b"."),
        ([1, 2, 5], b"/", b"../.."),
        ([1, 2, 5], b"//etc//passwd", b"../../etc//passwd"),
        ([1, 2, 5], b"../lib/x", b"../lib/x"),
        ([1, 2, 5], b"../../../../etc/passwd", b"../../etc/passwd"),
        ([1], b"..", b"."),
        ([1], b"../../etc", b"etc"),
        ([1], b"usr/../etc", b"usr/../etc"),
        ([1], b"usr/../../etc", b"etc"),
        # lib is a symlink one deeper than its name: two steps up from it are inside, three are not
        ([1], b"lib/../../etc", b"lib/../../etc"),
        ([1], b"lib/../../../etc", b"etc"),
        ([1, 3], b"/lib/../../../etc", b"../etc"),
        ([1], b"up/../../..", b"up/../../.."),
        ([1], b"up/../../../..", b"."),
        ([1], b"abs/../../../etc", b"etc"),
        # an absolute symlink in a directory below begins at the root, too
        ([1], b"etc/abs/../../../x", b"x"),
        # what a symlink on the way does is rewritten in its own place
        ([1], b"etc/escape/../x", b"etc/escape/../x"),
        ([1], b"missing/../../x", b"x"),
        ([1], b"loop/../../x", b"loop/../../x"),
    ],
)
def test_a_target_leads_where_it_would_with_the_image_as_root(way: list[int], target: bytes, shown: bytes) -> None:
    assert rewritten(target, way, look) == shown


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_following_a_rewritten_target_is_as_following_the_original_in_a_chroot(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = st.sampled_from([b"a", b"b", b"c", b".."])
    top = os.fsencode(tmp_path_factory.mktemp("image"))
    folders = [b"", b"/".join(data.draw(st.lists(names.filter(b"..".__ne__), min_size=1, max_size=3)))]
    indexes: dict[bytes, int] = {}
    for folder in folders:
        os.makedirs(top + b"/root/" + folder, exist_ok=True)
    links: dict[bytes, bytes] = {}
    for number in range(data.draw(st.integers(1, 4))):
        parent = data.draw(st.sampled_from(folders))
        target = b"/".join(data.draw(st.lists(names | st.sampled_from([b"l0", b"l1", b"l2"]), min_size=1, max_size=5)))
        if data.draw(st.booleans()):
            target = b"/" + target
        links[(parent + b"/" if parent else b"") + b"l%d" % number] = target
    root = top + b"/root/"
    for number, (folder, _, _) in enumerate(os.walk(root), 1):
        indexes[folder[len(root) :]] = number
    by_index = {number: path for path, number in indexes.items()}

    def see(directory: int, name: bytes) -> Seen:
        path = by_index[directory] + b"/" + name if by_index[directory] else name
        return Seen(directory=indexes.get(path), target=links.get(path))

    shown = {}
    for path, target in links.items():
        folder = path.rpartition(b"/")[0]
        parts = folder.split(b"/") if folder else []
        way = [indexes[b"/".join(parts[:count])] for count in range(len(parts) + 1)]
        shown[path] = rewritten(target, way, see) if climbs(target) else target
        os.symlink(shown[path], root + path)
    for path in links:
        inside = chrooted(Path(os.fsdecode(root)), path, links, set(indexes))
        if inside is not None:
            real = os.path.realpath(root + path)
            assert real == os.path.realpath(root + inside), (links, shown, path, inside)


def chrooted(root: Path, path: bytes, links: dict[bytes, bytes], folders: set[bytes]) -> bytes | None:
    """Return where *path* leads as a process in a chroot sees it; None where nothing is, or it leads round."""
    names, at, followed = path.split(b"/")[::-1], list[bytes](), 0
    while names:
        name = names.pop()
        if b"/".join(at) not in folders:
            return None
        if name in (b"", b"."):
            continue
        if name == b"..":
            at = at[:-1]
            continue
        here = b"/".join([*at, name])
        if here not in links:
            at.append(name)
            continue
        followed += 1
        if followed > 20:
            return None
        if links[here].startswith(b"/"):
            at = []
        names += links[here].split(b"/")[::-1]
    return b"/".join(at) if b"/".join(at) in folders else None


@pytest.mark.parametrize(("links", "shown"), [(40, b"x"), (41, b"s0/../x")])
def test_as_many_symlinks_are_followed_as_linux_follows(links: int, shown: bytes) -> None:
    """Behind the last of a chain of *links* symlinks is the root; after 40 steps the next name counts as a folder."""

    def chain(_directory: int, name: bytes) -> Seen:
        if name == b"x":
            return Seen()
        number = int(name[1:])
        return Seen(target=b"s%d" % (number + 1) if number < links - 1 else b"/")

    assert rewritten(b"s0/../x", [1], chain) == shown
