"""What the scanner makes of members, good and hostile."""

import hashlib
import stat

import pytest

from imagefs.errors import InvalidLayer
from imagefs.layer import tar
from imagefs.layer.changeset import Changeset, Entry
from imagefs.layer.extents import Extents
from imagefs.layer.tar import Scanner, scan
from tests.support.layers import (
    GNU_MAGIC,
    Member,
    block,
    char,
    dir_,
    fifo,
    file,
    gnu_long,
    header,
    layer,
    link,
    member_bytes,
    number,
    opaque,
    padded,
    pax_header,
    sparse,
    symlink,
    whiteout,
)


def scanned(*members: Member | bytes) -> Changeset:
    return scan([layer(*members)])


def only(*members: Member | bytes) -> Entry:
    (entry,) = scanned(*members).entries
    return entry


def refused(*members: Member | bytes) -> InvalidLayer:
    with pytest.raises(InvalidLayer) as caught:
        scanned(*members)
    return caught.value


# ---- members ----


def test_every_kind_of_member_is_told_apart() -> None:
    entries = scanned(
        dir_("d"), file("f", b"x"), symlink("s", "../t"), link("h", "/f"), fifo("p"), char("c", 5, 1), block("b", 8, 0)
    ).entries
    assert [stat.S_IFMT(entry.mode) for entry in entries] == [
        stat.S_IFDIR,
        stat.S_IFREG,
        stat.S_IFLNK,
        0,
        stat.S_IFIFO,
        stat.S_IFCHR,
        stat.S_IFBLK,
    ]
    assert [entry.is_hardlink for entry in entries] == [False, False, False, True, False, False, False]
    assert entries[2].target == b"../t"
    assert entries[3].target == b"f"
    assert (entries[5].rdev, entries[6].rdev) == ((5, 1), (8, 0))


def test_a_file_is_located_and_hashed() -> None:
    raw = layer(file("a", b"first"), file("b", b"second" * 200))
    first, second = scan([raw]).entries
    assert raw[first.offset : first.offset + first.size] == b"first"
    assert raw[second.offset : second.offset + second.size] == b"second" * 200
    assert second.sha256 == hashlib.sha256(b"second" * 200).digest()


def test_an_empty_file_has_a_digest_and_a_directory_none() -> None:
    entries = scanned(file("f"), dir_("d")).entries
    assert entries[0].sha256 == hashlib.sha256().digest()
    assert entries[1].sha256 == b""


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o000, 0o100644, 0o40755])
def test_only_permission_bits_of_the_mode_field_count(mode: int) -> None:
    assert only(file("f", mode=mode)).mode == stat.S_IFREG | mode & 0o7777


@pytest.mark.parametrize("mtime_ns", [0, 1, -1, -999_999_999, 1_700_000_000_123_456_789, -62_135_596_800 * 10**9 // 10])
def test_times_are_exact_to_the_nanosecond(mtime_ns: int) -> None:
    assert only(file("f", mtime_ns=mtime_ns)).mtime_ns == mtime_ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1", 10**9),
        (b"1.", 10**9),
        (b"-0.5", -5 * 10**8),
        (b"+2.0000000019", 2 * 10**9 + 1),
        (b"-1.25", -1_250_000_000),
    ],
)
def test_pax_times_are_read_as_go_reads_them(text: bytes, expected: int) -> None:
    assert only(file("f", pax={"mtime": text})).mtime_ns == expected


@pytest.mark.parametrize("text", [b"x", b"1.x", b".5", b"-", b"1e9", b"nan", b" 1", b"1_0", b"9" * 5000])
def test_pax_times_that_are_none_are_refused(text: bytes) -> None:
    refused(file("f", pax={"mtime": text}))


def test_times_beyond_64_bits_stop_there() -> None:
    assert only(file("f", pax={"mtime": b"99999999999"})).mtime_ns == 2**63 - 1
    assert only(file("f", fields={"mtime": number(-(2**60), 12)})).mtime_ns == -(2**63 - 1)


def test_base_256_fields_are_read_with_their_sign() -> None:
    entry = only(file("f", fields={"mtime": number(-5, 12), "uid": number(2**32 - 1, 8)}))
    assert entry.mtime_ns == -5_000_000_000
    assert entry.uid == 2**32 - 1


