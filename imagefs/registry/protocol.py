"""The distribution protocol as text: URLs, challenges, tokens, error bodies, and the headers that matter.

Receives header values and bodies as they came, in any state; hands on values, with nothing believed that was not
checked here.  It must never do input or output: everything is a function of its arguments, so all of it is tested as
tables.

Sources: distribution-spec, "Endpoints"; distribution's token and error documents; RFC 9110, 11 (challenges), 10.2.3
(Retry-After), 14.4 (Content-Range); RFC 8288 (Link); RFC 7234, 5.5 (Warning).
"""

import email.utils
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from urllib.parse import quote, urlencode, urljoin, urlsplit

from imagefs.errors import InvalidManifest, printable
from imagefs.oci.digest import Digest
from imagefs.oci.document import parse_json
from imagefs.oci.reference import DEFAULT_REGISTRY, is_valid_tag

__all__ = [
    "Challenge",
    "ContentRange",
    "ErrorEntry",
    "Token",
    "api_root",
    "blob_url",
    "manifest_url",
    "next_page",
    "parse_challenges",
    "parse_content_range",
    "parse_errors",
    "parse_retry_after",
    "parse_tags",
    "parse_token",
    "parse_warnings",
    "pull_scope",
    "tags_url",
    "token_url",
]

MAX_ERROR_BODY_BYTES = 64 * 1024
MAX_TOKEN_BODY_BYTES = 1024 * 1024
MAX_TAGS_BODY_BYTES = 8 * 1024 * 1024
"""Of one page.  Registries that know no pages send all tags at once; JSON takes ten times its size in memory."""

MAX_TOKEN_CHARACTERS = 64 * 1024
"""Longest token; servers refuse headers that are longer than some ten kilobytes."""

TAGS_PER_PAGE = 1000
MIN_TOKEN_LIFETIME_S = 60.0
"""Tokens live at least this long, also where the server says less or nothing (token spec, ``expires_in``)."""

_HUB_API = "registry-1.docker.io"
_MAX_ERRORS = 16
_MAX_CHALLENGES = 16
_MAX_HEADER_CHARACTERS = 16 * 1024
_MAX_WARNING_CHARACTERS = 4096


# ---- where things are ----


def api_root(registry: str, scheme: str) -> str:
    """Return the URL that all others of *registry* begin with, such as ``https://ghcr.io/v2/``."""
    return f"{scheme}://{_HUB_API if registry == DEFAULT_REGISTRY else registry}/v2/"


def manifest_url(root: str, repository: str, reference: str | Digest) -> str:
    """Return where the manifest of a tag or digest is."""
    return f"{root}{quote(repository)}/manifests/{quote(str(reference), safe=':')}"


def blob_url(root: str, repository: str, digest: Digest) -> str:
    """Return where a blob is."""
    return f"{root}{quote(repository)}/blobs/{digest}"


def tags_url(root: str, repository: str, *, last: str = "") -> str:
    """Return where the page of tags behind the tag *last* is."""
    query = {"n": str(TAGS_PER_PAGE), **({"last": last} if last else {})}
    return f"{root}{quote(repository)}/tags/list?{urlencode(query)}"


def pull_scope(repository: str) -> str:
    """Return what a token must allow for pulling from *repository*; for none, for listing what there are."""
    return f"repository:{repository}:pull" if repository else "registry:catalog:*"


def next_page(links: Iterable[str], url: str) -> str | None:
    """Return the URL of the page behind that at *url*, out of its ``Link`` headers; None where it is the last."""
    for value in links:
        for found in _LINK.finditer(value[:_MAX_HEADER_CHARACTERS]):
            relations = _LINK_RELATION.search(found["parameters"])
            if relations and "next" in relations["relation"].lower().split():
                try:
                    return urljoin(url, str(found["target"]).strip())
                except ValueError:
                    return None
    return None


_LINK = re.compile(r"<(?P<target>[^<>]*)>(?P<parameters>[^<]*)")
_LINK_RELATION = re.compile(r"""(?:^|[;\s])rel\s*=\s*"?(?P<relation>[^",;]*)""", re.IGNORECASE)


