"""Image references: how people and tools write the name of an image.

Receives text as typed or as found in archives; hands on a `Reference` whose parts are safe in a URL and as directory
names.  Must never know whether such an image exists.

The grammar is that of github.com/distribution/reference; the regular expressions below are built from its parts::

    reference            := name [ ":" tag ] [ "@" digest ]
    name                 := [ domain "/" ] remote-name
    domain               := host [ ":" port-number ]
    host                 := domain-name | "[" IPv6-address "]"            no zone, no embedded IPv4
    domain-name          := domain-component ( "." domain-component )*
    domain-component     := [a-zA-Z0-9] | [a-zA-Z0-9] [a-zA-Z0-9-]* [a-zA-Z0-9]
    port-number          := [0-9]+
    remote-name          := path-component ( "/" path-component )*        at most 255 characters
    path-component       := alphanumeric ( separator alphanumeric )*
    alphanumeric         := [a-z0-9]+
    separator            := "." | "_" | "__" | "-"+
    tag                  := [a-zA-Z0-9_] [a-zA-Z0-9_.-]{0,127}
    digest               := see `imagefs.oci.digest`
    identifier           := [a-f0-9]{64}                                   an image ID, refused as a name

What is typed is *familiar*: ``alpine`` means ``docker.io/library/alpine``.  Text before the first ``/`` is a domain if
it is ``localhost``, holds a ``.`` or ``:``, or holds an upper-case letter; a name without ``/`` is never a domain.

Three strictnesses beyond that library: a domain by these rules must match the grammar of one (there, ``a_b.c/d`` ends
with no domain at all); the familiar form of a name is one that means the same name when parsed again (there,
``docker.io/a.b/c`` becomes familiar as ``a.b/c``, which is another image); and sha512 digests are always understood.
"""

import re
from dataclasses import dataclass, replace

from imagefs.errors import InvalidDigest, InvalidReference, printable
from imagefs.oci.digest import Digest

__all__ = ["DEFAULT_REGISTRY", "DEFAULT_TAG", "MAX_REPOSITORY_LENGTH", "Reference", "is_valid_tag"]

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_REPOSITORY_LENGTH = 255
"""Longest allowed repository, in characters, with an implied ``library/`` and without the registry."""

_LEGACY_DEFAULT_REGISTRY = "index.docker.io"
_OFFICIAL = "library/"

