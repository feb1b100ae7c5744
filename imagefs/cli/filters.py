"""``--filter``: which images are meant.

Receives the texts of the options; hands on a predicate over images.  Of one key, any may match; of several keys, all
must.  ``before`` and ``since`` are exceptions, as with docker: given again, the tightest counts.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from imagefs.errors import InvalidFilter
from imagefs.text import did_you_mean

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.oci.reference import Reference
    from imagefs.store.catalog import Image
    from imagefs.store.store import Store

Labels = Mapping[str, str]
Predicate = Callable[["Image", "Reference | None"], bool]
"""Whether an image, as listed under one of its names or none, is meant."""

KEYS = ("dangling", "before", "since", "until", "label", "label!", "reference")
PRUNE_KEYS = ("until", "label", "label!")
_OTHER_WORDS = {"after": "since"}
_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
_NEVER_NS = 2**63
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_filters(texts: Iterable[str], store: "Store", *, now_ns: int, known: Iterable[str] = KEYS) -> Predicate:
    """Return the predicate that *texts*, each ``key=value``, ask for; only keys in *known* may be used.

    Raises: InvalidFilter; ImageNotFound for an image in before or since.
    """
    by_key: dict[str, list[Predicate]] = {}
    for text in texts:
        key, value = split_filter(text, known)
        by_key.setdefault(key, []).append(_predicate(text, key, value, store, now_ns))
    every = by_key.pop("before", []) + by_key.pop("since", [])

    def meant(image: "Image", name: "Reference | None") -> bool:
        return all(one(image, name) for one in every) and all(
            any(one(image, name) for one in some) for some in by_key.values()
        )

    return meant


def split_filter(text: str, known: Iterable[str] = KEYS) -> tuple[str, str]:
    """Return key and value of the filter *text*; the key is one in *known*.

    Raises: InvalidFilter.
    """
    key, separator, value = text.partition("=")
    key = _OTHER_WORDS.get(key.strip().lower(), key.strip().lower())
    if not separator:
        raise InvalidFilter(text, "expected key=value")
    if key not in known:
        raise InvalidFilter(text, f"unknown key '{key}'{did_you_mean(key, known)}; known are {', '.join(known)}")
    return key, value


def _predicate(text: str, key: str, value: str, store: "Store", now_ns: int) -> Predicate:
    match key:
        case "dangling":
            if value.lower() not in _BOOLEANS:
                raise InvalidFilter(text, "expected true or false")
            wanted = _BOOLEANS[value.lower()]
            return lambda image, _: (not image.tags) == wanted
        case "before":
            return _created_before(store.image(value).created_ns)
        case "since":
            after_ns = store.image(value).created_ns
            return lambda image, _: image.created_ns is not None and image.created_ns > (after_ns or _NEVER_NS)
        case "until":
            return _created_before(_moment_ns(text, value, now_ns))
        case "reference":
            pattern = _expression(value)
            return lambda _, name: name is not None and any(pattern.fullmatch(text) for text in _spellings(name))
    labels = _labels(store)
    name, has_value, content = value.partition("=")
    if not name:
        raise InvalidFilter(text, "expected the name of a label")

    def labelled(image: "Image", _: "Reference | None") -> bool:
        found = labels(image)
        return name in found and (not has_value or found[name] == content)

    return labelled if key == "label" else lambda image, reference: not labelled(image, reference)


def _created_before(than_ns: int | None) -> Predicate:
    """Return whether an image is older; of one that does not say when it was created nobody knows."""
    return lambda image, _: image.created_ns is not None and than_ns is not None and image.created_ns < than_ns


def _labels(store: "Store") -> "Callable[[Image], Labels]":
    known: dict[object, Labels] = {}

    def of(image: "Image") -> Labels:
        from imagefs.oci.config import parse_config

        if image.id not in known:
            known[image.id] = dict(parse_config(store.document(image.id), algorithm=image.id.algorithm).labels)
        return known[image.id]

    return of


def _moment_ns(text: str, value: str, now_ns: int) -> int:
    """Return the moment that *value* is: a date, a time, seconds since 1970, or how long before now, as ``36h``."""
    from imagefs.oci.config import parse_time_ns

    if _DURATION.fullmatch(value):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", value)
        return now_ns - int(sum(float(count) * _UNITS_S[unit] for count, unit in parts) * 10**9)
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return int(float(value) * 10**9)
    found = parse_time_ns(value)
    if found is None:
        try:
            found = int(datetime.datetime.fromisoformat(value).astimezone().timestamp() * 10**9)
        except ValueError:
            reason = "expected a time such as 2024-01-31 or 2024-01-31T12:00:00Z, or a duration such as 36h"
            raise InvalidFilter(text, reason) from None
    return found


def matches(name: "Reference", pattern: str) -> bool:
    """Return whether docker's ``images PATTERN`` would show *name*."""
    expression = _expression(pattern)
    return any(expression.fullmatch(text) for text in _spellings(name))


def _expression(pattern: str) -> re.Pattern[str]:
    """Return *pattern* as an expression: ``*`` and ``?`` match no slash, ``**`` does; ``[a-z]`` is a set."""
    parts = []
    for token in re.findall(r"\*\*|\*|\?|\[[^\]]+\]|.", pattern, re.DOTALL):
        if token.startswith("[") and len(token) > 2:
            inner = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]")
        else:
            parts.append({"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token) or re.escape(token))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:
        raise InvalidFilter(pattern, "expected a pattern of *, ?, ** and sets such as [a-z]") from None


def _spellings(name: "Reference") -> tuple[str, ...]:
    tag = name.tag or "<none>"
    return (name.familiar_name, f"{name.familiar_name}:{tag}", name.name, f"{name.name}:{tag}", name.familiar)
