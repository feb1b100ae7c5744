"""Which hosts may be sent requests, and which may be sent a secret.

Receives URLs that a registry, token server or manifest wrote, and addresses that names resolve to; hands on the same
URLs, cleaned, or refuses them.  It must never resolve a name or open a connection: the rules are tables in the tests.

Three kinds of address matter.  *Loopback* is this machine: nobody in between, but full of services that trust every
client.  *Link-local* is where clouds keep the metadata service that hands out their keys; no registry lives there.
Everything else is *public* here, private networks too: companies redirect between their own hosts, by any name.

A URL is checked twice: as it is written (`checked_redirect` and its like), and by the addresses that its host resolves
to (`check_addresses`), to which the connection then goes.  Behind a proxy only the first check is possible: the proxy
resolves the name.  Hence no host behind a proxy counts as this machine, and it is the proxy's task to refuse addresses.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from imagefs.errors import RegistryError, printable

__all__ = [
    "Sender",
    "authority_of",
    "check_addresses",
    "checked_foreign",
    "checked_realm",
    "checked_redirect",
    "host_of",
    "is_link_local",
    "is_loopback",
    "may_tell_password",
    "origin_of",
    "redacted",
]

MAX_URL_CHARACTERS = 16 * 1024
"""Longest URL followed; presigned storage URLs have some thousands of characters."""

_DEFAULT_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_AUTHORITY = re.compile(rf"(?:{_HOST.pattern})(?::[0-9]{{0,5}})?", re.ASCII)
_LEGACY_ADDRESS = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]+)){0,3}", re.ASCII)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
"""Addresses outside the link-local networks where clouds (Amazon, Alibaba, Azure, Oracle) serve metadata."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that hold an IPv4 address in their last four bytes (RFC 6052)."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A server that names a URL for the next request: by a redirect, a challenge or a manifest.

    *url* is where it answered; *is_here* says whether the connection went to this machine.
    """

    url: str
    is_here: bool


def redacted(url: str) -> str:
    """Return *url* as it may be shown and logged: without user, password, query and fragment, which can be secrets."""
    try:
        parts = urlsplit(url)
        return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", limit=500)
    except ValueError:
        return "(a malformed URL)"


def host_of(url: str) -> str:
    """Return the host of a checked *url*, in lower case, without port, brackets or final dot; "" where it has none."""
    return (urlsplit(url).hostname or "").rstrip(".")


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port, which together say whom a checked *url* talks to."""
    parts = urlsplit(url)
    return (parts.scheme, host_of(url), parts.port or _DEFAULT_PORTS.get(parts.scheme, 0))


def authority_of(url: str) -> str:
    """Return the host of *url* with its port as written, for messages."""
    return printable(urlsplit(url).netloc.rpartition("@")[2])


