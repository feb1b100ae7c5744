"""Limits against hostile input, each at its boundary: what the limit allows is read, one more is refused.

Without the limit, the input for most tests is one that is read in full, so that a missing limit fails at once and
takes neither memory nor time.
"""

import hashlib
import json
import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from imagefs.errors import InvalidArchive, InvalidLayer, InvalidManifest, SizeMismatch
from imagefs.layer import paths, sparse, tar
from imagefs.layer.changeset import Changeset
from imagefs.layer.paths import MAX_PATH_BYTES, MAX_PATH_DEPTH, clean
from imagefs.layer.tar import scan
from imagefs.oci import manifest
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.overlay import resolve as resolving
from imagefs.overlay.resolve import FREE_IMPLIED_DIRECTORIES, resolve
from imagefs.overlay.tree import Tree
from imagefs.transfer import docker_archive, members, selection
from imagefs.transfer.docker_archive import DockerArchive
from imagefs.transfer.layout import LayoutSource
from imagefs.transfer.members import FolderMembers, TarMembers, read
from imagefs.transfer.selection import BoundedDocuments, select_image
from tests.support import built_images
from tests.support.layers import Member, dir_, file, gnu_long, layer, link, member_bytes, symlink
from tests.support.layers import sparse as sparse_file


def scanned(*members: Member | bytes) -> Changeset:
    return scan([layer(*members)])


def union(*layers: bytes) -> Tree:
    return resolve([scan([raw]) for raw in layers])


# ---- one layer ----


def test_a_path_has_a_bounded_depth() -> None:
    deepest = "/".join(["d"] * MAX_PATH_DEPTH)
    assert scanned(file(deepest)).entries[0].path == deepest.encode()
    for hostile in (file(deepest + "/d"), dir_("./" + deepest + "/d/"), file(deepest + "/.wh.d")):
        with pytest.raises(InvalidLayer, match=rf"at most {MAX_PATH_DEPTH} names, found one of {MAX_PATH_DEPTH + 1}"):
            scanned(hostile)


def test_a_path_has_a_bounded_length() -> None:
    assert clean(b"d" * MAX_PATH_BYTES) == b"d" * MAX_PATH_BYTES
    with pytest.raises(InvalidLayer, match=f"at most {MAX_PATH_BYTES} bytes"):
        clean(b"d" * (MAX_PATH_BYTES + 1))


def test_a_layer_has_a_bounded_number_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_MEMBERS", 3)
    assert len(scanned(*[file(f"f{i}") for i in range(3)]).entries) == 3
    with pytest.raises(InvalidLayer, match="at most 3 members"):
        scanned(*[file(f"f{i}") for i in range(4)])


@pytest.mark.parametrize(
    "one",
    [
        file("f" * 100),
        symlink("s" * 40, "t" * 60),
        link("l" * 40, "t" * 60),
        file("f" * 40, xattrs={"user.x": bytes(54)}),
    ],
)
def test_every_text_of_an_entry_counts(monkeypatch: pytest.MonkeyPatch, one: Member) -> None:
    monkeypatch.setattr(tar, "MAX_TEXT_BYTES", 100)
    scanned(one)
    monkeypatch.setattr(tar, "MAX_TEXT_BYTES", 99)
    with pytest.raises(InvalidLayer, match="at most 99 bytes of names and attributes"):
        scanned(one)


def test_each_extent_counts_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    one = sparse_file("f", 100, [(10, b"x"), (20, b"x")])
    monkeypatch.setattr(tar, "MAX_TEXT_BYTES", 257)
    scanned(one)
    monkeypatch.setattr(tar, "MAX_TEXT_BYTES", 256)
    with pytest.raises(InvalidLayer, match="at most 256 bytes"):
        scanned(one)


def test_names_of_an_aufs_link_file_count_its_attributes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = file(".wh..wh.plnk/1.2", xattrs={"user.x": bytes(1000)})
    names = [link(f"n{i}", ".wh..wh.plnk/1.2") for i in range(10)]
    assert len(scanned(hidden, *names).entries) == 10
    monkeypatch.setattr(tar, "MAX_TEXT_BYTES", 5000)
    with pytest.raises(InvalidLayer, match="at most 5000 bytes"):
        scanned(hidden, *names)


