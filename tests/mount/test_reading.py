"""Every way a program can read a file: each gives the bytes that `umoci unpack`, or Python's tarfile, finds there."""

import contextlib
import errno
import io
import mmap
import os
import random
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.built_images import REF_NAME, BuiltImage, image, layout, write
from tests.support.commands import imagefs, needs, run, umoci_unpack
from tests.support.data import data_dir
from tests.support.layers import dir_, file, layer, link, sparse
from tests.support.mounts import mounted, needs_fuse, needs_root
from tests.support.nasty import nasty_layout

pytestmark = [
    *needs_fuse,
    pytest.mark.usefixtures("driver"),
    needs_root,
    pytest.mark.tools,
    needs("umoci"),
]  # umoci: devices

KIB, MIB = 1024, 1024 * 1024
PAGE = mmap.PAGESIZE
SIZES = (
    *(0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 8193),
    *(128 * KIB - 1, 128 * KIB, 128 * KIB + 1, MIB - 1, MIB, MIB + 1, 5 * MIB),
)
EDGES = (0, 1, 511, 512, 513, 4095, 4096, 4097, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, MIB - 1, MIB, MIB + 1)
SPARSE_FORMATS = {
    "old-gnu": ["--format=gnu"],
    "pax-0.0": ["--format=pax", "--sparse-version=0.0"],
    "pax-0.1": ["--format=pax", "--sparse-version=0.1"],
    "pax-1.0": ["--format=pax", "--sparse-version=1.0"],
}
FAR = 1 << 40


def content(size: int, seed: int = 0) -> bytes:
    """Return bytes that look like no others, so that a piece of another place or file is noticed."""
    return random.Random(size * 1000 + seed).randbytes(size)


def written_by_tar(folder: Path, name: str, arguments: list[str]) -> bytes:
    """Return a layer with a file of more runs of data than fit into one header, written by GNU tar in one format."""
    (folder / "holes").mkdir(parents=True)
    with (folder / "holes" / name).open("wb") as made:
        for number in range(30):
            made.seek(number * 3 * PAGE + PAGE)
            made.write(content(PAGE, number))
        made.truncate(100 * PAGE + 77)
    output = folder / "layer.tar"
    run(["tar", "-C", folder, "--sparse", "--hole-detection=raw", *arguments, "-cf", output, "holes"])
    return output.read_bytes()


