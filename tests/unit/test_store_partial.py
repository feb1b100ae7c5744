"""What is kept of downloads that were not finished."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.oci.digest import Digest
from imagefs.store.partial import KEPT_S, Partial, Partials

DIGEST = Digest.of(b"blob")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "partial"


@pytest.fixture
def partials(folder: Path) -> Partials:
    return Partials(folder)


@pytest.fixture
def claimed(partials: Partials) -> Iterator[Partial]:
    partial = partials.claim(DIGEST)
    assert partial is not None
    yield partial
    partial.close()


def kept(partials: Partials, digest: Digest, data: bytes) -> None:
    partial = partials.claim(digest)
    assert partial is not None
    partial.append(data)
    partial.close()


def test_what_came_is_there_for_the_next_one(partials: Partials) -> None:
    kept(partials, DIGEST, b"abc")
    kept(partials, DIGEST, b"def" * 1_000_000)
    assert partials.size(DIGEST) == 3_000_003
    partial = partials.claim(DIGEST)
    assert partial is not None
    pieces = list(partial.chunks())
    partial.close()
    assert b"".join(pieces) == b"abc" + b"def" * 1_000_000
    assert max(map(len, pieces)) <= 1 << 20


def test_what_is_added_while_it_is_read_comes_not_twice(claimed: Partial) -> None:
    claimed.append(b"abc")
    pieces = []
    for piece in claimed.chunks():
        pieces.append(piece)
        claimed.append(b"more")
    assert pieces == [b"abc"]


def test_only_one_at_a_time_has_it(partials: Partials, claimed: Partial) -> None:
    assert partials.claim(DIGEST) is None
    other = partials.claim(Digest.of(b"other"))
    assert other is not None
    other.close()
    claimed.append(b"x")
    claimed.close()
    again = partials.claim(DIGEST)
    assert again is not None
    assert again.size == 1
    again.close()


def test_nothing_is_left_of_what_was_discarded_or_stayed_empty(partials: Partials, folder: Path) -> None:
    kept(partials, DIGEST, b"")
    kept(partials, DIGEST, b"abc")
    partial = partials.claim(DIGEST)
    assert partial is not None
    partial.discard()
    partial.close()
    assert list(folder.iterdir()) == []
    assert partials.size(DIGEST) == 0


def test_what_is_old_goes_but_nothing_that_is_new_held_or_not_ours(
    partials: Partials, folder: Path, claimed: Partial
) -> None:
    old, new = Digest.of(b"old", "sha512"), Digest.of(b"new")
    for digest in (old, new):
        kept(partials, digest, b"x")
    (folder / "notes.txt").write_text("hands off")
    claimed.append(b"x")
    for name in ("notes.txt", f"sha512-{old.hex}", f"sha256-{DIGEST.hex}"):
        os.utime(folder / name, (0, os.stat(folder / name).st_mtime - KEPT_S - 1))
    assert partials.remove_old() > 0
    assert {path.name for path in folder.iterdir()} == {"notes.txt", f"sha256-{new.hex}", f"sha256-{DIGEST.hex}"}
    assert (partials.size(old), partials.size(new)) == (0, 1)


def test_a_symlink_in_place_of_a_download_is_not_followed(partials: Partials, folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / f"{DIGEST.algorithm}-{DIGEST.hex}").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        partials.claim(DIGEST)
    assert not (tmp_path / "target").exists()
