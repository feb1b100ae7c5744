"""The kernel's protocol as bytes, and the server's answers without a kernel."""

import errno
import os
import stat
import struct

import pytest

from imagefs.errors import ImageNotFound
from imagefs.mount import protocol
from imagefs.mount.kernel import Server
from imagefs.mount.protocol import Flag, Opcode, Session
from imagefs.overlay import record
from imagefs.overlay.attributes import Attributes
from imagefs.overlay.listing import Listing
from imagefs.overlay.record import FOREVER_S
from imagefs.view.attributes import NAMES_VALID_S, ROOT, NodeId
from tests.support.fake_filesystem import FakeFilesystem, FakeNode

ALL_FLAGS = 0xFFFFFFFF
EVERYTHING = Attributes(
    ino=2**63 + 1, mode=stat.S_IFCHR | 0o4755, nlink=3, uid=4_000_000_000, gid=7, size=2**40, blocks=9,
    mtime_ns=-1, rdev=os.makedev(0xABC, 0x12345),
)  # fmt: skip


def request(opcode: int, node: int = ROOT, body: bytes = b"", *, unique: int = 77) -> bytes:
    return struct.pack("<IIQQIIII", 40 + len(body), opcode, unique, node, 0, 0, 0, 0) + body


def init(major: int = 7, minor: int = 38, flags: int = ALL_FLAGS) -> bytes:
    return request(Opcode.INIT, body=struct.pack("<IIII", major, minor, 131072, flags))


def ask(server: Server, raw: bytes) -> tuple[int, bytes]:
    """Return (errno, body) of the answer, whose header must be right."""
    answer = b"".join(server.answer(raw))
    length, error, unique = struct.unpack_from("<IiQ", answer)
    assert length == len(answer)
    assert unique == 77
    return -error, answer[16:]


@pytest.fixture
def fake() -> FakeFilesystem:
    return FakeFilesystem()


@pytest.fixture
def server(fake: FakeFilesystem) -> Server:
    return Server(fake.as_filesystem())


# ---- the exchange at the beginning ----


@pytest.mark.parametrize(
    ("minor", "kernel_release"), [(23, "3.15"), (32, "5.10"), (34, "5.15"), (37, "6.1"), (38, "6.2"), (45, "6.18")]
)
def test_the_smaller_minor_version_is_spoken(server: Server, minor: int, kernel_release: str) -> None:
    error, body = ask(server, init(minor=minor))
    major, settled, readahead, flags, background, congestion, write, gran, pages = struct.unpack_from(
        "<IIIIHHIIH", body
    )
    assert (error, len(body)) == (0, 64), kernel_release
    assert (major, settled) == (7, min(minor, 38))
    assert (readahead, gran, pages) == (131072, 1, 256)
    assert background > congestion > 0
    assert write >= 4096
    assert Flag(flags) == protocol.WANTED
    assert server.session == Session(min(minor, 38), protocol.WANTED)


def test_only_what_is_offered_is_taken(server: Server) -> None:
    _, body = ask(server, init(flags=int(Flag.DO_READDIRPLUS)))
    flags, pages = struct.unpack_from("<I", body, 12)[0], struct.unpack_from("<H", body, 28)[0]
    assert (flags, pages) == (int(Flag.DO_READDIRPLUS), 0)


def test_a_newer_major_version_is_answered_with_ours_and_waited_for(server: Server) -> None:
    error, body = ask(server, init(major=8))
    assert (error, struct.unpack_from("<II", body)) == (0, (7, 38))
    assert server.session is None


@pytest.mark.parametrize(("major", "minor"), [(7, 22), (6, 40)])
def test_a_kernel_too_old_is_refused(server: Server, major: int, minor: int) -> None:
    assert ask(server, init(major=major, minor=minor)) == (errno.EPROTO, b"")
    assert server.session is None


# ---- values ----


def test_attributes_keep_every_bit() -> None:
    raw = record.packed(EVERYTHING)
    assert len(raw) == 88
    ino, size, blocks, *seconds = struct.unpack_from("<QQQqqq", raw)
    *nanoseconds, mode, nlink, uid, gid, rdev, _, _ = struct.unpack_from("<10I", raw, 48)
    assert (ino, size, blocks) == (2**63 + 1, 2**40, 9)
    assert (seconds, nanoseconds) == ([-1] * 3, [999_999_999] * 3)
    assert (mode, nlink, uid, gid) == (EVERYTHING.mode, 3, 4_000_000_000, 7)
    assert (rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00) == (0xABC, 0x12345)
    assert record.unpacked(raw) == EVERYTHING


def test_directory_entries_are_padded_and_cut_between_entries() -> None:
    made = [record.record(b"n" * length, 5, bytes(88), cookie=length, ino=6, mode=stat.S_IFREG) for length in (1, 8, 9)]
    assert [len(item) for item in made] == [160, 160, 168]
    listing = Listing.of(made)
    assert b"".join(listing.cut(0, 319)) == made[0]
    assert b"".join(listing.cut(0, 320)) == made[0] + made[1]
    assert b"".join(listing.cut(1, 10_000)) == made[1] + made[2]
    assert listing.cut(3, 10_000) == []
    assert listing.cut(0, 159) == []
    ino, cookie, length, kind = struct.unpack_from("<QQII", made[2], 128)
    assert (ino, cookie, length, kind) == (6, 9, 9, stat.S_IFREG >> 12)


