"""Following redirects by hand.

Receives a request and what is secret in it; hands on the answer at the end of the way, and whether that is still the
host that was asked.  It must never carry a secret to another host, nor go where `boundaries` forbids.
"""

from collections.abc import Callable, Mapping
from urllib.parse import urljoin

from imagefs.errors import RegistryError
from imagefs.registry.boundaries import Sender, authority_of, checked_redirect, origin_of, redacted
from imagefs.registry.http import Response, Transport

__all__ = ["MAX_REDIRECTS", "get_following"]

MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def get_following(
    transport: Transport,
    url: str,
    *,
    headers: Mapping[str, str],
    authorization: str | None,
    sender: Sender | None = None,
    check: Callable[[Sender, str], str] = checked_redirect,
) -> tuple[Response, bool]:
    """GET *url*, follow where it redirects, and return the answer and whether it comes from the origin of *url*.

    *authorization* is sent to that origin only; once the way has left it, it is not sent to it again either.  *sender*
    is the server that names *url*, None for the user.  *check* receives the server that redirects and the absolute URL
    it names, and returns the URL to request, or raises.

    Raises: RegistryError where a redirect is refused, or after `MAX_REDIRECTS`.
    """
    current = url
    trusted = True
    for _ in range(MAX_REDIRECTS + 1):
        secret = {"Authorization": authorization} if trusted and authorization else {}
        response = transport.request("GET", current, headers={**headers, **secret}, sender=sender)
        location = response.headers.get("location")
        if response.status not in _REDIRECTS or not location:
            return response, trusted
        response.close()
        try:
            target = urljoin(current, location.strip())
        except ValueError:
            message = f"{authority_of(current)} redirects to a malformed URL"
            raise RegistryError(message, status=response.status, url=redacted(current)) from None
        sender = Sender(current, response.is_here)
        current = check(sender, target)
        trusted = trusted and origin_of(current) == origin_of(url)
    raise RegistryError(
        f"{authority_of(url)} redirects more than {MAX_REDIRECTS} times", status=response.status, url=redacted(url)
    )