@pytest.mark.parametrize("uid", [-1, 2**32])
def test_owners_that_no_kernel_has_are_refused(uid: int) -> None:
    assert "expected an owner" in str(refused(file("f", uid=uid)))


def test_devices_of_32_bits_are_kept_and_bigger_ones_refused() -> None:
    assert only(char("c", 2**32 - 1, 2**20 - 1)).rdev == (2**32 - 1, 2**20 - 1)
    refused(char("c", 2**32, 0))
    refused(char("c", -1, 0))


def test_the_header_of_v7_has_no_prefix_and_no_device() -> None:
    entry = only(Member(b"c", b"3", rdev=(1, 1), fields={"magic": bytes(8), "prefix": b"nothing"}))
    assert entry.path == b"c"
    assert entry.rdev == (0, 0)


def test_a_ustar_prefix_is_joined_and_a_star_prefix_is_shorter() -> None:
    assert only(file("f", fields={"prefix": b"a/b"})).path == b"a/b/f"
    star = {"prefix": b"p" * 131 + b"00000000001 ", "star_trailer": b"tar\0"}
    assert only(file("f", fields=star)).path == b"p" * 131 + b"/f"


def test_contiguous_and_old_regular_files_are_files() -> None:
    for kind in (b"7", b"\0"):
        assert only(Member(b"f", kind, b"data")).size == 4


def test_a_plain_member_whose_name_ends_in_a_slash_is_a_directory() -> None:
    for kind in (b"0", b"\0"):
        assert stat.S_ISDIR(only(Member(b"d/", kind)).mode)
    assert "ends in a slash" in str(refused(Member(b"d/", b"0", b"data")))


def test_a_gnu_dump_directory_is_a_directory_and_its_data_are_skipped() -> None:
    changes = scanned(Member(b"d", b"D", b"Yfile\0\0", fields={"magic": GNU_MAGIC}), file("d/file"))
    assert [entry.path for entry in changes.entries] == [b"d", b"d/file"]
    assert changes.entries[0].size == 0


def test_a_volume_label_is_skipped() -> None:
    assert only(Member(b"label", b"V"), file("f")).path == b"f"


@pytest.mark.parametrize("kind", [b"M", b"N", b"X", b"A", b"Z", b"\xff", b"8"])
def test_unknown_types_are_refused_by_name(kind: bytes) -> None:
    assert repr(kind) in str(refused(Member(b"f", kind)))


@pytest.mark.parametrize("member", [symlink("s", "t"), link("h", "t"), dir_("d"), fifo("p"), char("c"), block("b")])
def test_members_without_data_have_none_whatever_their_size_says(member: Member) -> None:
    raw = header(member, size=10_000)
    assert len(scanned(raw, file("next", b"x")).entries) == 2


# ---- sizes and the end ----


@pytest.mark.parametrize("size", [number(-512, 12), number(-1, 12), number(2**63 - 1, 12), b"\xc0" + bytes(11)])
def test_sizes_that_cannot_be_end_in_an_error(size: bytes) -> None:
    refused(header(file("f", fields={"size": size})))


@pytest.mark.parametrize("size", [b"-1024", b"-1", b"9223372036854775807", b"9223372036854775808", b"1" * 30, b"x"])
def test_pax_sizes_that_cannot_be_end_in_an_error(size: bytes) -> None:
    refused(file("f", b"data", pax={"size": size}))


def test_a_pax_size_replaces_the_one_of_the_header() -> None:
    entry = only(pax_header([(b"size", b"00000000000000000000000000004")]), header(file("f"), size=0), padded(b"data"))
    assert entry.size == 4


def test_nothing_at_all_is_an_empty_layer() -> None:
    assert (
        scan([]) == scan([b""]) == scan([bytes(512)]) == scan([bytes(1024)]) == Changeset((), frozenset(), frozenset())
    )


def test_the_end_may_be_missing_and_so_may_the_last_padding() -> None:
    raw = layer(file("f", b"data"), end=False)
    assert len(scan([raw]).entries) == 1
    assert len(scan([raw[: 512 + 4]]).entries) == 1
    assert len(scan([raw[: 512 + 40]]).entries) == 1