_ALPHANUMERIC = r"[a-z0-9]+"
_SEPARATOR = r"(?:[._]|__|-+)"
_PATH_COMPONENT = rf"{_ALPHANUMERIC}(?:{_SEPARATOR}{_ALPHANUMERIC})*"
_REMOTE_NAME = rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*"
_DOMAIN_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN_NAME = rf"{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*"
_HOST = rf"(?:{_DOMAIN_NAME}|\[[a-fA-F0-9:]+\])"
_DOMAIN = re.compile(rf"{_HOST}(?::[0-9]+)?", re.ASCII)
_REPOSITORY = re.compile(_REMOTE_NAME, re.ASCII)
_COMPONENT = re.compile(_PATH_COMPONENT, re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an image in a registry, in canonical form.

    *tag* and *digest* are both None for a bare name, and both set where both were written.  Every instance is valid,
    however it was made; sorts by its canonical text.  Raises InvalidReference when made from anything else.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        text = str(self)
        _check_registry(text, self.registry)
        if self.registry == _LEGACY_DEFAULT_REGISTRY:
            raise InvalidReference(text, f"the canonical name of {_LEGACY_DEFAULT_REGISTRY} is {DEFAULT_REGISTRY}")
        _check_repository(text, self.repository)
        if self.registry == DEFAULT_REGISTRY and "/" not in self.repository:
            raise InvalidReference(text, f"the canonical name of {self.repository} is {_OFFICIAL}{self.repository}")
        if self.tag is not None:
            _check_tag(text, self.tag)

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Return the reference that *text* means, by the familiar rules; no default tag is added.

        Raises: InvalidReference, with a reason that shows the offending part.
        """
        _check_for_slips(text)
        rest, at, digest_text = text.partition("@")
        registry, remainder = _split_registry(rest)
        remote, colon, tag = remainder.partition(":")
        # The registry is checked first: where it is wrong, what follows was probably not meant as it was read.
        _check_registry(text, registry)
        _check_repository(text, remote)
        if colon:
            _check_tag(text, tag)
        return cls(registry, remote, tag if colon else None, _digest(text, digest_text) if at else None)

    def with_default_tag(self) -> "Reference":
        """Return the reference to ask a registry for: a digest drops the tag, and with neither ``:latest`` is meant."""
        if self.digest is not None:
            return replace(self, tag=None)
        return self if self.tag is not None else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> "Reference":
        """Return the same name with *tag* and without a digest.  Raises: InvalidReference."""
        return Reference(self.registry, self.repository, tag)

    @property
    def name(self) -> str:
        """The canonical name without tag and digest: ``docker.io/library/alpine``."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The shortest name that means the same when parsed: ``alpine``, ``localhost:5000/app/dev``."""
        if self.registry == DEFAULT_REGISTRY:
            for short in (self.repository.removeprefix(_OFFICIAL), self.repository):
                if _split_registry(short) == (self.registry, self.repository) and not _IDENTIFIER.fullmatch(short):
                    return short
        return self.name

    @property
    def familiar(self) -> str:
        """The familiar name with the tag and digest there are: ``alpine:3.20``, ``alpine@sha256:…``."""
        return f"{self.familiar_name}{self._suffix()}"

    @property
    def familiar_tag(self) -> str:
        """The familiar name with the tag, which there is, and without a digest: ``alpine:3.20``."""
        return f"{self.familiar_name}:{self.tag}"

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{self._suffix()}"

    def __lt__(self, other: "Reference") -> bool:
        return str(self) < str(other)

    def _suffix(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        return tag if self.digest is None else f"{tag}@{self.digest}"


def is_valid_tag(text: str) -> bool:
    """Return whether *text* may be a tag, and so also a file name.  Ask this of every tag a registry lists."""
    return _TAG.fullmatch(text) is not None


def _split_registry(text: str) -> tuple[str, str]:
    """Return (registry, rest) of a familiar name without digest, both unchecked."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_REGISTRY, _OFFICIAL + text
    if first == _LEGACY_DEFAULT_REGISTRY:
        registry, remainder = DEFAULT_REGISTRY, rest
    elif first == "localhost" or "." in first or ":" in first or first.lower() != first:
        registry, remainder = first, rest
    else:
        registry, remainder = DEFAULT_REGISTRY, text
    if registry == DEFAULT_REGISTRY and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return registry, remainder


# ---- reasons: docker's phrase first where it has one ----


def _check_for_slips(text: str) -> None:
    """Refuse what people commonly type by mistake with a reason made for it."""
    if not text:
        raise InvalidReference(text, "repository name must have at least one component; the reference is empty")
    if _IDENTIFIER.fullmatch(text):
        reason = f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        raise InvalidReference(text, f"{reason}; write sha256:{text[:6]}… where an image ID is meant")
    scheme, found, rest = text.partition("://")
    if found:
        raise InvalidReference(text, f"a reference has no '{printable(scheme)}://'; write '{printable(rest)}'")
    for character in text:
        if character.isspace():
            raise InvalidReference(text, f"a reference has no white space, found '{printable(character)}'")
        if not character.isascii() or not character.isprintable():
            raise InvalidReference(text, f"a reference is plain ASCII, found '{printable(character)}'")
    if text[0] in ":@":
        raise InvalidReference(text, f"there is no repository name before '{text[0]}'")


def _check_registry(text: str, registry: str) -> None:
    if _DOMAIN.fullmatch(registry):
        return
    host, colon, port = registry.rpartition(":")
    if colon and _DOMAIN.fullmatch(host):
        raise InvalidReference(
            text, f"the port of a registry is a number, found '{printable(port)}' in '{printable(registry)}'"
        )
    if "%" in registry:
        reason = f"an IPv6 zone is not allowed in the registry '{printable(registry)}'"
    elif "_" in registry:
        reason = f"'{printable(registry)}' before the first '/' is read as a registry, and a host name has no '_'"
    else:
        reason = f"'{printable(registry)}' before the first '/' is read as a registry, and is no host[:port]"
    raise InvalidReference(text, reason)


def _check_repository(text: str, repository: str) -> None:
    if repository.lower() != repository:
        raise InvalidReference(text, f"repository name ({printable(repository)}) must be lowercase")
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReference(text, _wrong_in_repository(repository))
    if len(repository) > MAX_REPOSITORY_LENGTH:
        reason = f"repository name must not be more than {MAX_REPOSITORY_LENGTH} characters"
        raise InvalidReference(text, f"{reason}, found {len(repository)}")


def _wrong_in_repository(repository: str) -> str:
    for component in repository.split("/"):
        if not component:
            return f"repository name ({printable(repository)}) must have a name on both sides of each '/'"
        if _COMPONENT.fullmatch(component):
            continue
        strange = next((c for c in component if not re.fullmatch(r"[a-z0-9._-]", c)), None)
        if strange is not None:
            return f"repository name ({printable(repository)}) must not hold '{printable(strange)}'"
        if component[0] in "._-" or component[-1] in "._-":
            return f"'{component}' in the repository name must begin and end with a letter or digit"
        return f"'{component}' in the repository name has separators in a row: allowed are '.', '_', '__' and '-'s"
    raise AssertionError(f"called for the valid repository {repository!r}")


def _check_tag(text: str, tag: str) -> None:
    if is_valid_tag(tag):
        return
    if not tag:
        reason = "there is nothing behind ':'; write a tag, or leave the ':' out"
    elif ":" in tag:
        reason = f"there are two colons behind the last '/', found ':{printable(tag)}'"
    elif len(tag) > 128:
        reason = f"a tag has at most 128 characters, found {len(tag)}"
    elif tag[0] in ".-":
        reason = f"a tag does not begin with '{tag[0]}', found '{printable(tag)}'"
    else:
        reason = f"a tag holds only letters, digits, '_', '.' and '-', found '{printable(tag)}'"
    raise InvalidReference(text, reason)


def _digest(text: str, digest_text: str) -> Digest:
    try:
        return Digest.parse(digest_text)
    except InvalidDigest as error:
        raise InvalidReference(text, f"{error.reason}, in the digest '{printable(digest_text)}'") from None
