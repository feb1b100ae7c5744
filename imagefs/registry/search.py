"""Repositories that a registry knows by a word: Docker Hub's search, and others' like it, or else their catalogs.

Receives a registry's name and a term; hands on what is found.  What registries answer is hostile: bounded, and every
name in it must be one that could be pulled.

Source: docker's registry API v1, "Search"; distribution-spec, "Listing repositories" (_catalog, an extension).
"""

import contextlib
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from imagefs.errors import InvalidManifest, InvalidReference, ManifestUnknown, RegistryError, UsageError, printable
from imagefs.oci.document import parse_json
from imagefs.oci.reference import DEFAULT_REGISTRY, Reference
from imagefs.registry.boundaries import origin_of
from imagefs.registry.configuration import load_configuration
from imagefs.registry.protocol import next_page
from imagefs.registry.refusal import Asked
from imagefs.registry.retry import RetryPolicy, retrying
from imagefs.registry.session import RegistrySession
from imagefs.registry.tls import TlsPolicy

_HUB_SEARCH = "index.docker.io"
_SOME = "library/any"
_MAX_BODY_BYTES = 4 << 20
_MAX_PAGES = 100  # of a catalog: a thousand names each are asked for, registries give from a hundred on
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

    A registry other than Docker Hub that answers a search with anything but results is asked for its catalog, and names
    that hold *term* count, in its order; where *term* is "" it is asked for nothing else.

    Raises: UsageError for no term at Docker Hub; RegistryError; InvalidManifest, where the answer makes no sense;
    ConfigurationInvalid.
    Source: containers/image, docker_client.go, SearchRegistry.
    """
    if registry == DEFAULT_REGISTRY:
        term = term.removeprefix("library/")  # which Docker Hub finds nothing by
        if not term:
            raise UsageError("expected something to search for, such as nginx; only other registries list all")
    # The place of some repository there tells where a registry is configured to be, and below what path.
    place = load_configuration().endpoints(Reference(registry, _SOME, None, None))[-1]
    host = _HUB_SEARCH if place.registry == DEFAULT_REGISTRY else place.registry
    verify = tls_verify if tls_verify is not None else (False if place.insecure else None)
    policy = RetryPolicy()
    session = RegistrySession(host, policy=TlsPolicy(verify), authfile=authfile, retry=policy)
    with contextlib.closing(session):
        session.root_url()  # not inside what is tried again: a registry that cannot be reached at all is final
        if registry == DEFAULT_REGISTRY:
            return retrying(policy, functools.partial(_searched, session, registry, term, limit))
        if term:
            try:
                return _searched(session, registry, term, limit)
            except (RegistryError, InvalidManifest) as error:
                _log.debug("%s knows no search: %s", registry, error)
        return _catalogued(session, registry, place.repository.removesuffix(_SOME), term, limit, policy)


def _searched(session: RegistrySession, registry: str, term: str, limit: int) -> tuple[Found, ...]:
    root = session.root_url().removesuffix("v2/")
    query = urlencode({"q": term, "n": str(limit)}, quote_via=quote)
    asked = Asked("search", printable(term, limit=60))
    # Public, and so asked without credentials.
    response = session.get_anonymous(f"{root}v1/search?{query}", asked, headers={"Accept": "application/json"})
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
        stars=stars if type(stars) is int and stars > 0 else 0,
        is_official=value.get("is_official") is True,
    )


def _catalogued(
    session: RegistrySession, registry: str, path: str, term: str, limit: int, policy: RetryPolicy
) -> tuple[Found, ...]:
    """Return what the catalog has; repositories of *registry* are those below *path*, "" or ending in a slash."""
    root = session.root_url()
    url: str | None = f"{root}_catalog?n=1000"
    found: dict[str, Found] = {}
    pages: set[int] = set()  # hashes: URLs may have many kilobytes
    while url is not None and hash(url) not in pages and len(found) < limit:
        if len(pages) == _MAX_PAGES:
            _log.warning("the catalog of %s has more than %d pages; the rest was not read", registry, _MAX_PAGES)
            break
        pages.add(hash(url))
        listed, links = retrying(policy, functools.partial(_catalog_page, session, registry, url))
        for repository in listed:
            if not isinstance(repository, str) or not repository.startswith(path):
                continue
            name = _familiar(repository[len(path) :], registry)
            if name is not None and term in name.removeprefix(f"{registry}/"):
                found.setdefault(name, Found(name, "", 0, is_official=False))
        url = next_page(links, url)
        if url is not None and origin_of(url) != origin_of(root):
            _log.warning("the catalog of %s goes on at another host, which is not asked", registry)
            break
    return tuple(found.values())[:limit]


def _catalog_page(session: RegistrySession, registry: str, url: str) -> tuple[list[object], tuple[str, ...]]:
    try:
        response = session.get(url, "", Asked("catalog", registry), headers={"Accept": "application/json"})
    except ManifestUnknown as error:
        raise RegistryError(
            f"{registry} offers neither a search nor a catalog of its repositories; "
            f"'imagefs tags {registry}/REPOSITORY' lists what it has of one",
            status=error.status,
            url=error.url,
        ) from None
    with contextlib.closing(response):
        raw = response.read(_MAX_BODY_BYTES + 1)
        links = response.header_values("link")
    document = parse_json(raw, what="catalog", limit_bytes=_MAX_BODY_BYTES)
    listed = document.get("repositories") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise InvalidManifest("catalog", "expected a list of 'repositories'")
    return listed, links


def _familiar(name: object, registry: str) -> str | None:
    if not isinstance(name, str):
        return None
    try:
        bare = registry == DEFAULT_REGISTRY or name.startswith(f"{registry}/")
        return Reference.parse(name if bare else f"{registry}/{name}").familiar_name
    except InvalidReference:
        _log.warning("%s lists '%s' as a repository, which is none", registry, printable(name, limit=60))
        return None
