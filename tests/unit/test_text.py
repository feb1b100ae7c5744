"""Text for people: escapes, sizes and ages."""

import json
import sys
import unicodedata

import pytest

from imagefs.text import age, columns, json_text, path_text, printable, printable_json, printable_lines, size
from tests.support.deceptive import CHARACTERS, DECEPTION

_RANGES = (
    (0, 0x3100),
    (0xD7F0, 0xE010),
    (0xFD00, 0x10000),
    (0xE0000, 0xE0200),
    (sys.maxunicode - 9, sys.maxunicode + 1),
)
MANY_CHARACTERS = "".join(chr(number) for first, end in _RANGES for number in range(first, end))
"""From each kind that is not printable; all of Unicode would take seconds."""


@pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
def test_no_function_lets_a_character_through_that_deceives(character: str) -> None:
    for text in (
        printable(character, limit=None),
        printable(character.encode()),
        printable_lines(character).replace("\n", ""),
        json_text([character]),
        json_text({character: character}, indent=1).replace("\n", ""),
        path_text(character.encode()),
    ):
        assert text.isprintable()


def test_no_control_or_format_character_and_no_surrogate_is_printed() -> None:
    for text in (printable(MANY_CHARACTERS, limit=None), json_text(MANY_CHARACTERS)):
        assert {unicodedata.category(char) for char in text}.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def test_lines_keep_newlines_and_tabs_only() -> None:
    assert printable_lines("a\tb\r\n\x1bc\n") == "a\tb\\r\n\\x1bc\n"


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert printable(b"a\xff\x9b") == "a\\udcff\\udc9b"


def test_a_limit_holds_for_what_is_printed() -> None:
    assert printable("\x1b" * 10, limit=9) == "\\x1b\\x1b…"


def test_json_is_equal_and_as_readable_as_can_be() -> None:
    # Two surrogates in a row can be one character to JSON; paths hold only the second kind.
    characters = "".join(char for char in MANY_CHARACTERS if unicodedata.category(char) != "Cs")
    value = {"é 中 😀": characters, "deceptive": [DECEPTION, "\udcff", None, 1.5, True]}
    for text in (json_text(value), json_text(value, indent=4), json_text(value, compact=True)):
        assert json.loads(text) == value, "values differ"
        assert "é 中 😀" in text


def test_a_json_document_keeps_values_and_white_space() -> None:
    document = '{\r\n\t"a": "\x9b\u202e\U000e0041\x7f \\u001b"\r\n}\n'
    safe = printable_json(document)
    assert safe == '{\n\t"a": "\\u009b\\u202e\\udb40\\udc41\\u007f \\u001b"\n}\n'
    assert json.loads(safe) == json.loads(document)


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