def test_extended_attributes_are_sized_told_or_too_big() -> None:
    assert protocol.sized(b"value", 0) == struct.pack("<II", 5, 0)
    assert protocol.sized(b"value", 5) == b"value"
    with pytest.raises(OSError, match=os.strerror(errno.ERANGE)):
        protocol.sized(b"value", 4)
    assert protocol.listed([b"user.a", b"user.b"]) == b"user.a\0user.b\0"


# ---- answers ----


def test_a_name_is_found_with_its_attributes_and_an_absent_one_is_believed_absent(
    fake: FakeFilesystem, server: Server
) -> None:
    node = fake.add(b"here", FakeNode(data=b"12345"))
    error, body = ask(server, request(Opcode.LOOKUP, body=b"here\0"))
    found, _, name_s, attributes_s = struct.unpack_from("<QQQQ", body)
    assert (error, found, len(body)) == (0, node, 128)
    assert name_s == attributes_s == FOREVER_S
    assert struct.unpack_from("<QQ", body, 40)[1] == 5
    error, body = ask(server, request(Opcode.LOOKUP, body=b"gone\0"))
    assert (error, struct.unpack_from("<QQQ", body)) == (0, (0, 0, FOREVER_S))


def test_names_of_images_are_believed_for_a_moment_only(fake: FakeFilesystem, server: Server) -> None:
    fake.add(b"tag", FakeNode())
    fake.lasting = False
    for name in (b"tag\0", b"no tag\0"):
        _, body = ask(server, request(Opcode.LOOKUP, body=name))
        seconds, nanoseconds = struct.unpack_from("<Q", body, 16)[0], struct.unpack_from("<I", body, 32)[0]
        assert seconds + nanoseconds / 1e9 == pytest.approx(NAMES_VALID_S)


def names_listed(server: Server, size: int) -> list[bytes]:
    names: list[bytes] = []
    offset = 0
    while True:
        _, body = ask(server, request(Opcode.READDIRPLUS, body=struct.pack("<QQI20x", 0, offset, size)))
        if not body:
            return names
        assert len(body) <= size
        while body:
            _, offset, length, _ = struct.unpack_from("<QQII", body, 128)
            names.append(body[152 : 152 + length])
            body = body[152 + length + -length % 8 :]


@pytest.mark.parametrize("size", [200, 500, 4096, 1 << 20])
def test_a_directory_is_listed_whole_in_pieces_of_any_size(fake: FakeFilesystem, server: Server, size: int) -> None:
    expected = sorted(b"name%d" % number for number in range(50))
    for name in expected:
        fake.add(name, FakeNode())
    assert names_listed(server, size) == [b".", b"..", *expected]


def test_the_entries_dot_and_names_of_images_come_without_a_node(fake: FakeFilesystem, server: Server) -> None:
    fake.add(b"image", FakeNode())
    for lasting in (True, False):
        fake.lasting = lasting
        fresh = Server(fake.as_filesystem())
        _, body = ask(fresh, request(Opcode.READDIRPLUS, body=struct.pack("<QQI20x", 0, 0, 4096)))
        nodes = [struct.unpack_from("<Q", body, at)[0] for at in (0, 160, 320)]
        assert nodes[:2] == [0, 0]
        assert bool(nodes[2]) == lasting


def test_a_file_is_opened_read_and_closed(fake: FakeFilesystem, server: Server) -> None:
    node = fake.add(b"file", FakeNode(data=b"0123456789"))
    error, body = ask(server, request(Opcode.OPEN, node, struct.pack("<II", os.O_RDONLY, 0)))
    handle, flags, _ = struct.unpack("<QII", body)
    assert (error, flags) == (0, protocol.FOPEN_KEEP_CACHE)
    assert ask(server, request(Opcode.READ, node, struct.pack("<QQI20x", handle, 3, 4))) == (0, b"3456")
    assert ask(server, request(Opcode.READ, node, struct.pack("<QQI20x", handle, 10, 4))) == (0, b"")
    assert ask(server, request(Opcode.RELEASE, node, struct.pack("<Q16x", handle))) == (0, b"")


def test_who_can_do_without_asking_to_open_is_told_to(server: Server) -> None:
    opening = request(Opcode.OPEN, body=struct.pack("<II", os.O_RDONLY, 0)), request(Opcode.OPENDIR, body=bytes(8))
    assert [ask(server, raw)[0] for raw in opening] == [0, 0]
    ask(server, init(flags=int(Flag.NO_OPEN_SUPPORT)))
    assert [ask(server, raw)[0] for raw in opening] == [errno.ENOSYS, 0]
    ask(server, init())
    assert [ask(server, raw)[0] for raw in opening] == [errno.ENOSYS, errno.ENOSYS]


