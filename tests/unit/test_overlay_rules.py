"""The rules of the union, one by one, as the resolver's page states them."""

import stat

import pytest

from imagefs.errors import InvalidLayer
from imagefs.layer.changeset import Changeset
from imagefs.layer.tar import scan
from imagefs.overlay.resolve import resolve
from imagefs.overlay.tree import ROOT_INODE, Inode, Tree
from tests.support.layers import Member, dir_, file, layer, link, opaque, symlink, whiteout


def changesets(*layers: bytes) -> list[Changeset]:
    return [scan([raw]) for raw in layers]


def union(*layers: bytes) -> Tree:
    return resolve(changesets(*layers))


def at(tree: Tree, path: str) -> Inode | None:
    number = ROOT_INODE
    for name in path.encode().split(b"/"):
        found = tree.lookup(number, name) if stat.S_ISDIR(tree.inode(number).entry.mode) else None
        if found is None:
            return None
        number = found
    return tree.inode(number)


def names(tree: Tree, path: str = "") -> list[str]:
    number = ROOT_INODE
    for name in path.encode().split(b"/") if path else ():
        found = tree.lookup(number, name)
        assert found is not None
        number = found
    return [dirent.name.decode() for dirent in tree.dirents(number)]


def test_no_layers_are_a_bare_root() -> None:
    root = resolve([]).inode(ROOT_INODE)
    assert (root.entry.mode, root.entry.uid, root.nlink, root.layer) == (stat.S_IFDIR | 0o755, 0, 2, -1)


def test_a_whiteout_hides_what_lies_below() -> None:
    assert names(union(layer(file("a"), file("b")), layer(whiteout("a")))) == ["b"]


@pytest.mark.parametrize("order", [0, 1])
def test_a_whiteout_never_hides_its_own_layer(order: int) -> None:
    upper = [whiteout("a"), file("a", b"new")]
    tree = union(layer(file("a", b"old!")), layer(*(upper if order else reversed(upper))))
    found = at(tree, "a")
    assert found is not None
    assert found.entry.size == 3


@pytest.mark.parametrize("order", [0, 1])
def test_an_opaque_directory_hides_lower_children_only(order: int) -> None:
    upper = [opaque("d"), file("d/new")]
    tree = union(layer(dir_("d"), file("d/old")), layer(*(upper if order else reversed(upper))))
    assert names(tree, "d") == ["new"]


def test_a_whiteout_removes_the_lower_directory_itself() -> None:
    tree = union(layer(dir_("d", mode=0o700), file("d/old")), layer(whiteout("d"), file("d/new")))
    found = at(tree, "d")
    assert found is not None
    assert (names(tree, "d"), stat.S_IMODE(found.entry.mode), found.layer) == (["new"], 0o755, -1)


def test_markers_create_nothing() -> None:
    assert names(union(layer(file("a")), layer(opaque("d"), whiteout("e/f")))) == ["a"]


def test_a_directory_over_a_directory_keeps_children_and_takes_attributes() -> None:
    lower = layer(dir_("d", mode=0o700, xattrs={"user.x": b"1"}), file("d/old"))
    tree = union(lower, layer(dir_("d", mode=0o711)))
    found = at(tree, "d")
    assert found is not None
    assert (names(tree, "d"), stat.S_IMODE(found.entry.mode), found.entry.xattrs) == (["old"], 0o711, ())


def test_any_other_meeting_replaces_the_lower_subtree() -> None:
    assert at(union(layer(dir_("d"), file("d/x")), layer(file("d"), dir_("e"))), "d/x") is None
    assert names(union(layer(file("d")), layer(dir_("d"))), "d") == []
    assert names(union(layer(symlink("d", "elsewhere")), layer(dir_("d"), file("d/x"))), "d") == ["x"]


def test_a_parent_no_layer_mentions_is_a_plain_directory() -> None:
    found = at(union(layer(file("d/e/x"))), "d/e")
    assert found is not None
    assert (found.entry.mode, found.entry.mtime_ns, found.layer) == (stat.S_IFDIR | 0o755, 0, -1)


def test_a_symlinked_parent_is_followed_inside_the_image() -> None:
    base = layer(dir_("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib"))
    tree = union(base, layer(file("lib/one"), file("abs/two")))
    assert names(tree, "usr/lib") == ["one", "two"]
    found = at(tree, "lib")
    assert found is not None
    assert stat.S_ISLNK(found.entry.mode)