def sizes_layers(folder: Path) -> list[bytes]:
    """Return layers with files of many sizes; some hide others, and any may be sparse, a program, or a second name."""
    echo = Path(shutil.which("busybox") or shutil.which("echo") or "/bin/echo").read_bytes()
    return [
        layer(dir_("sizes"), *(file(f"sizes/{size}", content(size)) for size in SIZES)),
        layer(
            *(file(f"sizes/{size}", content(size + 3, 1)) for size in SIZES[::3]),
            *(file(f"more/{size}", content(size, 2)) for size in SIZES),
            link("more/name of a file below", f"sizes/{MIB}"),
        ),
        layer(
            *(file(f"sizes/{size}", content(size // 2, 3)) for size in SIZES[::5]),
            file("bin/echo", echo, mode=0o755),  # busybox does what its name says; any other echo echoes anyway
            file("bin/script", b'#!/bin/sh\necho "$0 says $1"\n', mode=0o755),
            sparse("holes/none", 4097, [(0, content(4097))]),
            sparse("holes/only", 100_000, []),
            sparse("holes/first", 100_000, [(70_000, content(30_000))]),
            sparse("holes/last", 3 * MIB, [(0, content(5))]),
            sparse("holes/odd", MIB, [(1, b"a"), (511, content(2)), (4095, content(70_000)), (MIB - 1, b"z")]),
            sparse("holes/adjacent", 9000, [(100, content(412)), (512, content(3584)), (4096, content(10))]),
        ),
        *(written_by_tar(folder / name, name, arguments) for name, arguments in SPARSE_FORMATS.items()),
    ]


def one_image_layout(folder: Path, built: BuiltImage) -> Path:
    """Write an OCI layout with *built* as its tag ``1`` and return its folder."""
    return write(folder, layout([built], [built.descriptor(annotations={REF_NAME: "1"})]))


def unpacked_by_tarfile(layers: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the regular files that *layers* without whiteouts leave, by path."""
    contents: dict[bytes, bytes] = {}
    for raw in layers:
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            for member in archive:
                if member.islnk():
                    contents[os.fsencode(member.name)] = contents[os.fsencode(member.linkname)]
                elif reading := archive.extractfile(member):
                    contents[os.fsencode(member.name)] = reading.read()
    return contents


def unpacked_by_umoci(root: Path) -> dict[bytes, bytes]:
    """Return the regular files below *root*, by path."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {os.fsencode(path.relative_to(root)): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Library:
    """A store, and what its images' regular files must hold, by their path below a mount."""

    store: Path
    contents: dict[bytes, bytes]


@dataclass(frozen=True)
class Book:
    """A regular file in the mount, and what must be in it."""

    path: bytes
    bytes: bytes


@dataclass(frozen=True)
class Shelf:
    """A mounted library."""

    top: Path
    books: list[Book]

    def book(self, path: str) -> Book:
        (found,) = [book for book in self.books if book.path == os.fsencode(self.top / path)]
        return found


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("reading")
    layers = sizes_layers(folder / "tars")
    imagefs("--store", folder / "store", "load", one_image_layout(folder / "sizes", image(layers)))
    # Of these, which know no whiteouts, Python's tarfile is the judge: umoci knows no sparse files of GNU's old format.
    contents = {b"sizes/1/" + path: data for path, data in unpacked_by_tarfile(layers).items()}
    layouts = {"nasty": (nasty_layout(folder / "nasty"), ["1", "2"])}
    if data := data_dir():
        layouts["alpine"] = (data / "images" / "alpine", ["3.18", "3.20"])
        layouts["small"] = (data / "images" / "small", ["base", "v1", "v2"])
    for name, (source, tags) in layouts.items():
        imagefs("--store", folder / "store", "load", source)
        for tag in tags:
            found = unpacked_by_umoci(umoci_unpack(source, tag, folder / f"{name}-{tag}"))
            contents |= {os.fsencode(f"{name}/{tag}/") + path: data for path, data in found.items()}
    # Terabytes that nobody can unpack: only their ends are ever read.
    far = layer(sparse("far", FAR, [(5, b"near"), (FAR - 3, b"end")]), sparse("none", FAR, []))
    imagefs("--store", folder / "store", "load", one_image_layout(folder / "far", image([far])))
    return Library(folder / "store", contents)


@pytest.fixture(scope="module")
def shelf(driver: str, library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with mounted(library.store, tmp_path_factory.mktemp(driver) / "mnt") as top:
        yield Shelf(top, [Book(os.fsencode(top) + b"/" + path, data) for path, data in library.contents.items()])


@contextlib.contextmanager
def opened(book: Book, flags: int = 0) -> Iterator[int]:
    descriptor = os.open(book.path, os.O_RDONLY | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def forget_pages(descriptor: int) -> None:
    """Have the kernel forget what it read of the file before, so that it asks again."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def some_reads(chance: random.Random, size: int, count: int) -> Iterable[tuple[int, int]]:
    """Return (offset, length) of reads in a file of *size* bytes: anywhere, at edges of every kind, past its end."""
    offsets = [offset for offset in EDGES if offset <= size] + [size - 1, size, size + 1, size // PAGE * PAGE]
    for _ in range(count):
        offset = chance.choice([chance.choice(offsets), chance.randrange(size + 10)])
        length = chance.choice([chance.choice(EDGES), chance.randrange(1, 3 * PAGE), chance.randrange(300_000)])
        yield max(offset, 0), length


# ---- read ----


def test_random_reads_of_every_file_give_its_bytes(shelf: Shelf) -> None:
    chance = random.Random(11)
    for book in shelf.books:
        with opened(book) as descriptor:
            for offset, length in some_reads(chance, len(book.bytes), 12):
                if chance.random() < 0.3:
                    forget_pages(descriptor)
                expected = book.bytes[offset : offset + length]
                assert os.pread(descriptor, length, offset) == expected, (book.path, offset, length)


def test_every_file_read_whole_after_forgetting_it_has_its_bytes(shelf: Shelf) -> None:
    for book in shelf.books:
        with opened(book) as descriptor:
            forget_pages(descriptor)
            with open(descriptor, "rb", closefd=False) as reading:
                assert reading.read() == book.bytes, book.path
            assert os.read(descriptor, 1) == b""


def test_a_file_read_backwards_and_without_read_ahead_has_its_bytes(shelf: Shelf) -> None:
    for path in (f"sizes/1/sizes/{5 * MIB}", f"sizes/1/more/{MIB + 1}", "sizes/1/holes/odd", "sizes/1/holes/old-gnu"):
        book = shelf.book(path)
        with opened(book) as descriptor:
            forget_pages(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            step = max(len(book.bytes) // 50, 1)
            pieces = [os.pread(descriptor, step, offset) for offset in reversed(range(0, len(book.bytes), step))]
        assert b"".join(reversed(pieces)) == book.bytes, path


def test_past_the_end_there_is_nothing_and_no_bytes_are_none(shelf: Shelf) -> None:
    for book in shelf.books:
        size = len(book.bytes)
        with opened(book) as descriptor:
            for offset in (size, size + 1, size + PAGE, 1 << 32, 1 << 62):
                assert os.pread(descriptor, 100, offset) == b"", (book.path, offset)
            for offset in (0, size // 2, size, size + 1):
                assert os.pread(descriptor, 0, offset) == b""


def test_the_ends_of_a_sparse_file_of_a_terabyte_are_read_at_once(shelf: Shelf) -> None:
    path = shelf.top / "far/1/far"
    assert path.stat().st_size == FAR
    with path.open("rb", buffering=0) as reading:
        assert reading.read(12) == bytes(5) + b"near" + bytes(3)
        assert os.pread(reading.fileno(), 100, FAR - 10) == bytes(7) + b"end"
        assert os.pread(reading.fileno(), 5000, FAR // 2 + 1) == bytes(5000)
        assert os.pread(reading.fileno(), 100, FAR) == b""
    with (shelf.top / "far/1/none").open("rb", buffering=0) as reading:
        assert os.pread(reading.fileno(), 100, FAR - 10) == bytes(10)


def test_reads_into_several_buffers_fill_them_in_order(shelf: Shelf) -> None:
    book = shelf.book(f"sizes/1/more/{MIB + 1}")
    buffers = [bytearray(1), bytearray(0), bytearray(PAGE), bytearray(200_000), bytearray(MIB)]
    with opened(book) as descriptor:
        forget_pages(descriptor)
        done = os.preadv(descriptor, buffers, 4095)
    assert done == len(book.bytes) - 4095
    assert b"".join(buffers)[:done] == book.bytes[4095:]


# ---- past the page cache, and without a copy ----


def test_direct_reads_into_aligned_memory_give_the_same_bytes(shelf: Shelf) -> None:
    chance = random.Random(12)
    with mmap.mmap(-1, 2 * MIB) as buffer, memoryview(buffer) as memory:
        for book in shelf.books:
            size = len(book.bytes)
            with opened(book, os.O_DIRECT) as descriptor:
                places = {0, size // PAGE * PAGE, -(-size // PAGE) * PAGE, chance.randrange(size + 1) // 512 * 512}
                for offset in sorted(places):
                    for length in (512, PAGE, 128 * KIB, 2 * MIB):
                        memory[:length] = b"\xa5" * length
                        done = os.preadv(descriptor, [memory[:length]], offset)
                        expected = book.bytes[offset : offset + length]
                        assert memory[:done] == expected, (book.path, offset, length)
                        assert bytes(memory[done:length]) == b"\xa5" * (length - done), "bytes beyond those read"


def test_a_mapped_file_is_its_bytes(shelf: Shelf) -> None:
    for book in shelf.books:
        if not book.bytes:  # mmap(2) refuses to map nothing
            continue
        with opened(book) as descriptor:
            for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
                forget_pages(descriptor)
                with mmap.mmap(descriptor, 0, flags=flags, prot=mmap.PROT_READ) as mapped:
                    assert mapped[:] == book.bytes, book.path


def test_a_file_mapped_from_an_offset_is_its_bytes_from_there(shelf: Shelf) -> None:
    granularity = mmap.ALLOCATIONGRANULARITY
    chance = random.Random(13)
    tried = 0
    for book in shelf.books:
        pages = max(len(book.bytes) - 1, 0) // granularity
        for offset in {page * granularity for page in (1, chance.randrange(pages + 1), pages) if 0 < page <= pages}:
            length = chance.randrange(1, len(book.bytes) - offset + 1)
            with opened(book) as descriptor:
                forget_pages(descriptor)
                with mmap.mmap(descriptor, length, offset=offset, prot=mmap.PROT_READ) as mapped:
                    assert mapped[:] == book.bytes[offset : offset + length], (book.path, offset, length)
            tried += 1
    assert tried > 20


def test_a_mapping_outlives_its_descriptor(shelf: Shelf) -> None:
    book = shelf.book(f"sizes/1/sizes/{5 * MIB}")
    with opened(book) as descriptor:
        forget_pages(descriptor)
        mapped = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    with mapped:
        assert mapped[-10:] == book.bytes[-10:]
        assert mapped[:] == book.bytes


def test_programs_and_scripts_run_from_the_mount(shelf: Shelf) -> None:
    folder = shelf.top / "sizes/1/bin"
    assert run([folder / "echo", "it", "runs"]).stdout == "it runs\n"
    assert run([folder / "script", "this"]).stdout == f"{folder}/script says this\n"
    with pytest.raises(PermissionError):
        subprocess.run([folder.parent / "sizes/512"], check=False)


def some_books(shelf: Shelf) -> list[Book]:
    return [shelf.book(f"sizes/1/more/{size}") for size in SIZES] + [
        book for book in shelf.books if b"/sizes/1/holes/" in book.path
    ]


def test_splicing_a_file_into_a_pipe_gives_its_bytes(shelf: Shelf) -> None:
    reading, writing = os.pipe()
    try:
        for book in some_books(shelf):
            for start in (0, 1, PAGE, 5000):
                received = bytearray()
                with opened(book) as descriptor:
                    forget_pages(descriptor)
                    while done := os.splice(descriptor, writing, 64 * KIB, offset_src=start + len(received)):
                        left = done
                        while left:
                            received += (piece := os.read(reading, left))
                            left -= len(piece)
                assert received == book.bytes[start:], (book.path, start)
    finally:
        os.close(reading)
        os.close(writing)


def test_sendfile_to_a_file_gives_its_bytes(shelf: Shelf, tmp_path: Path) -> None:
    for number, book in enumerate(some_books(shelf)):
        copy = tmp_path / str(number)
        with opened(book) as descriptor, copy.open("wb") as target:
            forget_pages(descriptor)
            sent = 0
            while done := os.sendfile(target.fileno(), descriptor, sent, 1 << 30):
                sent += done
        assert copy.read_bytes() == book.bytes, book.path


def test_sendfile_to_a_socket_gives_its_bytes(shelf: Shelf) -> None:
    for book in some_books(shelf):
        ours, theirs = socket.socketpair()
        received = bytearray()

        def receive(source: socket.socket, into: bytearray) -> None:
            while piece := source.recv(MIB):
                into += piece

        with ours, theirs, opened(book) as descriptor:
            forget_pages(descriptor)
            receiver = threading.Thread(target=receive, args=(theirs, received))
            receiver.start()
            sent = 0
            while done := os.sendfile(ours.fileno(), descriptor, sent, 1 << 30):
                sent += done
            ours.shutdown(socket.SHUT_WR)
            receiver.join(60)
            assert not receiver.is_alive()
        assert received == book.bytes, book.path


def test_copy_file_range_copies_or_says_that_it_cannot_leave_the_file_system(shelf: Shelf, tmp_path: Path) -> None:
    # Since Linux 5.19 the kernel itself refuses with EXDEV to copy between file systems of different types that do not
    # do it themselves, whichever these are; before, and for FUSE to FUSE, it splices.
    for number, book in enumerate(some_books(shelf)):
        copy = tmp_path / str(number)
        with opened(book) as descriptor, copy.open("wb") as target:
            forget_pages(descriptor)
            refusal = None
            try:
                while os.copy_file_range(descriptor, target.fileno(), 1 << 30):
                    pass
            except OSError as error:
                refusal = error.errno
        assert refusal in (None, errno.EXDEV), book.path
        assert copy.read_bytes() == (book.bytes if refusal is None else b""), book.path


# ---- several readers ----


def test_many_threads_read_right_bytes_of_the_same_and_of_different_files(shelf: Shelf) -> None:
    threads = 8
    together = threading.Barrier(threads, timeout=60)
    shared = [shelf.book(f"sizes/1/sizes/{5 * MIB}"), shelf.book("sizes/1/holes/pax-1.0")]

    def read(seed: int, descriptors: list[int]) -> int:
        chance = random.Random(seed)
        together.wait()
        for turn in range(400):
            if turn % 3:
                which = chance.randrange(len(shared))
                book, descriptor = shared[which], descriptors[which]
            else:
                book = chance.choice(shelf.books)
                descriptor = os.open(book.path, os.O_RDONLY)
            if chance.random() < 0.2:
                forget_pages(descriptor)
            for offset, length in some_reads(chance, len(book.bytes), 3):
                expected = book.bytes[offset : offset + length]
                assert os.pread(descriptor, length, offset) == expected, (book.path, offset, length)
            if not turn % 3:
                os.close(descriptor)
        return seed

    with (
        opened(shared[0]) as first,
        opened(shared[1]) as second,
        ThreadPoolExecutor(threads) as pool,
    ):
        assert list(pool.map(read, range(threads), [[first, second]] * threads)) == list(range(threads))


def test_many_threads_read_the_same_files_whole_past_the_page_cache(shelf: Shelf) -> None:
    threads = 6
    together = threading.Barrier(threads, timeout=60)
    books = [shelf.book(f"sizes/1/sizes/{5 * MIB}"), shelf.book("sizes/1/holes/odd")]

    def read(_: int) -> list[bool]:
        together.wait()
        right = []
        for book in books * 3:
            with opened(book, os.O_DIRECT) as descriptor, mmap.mmap(-1, 128 * KIB) as buffer:
                received = bytearray()
                while done := os.preadv(descriptor, [buffer], len(received)):
                    received += buffer[:done]
                right.append(received == book.bytes)
        return right

    with ThreadPoolExecutor(threads) as pool:
        assert [right for one in pool.map(read, range(threads)) for right in one] == [True] * (threads * len(books) * 3)


# ---- holes ----


def data_ranges(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Return (start, end) of what SEEK_DATA and SEEK_HOLE call data."""
    ranges: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is nothing but a hole
                break
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        assert at <= start < end <= size
        ranges.append((start, end))
        at = end
    return ranges


def test_what_is_said_to_be_holes_holds_nothing_but_zeros(shelf: Shelf) -> None:
    for book in shelf.books:
        size = len(book.bytes)
        with opened(book) as descriptor:
            outside = bytearray(book.bytes)
            for start, end in data_ranges(descriptor, size):
                outside[start:end] = bytes(end - start)
                middle = (start + end) // 2
                assert os.lseek(descriptor, middle, os.SEEK_DATA) == middle
                assert os.lseek(descriptor, middle, os.SEEK_HOLE) == end
            assert not any(outside), f"{book.path!r} has data in what is said to be a hole"
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                for offset in (size, size + 1, size + PAGE):
                    with pytest.raises(OSError) as caught:
                        os.lseek(descriptor, offset, whence)
                    assert caught.value.errno == errno.ENXIO, book.path


def test_seeking_to_the_ends_of_data_and_holes_of_a_terabyte_is_legal(shelf: Shelf) -> None:
    with (shelf.top / "far/1/far").open("rb", buffering=0) as reading:
        ranges = data_ranges(reading.fileno(), FAR)
    for first, last in ((5, 9), (FAR - 3, FAR)):
        assert any(start <= first and last <= end for start, end in ranges)


def test_copies_that_look_for_holes_have_all_the_data(shelf: Shelf, tmp_path: Path) -> None:
    for number, book in enumerate(some_books(shelf)):
        for how in ("auto", "always"):
            copy = tmp_path / f"{number}-{how}"
            run(["cp", f"--sparse={how}", os.fsdecode(book.path), copy])
            assert copy.read_bytes() == book.bytes, (book.path, how)