def test_a_sparse_map_has_a_bounded_number_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "MAX_EXTENTS", 30)
    for count in (29, 30):
        (entry,) = scanned(sparse_file("f", 1000, [(10 * i, b"x") for i in range(count)])).entries
        assert len(entry.extents or ()) == count
    with pytest.raises(InvalidLayer, match="at most 30 runs of data in a sparse file, found 31"):
        scanned(sparse_file("f", 1000, [(10 * i, b"x") for i in range(31)]))


def test_a_gnu_sparse_map_has_a_bounded_number_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    header = bytes(386) + b"".join(b"%011o\0%011o\0" % (i, 1) for i in range(0, 8, 2)) + b"\1" + bytes(29)
    block = b"".join(b"%011o\0%011o\0" % (i, 1) for i in range(8, 50, 2)) + b"\0" * 8
    monkeypatch.setattr(sparse, "MAX_EXTENTS", 25)
    found = sparse.OldGnuMap(header)
    found.extend(block)
    assert len(found.runs) == 25
    monkeypatch.setattr(sparse, "MAX_EXTENTS", 24)
    found = sparse.OldGnuMap(header)
    with pytest.raises(InvalidLayer, match="at most 24 runs"):
        found.extend(block)


def test_a_sparse_map_of_one_endless_line_is_refused_soon() -> None:
    found = sparse.PaxMap()
    found.extend(b"1" * 512)
    with pytest.raises(InvalidLayer, match="no end of a line"):
        found.extend(b"1" * 512)


def test_an_endless_long_name_is_refused() -> None:
    assert scanned(gnu_long("n" * 200), file("x")).entries[0].path == b"n" * 200
    with pytest.raises(InvalidLayer, match=f"at most {MAX_PATH_BYTES} bytes"):
        scanned(gnu_long("n" * (MAX_PATH_BYTES + 1)), file("x"))


def test_holes_are_hashed_up_to_the_bound_and_not_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    one = sparse_file("f", 1001, [(0, b"x")])
    monkeypatch.setattr(tar, "MAX_HASHED_HOLES_BYTES", 1000)
    assert scanned(one).entries[0].sha256 == hashlib.sha256(b"x" + bytes(1000)).digest()
    monkeypatch.setattr(tar, "MAX_HASHED_HOLES_BYTES", 999)
    assert scanned(one).entries[0].sha256 == b""


# ---- the union ----


def test_an_image_has_a_bounded_number_of_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    two = layer(file("a"), file("b"))
    monkeypatch.setattr(resolving, "MAX_ENTRIES", 4)
    union(two, two)
    with pytest.raises(InvalidLayer, match="at most 4 entries in all layers"):
        union(two, two, layer(file("a")))


def test_an_image_implies_a_bounded_number_of_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "FREE_IMPLIED_DIRECTORIES", 5)
    assert len(union(layer(file("1/2/3/x"), file("4/5/6/x"), file("7/x")))) == 11  # 7 of 5 + 3
    assert len(union(layer(file("1/2/3/x")), layer(file("4/5/6/7/x")))) == 10  # 7 of 5 + 2
    with pytest.raises(InvalidLayer, match=r"at most 7 directories that no layer mentions \(5 and one for each"):
        union(layer(file("1/2/3/4/x")), layer(file("5/6/7/8/x")))


def test_directories_that_a_layer_mentions_are_not_counted_as_implied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "FREE_IMPLIED_DIRECTORIES", -2)
    union(layer(dir_("1"), file("1/x")))
    with pytest.raises(InvalidLayer, match="no layer mentions"):
        union(layer(file("1/x")))


def test_real_archives_without_directories_are_read() -> None:
    """A file in a folder of its own each, as in a repository of packages, in a layer that lists no folder."""
    count = FREE_IMPLIED_DIRECTORIES + 100
    assert len(union(layer(*[file(f"{i}/x") for i in range(count)]))) == 1 + 2 * count


