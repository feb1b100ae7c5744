import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import InvalidManifest
from imagefs.oci.document import MAX_DEPTH, MAX_VALUES, parse_json, string_map_field

LIMIT = 4 * 1024 * 1024


def parse(raw: bytes) -> object:
    return parse_json(raw, what="manifest", limit_bytes=LIMIT)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"{} x", "expected JSON"),
        (b"]]]]", "expected JSON"),
        (b"\xef\xbb\xbf{}", "expected JSON"),
        ("{}".encode("utf-16"), "expected UTF-8 text, found the byte 0xff"),
        (b'{"a":"\xff"}', "found the byte 0xff"),
        (b'{"a":"\xed\xa0\x80"}', "found the byte 0xed"),
        (b'{"a":1,"b":2,"a":3}', "found 'a' twice"),
        (b'[{"x":{"a":1,"\\u0061":3}}]', "found 'a' twice"),
        (b'{"a":NaN}', "found NaN"),
        (b'{"a":-Infinity}', "found -Infinity"),
        (b'{"a":1e999}', "found 1e999"),
        (b'{"a":' + b"1" * 5000 + b"}", "found one of 5000"),
        (b'{"a":"\\ud800"}', "half a character"),
        (b'{"\\udc00":[]}', "half a character"),
        (b"[" * 200_000, "levels of nesting"),
        (b'{"a":' * 100_000, "levels of nesting"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "levels of nesting"),
        (b"[" + b"[]," * MAX_VALUES + b"[]]", "values"),
        (b" " * (LIMIT + 1), "expected at most 4194304 bytes, found 4194305"),
        (b'"' + b'\\"' * 2_000_000, "expected JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_documents_that_parsers_could_disagree_about_are_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse(raw)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_looks_like_structure_inside_strings_is_not_counted() -> None:
    value = {"a": "[{" * 10_000 + '"\\' + ",,,"}
    assert parse(json.dumps(value).encode()) == value


def test_nesting_up_to_the_bound_is_understood() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "😀"


def test_maps_of_strings_keep_their_order_and_refuse_other_values() -> None:
    assert string_map_field({"a": {"z": "1", "b": None}}, "a", what="x") == (("z", "1"), ("b", ""))
    assert string_map_field({"a": None}, "a", what="x") == ()
    with pytest.raises(InvalidManifest, match=r"expected a string as 'a\.b', found the number 3"):
        string_map_field({"a": {"b": 3}}, "a", what="x")


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=15,
)


@given(_json, st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_plain_document_is_understood(value: object, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.one_of(st.binary(), st.text('{}[]",:\\u0dcNaIeE+-.19 ').map(str.encode)))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_value_or_one_kind_of_error(raw: bytes) -> None:
    try:
        value = parse(raw)
    except InvalidManifest:
        return
    json.dumps(value, allow_nan=False).encode()
