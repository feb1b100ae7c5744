"""Who is taken for one that walks through an image, and who is not."""

import stat

import pytest

from imagefs.mount.walks import Walks
from imagefs.overlay.attributes import Attributes
from imagefs.overlay.listing import Listing
from imagefs.overlay.record import packed, record, unattributed
from imagefs.view.attributes import NodeId


def listing(directory: int, *sizes: int) -> Listing:
    """Return a listing of files of these sizes, whose nodes are 100 times the directory's and counted; -1: a folder."""
    records = [unattributed(name, 1, stat.S_IFDIR, cookie=len(name)) for name in (b".", b"..")]
    for number, size in enumerate(sizes):
        mode = stat.S_IFDIR if size < 0 else stat.S_IFREG
        made = packed(Attributes(1, mode, 1, 0, 0, max(0, size), 0, 0, 0))
        records.append(record(b"%d" % number, 100 * directory + number, made, cookie=number + 3, ino=1, mode=mode))
    return Listing.of(records)


@pytest.fixture
def told() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def walks(told: list[tuple[int, int]]) -> Walks:
    return Walks(lambda directory, first: told.append((directory, first)))


def test_from_the_second_directory_on_that_is_read_from_its_first_file(
    walks: Walks, told: list[tuple[int, int]]
) -> None:
    for directory in (1, 2, 3):
        walks.listed(NodeId(directory), listing(directory, -1, 0, 5, 5))
        for node in (2, 3):  # the folder and the empty file are not read
            walks.was_read(NodeId(100 * directory + node))
    assert told == [(2, 4), (3, 4)]


def test_a_walk_comes_back_to_a_directory_after_those_below(walks: Walks, told: list[tuple[int, int]]) -> None:
    walks.listed(NodeId(1), listing(1, -1, 5, 5))
    walks.listed(NodeId(2), listing(2, 5, 5))
    walks.was_read(NodeId(200))
    walks.was_read(NodeId(101))
    assert told == [(1, 3)]


def test_reading_here_and_there_is_no_walk(walks: Walks, told: list[tuple[int, int]]) -> None:
    for directory in range(1, 10):
        walks.listed(NodeId(directory), listing(directory, 5, 5, 5))
        walks.was_read(NodeId(100 * directory + 1))
    walks.was_read(NodeId(100))
    for _ in range(100):
        walks.was_read(NodeId(777))
    walks.was_read(NodeId(200))
    assert told == []


def test_listing_alone_is_remembered_within_bounds(walks: Walks, told: list[tuple[int, int]]) -> None:
    for directory in range(1, 200):
        walks.listed(NodeId(directory), listing(directory, 5))
    assert len(walks._firsts) == 64
    assert told == []
