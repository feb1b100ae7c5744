"""Where a registry may send us, and whom a password may be told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import RegistryError
from imagefs.registry.boundaries import (
    Sender,
    check_addresses,
    checked_foreign,
    checked_realm,
    checked_redirect,
    host_of,
    is_link_local,
    is_loopback,
    may_tell_password,
    origin_of,
    redacted,
)

HERE = [
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.1", "127.255.0.9", "0x7f000001",
    "2130706433", "017700000001", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "0.0.0.0", "0", "::",
]  # fmt: skip


def sender(url: str) -> Sender:
    """The server at *url*, whose name is its address."""
    return Sender(url, is_here(url))


def is_here(url: str) -> bool:
    return is_loopback(host_of(url))


ELSEWHERE = [
    "example.com",
    "localhost.example.com",
    "notlocalhost",
    "10.0.0.1",
    "192.168.0.1",
    "8.8.8.8",
    "2001:db8::1",
    "",
]


@pytest.mark.parametrize("host", HERE)
def test_this_machine_has_many_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_machines_are_not_this_one(host: str) -> None:
    assert not is_loopback(host)
    assert not is_link_local(host)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "0xa9fea9fe", "2852039166", "fe80::1", "::ffff:169.254.169.254", "fd00:ec2::254"]
)
def test_metadata_services_are_recognised(host: str) -> None:
    assert is_link_local(host)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("https://r.example/v2/", "http://r.example/v2/"),
        ("https://r.example/v2/", "http://cdn.example/x"),
        ("https://r.example/v2/", "https://localhost/x"),
        ("https://r.example/v2/", "https://127.0.0.1:8080/x"),
        ("https://r.example/v2/", "https://[::1]/x"),
        ("https://r.example/v2/", "https://0x7f.1/x"),
        ("https://r.example/v2/", "https://169.254.169.254/latest/meta-data"),
        ("https://r.example/v2/", "https://[::ffff:169.254.169.254]/x"),
        ("http://r.example/v2/", "http://169.254.169.254/x"),
        ("http://127.0.0.1:5000/v2/", "http://169.254.169.254/x"),
        ("https://r.example/v2/", "file:///etc/passwd"),
        ("https://r.example/v2/", "ftp://cdn.example/x"),
        ("https://r.example/v2/", "https:///x"),
        ("https://r.example/v2/", "https://user:pw@cdn.example/x"),
        ("https://r.example/v2/", "https://cdn.example\\@127.0.0.1/x"),
        ("https://r.example/v2/", "https://cdn.example\x00/x"),
        ("https://r.example/v2/", "https://cdn.example:99999/x"),
        ("https://r.example/v2/", "https://cdn.example:x/x"),
        ("https://r.example/v2/", "https://[::1/x"),
        ("https://r.example/v2/", "https://ex ample/x"),
        ("https://r.example/v2/", "https://ex\u00e4mple/x"),
        ("https://r.example/v2/", "https://cdn.example/" + "x" * 20_000),
    ],
)
def test_redirects_that_are_refused(source: str, target: str) -> None:
    with pytest.raises(RegistryError) as caught:
        checked_redirect(sender(source), target)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("https://r.example/v2/", "https://cdn.example/x?sig=a%2Fb#f", "https://cdn.example/x?sig=a%2Fb"),
        ("https://r.example/v2/", "https://10.0.0.1:9000/x", "https://10.0.0.1:9000/x"),
        ("http://r.example/v2/", "http://cdn.example/x", "http://cdn.example/x"),
        ("http://r.example/v2/", "https://cdn.example/x", "https://cdn.example/x"),
        ("http://localhost:5000/v2/", "http://127.0.0.1:9000/x", "http://127.0.0.1:9000/x"),
        ("https://r.example/v2/", "https://cdn.example/a b\u00e4", "https://cdn.example/a%20b%E4"),
    ],
)
def test_redirects_that_are_followed(source: str, target: str, expected: str) -> None:
    assert checked_redirect(sender(source), target) == expected


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://r.example/v2/", "http://r.example/token"),
        ("https://r.example/v2/", "http://auth.example/token"),
        ("https://r.example/v2/", "https://169.254.169.254/token"),
        ("http://127.0.0.1:5000/v2/", "http://169.254.169.254/token"),
        ("https://r.example/v2/", "https://localhost/token"),
        ("https://r.example/v2/", "file:///etc/passwd"),
        ("https://r.example/v2/", "/token"),
        ("https://r.example/v2/", ""),
    ],
)
def test_realms_that_are_refused(registry: str, realm: str) -> None:
    with pytest.raises(RegistryError):
        checked_realm(sender(registry), realm, is_here=is_here)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://r.example/v2/", "https://auth.example/token?x=1"),
        ("http://r.example/v2/", "http://auth.example/token"),
        ("http://r.example/v2/", "https://auth.example/token"),
        ("http://127.0.0.1:5000/v2/", "http://localhost:5001/token"),
        ("https://127.0.0.1:5000/v2/", "http://localhost:5001/token"),
    ],
)
def test_realms_that_are_asked(registry: str, realm: str) -> None:
    assert checked_realm(sender(registry), realm, is_here=is_here) == realm


@pytest.mark.parametrize(
    ("registry", "realm", "expected"),
    [
        ("https://r.example/v2/", "https://auth.example/token", True),
        ("http://r.example/v2/", "https://auth.example/token", True),
        ("http://r.example/v2/", "http://r.example:8080/token", True),
        ("http://r.example/v2/", "http://auth.example/token", False),
        ("http://localhost:5000/v2/", "http://127.0.0.1:5001/token", True),
    ],
)
def test_a_password_goes_to_another_host_only_over_https(registry: str, realm: str, expected: bool) -> None:
    assert may_tell_password(sender(registry), realm, is_here=is_here) is expected


def test_foreign_layers_are_fetched_over_https_and_not_from_this_machine() -> None:
    registry = sender("https://r.example/v2/")
    assert checked_foreign(registry, "https://mcr.example/x") == "https://mcr.example/x"
    for url in ("https://localhost/x", "https://169.254.169.254/x", "file:///x", "http://mcr.example/x"):
        with pytest.raises(RegistryError):
            checked_foreign(registry, url)
    with pytest.raises(RegistryError, match="a URL of http; expected https"):
        checked_foreign(sender("http://127.0.0.1:5000/v2/"), "http://127.0.0.1:5001/x")


@pytest.mark.parametrize(
    ("address", "from_elsewhere", "from_here"),
    [
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("0.0.0.0", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("64:ff9b::7f00:1", False, True),
        ("169.254.169.254", False, False),
        ("fe80::1%2", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fd00:ec2::254", False, False),
        ("100.100.100.200", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("255.255.255.255", False, False),
        ("10.0.0.1", True, True),
        ("192.168.0.1", True, True),
        ("8.8.8.8", True, True),
        ("2001:db8::1", True, True),
    ],
)
def test_addresses_decide_where_a_server_may_send_us(address: str, from_elsewhere: bool, from_here: bool) -> None:
    for source, allowed in (("https://r.example/v2/", from_elsewhere), ("http://localhost/v2/", from_here)):
        for addresses in ((address,), ("10.0.0.2", address)):
            if allowed:
                check_addresses(sender(source), "https://cdn.example/x", addresses)
            else:
                with pytest.raises(RegistryError, match=r"r.example sends imagefs|localhost sends imagefs"):
                    check_addresses(sender(source), "https://cdn.example/x", addresses)


def test_the_address_of_a_source_counts_and_not_its_name() -> None:
    pretender = Sender("http://registry.localhost/v2/", is_here=False)
    with pytest.raises(RegistryError, match="this machine"):
        checked_redirect(pretender, "http://127.0.0.1:8080/x")
    assert not may_tell_password(pretender, "http://auth.localhost/token", is_here=is_here)
    named = Sender("http://registry.test/v2/", is_here=True)
    assert checked_redirect(named, "http://127.0.0.1:8080/x") == "http://127.0.0.1:8080/x"
    here = Sender("https://127.0.0.1/v2/", is_here=True)
    with pytest.raises(RegistryError, match="expected https"):
        checked_realm(here, "http://auth.localhost/token", is_here=lambda _: False)


def test_origins_are_compared_with_the_port_that_is_meant() -> None:
    assert origin_of("https://A.example/x") == origin_of("https://a.example:443/y")
    assert origin_of("https://a.example/") != origin_of("http://a.example/")
    assert origin_of("https://a.example/") != origin_of("https://a.example:444/")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:pw@r.example:5000/v2/a?X-Amz-Signature=s#f", "https://r.example:5000/v2/a"),
        ("https://r.example/\x1b[31m", "https://r.example/\\x1b[31m"),
        ("https://[", "(a malformed URL)"),
    ],
)
def test_urls_are_shown_without_what_may_be_secret(url: str, expected: str) -> None:
    assert redacted(url) == expected


@given(st.text(max_size=80), st.sampled_from(["", "https://", "https://cdn.example/", "http://"]))
@settings(deadline=None, max_examples=300)
def test_any_target_is_a_clean_url_or_refused(text: str, prefix: str) -> None:
    try:
        cleaned = checked_redirect(sender("https://r.example/v2/"), prefix + text)
    except RegistryError:
        return
    assert cleaned.startswith("https://")
    assert cleaned.isascii()
    assert cleaned.isprintable()
