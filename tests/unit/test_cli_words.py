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
