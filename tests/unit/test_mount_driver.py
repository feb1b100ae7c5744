"""The adapter between libfuse's questions and the view, without a kernel: errors, handles, and what both must mean."""

import errno
import logging
import os
import stat
from types import SimpleNamespace
from typing import Any

import pytest

from imagefs.errors import BlobNotFound, DigestMismatch, ImageNotFound, InvalidLayer, Unauthorized
from imagefs.mount import failures
from imagefs.mount.fusepy_driver import Operations, libfuse_options
from imagefs.mount.options import MountOptions, parse_options
from tests.support.fake_filesystem import FakeFilesystem, FakeNode


def served(fake: FakeFilesystem, options: MountOptions | None = None) -> Operations:
    return Operations(fake.as_filesystem(), options or MountOptions(), lambda: None)


def failure(operations: Operations, operation: str, *args: Any) -> int | None:
    with pytest.raises(OSError) as caught:
        operations(operation, *args)
    assert type(caught.value.errno) is int
    return caught.value.errno


def opened(operations: Operations, path: str) -> SimpleNamespace:
    info = SimpleNamespace(flags=os.O_RDONLY, fh=0, direct_io=0)
    assert not operations("open", path, info)
    return info


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), errno.ENOENT),
        (NotADirectoryError(errno.ENOTDIR, "x"), errno.ENOTDIR),
        (OSError(errno.ENXIO, "x"), errno.ENXIO),
        (OSError("no number"), errno.EIO),
        (OSError(-5, "negative"), errno.EIO),
        (BlobNotFound("layer", "sha256:0"), errno.EIO),
        (InvalidLayer("x"), errno.EIO),
        (DigestMismatch("layer", "a", "b"), errno.EIO),
        (ImageNotFound("x"), errno.ENOENT),
        (Unauthorized("x"), errno.EACCES),
        (ValueError("unforeseen"), errno.EIO),
        (MemoryError(), errno.EIO),
        (RecursionError(), errno.EIO),
        (KeyboardInterrupt(), errno.EIO),
        (SystemExit(0), errno.EIO),
    ],
)
def test_every_error_becomes_a_positive_errno(error: BaseException, number: int) -> None:
    fake = FakeFilesystem()
    fake.add(b"broken", FakeNode(failure=error))
    for operation, args in (("getattr", ()), ("readlink", ()), ("listxattr", ()), ("getxattr", ("user.x",))):
        assert failure(served(fake), operation, "/broken", *args) == number


def test_only_unforeseen_errors_leave_a_trace_and_foreseen_ones_one_sentence(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_told", set())
    fake = FakeFilesystem()
    fake.add(b"unforeseen", FakeNode(failure=ValueError("on purpose")))
    fake.add(b"damaged", FakeNode(failure=BlobNotFound("layer", "sha256:0")))
    operations = served(fake)
    for path in ("/unforeseen", "/damaged", "/absent", "/damaged"):
        failure(operations, "getattr", path)
    assert [(record.levelno, record.exc_info is not None) for record in caplog.records] == [
        (logging.ERROR, True),
        (logging.ERROR, False),
    ]
    assert "is missing from the store" in caplog.text


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("chmod", ("/f", 0)),
        ("chown", ("/f", 0, 0)),
        ("create", ("/new", 0o644, None)),
        ("link", ("/new", "/f")),
        ("mkdir", ("/new", 0o755)),
        ("mknod", ("/new", 0o644, 0)),
        ("removexattr", ("/f", "user.x")),
        ("rename", ("/f", "/new")),
        ("rmdir", ("/d",)),
        ("setxattr", ("/f", "user.x", b"", 0)),
        ("symlink", ("/new", "f")),
        ("truncate", ("/f", 0)),
        ("unlink", ("/f",)),
        ("utimens", ("/f", None)),
        ("write", ("/f", b"", 0, None)),
        ("open", ("/f", SimpleNamespace(flags=os.O_WRONLY))),
        ("open", ("/f", SimpleNamespace(flags=os.O_RDWR))),
        ("open", ("/f", SimpleNamespace(flags=os.O_RDONLY | os.O_TRUNC))),
        ("access", ("/f", os.W_OK)),
    ],
)
def test_everything_that_writes_meets_a_read_only_file_system(operation: str, args: tuple[Any, ...]) -> None:
    fake = FakeFilesystem()
    fake.add(b"f", FakeNode())
    assert failure(served(fake), operation, *args) == errno.EROFS


