"""Repositories that a registry knows by a word: Docker Hub's search, and others' like it, or else their catalogs.

Receives a registry's name and a term; hands on what is found.  What registries answer is hostile: bounded, and every
name in it must be one that could be pulled.

Source: docker's registry API v1, "Search"; distribution-spec, "Listing repositories" (_catalog, an extension).
"""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from imagefs.errors import InvalidManifest, InvalidReference, RegistryError, printable
from imagefs.oci.document import parse_json
from imagefs.oci.reference import DEFAULT_REGISTRY, Reference
from imagefs.registry.boundaries import origin_of
from imagefs.registry.configuration import load_configuration
from imagefs.registry.protocol import next_page
from imagefs.registry.refusal import Asked
from imagefs.registry.retry import RetryPolicy
from imagefs.registry.session import RegistrySession
from imagefs.registry.tls import TlsPolicy

_HUB_SEARCH = "index.docker.io"
_NOT_FOUND = 404
_MAX_BODY_BYTES = 4 << 20
_MAX_PAGES = 20  # of a catalog, a thousand names each
_MAX_DESCRIPTION_CHARACTERS = 1000

_log = logging.getLogger("imagefs.registry")


@dataclass(frozen=True, slots=True)
class Found:
    """One repository; *name* is familiar, *description* safe to print and perhaps ""."""

    name: str
    description: str
    stars: int
    is_official: bool


def search(
    registry: str, term: str, *, limit: int, tls_verify: bool | None, authfile: Path | None
) -> tuple[Found, ...]:
    """Return up to *limit* repositories of *registry* that *term* finds, best first as the registry sees it.

    A registry that knows no search is asked for its catalog, and names that hold *term* count, in its order.

    Raises: RegistryError; InvalidManifest, where the answer makes no sense; ConfigurationInvalid.
    """
    # The place of some repository there tells where a registry is configured to be.
    place = load_configuration().endpoints(Reference(registry, "library/any", None, None))[-1]
    host = _HUB_SEARCH if place.registry == DEFAULT_REGISTRY else place.registry
    verify = tls_verify if tls_verify is not None else (False if place.insecure else None)
    session = RegistrySession(host, policy=TlsPolicy(verify), authfile=authfile, retry=RetryPolicy())
    with contextlib.closing(session):
        try:
            return _searched(session, registry, term, limit)
        except RegistryError as error:
            if error.status != _NOT_FOUND or registry == DEFAULT_REGISTRY:
                raise
        return _catalogued(session, registry, term, limit)


def _searched(session: RegistrySession, registry: str, term: str, limit: int) -> tuple[Found, ...]:
    root = session.root_url().removesuffix("v2/")
    query = urlencode({"q": term, "n": str(limit)}, quote_via=quote)
    asked = Asked("search", printable(term, limit=60))
    # Public, and so asked without credentials.
    response = session.get_foreign(f"{root}v1/search?{query}", asked, headers={"Accept": "application/json"})
    with contextlib.closing(response):
        raw = response.read(_MAX_BODY_BYTES + 1)
    document = parse_json(raw, what="search results", limit_bytes=_MAX_BODY_BYTES)
    listed = document.get("results") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise InvalidManifest("search results", "expected a list of 'results'")
    found = (_found(one, registry) for one in listed)
    return tuple(one for one in found if one is not None)[:limit]


def _found(value: object, registry: str) -> Found | None:
    """Return what one result says, None where its name is none."""
    if not isinstance(value, Mapping):
        return None
    name = _familiar(value.get("name"), registry)
    if name is None:
        return None
    description, stars = value.get("description"), value.get("star_count")
    text = " ".join(description.split()) if isinstance(description, str) else ""
    return Found(
        name=name,
        description=printable(text, limit=_MAX_DESCRIPTION_CHARACTERS),
        stars=stars if isinstance(stars, int) and stars > 0 else 0,
        is_official=value.get("is_official") is True,
    )


def _catalogued(session: RegistrySession, registry: str, term: str, limit: int) -> tuple[Found, ...]:
    root = session.root_url()
    url: str | None = f"{root}_catalog?n=1000"
    asked = Asked("search", printable(term, limit=60))
    found: dict[str, Found] = {}
    for _ in range(_MAX_PAGES):
        if url is None or len(found) >= limit:
            break
        with contextlib.closing(session.get(url, "", asked, headers={"Accept": "application/json"})) as response:
            raw = response.read(_MAX_BODY_BYTES + 1)
            links = response.header_values("link")
        document = parse_json(raw, what="catalog", limit_bytes=_MAX_BODY_BYTES)
        listed = document.get("repositories") if isinstance(document, Mapping) else None
        if not isinstance(listed, list):
            raise InvalidManifest("catalog", "expected a list of 'repositories'")
        for repository in listed:
            name = _familiar(repository, registry)
            if name is not None and term in name.removeprefix(f"{registry}/"):
                found.setdefault(name, Found(name, "", 0, is_official=False))
        url = next_page(links, url)
        if url is not None and origin_of(url) != origin_of(root):
            _log.warning("the catalog of %s goes on at another host, which is not asked", registry)
            break
    return tuple(found.values())[:limit]


def _familiar(name: object, registry: str) -> str | None:
    if not isinstance(name, str):
        return None
    try:
        bare = registry == DEFAULT_REGISTRY or name.startswith(f"{registry}/")
        return Reference.parse(name if bare else f"{registry}/{name}").familiar_name
    except InvalidReference:
        _log.warning("%s lists '%s' as a repository, which is none", registry, printable(name, limit=60))
        return None