def test_a_successor_goes_on_as_was_settled(fake: FakeFilesystem) -> None:
    told: list[Session] = []
    ask(Server(fake.as_filesystem(), settled=told.append), init(minor=31, flags=int(Flag.NO_OPEN_SUPPORT)))
    assert told == [Session(31, Flag.NO_OPEN_SUPPORT)]
    successor = Server(fake.as_filesystem(), told[0])
    assert ask(successor, request(Opcode.OPEN, body=struct.pack("<II", os.O_RDONLY, 0)))[0] == errno.ENOSYS
    assert ask(successor, request(Opcode.OPENDIR, body=bytes(8)))[0] == 0


def test_what_the_kernel_is_told_unasked_has_no_unique_number_and_its_code_for_an_error() -> None:
    assert protocol.resend() == struct.pack("<IiQ", 16, 7, 0)
    assert protocol.invalidate_entry(NodeId(3), b"tag") == struct.pack("<IiQQII", 36, 3, 0, 3, 3, 0) + b"tag\0"
    assert protocol.invalidate_attributes(NodeId(9)) == struct.pack("<IiQQqq", 40, 2, 0, 9, -1, 0)
    assert protocol.invalidate_content(NodeId(9)) == struct.pack("<IiQQqq", 40, 2, 0, 9, 0, 0)
    assert b"".join(protocol.store(NodeId(9), b"data")) == struct.pack("<IiQQQII", 44, 4, 0, 9, 0, 4, 0) + b"data"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
def test_opening_for_writing_is_refused(fake: FakeFilesystem, server: Server, flags: int) -> None:
    node = fake.add(b"file", FakeNode())
    assert ask(server, request(Opcode.OPEN, node, struct.pack("<II", flags, 0)))[0] == errno.EROFS


def test_what_would_change_something_is_refused_and_what_is_unknown_not_asked_again(server: Server) -> None:
    for opcode in (4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51):
        assert ask(server, request(opcode)) == (errno.EROFS, b"")
    for unknown in (39, 48, 9999):
        assert ask(server, request(unknown)) == (errno.ENOSYS, b"")


def test_forgetting_and_interrupts_are_not_answered(server: Server) -> None:
    for opcode in protocol.UNANSWERED:
        assert server.answer(request(opcode, body=bytes(16))) == ()


def test_absent_and_real_extended_attributes_are_told_apart(fake: FakeFilesystem, server: Server) -> None:
    node = fake.add(b"x", FakeNode(xattrs={b"user.a": b"value"}))

    def get(name: bytes, room: int) -> tuple[int, bytes]:
        return ask(server, request(Opcode.GETXATTR, node, struct.pack("<II", room, 0) + name + b"\0"))

    assert get(b"user.a", 0) == (0, struct.pack("<II", 5, 0))
    assert get(b"user.a", 100) == (0, b"value")
    assert get(b"user.b", 100)[0] == errno.ENODATA
    assert ask(server, request(Opcode.LISTXATTR, node, struct.pack("<II", 100, 0))) == (0, b"user.a\0")


@pytest.mark.parametrize(("room", "number"), [(0, 0), (151, 0), (152, errno.EOPNOTSUPP), (153, 0), (1024, 0)])
def test_only_the_acl_probe_of_ls_learns_that_there_are_no_attributes(
    fake: FakeFilesystem, server: Server, room: int, number: int
) -> None:
    bare, attributed = fake.add(b"bare", FakeNode()), fake.add(b"x", FakeNode(xattrs={b"user.a": b"value"}))
    body = struct.pack("<II", room, 0)
    assert ask(server, request(Opcode.LISTXATTR, bare, body))[0] == number
    assert ask(server, request(Opcode.LISTXATTR, attributed, body))[0] == 0


@pytest.mark.parametrize(
    ("failure", "number"),
    [(ImageNotFound("x"), errno.ENOENT), (PermissionError(errno.EPERM, "no"), errno.EPERM), (ValueError(), errno.EIO)],
)
def test_every_failure_becomes_an_errno(fake: FakeFilesystem, server: Server, failure: Exception, number: int) -> None:
    node = fake.add(b"bad", FakeNode(failure=failure))
    assert ask(server, request(Opcode.GETATTR, node)) == (number, b"")


def test_a_request_that_is_torn_is_an_error_and_no_end(fake: FakeFilesystem, server: Server) -> None:
    node = fake.add(b"x", FakeNode())
    assert ask(server, request(Opcode.READ, node, b"short"))[0] == errno.EIO
    assert ask(server, request(Opcode.LOOKUP, NodeId(1), b"no end"))[0] == errno.EIO


def test_reads_that_wait_for_one_user_do_not_keep_the_kernel_from_sending_those_of_others() -> None:
    answer, _ = protocol.negotiate(struct.pack("<IIII", 7, 38, 131072, 0))
    most_background, congested = struct.unpack_from("<HH", answer, 16)
    assert most_background >= 1024
    assert most_background > congested >= 512