# ---- who may do what ----


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a server offers.  *scheme* and the names of parameters are in lower case."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def parameter(self, name: str) -> str:
        """Return the value of one parameter, "" where it is absent."""
        return next((value for key, value in self.parameters if key == name), "")


_CHALLENGE_TOKEN = re.compile(r"[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)")
_CHALLENGE_VALUE = re.compile(r'\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_CHALLENGE_TOKEN68 = re.compile(r" +[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
_ESCAPED = re.compile(r"\\(.)")


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges in the ``WWW-Authenticate`` headers *values*, in order; what is broken is left out."""
    challenges: list[Challenge] = []
    for value in values:
        text = value[:_MAX_HEADER_CHARACTERS]
        position = 0
        while (token := _CHALLENGE_TOKEN.match(text, position)) and len(challenges) < _MAX_CHALLENGES:
            position = token.end()
            if assigned := _CHALLENGE_VALUE.match(text, position):
                position = assigned.end()
                quoted, bare = assigned.groups()
                if challenges:
                    content = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
                    last = challenges[-1]
                    challenges[-1] = Challenge(last.scheme, (*last.parameters, (token[1].lower(), content)))
                continue
            challenges.append(Challenge(token[1].lower()))
            # "Negotiate abc=" has no parameters but one opaque word, which must not be read as the next scheme.
            following = _CHALLENGE_TOKEN68.match(text, position)
            if following and not _CHALLENGE_VALUE.match(text, following.end()):
                position = following.end()
    return tuple(challenges)


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and how long it is good for."""

    value: str = field(repr=False)
    lifetime_s: float


_TOKEN_TEXT = re.compile(r"[\x21-\x7e]+", re.ASCII)


def token_url(realm: str, *, service: str, scopes: Iterable[str], account: str = "") -> str:
    """Return where to GET a token.  *realm* may have a query of its own already."""
    query = [("service", service)] if service else []
    query += [("scope", scope) for scope in scopes]
    query += [("account", account)] if account else []
    joint = "&" if urlsplit(realm).query else "?"
    return f"{realm.rstrip('?&')}{joint}{urlencode(query)}" if query else realm


def parse_token(raw: bytes) -> Token:
    """Return the token in a token server's answer, from ``token`` or else ``access_token``.

    Raises: InvalidManifest.
    """
    what = "answer of the token server"
    document = parse_json(raw, what=what, limit_bytes=MAX_TOKEN_BODY_BYTES)
    if not isinstance(document, dict):
        raise InvalidManifest(what, "expected a JSON object")
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not _TOKEN_TEXT.fullmatch(value):
        raise InvalidManifest(what, "expected a token in 'token' or 'access_token'")
    if len(value) > MAX_TOKEN_CHARACTERS:
        raise InvalidManifest(what, f"its token has more than {MAX_TOKEN_CHARACTERS} characters (MAX_TOKEN_CHARACTERS)")
    lifetime = document.get("expires_in")
    lifetime_s = float(lifetime) if isinstance(lifetime, int | float) else 0.0
    return Token(value, max(MIN_TOKEN_LIFETIME_S, lifetime_s))


# ---- what went wrong ----


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """One error of an error body: *code* such as ``DENIED`` (or ""), and the server's own words, fit to be shown."""

    code: str
    message: str

    def __str__(self) -> str:
        code = self.code.lower().replace("_", " ")
        return ": ".join(part for part in (code, self.message) if part)


_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)


def parse_errors(raw: bytes) -> tuple[ErrorEntry, ...]:
    """Return the errors in the body *raw* of a refused request; empty where it is not what the protocol says.

    Token servers answer in other shapes, of which those with one text under ``message``, ``details``, ``error`` or
    ``error_description`` are understood.
    """
    try:
        document = parse_json(raw, what="error", limit_bytes=MAX_ERROR_BODY_BYTES)
    except InvalidManifest:
        return ()
    if not isinstance(document, dict):
        return ()
    listed = document.get("errors")
    if isinstance(listed, list):
        entries = (_error_entry(entry) for entry in listed[:_MAX_ERRORS])
        return tuple(entry for entry in entries if entry is not None)
    for key in ("message", "details", "error_description", "error"):
        if isinstance(text := document.get(key), str) and text:
            return (ErrorEntry("", printable(text.strip(), limit=500)),)
    return ()