def test_symlinks_among_parents_make_no_tree_deeper_than_a_path_may_be() -> None:
    half = "/".join(["d"] * (MAX_PATH_DEPTH // 2))
    below = layer(symlink("s", half))
    union(below, layer(file("s/" + half + "/x")))
    with pytest.raises(InvalidLayer, match=f"below more than {MAX_PATH_DEPTH} others"):
        union(below, layer(file("s/" + half + "/d/x")))


def test_symlinks_among_parents_make_no_path_longer_than_a_path_may_be() -> None:
    long = "/".join(["d" * 249] * 16)  # 3999 bytes
    chain = [symlink("a", long), symlink("a/b", long), symlink("a/b/c", long), symlink("a/b/c/d", long)]
    union(layer(*chain))
    union(layer(*chain, file("a/b/c/d/x")))  # 16,000 bytes of folders
    with pytest.raises(InvalidLayer, match=f"{MAX_PATH_BYTES} bytes"):
        union(layer(*chain, file("a/b/c/d/" + "e" * 200 + "/" + "f" * 200 + "/x")))


def test_symlinks_among_parents_are_followed_up_to_the_bound() -> None:
    def chain(count: int) -> bytes:
        return layer(*[symlink(f"s{i}", f"s{i + 1}") for i in range(count - 1)], symlink(f"s{count - 1}", "d"))

    assert len(union(chain(255), layer(file("s0/x")))) == 258
    with pytest.raises(InvalidLayer, match="too many levels of symbolic links"):
        union(chain(256), layer(file("s0/x")))


def test_all_symlinks_of_an_image_may_add_up_to_a_bounded_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each of two files in different folders follows a link of 3 steps.
    layers = layer(symlink("s", "a/b/c")), layer(file("s/1/x"), file("s/2/x"))
    monkeypatch.setattr(resolving, "_MAX_SYMLINK_STEPS", 6)
    union(*layers)
    monkeypatch.setattr(resolving, "_MAX_SYMLINK_STEPS", 5)
    with pytest.raises(InvalidLayer, match="too long to follow"):
        union(*layers)


# ---- documents ----


class Shelf:
    """Documents by digest."""

    label = "shelf"

    def __init__(self, *contents: bytes) -> None:
        self.contents = {Digest.of(content): content for content in contents}
        self.reads = 0

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.contents

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        self.reads += 1
        return self.contents[descriptor.digest]

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        raise AssertionError("no layer is needed")


def described(raw: bytes) -> Descriptor:
    return Descriptor("application/json", Digest.of(raw), len(raw))


def test_documents_have_a_bounded_number_of_bytes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_DOCUMENT_BYTES", 10)
    one, two = b"12345", b"abcde"
    documents = BoundedDocuments(Shelf(one, two))
    for raw in (one, two):
        assert documents.document(described(raw), limit_bytes=100, what="config") == raw
    with pytest.raises(InvalidManifest, match="more than 10 bytes together"):
        documents.document(described(one), limit_bytes=100, what="config")
    embedded = replace(described(one), data=one)
    documents = BoundedDocuments(Shelf())
    for _ in range(2):
        documents.document(embedded, limit_bytes=100, what="config")
    with pytest.raises(InvalidManifest, match="more than 10 bytes together"):
        documents.document(embedded, limit_bytes=100, what="config")


def test_an_index_has_a_bounded_number_of_manifests_for_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    one = built_images.image([], architecture="amd64")
    platform = {"platform": {"os": "linux", "architecture": "amd64"}}
    inner = built_images.index([one.descriptor(**platform)] * 3)
    outer = built_images.index(
        [{"mediaType": built_images.OCI_INDEX, "digest": built_images.sha256(inner), "size": len(inner)}] * 3
    )
    shelf = Shelf(outer, inner, one.manifest, one.config)
    root = Descriptor(built_images.OCI_INDEX, Digest.of(outer), len(outer))
    monkeypatch.setattr(selection, "MAX_CANDIDATES", 9)
    select_image(shelf, (root,), platform=None)
    monkeypatch.setattr(selection, "MAX_CANDIDATES", 8)
    with pytest.raises(InvalidManifest, match="more than 8 manifests"):
        select_image(shelf, (root,), platform=None)


def test_only_so_many_images_without_a_platform_are_probed() -> None:
    images = [built_images.image([], architecture="s390x", note=n) for n in range(64)]
    wanted = built_images.image([], architecture="amd64")

    def found(position: int) -> bool:
        order = [*images[:position], wanted, *images[position:]]
        raw = built_images.index([one.descriptor() for one in order])
        shelf = Shelf(raw, *(document for one in order for document in (one.manifest, one.config)))
        try:
            selected = select_image(
                shelf, (Descriptor(built_images.OCI_INDEX, Digest.of(raw), len(raw)),), platform=None
            )
        except Exception:
            return False
        return selected.manifest.raw == wanted.manifest

    assert found(63)
    assert not found(64)


def test_manifests_have_a_bounded_number_of_layers() -> None:
    def raw(count: int) -> bytes:
        one = {"mediaType": built_images.OCI_LAYER, "digest": built_images.sha256(b""), "size": 0}
        config = {"mediaType": built_images.OCI_CONFIG, "digest": built_images.sha256(b"{}"), "size": 2}
        return built_images.dump(
            {"schemaVersion": 2, "mediaType": built_images.OCI_MANIFEST, "config": config, "layers": [one] * count}
        )

    parsed = manifest.parse_manifest(raw(manifest.MAX_LAYERS))
    assert isinstance(parsed, manifest.Manifest)
    assert len(parsed.layers) == manifest.MAX_LAYERS
    with pytest.raises(InvalidManifest):
        manifest.parse_manifest(raw(manifest.MAX_LAYERS + 1))


# ---- archives ----


def test_an_archive_has_a_bounded_number_of_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(layer(*[file(f"f{i}") for i in range(3)]))
    with path.open("rb") as opened:
        monkeypatch.setattr(members, "MAX_MEMBERS", 3)
        assert TarMembers(opened.fileno(), label="a").has("f2")
        monkeypatch.setattr(members, "MAX_MEMBERS", 2)
        with pytest.raises(InvalidArchive, match="at most 2 members"):
            TarMembers(opened.fileno(), label="a")


def test_a_member_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    folder = FolderMembers(tmp_path, label="a")
    assert read(folder, "f", limit_bytes=5) == b"12345"
    with pytest.raises(InvalidArchive, match="more than 4 bytes"):
        read(folder, "f", limit_bytes=4)


def test_links_of_an_archive_are_followed_up_to_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(layer(file("l0", b"x"), *[symlink(f"l{i + 1}", f"l{i}") for i in range(16)]))
    with path.open("rb") as opened:
        archive = TarMembers(opened.fileno(), label="a")
        assert read(archive, "l15", limit_bytes=1) == b"x"
        with pytest.raises(InvalidArchive, match="chain of links"):
            read(archive, "l16", limit_bytes=1)


def docker(folder: Path, items: list[dict[str, object]], **files: bytes) -> DockerArchive:
    built_images.write(folder, {"manifest.json": json.dumps(items).encode(), **files})
    return DockerArchive(FolderMembers(folder, label="a"))


def test_a_docker_archive_lists_a_bounded_number_of_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = docker(tmp_path, [{"Config": "c", "Layers": ["l"] * 2}] * 2, c=b"{}", l=b"")
    monkeypatch.setattr(docker_archive, "MAX_LAYER_MENTIONS", 4)
    assert len(archive.offers()) == 1
    monkeypatch.setattr(docker_archive, "MAX_LAYER_MENTIONS", 3)
    with pytest.raises(InvalidArchive, match="more than 3 layers"):
        archive.offers()


def test_items_of_a_docker_archive_with_the_same_content_are_one_image(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"Config": "c", "RepoTags": [f"t:{n}"], "Layers": []} for n in range(3)]
    (offer,) = docker(tmp_path, items, c=b"{}").offers()
    assert offer.names == ("t:0", "t:1", "t:2")


def test_old_images_have_a_bounded_number_of_bytes_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = built_images.old_docker_archive([layer(file("a")), layer(file("b"))], repository="r", tag="t")
    total = sum(len(content) for name, content in files.items() if name.endswith("/json"))
    folder = built_images.write(tmp_path, files)
    monkeypatch.setattr(docker_archive, "MAX_V1_BYTES", total)
    assert len(DockerArchive(FolderMembers(folder, label="a")).offers()) == 1
    monkeypatch.setattr(docker_archive, "MAX_V1_BYTES", total - 1)
    with pytest.raises(InvalidArchive, match=f"more than {total - 1} bytes"):
        DockerArchive(FolderMembers(folder, label="a")).offers()


def test_old_images_have_a_bounded_number_of_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = built_images.old_docker_archive([layer(file("a")), layer(file("b"))], repository="r", tag="t")
    folder = built_images.write(tmp_path, files)
    monkeypatch.setattr(docker_archive, "_MAX_LAYERS", 2)
    assert len(DockerArchive(FolderMembers(folder, label="a")).offers()) == 1
    monkeypatch.setattr(docker_archive, "_MAX_LAYERS", 1)
    with pytest.raises(InvalidArchive, match="do not end"):
        DockerArchive(FolderMembers(folder, label="a")).offers()


def test_a_manifest_written_for_a_docker_archive_is_as_bounded_as_others(tmp_path: Path) -> None:
    archive = docker(tmp_path, [{"Config": "c", "Layers": []}], c=b"{}")
    (offer,) = archive.offers()
    (one,) = offer.candidates
    assert len(archive.document(one, limit_bytes=one.size, what="manifest")) == one.size
    with pytest.raises(InvalidArchive, match=f"its manifest has more than {one.size - 1} bytes"):
        archive.document(one, limit_bytes=one.size - 1, what="manifest")


def test_a_layout_has_documents_of_bounded_size(tmp_path: Path) -> None:
    one = built_images.image([], architecture="amd64")
    source = LayoutSource(FolderMembers(built_images.write(tmp_path, built_images.layout([one], [])), label="a"))
    root = Descriptor(built_images.OCI_MANIFEST, Digest.of(one.manifest), len(one.manifest))
    assert source.document(root, limit_bytes=root.size, what="manifest") == one.manifest
    with pytest.raises(SizeMismatch):
        source.document(root, limit_bytes=root.size - 1, what="manifest")


@pytest.mark.parametrize(("size", "is_refused"), [(64 << 10, False), ((64 << 10) + 1, True)])
def test_the_mark_of_a_layout_has_a_bounded_size(tmp_path: Path, size: int, is_refused: bool) -> None:
    (tmp_path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}'.ljust(size))
    if is_refused:
        with pytest.raises(InvalidArchive, match="more than 65536 bytes"):
            LayoutSource(FolderMembers(tmp_path, label="a"))
    else:
        LayoutSource(FolderMembers(tmp_path, label="a"))


# ---- names and kinds in archives ----


def test_a_member_with_holes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(layer(sparse_file("f", 100, [(10, b"x")])))
    with path.open("rb") as opened, pytest.raises(InvalidArchive, match="stored with holes"):
        read(TarMembers(opened.fileno(), label="a"), "f", limit_bytes=1000)


def test_a_name_with_a_null_byte_is_no_member(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchive, match="outside of the archive"):
        docker(tmp_path, [{"Config": "c\0d", "Layers": []}]).offers()


@pytest.mark.parametrize("id_", ["a" * 63, "a" * 65, "a" * 64 + "/../../x", "A" * 64, "a" * 64 + "\n"])
def test_the_id_of_an_old_image_is_no_path(tmp_path: Path, id_: str) -> None:
    built_images.write(tmp_path, {"repositories": json.dumps({"r": {"t": id_}}).encode()})
    with pytest.raises(InvalidArchive, match="is no image ID"):
        DockerArchive(FolderMembers(tmp_path, label="a")).offers()


def test_limits_leave_room_for_real_images() -> None:
    """Two million entries of a hundred bytes each, in one layer: a limit below that would refuse real images."""
    assert tar.MAX_MEMBERS >= 2_000_000
    assert tar.MAX_TEXT_BYTES >= 2_000_000 * 100
    assert resolving.MAX_ENTRIES >= 2_000_000
    assert math.isclose(paths.MAX_PATH_DEPTH, 4096 / 2)
    assert len(member_bytes(file("x"))) == 512


def test_unit_tests_end_in_time(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("timeout")
    assert marker is not None
    assert marker.args == (60,)
