"""Sizes and ages in docker's words."""

import pytest

from imagefs.cli.words import age, columns, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1090, "1.09kB"),
        (72_900_000, "72.9MB"),
        (999_999, "1000kB"),
        (8 * 10**9, "8GB"),
    ],
)
def test_sizes_are_decimal_with_three_digits(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_ages_are_in_dockers_words(seconds: int, text: str) -> None:
    assert age(seconds) == text


def test_columns_are_aligned_and_lines_not_padded() -> None:
    assert columns([("A", "LONG", "C"), ("xyz", "1", "")]) == "A     LONG   C\nxyz   1"


def test_columns_keep_to_a_width_and_cut_last_what_shall_stay_whole() -> None:
    rows = [("NAME", "ID", "TEXT"), ("a" * 20, "0123456789ab", "b" * 30)]
    for width in (80, 60, 40, 30, 26):
        lines = columns(rows, width=width, whole={1}).split("\n")
        assert max(map(len, lines)) <= width
        assert "0123456789ab" in lines[1]
    for width in (20, 12, 8):
        assert max(map(len, columns(rows, width=width, whole={1}).split("\n"))) <= width
    assert "…" not in columns(rows, width=68)
    assert "…" not in columns(rows)