@pytest.mark.parametrize("length", [1, 511, 512 + 3, 1024 + 100])
def test_a_tar_that_is_cut_off_is_refused(length: int) -> None:
    raw = layer(file("f", b"data"), file("g"))
    with pytest.raises(InvalidLayer, match="cut off"):
        scan([raw[:length]])


def test_after_two_zero_blocks_anything_may_follow() -> None:
    assert len(scanned(file("f"), bytes(1024), b"junk" * 1000, file("not seen")).entries) == 1


def test_one_zero_block_must_be_followed_by_another() -> None:
    assert "second zero block" in str(refused(file("f"), bytes(512), file("g")))
    assert len(scan([layer(file("f"), bytes(512), end=False)]).entries) == 1


def test_garbage_between_members_is_an_error_and_not_the_end() -> None:
    error = refused(file("f"), b"\x01" * 512, file("g"))
    assert "checksum" in str(error)
    assert error.offset == 512


def test_a_checksum_of_signed_bytes_is_accepted() -> None:
    member = file(b"\xff\xfe")
    raw = bytearray(header(Member(member.name[:2], b"0")))
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % (sum(raw) - 256 * sum(byte > 127 for byte in raw))
    assert only(bytes(raw)).path == b"\xff\xfe"


@pytest.mark.parametrize("field", [b"0o17\0", b"-7\0", b"+7\0", b"1_0\0", b"9\0", b"0x1\0", b"1 1\0"])
def test_numbers_that_are_not_octal_are_refused(field: bytes) -> None:
    refused(file("f", fields={"uid": field}))


@pytest.mark.parametrize("field", [b"\0" * 8, b" " * 8, b"      7 ", b"7\0junk!", b"0000007\0"])
def test_numbers_may_be_padded_in_many_ways(field: bytes) -> None:
    assert only(file("f", fields={"uid": field})).uid in (0, 7)


def test_an_error_names_the_entry_and_its_place_and_is_raised_again() -> None:
    scanner = Scanner()
    with pytest.raises(InvalidLayer) as caught:
        scanner.feed(layer(file("good"), file("bad\x1b[0m", uid=-1)))
    assert caught.value.entry == b"bad\x1b[0m"
    assert "\x1b" not in str(caught.value)
    with pytest.raises(InvalidLayer):
        scanner.feed(b"more")
    with pytest.raises(InvalidLayer):
        scanner.finish()


# ---- extended headers ----


def test_of_two_pax_headers_the_last_counts_alone() -> None:
    raw = pax_header([(b"path", b"first"), (b"uid", b"7")]), pax_header([(b"gid", b"8")]), header(file("name"))
    entry = only(*raw)
    assert (entry.path, entry.uid, entry.gid) == (b"name", 0, 8)


def test_gnu_long_names_win_over_pax() -> None:
    entry = only(pax_header([(b"path", b"pax")]), gnu_long("gnu/" + "n" * 200), header(file("short")))
    assert entry.path == b"gnu/" + b"n" * 200
    entry = only(gnu_long("t" * 300, type_=b"K"), header(symlink("s", "short")))
    assert entry.target == b"t" * 300


def test_an_empty_pax_value_keeps_what_the_header_says() -> None:
    assert only(pax_header([(b"path", b""), (b"uid", b"")]), header(file("f", uid=5))).uid == 5


def test_global_headers_are_checked_and_ignored() -> None:
    entry = only(pax_header([(b"path", b"global"), (b"uid", b"9")], type_=b"g"), file("f"))
    assert (entry.path, entry.uid) == (b"f", 0)
    refused(pax_header([(b"mtime", b"x")], type_=b"g"), file("f"))
    refused(member_bytes(Member(b"g", b"g", b"12 garbage")), file("f"))


def test_a_global_header_takes_away_the_extended_header_before_it() -> None:
    assert (
        only(pax_header([(b"path", b"lost")]), pax_header([(b"a", b"b")], type_=b"g"), header(file("f"))).path == b"f"
    )