def test_nothing_leads_out_of_the_root() -> None:
    tree = union(layer(symlink("out", "../../../../etc"), file("out/passwd")))
    assert names(tree) == ["etc", "out"]
    assert names(tree, "etc") == ["passwd"]


def test_a_symlink_loop_among_parents_is_refused() -> None:
    with pytest.raises(InvalidLayer, match="symbolic links"):
        union(layer(symlink("a", "b"), symlink("b", "a"), file("a/x")))


def test_a_whiteout_behind_a_symlinked_parent_follows_it_too() -> None:
    base = layer(file("usr/lib/x"), symlink("lib", "usr/lib"))
    assert names(union(base, layer(whiteout("lib/x"))), "usr/lib") == []
    # ... also when the symlink is taken away by the same layer.
    assert names(union(base, layer(whiteout("lib"), whiteout("lib/x"))), "usr/lib") == []


def test_a_parent_that_is_a_file_becomes_a_directory() -> None:
    assert names(union(layer(file("nondir"), file("nondir/foo/bar"))), "nondir/foo") == ["bar"]


def test_a_hard_link_is_a_second_name_across_layers() -> None:
    tree = union(layer(file("a", b"12345", mode=0o640)), layer(link("b", "a")))
    found = at(tree, "b")
    assert found is not None
    assert found == at(tree, "a")
    assert (found.nlink, found.layer, stat.S_IMODE(found.entry.mode)) == (2, 0, 0o640)


def test_a_hard_link_to_a_symlink_is_a_second_name_of_the_symlink() -> None:
    tree = union(layer(symlink("a", "nowhere"), link("b", "a")))
    found = at(tree, "b")
    assert found is not None
    assert stat.S_ISLNK(found.entry.mode)
    assert found.nlink == 2


def test_a_hard_link_binds_to_what_its_target_was_at_that_position() -> None:
    tree = union(layer(file("a", b"first"), link("b", "a"), file("a", b"second")))
    first, second = at(tree, "b"), at(tree, "a")
    assert first is not None
    assert second is not None
    assert (first.entry.size, first.nlink, second.entry.size) == (5, 1, 6)


@pytest.mark.parametrize("order", [0, 1])
def test_a_rename_written_as_link_and_whiteout_keeps_the_file(order: int) -> None:
    upper = [link("new", "old"), whiteout("old")]
    tree = union(layer(file("old", b"content")), layer(*(upper if order else reversed(upper))))
    assert names(tree) == ["new"]
    found = at(tree, "new")
    assert found is not None
    assert (found.entry.size, found.nlink) == (7, 1)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ((link("b", "missing"),), "does not exist"),
        ((link("b", "later"), file("later")), "does not exist"),
        ((dir_("d"), link("b", "d")), "directory"),
        ((file("b"), link("b", "b")), "itself"),
        ((link("b", "../../etc/shadow"),), "does not exist"),
    ],
)
def test_a_hard_link_that_cannot_be_made_is_refused(members: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(InvalidLayer, match=reason):
        union(layer(*members))


def test_link_counts_follow_removals_by_upper_layers() -> None:
    found = at(union(layer(file("a"), link("b", "a"), link("c", "a")), layer(whiteout("b"))), "a")
    assert found is not None
    assert found.nlink == 2


def test_the_last_duplicate_in_a_layer_wins() -> None:
    found = at(union(layer(file("a", b"1"), file("a", b"22"))), "a")
    assert found is not None
    assert found.entry.size == 2


def test_directories_count_their_subdirectories() -> None:
    found = at(union(layer(dir_("d/e"), dir_("d/f"), file("d/g"))), "d")
    assert found is not None
    assert found.nlink == 4


def test_inode_numbers_run_depth_first_in_name_order() -> None:
    tree = union(layer(file("b/x"), file("a"), dir_("c")))
    numbers = [tree.lookup(ROOT_INODE, name) for name in (b"a", b"b", b"c")]
    assert numbers == [2, 3, 5]


def test_deep_directories_need_no_recursion() -> None:
    path = "/".join(["d"] * 2000)
    assert len(union(layer(file(path + "/x")))) == 2002


@pytest.mark.parametrize("marker", [whiteout("a"), opaque("")])
def test_a_hard_link_to_its_own_name_is_refused_even_where_a_marker_hides_what_was_there(marker: Member) -> None:
    with pytest.raises(InvalidLayer, match="itself"):
        union(layer(file("a")), layer(link("a", "a"), marker))