def test_names_pass_as_bytes_and_dots_come_first() -> None:
    fake = FakeFilesystem()
    folder = fake.add(b"d\xff", FakeNode(mode=stat.S_IFDIR | 0o755))
    fake.add(b"d\xff/f\xfe\n", FakeNode())
    fake.add(b"d\xff/sub", FakeNode(mode=stat.S_IFDIR | 0o755))
    operations = served(fake)
    listed = list(operations("readdir", "/d\xff", 0))
    assert [name for name, _, _ in listed] == [".", "..", "f\xfe\n", "sub"]
    assert listed[2][1]["st_ino"] == operations("getattr", "/d\xff/f\xfe\n")["st_ino"]
    assert operations("getattr", "/d\xff")["st_ino"] == (1 << 40) + folder


def test_one_bad_entry_does_not_hide_the_others() -> None:
    fake = FakeFilesystem()
    fake.add(b"a", FakeNode(failure=ValueError("on purpose")))
    fake.add(b"b", FakeNode())
    assert [name for name, _, _ in served(fake)("readdir", "/", 0)] == [".", "..", "a", "b"]


def test_handles_read_what_was_opened_until_released() -> None:
    fake = FakeFilesystem()
    fake.add(b"f", FakeNode(data=b"0123456789"))
    operations = served(fake)
    first, second = opened(operations, "/f"), opened(operations, "/f")
    assert first.fh != second.fh
    operations("release", "/f", first)
    assert operations("read", "/f", 4, 3, second) == b"3456"
    assert operations("read", None, 4, 10, second) == b""
    assert failure(operations, "read", "/f", 1, 0, first) == errno.EIO
    operations.close()
    fake.close()


def test_an_open_file_keeps_its_attributes_and_a_newcomer_at_its_path_reads_past_the_page_cache() -> None:
    fake = FakeFilesystem()
    fake.add(b"f", FakeNode(data=b"old content"))
    operations = served(fake)
    old = opened(operations, "/f")
    fake.add(b"f", FakeNode(data=b"new"))
    new = opened(operations, "/f")
    assert (old.direct_io, new.direct_io) == (0, 1)
    assert operations("getattr", "/f", old)["st_size"] == 11
    assert operations("getattr", "/f", new)["st_size"] == operations("getattr", "/f", None)["st_size"] == 3
    assert operations("read", "/f", 100, 0, old) == b"old content"
    operations("release", "/f", old)
    assert opened(operations, "/f").direct_io == 0
    operations.close()


def test_absent_and_real_extended_attributes_are_told_apart() -> None:
    fake = FakeFilesystem()
    fake.add(b"bare", FakeNode())
    fake.add(b"labelled", FakeNode(xattrs={b"security.selinux": b"label"}))
    operations = served(fake)
    assert failure(operations, "getxattr", "/bare", "security.capability") == errno.ENODATA
    assert operations("getxattr", "/labelled", "security.selinux") == b"label"


def test_permissions_are_checked_by_the_kernel_where_others_may_look_and_names_escaped() -> None:
    options = libfuse_options("a,b\\c", parse_options(["allow_other"]))
    assert options["default_permissions"]
    assert options["allow_other"]
    assert not libfuse_options("s", parse_options([]))["default_permissions"]
    assert libfuse_options("s", parse_options(["default_permissions"]))["default_permissions"]
    assert options["fsname"] == "a\\,b\\\\c"
    assert {name for name, value in options.items() if value is True} >= {"ro", "nosuid", "nodev"}
    assert not {"suid", "dev", "kernel_cache", "auto_cache"} & set(options)
    assert {"suid", "dev"} <= set(libfuse_options("s", parse_options(["suid,dev"])))
