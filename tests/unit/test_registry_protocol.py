"""What headers and bodies of the distribution protocol mean, as tables."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import InvalidManifest
from imagefs.oci.digest import Digest
from imagefs.registry import protocol
from imagefs.registry.protocol import Challenge, ContentRange

ROOT = "https://r.example/v2/"


@pytest.mark.parametrize(
    ("registry", "scheme", "expected"),
    [
        ("docker.io", "https", "https://registry-1.docker.io/v2/"),
        ("ghcr.io", "https", "https://ghcr.io/v2/"),
        ("localhost:5000", "http", "http://localhost:5000/v2/"),
        ("[::1]:5000", "http", "http://[::1]:5000/v2/"),
    ],
)
def test_the_api_is_where_the_registry_is_but_for_docker_hub(registry: str, scheme: str, expected: str) -> None:
    assert protocol.api_root(registry, scheme) == expected


def test_urls_name_repository_and_reference() -> None:
    digest = Digest.of(b"")
    assert protocol.manifest_url(ROOT, "a/b", "1.0") == "https://r.example/v2/a/b/manifests/1.0"
    assert protocol.manifest_url(ROOT, "a/b", digest) == f"https://r.example/v2/a/b/manifests/{digest}"
    assert protocol.blob_url(ROOT, "a/b", digest) == f"https://r.example/v2/a/b/blobs/{digest}"
    assert protocol.tags_url(ROOT, "a/b", last="x") == "https://r.example/v2/a/b/tags/list?n=1000&last=x"


def challenge(scheme: str, **parameters: str) -> Challenge:
    return Challenge(scheme, tuple(parameters.items()))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], ()),
        ([""], ()),
        (["Basic"], (challenge("basic"),)),
        (['Basic realm="x"'], (challenge("basic", realm="x"),)),
        (
            ['Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push"'],
            (challenge("bearer", realm="https://a/token", service="s", scope="repository:a/b:pull,push"),),
        ),
        (['BEARER Realm="r" , SERVICE=s'], (challenge("bearer", realm="r", service="s"),)),
        (["Bearer realm=https://a/t?x=1,service=s"], (challenge("bearer", realm="https://a/t?x=1", service="s"),)),
        ([r'Basic realm="say \"hi\", ok"'], (challenge("basic", realm='say "hi", ok'),)),
        (
            ['Basic realm="x", Bearer realm="y",service="s"'],
            (challenge("basic", realm="x"), challenge("bearer", realm="y", service="s")),
        ),
        (['Basic realm="x"', 'Bearer realm="y"'], (challenge("basic", realm="x"), challenge("bearer", realm="y"))),
        (["Negotiate YWJj==, Basic realm=x"], (challenge("negotiate"), challenge("basic", realm="x"))),
        (["Negotiate, Basic realm=x"], (challenge("negotiate"), challenge("basic", realm="x"))),
        (['Bearer realm="unclosed'], (challenge("bearer", realm=""),)),
        (['realm="no scheme"'], ()),
        ([")(*&^"], ()),
    ],
)
def test_challenges(headers: list[str], expected: tuple[Challenge, ...]) -> None:
    assert protocol.parse_challenges(headers) == expected


@given(st.lists(st.text(max_size=200), max_size=4))
@settings(deadline=None, max_examples=200)
def test_any_header_is_some_number_of_challenges(headers: list[str]) -> None:
    assert len(protocol.parse_challenges(headers)) <= 16


def test_token_urls_keep_the_query_of_the_realm() -> None:
    url = protocol.token_url("https://a/t?x=1", service="the s", scopes=("repository:a/b:pull",), account="me")
    assert url == "https://a/t?x=1&service=the+s&scope=repository%3Aa%2Fb%3Apull&account=me"
    assert protocol.token_url("https://a/t", service="", scopes=()) == "https://a/t"


@pytest.mark.parametrize(
    ("raw", "value", "lifetime_s"),
    [
        (b'{"token":"abc"}', "abc", 60),
        (b'{"access_token":"abc","expires_in":300}', "abc", 300),
        (b'{"token":"","access_token":"abc"}', "abc", 60),
        (b'{"token":"a","access_token":"b"}', "a", 60),
        (b'{"token":"abc","expires_in":1}', "abc", 60),
        (b'{"token":"abc","expires_in":-5}', "abc", 60),
        (b'{"token":"abc","expires_in":"soon"}', "abc", 60),
        (b'{"token":"abc","expires_in":null}', "abc", 60),
    ],
)
def test_tokens_live_a_minute_at_least(raw: bytes, value: str, lifetime_s: float) -> None:
    token = protocol.parse_token(raw)
    assert (token.value, token.lifetime_s) == (value, lifetime_s)
    assert value not in repr(token)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"token":1}', b'{"token":"a\\r\\nHost: b"}', b'{"token":"a b"}', b"<html>"]
)
def test_what_is_no_token_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidManifest):
        protocol.parse_token(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no"}]}', ["denied: no"]),
        (b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}',
         ["manifest unknown: manifest unknown"]),
        (b'{"errors":[{"code":"DENIED"},{"message":"only words"},7,"text",{}]}', ["denied", "only words", "text", ""]),
        (b'{"errors":[{"code":"B4D \\u001b[31m","message":"\\u001b[31mred"}]}', ["\\x1b[31mred"]),
        (b'{"details":"incorrect username or password"}', ["incorrect username or password"]),
        (b'{"errors":{}}', []),
        (b"<html>", []),
        (b"[[[[", []),
        (b"", []),
    ],
)  # fmt: skip
def test_error_bodies(raw: bytes, expected: list[str]) -> None:
    assert [str(entry) for entry in protocol.parse_errors(raw)] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("-1", None),
        ("985.86µs", None),
        ("soon", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 50),
        ("Thu, 01 Jan 1970 00:00:05 GMT", 0),
        ("Thu, 99 Jan 1970 00:00:05 GMT", None),
        ("Thu, 01 Jan 99999 00:00:05 GMT", None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert protocol.parse_retry_after(value, now_s=10) == expected


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_retry_after_is_a_wait_or_none(value: str) -> None:
    found = protocol.parse_retry_after(value, now_s=0)
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("bytes 5-9/10", ContentRange(5, 9, 10)),
        ("bytes 5-9/*", ContentRange(5, 9, None)),
        ("bytes 9-5/10", None),
        ("bytes */10", None),
        ("5-9/10", None),
    ],
)
def test_content_range(value: str | None, expected: ContentRange | None) -> None:
    assert protocol.parse_content_range(value) == expected


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([], None),
        (['</v2/a/tags/list?last=b>; rel="next"'], "https://r.example/v2/a/tags/list?last=b"),
        (["<?last=b>;rel=next"], "https://r.example/v2/a/tags/list?last=b"),
        (['<https://r.example/x>; rel="next"'], "https://r.example/x"),
        (['<a>; rel="prev", <b>; title="x"; rel="next"'], "https://r.example/v2/a/tags/b"),
        (['<a>; rel="prev"'], None),
        (["<a>; rel=nextish"], None),
        (["a; rel=next"], None),
        (["<http://[>; rel=next"], None),
    ],
)
def test_links_to_the_next_page(links: list[str], expected: str | None) -> None:
    assert protocol.next_page(links, "https://r.example/v2/a/tags/list") == expected


def test_warnings_are_those_with_code_299_and_fit_to_be_shown() -> None:
    values = ['299 - "use \\"b\\""', '199 - "old"', '299 r.example "a\x1b[31m", 299 - "c"', "299 - unquoted"]
    assert protocol.parse_warnings(values) == ('use "b"', "a\\x1b[31m", "c")
    assert len(protocol.parse_warnings([f'299 - "{"x" * 6000}"'])[0]) == 4096


def test_rate_limits_are_said_in_hours() -> None:
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
    assert protocol.describe_rate_limit(headers) == "limit 100 per 6 h, 0 left"
    assert protocol.is_rate_spent(headers)
    assert protocol.describe_rate_limit({}) == ""
    assert not protocol.is_rate_spent({"ratelimit-remaining": "x"})


def test_tags_that_are_none_are_set_apart() -> None:
    raw = b'{"tags":["1.0","../x","a/b","..","","x\\n","' + b"x" * 129 + b'",7,null,"latest"]}'
    tags, others = protocol.parse_tags(raw, what="tags")
    assert tags == ("1.0", "latest")
    assert len(others) == 8
    assert protocol.parse_tags(b'{"tags":null}', what="tags") == ((), ())


@pytest.mark.parametrize("raw", [b"[]", b'{"tags":{}}', b"<html>"])
def test_what_is_no_tag_list_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidManifest):
        protocol.parse_tags(raw, what="tag list of x")


def test_a_token_has_a_longest_length() -> None:
    longest = "x" * protocol.MAX_TOKEN_CHARACTERS
    assert protocol.parse_token(json.dumps({"token": longest}).encode()).value == longest
    with pytest.raises(InvalidManifest, match="MAX_TOKEN_CHARACTERS"):
        protocol.parse_token(json.dumps({"token": longest + "x"}).encode())