def is_loopback(host: str) -> bool:
    """Return whether *host*, without port, is written as this machine.

    That is ``localhost``, a name below it, 127.0.0.0/8, ::1, or the unspecified address.  A name below ``localhost``
    may still resolve to another machine, so this decides what is refused, never what is trusted.  Understands the
    odd spellings of IPv4 addresses that C libraries connect to: ``127.1``, ``0x7f000001``.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_link_local(host: str) -> bool:
    """Return whether *host* is an address where no registry lives.

    Link-local (169.254.0.0/16, fe80::/10), multicast, broadcast, or where a cloud serves its metadata.
    """
    address = _address(host.lower())
    if address is None:
        return False
    is_group = address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255")
    return address.is_link_local or is_group or address in _METADATA


def check_addresses(sender: Sender, url: str, addresses: Sequence[str]) -> None:
    """Refuse to follow *sender* to *url* if one of the *addresses* of its host is link-local, or loopback from outside.

    Raises: RegistryError.
    """
    who = f"{authority_of(sender.url)} sends imagefs to {authority_of(url)}"
    for address in addresses:
        if is_link_local(address):
            raise _refuse(f"{who}, which has the link-local address {printable(address)}; refused", sender.url)
        if is_loopback(address) and not sender.is_here:
            raise _refuse(f"{who}, which is this machine ({printable(address)}); refused", sender.url)


def checked_redirect(sender: Sender, target: str) -> str:
    """Return the absolute *target* of a redirect from *sender*, if it may be followed.

    Refused are anything but http and https, the way down from https to http, and the way from elsewhere to this
    machine or a link-local address.

    Raises: RegistryError.
    """
    who = f"{authority_of(sender.url)} redirects"
    cleaned = _parse(target, who)
    if urlsplit(sender.url).scheme == "https" and cleaned.scheme != "https":
        raise _refuse(f"{who} from https to {cleaned.scheme}, which is refused", sender.url)
    _refuse_inner_hosts(sender, cleaned, who)
    return cleaned.geturl()


def checked_realm(registry: Sender, realm: str, *, is_here: Callable[[str], bool]) -> str:
    """Return the *realm* of a Bearer challenge, if it may be asked for a token.

    It must be https; http only where the registry itself is spoken to in http or both are this machine.  *is_here*
    returns whether a URL's host resolves to this machine.

    Raises: RegistryError.
    """
    who = f"{authority_of(registry.url)} names a token server"
    cleaned = _parse(realm, who)
    _refuse_inner_hosts(registry, cleaned, who)
    is_private = cleaned.scheme == "https" or (registry.is_here and is_here(cleaned.geturl()))
    if not is_private and urlsplit(registry.url).scheme != "http":
        raise _refuse(f"{who} that speaks {cleaned.scheme}; expected https", registry.url)
    return cleaned.geturl()


def checked_foreign(registry: Sender, url: str) -> str:
    """Return the *url* of a foreign layer, if it may be requested: only over https.

    A manifest is written by the author of an image, who must not choose what is fetched from hosts without TLS.

    Raises: RegistryError.
    """
    who = f"a manifest from {authority_of(registry.url)} points"
    cleaned = _parse(url, who)
    if cleaned.scheme != "https":
        raise _refuse(f"{who} to a URL of {cleaned.scheme}; expected https", registry.url)
    _refuse_inner_hosts(registry, cleaned, who)
    return cleaned.geturl()


def may_tell_password(registry: Sender, realm: str, *, is_here: Callable[[str], bool]) -> bool:
    """Return whether a password meant for the registry may be sent to the checked *realm*.

    To another host only over https: a registry that is spoken to in plain http can be anybody, and so name any realm.
    """
    if urlsplit(realm).scheme == "https" or host_of(registry.url) == host_of(realm):
        return True
    return registry.is_here and is_here(realm)


def _refuse_inner_hosts(sender: Sender, target: SplitResult, who: str) -> None:
    host = (target.hostname or "").rstrip(".")
    if is_link_local(host):
        raise _refuse(f"{who} to the link-local address {printable(host)}, which is refused", sender.url)
    if is_loopback(host) and not sender.is_here:
        raise _refuse(f"{who} to this machine ({printable(host)}), which is refused", sender.url)


def _parse(url: str, who: str) -> SplitResult:
    """Return the parts of *url*, which all parsers will see alike.

    A back slash, white space or a user in front of the host is where parsers disagree about which host is meant; what
    one of them checked another would not connect to.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise _refuse(f"{who} to a URL of {len(url)} characters; expected at most {MAX_URL_CHARACTERS}", "")
    if "\\" in url or any(ord(c) < 0x20 or ord(c) == 0x7F for c in url):
        raise _refuse(f"{who} to a malformed URL", "")
    # HTTP header bytes arrive as Latin-1.
    cleaned = "".join(c if "!" <= c <= "~" else f"%{ord(c):02X}" for c in url if ord(c) < 0x100)
    try:
        parts = urlsplit(cleaned)
        port = parts.port
    except ValueError:
        raise _refuse(f"{who} to a malformed URL", "") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _refuse(f"{who} to '{printable(parts.scheme, limit=20)}:'; expected https", "")
    if not _AUTHORITY.fullmatch(parts.netloc) or not parts.hostname or port == 0:
        raise _refuse(f"{who} to '{authority_of(cleaned)}', which is no host[:port]", "")
    return parts._replace(fragment="")


def _address(host: str) -> _Address | None:
    try:
        address: _Address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        if not _LEGACY_ADDRESS.fullmatch(host):
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(address.packed[-4:])
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _refuse(message: str, url: str) -> RegistryError:
    return RegistryError(message, url=redacted(url) if url else "")