def test_an_extended_header_without_a_member_is_refused() -> None:
    assert "ends after" in str(refused(pax_header([(b"path", b"f")])))
    with pytest.raises(InvalidLayer, match="ends after"):
        scan([pax_header([(b"path", b"f")])])
    refused(gnu_long("name"))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_extended_headers_are_at_most_a_mebibyte(kind: bytes) -> None:
    error = refused(header(Member(b"x", kind), size=(1 << 20) + 1), bytes(1 << 20))
    assert "at most 1048576" in str(error)
    refused(header(Member(b"x", kind, fields={"size": number(8 << 30, 12)})))


@pytest.mark.parametrize("key", ["path", "linkpath", "GNU.sparse.name"])
def test_nul_in_a_pax_name_is_refused(key: str) -> None:
    assert "NUL" in str(refused(file("f", pax={key: b"a\0b"})))


# ---- paths ----


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../../etc/passwd", b"etc/passwd"),
        ("/etc/x", b"etc/x"),
        ("./a/../../b", b"b"),
        ("a//b/./c", b"a/b/c"),
        ("a/b/../c/", b"a/c"),
        (".hidden/..x/...", b".hidden/..x/..."),
        ("x\nb\x1b", b"x\nb\x1b"),
        (b"\xff\xfe", b"\xff\xfe"),
    ],
)
def test_names_are_made_clean_and_stay_inside_the_root(name: str | bytes, path: bytes) -> None:
    assert only(dir_(name)).path == path
    assert only(link("l", name)).target == path


@pytest.mark.parametrize("name", ["", ".", "/", "./", "a/..", "../.."])
def test_the_root_is_a_directory_and_nothing_else(name: str) -> None:
    assert only(dir_(name)).path == b""
    for member in (Member(name.encode(), b"7"), symlink(name, "/etc"), fifo(name), link(name, "x")):
        assert "root" in str(refused(member))


def test_symlink_targets_are_kept_verbatim() -> None:
    for target in ("/usr/lib64", "../run", "a//b/./", "/"):
        assert only(symlink("s", target)).target == target.encode()


def test_symlinks_that_no_kernel_could_hold_are_refused() -> None:
    assert len(only(symlink("s", "x" * 4095)).target) == 4095
    refused(symlink("s", "x" * 4096))
    refused(symlink("s", ""))


def test_a_hard_link_to_the_root_is_refused() -> None:
    refused(link("l", "/"))
    refused(link("l", ""))


def test_components_have_at_most_255_bytes() -> None:
    assert only(file("d/" + "x" * 255)).path == b"d/" + b"x" * 255
    assert "at most 255" in str(refused(file("d/" + "x" * 256)))


def test_paths_may_be_deep_but_not_without_end() -> None:
    deep = "/".join(["d" * 200] * 20)
    assert only(file(deep)).path == deep.encode()
    refused(file("/".join(["d" * 200] * 200)))


# ---- markers ----


