"""Which hosts may be asked, and which may be told a secret.

Receives URLs that a registry, token server or manifest wrote; hands on the same URLs, cleaned, or refuses them.  It
must never resolve a name or open a connection: the rules are about what is written, and are tables in the tests.

Three kinds of host matter.  *Loopback* is this machine: nobody in between, but full of services that trust whoever can
connect.  *Link-local* is where clouds keep the metadata service that hands out their keys; no registry lives there.
Everything else is *public* here, private networks too: companies redirect between their own hosts, by any name.
"""

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

from imagefs.errors import RegistryError, printable

__all__ = [
    "authority_of",
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
    """Return whether *host*, without port, is this machine: ``localhost``, below it, 127.0.0.0/8, ::1, or unspecified.

    Understands the odd spellings of IPv4 addresses that C libraries connect to: ``127.1``, ``0x7f000001``.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_link_local(host: str) -> bool:
    """Return whether *host* is a link-local address (169.254.0.0/16, fe80::/10) or a cloud's other metadata address."""
    address = _address(host.lower())
    return address is not None and (address.is_link_local or address == ipaddress.ip_address("fd00:ec2::254"))


def checked_redirect(source: str, target: str) -> str:
    """Return the absolute *target* of a redirect from *source*, if it may be followed.

    Refused are anything but http and https, the way down from https to http, and the way from elsewhere to this
    machine or a link-local address.

    Raises: RegistryError.
    """
    who = f"{authority_of(source)} redirects"
    cleaned = _parse(target, who)
    if urlsplit(source).scheme == "https" and cleaned.scheme != "https":
        raise _refuse(f"{who} from https to {cleaned.scheme}, which is refused", source)
    _refuse_inner_hosts(source, cleaned, who)
    return cleaned.geturl()


def checked_realm(registry_url: str, realm: str) -> str:
    """Return the *realm* of a Bearer challenge, if it may be asked for a token.

    It must be https; http only where the registry itself is spoken to in http or both are this machine.

    Raises: RegistryError.
    """
    who = f"{authority_of(registry_url)} names a token server"
    cleaned = _parse(realm, who)
    if cleaned.scheme != "https" and urlsplit(registry_url).scheme != "http":
        both_here = is_loopback(host_of(registry_url)) and is_loopback(host_of(cleaned.geturl()))
        if not both_here:
            raise _refuse(f"{who} that speaks {cleaned.scheme}; expected https", registry_url)
    _refuse_inner_hosts(registry_url, cleaned, who)
    return cleaned.geturl()


def checked_foreign(registry_url: str, url: str) -> str:
    """Return the *url* of a foreign layer, if it may be asked.  Raises: RegistryError."""
    who = f"a manifest from {authority_of(registry_url)} sends"
    cleaned = _parse(url, who)
    _refuse_inner_hosts(registry_url, cleaned, who)
    return cleaned.geturl()


def may_tell_password(registry_url: str, realm: str) -> bool:
    """Return whether a password meant for the registry may be sent to the checked *realm*.

    To another host only over https: a registry that is spoken to in plain http can be anybody, and so name any realm.
    """
    if urlsplit(realm).scheme == "https" or host_of(registry_url) == host_of(realm):
        return True
    return is_loopback(host_of(registry_url)) and is_loopback(host_of(realm))


def _refuse_inner_hosts(source: str, target: SplitResult, who: str) -> None:
    host = (target.hostname or "").rstrip(".")
    if is_link_local(host):
        raise _refuse(f"{who} to the link-local address {printable(host)}, which is refused", source)
    if is_loopback(host) and not is_loopback(host_of(source)):
        raise _refuse(f"{who} to this machine ({printable(host)}), which is refused", source)


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
        address: _Address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        if not _LEGACY_ADDRESS.fullmatch(host):
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _refuse(message: str, url: str) -> RegistryError:
    return RegistryError(message, url=redacted(url) if url else "")