def _error_entry(entry: object) -> ErrorEntry | None:
    if isinstance(entry, str):
        return ErrorEntry("", printable(entry, limit=500))
    if not isinstance(entry, dict):
        return None
    code, message = entry.get("code"), entry.get("message")
    return ErrorEntry(
        code.upper() if isinstance(code, str) and _CODE.fullmatch(code) else "",
        printable(message.strip(), limit=500) if isinstance(message, str) else "",
    )


def parse_retry_after(value: str | None, *, now_s: float) -> float | None:
    """Return how many seconds a ``Retry-After`` header asks to wait, at least 0; None where it says nothing sensible.

    *now_s* is the time since the epoch, against which dates are read.
    """
    text = (value or "").strip()
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text, re.ASCII):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


_WARNING = re.compile(r'299 +\S+ +"((?:[^"\\]|\\.)*)"')


def parse_warnings(values: Iterable[str]) -> tuple[str, ...]:
    """Return the texts of ``Warning: 299 - "text"`` headers, fit to be shown (distribution-spec, "Warnings")."""
    return tuple(
        printable(_ESCAPED.sub(r"\1", found[1]), limit=_MAX_WARNING_CHARACTERS)
        for value in values
        for found in _WARNING.finditer(value[: 2 * _MAX_WARNING_CHARACTERS])
    )


def describe_rate_limit(headers: Mapping[str, str]) -> str:
    """Return what Docker Hub's rate limit headers say, for a person; "" where there are none."""
    limit = _RATE.fullmatch(headers.get("ratelimit-limit", "").strip())
    left = _RATE.fullmatch(headers.get("ratelimit-remaining", "").strip())
    if limit is None:
        return ""
    window = f" per {_duration(int(limit['window']))}" if limit["window"] else ""
    return f"limit {limit['count']}{window}" + (f", {left['count']} left" if left else "")


def is_rate_spent(headers: Mapping[str, str]) -> bool:
    """Return whether the headers say that nothing is left until a window of hours has passed."""
    left = _RATE.fullmatch(headers.get("ratelimit-remaining", "").strip())
    return left is not None and int(left["count"]) == 0


_RATE = re.compile(r"(?P<count>\d{1,9})(?:\s*;\s*w=(?P<window>\d{1,9}))?.*", re.ASCII)


def _duration(seconds: int) -> str:
    if seconds and seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    return f"{seconds} s"


# ---- content ----


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Which part of some content a body is: bytes *first* to *last*, both included, of *total* (None: unknown)."""

    first: int
    last: int
    total: int | None


_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE | re.ASCII)


def parse_content_range(value: str | None) -> ContentRange | None:
    """Return what a ``Content-Range`` header says, None where it is absent or senseless."""
    found = _CONTENT_RANGE.fullmatch((value or "").strip())
    if found is None or int(found[1]) > int(found[2]):
        return None
    return ContentRange(int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3]))


def parse_tags(raw: bytes, *, what: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the tags in one page of a tag list, and what stood among them and is none.

    Raises: InvalidManifest, naming *what*.
    """
    document = parse_json(raw, what=what, limit_bytes=MAX_TAGS_BODY_BYTES)
    listed = document.get("tags") if isinstance(document, dict) else ()
    if listed is None:  # what Go makes of an empty list
        listed = []
    if not isinstance(listed, list):
        raise InvalidManifest(what, "expected a list of strings in 'tags'")
    valid = tuple(tag for tag in listed if isinstance(tag, str) and is_valid_tag(tag))
    return valid, tuple(str(tag) for tag in listed if not isinstance(tag, str) or not is_valid_tag(tag))