@pytest.mark.parametrize("kind", [b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7"])
def test_a_whiteout_is_one_whatever_its_type(kind: bytes) -> None:
    changes = scanned(Member(b"d/.wh.x", kind, target=b"d/.wh.y"), file("after"))
    assert changes.whiteouts == {b"d/x"}
    assert [entry.path for entry in changes.entries] == [b"after"]


def test_the_data_of_a_whiteout_are_skipped() -> None:
    changes = scanned(file(".wh.x", b"data" * 1000), file("after"))
    assert changes.whiteouts == {b"x"}
    assert len(changes.entries) == 1


def test_opaque_markers_name_their_directory() -> None:
    assert scanned(opaque("a/b"), opaque()).opaques == {b"a/b", b""}


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", "d/.wh...", ".wh./"])
def test_whiteouts_of_nothing_are_refused(name: str) -> None:
    assert "whiteout" in str(refused(dir_(name)))


def test_a_whiteout_may_hide_the_longest_name() -> None:
    assert scanned(whiteout("d/" + "x" * 255)).whiteouts == {b"d/" + b"x" * 255}
    refused(whiteout("x" * 256))


def test_names_that_only_contain_the_prefix_are_ordinary() -> None:
    assert only(file("a.wh.b")).path == b"a.wh.b"
    assert scanned(whiteout(".wh.x")).whiteouts == frozenset()  # .wh..wh.x belongs to AUFS


def test_only_the_last_component_makes_a_marker() -> None:
    changes = scanned(file("d/.wh.x/file"), whiteout("d/.wh.x/y"))
    assert [entry.path for entry in changes.entries] == [b"d/.wh.x/file"]
    assert changes.whiteouts == {b"d/.wh.x/y"}


def test_the_bookkeeping_of_aufs_is_ignored() -> None:
    changes = scanned(dir_(".wh..wh.aufs"), dir_(".wh..wh.orph"), file(".wh..wh.orph/x", b"data"), file("f"))
    assert [entry.path for entry in changes.entries] == [b"f"]
    assert not changes.whiteouts
    assert not changes.opaques


def test_hard_links_into_the_aufs_link_folder_become_files() -> None:
    changes = scanned(
        dir_(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"data", uid=3), link("a", ".wh..wh.plnk/1.2"), file("z", b"zz")
    )
    first, last = changes.entries
    assert (first.path, first.size, first.uid, first.is_hardlink) == (b"a", 4, 3, False)
    assert (last.path, last.sha256) == (b"z", hashlib.sha256(b"zz").digest())
    refused(link("a", ".wh..wh.plnk/9.9"))


# ---- attributes ----


def test_attributes_are_kept_sorted_but_for_those_of_the_host() -> None:
    entry = only(
        file("f", xattrs={"user.b": b"\0\xff", "security.selinux": b"label", "system.nfs4_acl": b"", "user.a": b""})
    )
    assert entry.xattrs == ((b"user.a", b""), (b"user.b", b"\0\xff"))


def test_libarchive_spelling_is_decoded_and_stars_spelling_wins() -> None:
    pax = {
        "LIBARCHIVE.xattr.user.%61%3D": b"aGVsbG8",
        "LIBARCHIVE.xattr.user.x": b"bGli",
        "SCHILY.xattr.user.x": b"star",
    }
    assert only(file("f", pax=pax)).xattrs == ((b"user.a=", b"hello"), (b"user.x", b"star"))
    refused(file("f", pax={"LIBARCHIVE.xattr.user.x": b"abcde"}))


def test_attributes_that_no_kernel_keeps_are_refused() -> None:
    assert len(only(file("f", xattrs={"user.x": b"v" * 65536})).xattrs[0][1]) == 65536
    refused(file("f", xattrs={"user.x": b"v" * 65537}))
    assert only(file("f", xattrs={"n" * 255: b""})).xattrs == ((b"n" * 255, b""),)
    refused(file("f", xattrs={"n" * 256: b""}))
    refused(file("f", xattrs={"": b"v"}))
    names = [f"user.{i:010}" for i in range(4096)]  # with a NUL each, 64 KiB
    assert len(only(file("f", xattrs=dict.fromkeys(names, b""))).xattrs) == 4096
    refused(file("f", xattrs=dict.fromkeys([*names[1:], names[0] + "x"], b"")))


# ---- sparse files ----


def logical(size: int, runs: list[tuple[int, bytes]]) -> bytes:
    content = bytearray(size)
    for offset, data in runs:
        content[offset : offset + len(data)] = data
    return bytes(content)


def test_a_sparse_file_has_extents_and_the_digest_of_its_whole_content() -> None:
    runs = [(4096, b"a" * 512), (70_000, b"b" * 100)]
    raw = layer(sparse("f", 100_000, runs))
    (entry,) = scan([raw]).entries
    assert (entry.path, entry.size, entry.extents) == (b"f", 100_000, Extents.of([(4096, 512), (70_000, 100)]))
    assert raw[entry.offset : entry.offset + 612] == b"a" * 512 + b"b" * 100
    assert entry.sha256 == hashlib.sha256(logical(100_000, runs)).digest()


def test_a_sparse_file_that_is_all_hole_or_all_data() -> None:
    assert only(sparse("f", 1000, [])).extents == Extents.of([])
    assert only(sparse("f", 1000, [(1000, b"")])).extents == Extents.of([])
    assert only(sparse("f", 4, [(0, b"data")])).extents is None
    assert only(sparse("f", 0, [])).extents is None


def test_holes_beyond_the_bound_are_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_HASHED_HOLES_BYTES", 2000)
    first, second = scanned(sparse("a", 1500, []), sparse("b", 1500, [(3, b"x")])).entries
    assert (len(first.sha256), second.sha256) == (32, b"")
    assert only(sparse("f", 2**63 - 1, [(2**62, b"x")])).size == 2**63 - 1


@pytest.mark.parametrize(
    "body",
    [
        b"1\n0\n",
        b"x\n",
        b"-1\n",
        b"99999999\n",
        b"1\n" + b"0" * 3000,
        b"1\n2000\n1\n",
        b"2\n5\n1\n0\n1\n",
        b"1\n0\n9\n",
        b"9223372036854775807\n",
        b"1\n9223372036854775807\n9223372036854775807\n",
    ],
)
def test_sparse_maps_that_cannot_be_are_refused(body: bytes) -> None:
    pax = {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"1000"}
    refused(file("f", padded(body) + b"data!", pax=pax))
    refused(file("f", b"", pax=pax))


def test_the_older_pax_formats_have_their_map_in_the_header() -> None:
    pax = {
        "GNU.sparse.size": b"10",
        "GNU.sparse.numblocks": b"2",
        "GNU.sparse.map": b"1,1,5,2",
        "GNU.sparse.name": b"n",
    }
    entry = only(file("f", b"abc", pax=pax))
    assert (entry.path, entry.size, entry.extents) == (b"n", 10, Extents.of([(1, 1), (5, 2)]))
    assert entry.sha256 == hashlib.sha256(b"\0a\0\0\0bc\0\0\0").digest()
    refused(file("f", b"abc", pax={**pax, "GNU.sparse.numblocks": b"3"}))
    refused(file("f", b"abcd", pax=pax))
    refused(symlink("f", "t", pax=pax))


def test_sparse_formats_of_the_future_are_refused() -> None:
    assert "2.0" in str(refused(file("f", pax={"GNU.sparse.major": b"2", "GNU.sparse.minor": b"0"})))


def gnu_sparse(runs: list[tuple[int, int]], size: int, data: bytes, *, magic: bytes = GNU_MAGIC) -> bytes:
    pairs = [number(offset, 12) + number(length, 12) for offset, length in runs]
    fields = {
        "magic": magic,
        "gnu_sparse": b"".join(pairs[:4]),
        "gnu_realsize": number(size, 12),
        "gnu_is_extended": b"\1" if len(pairs) > 4 else b"\0",
    }
    blocks = b""
    rest = pairs[4:]
    while rest:
        now, rest = rest[:21], rest[21:]
        blocks += b"".join(now).ljust(504, b"\0") + (b"\1" if rest else b"\0") + bytes(7)
    return header(Member(b"f", b"S", data, fields=fields)) + blocks + padded(data)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 25, 26, 60])
def test_gnu_sparse_files_may_need_many_extension_blocks(count: int) -> None:
    runs = [(10 * i, 2) for i in range(count)]
    data = bytes(range(65, 65 + 2 * count)) if count <= 60 else b""
    entry, after = scanned(gnu_sparse(runs, 1000, data), file("after", b"x")).entries
    assert entry.extents == Extents.of(runs)
    assert entry.size == 1000
    content = logical(1000, [(offset, data[2 * i : 2 * i + 2]) for i, (offset, _) in enumerate(runs)])
    assert entry.sha256 == hashlib.sha256(content).digest()
    assert after.path == b"after"


def test_gnu_sparse_headers_that_cannot_be_are_refused() -> None:
    refused(gnu_sparse([(0, 2)], 10, b"abc"))
    refused(gnu_sparse([(5, 2), (0, 1)], 10, b"abc"))
    refused(gnu_sparse([(9, 2)], 10, b"ab"))
    refused(gnu_sparse([(0, 1)], -1, b"a"))
    refused(gnu_sparse([(0, 1)], 10, b"a", magic=b"ustar\x0000"))
    with pytest.raises(InvalidLayer, match="cut off"):
        scan([gnu_sparse([(0, 1)] * 5, 10, b"")[:512]])


# ---- bounds ----


def test_a_layer_has_a_bounded_amount_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_TEXT_BYTES", 1000)
    refused(*[symlink(f"f{i}", "t" * 90) for i in range(20)])
    refused(file("f", xattrs={"user.x": bytes(2000)}))
    refused(sparse("f", 10_000, [(i * 10, b"x") for i in range(100)]))
