"""Secrets that were sent, and their removal from every text that a server may have written.

A server knows the secrets that it received, and may repeat them: in an error body, a header, a redirect.  What it says
is shown to a person and written to logs, so each text goes through `Secrets.scrub` first.

Accidents are what this prevents: a gateway that dumps the request's headers into its error page.  A malicious server
knows the secret anyway, and could hide it in any code.
"""

import base64
import binascii
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Iterator
from urllib.parse import quote

from imagefs.errors import RegistryError

__all__ = ["Secrets"]

_FRAGMENT_CHARACTERS = 8
"""A part of a secret that is at least this long is removed too: texts are cut, and tokens are shown by their start."""

_MAX_SECRETS = 64
"""Most spellings that are remembered, the latest: a token of each repository, with what is derived from it."""

_PLACEHOLDER = "***"
_ALIKE = str.maketrans("_+/ ", "----")
"""The two alphabets of base64 differ in these, and error codes are shown with spaces for underscores."""


class Secrets(logging.Filter):
    """The secrets of one session.  As a filter of a logger, removes them from its lines.  Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._spellings: deque[tuple[str, frozenset[str]]] = deque(maxlen=_MAX_SECRETS)

    def add(self, secret: str) -> None:
        """Remember a password or token, with the spellings that URLs and base64 have for it."""
        for spelling in _spellings(secret):
            folded = _folded(spelling)
            with self._lock:
                if folded and all(folded != other for other, _ in self._spellings):
                    self._spellings.append((folded, _fragments(folded)))

    def add_authorization(self, header: str) -> None:
        """Remember what is secret in the value of an ``Authorization`` header."""
        scheme, _, value = header.partition(" ")
        self.add(value)
        if scheme == "Basic":
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                self.add(base64.b64decode(value).decode().partition(":")[2])

    def scrub(self, text: str) -> str:
        """Return *text* with each secret, and each longer part of one, replaced by three stars; case does not count."""
        folded = _folded(text)
        hidden: set[int] = set()
        with self._lock:
            spellings = tuple(self._spellings)
        for spelling, fragments in spellings:
            length = min(len(spelling), _FRAGMENT_CHARACTERS)
            for start in range(len(folded) - length + 1):
                if folded[start : start + length] in fragments:
                    hidden.update(range(start, start + length))
        if not hidden:
            return text
        pieces = []
        for position, character in enumerate(text):
            if position not in hidden:
                pieces.append(character)
            elif position - 1 not in hidden:
                pieces.append(_PLACEHOLDER)
        return "".join(pieces)

    @contextlib.contextmanager
    def scrubbing(self) -> Iterator[None]:
        """Scrub what a RegistryError says that leaves the context."""
        try:
            yield
        except RegistryError as error:
            self.scrub_error(error)
            raise

    def scrub_error(self, error: RegistryError) -> None:
        """Scrub what *error* says."""
        error.message = self.scrub(error.message)
        error.url = self.scrub(error.url)
        error.codes = tuple(self.scrub(code) for code in error.codes)
        error.args = (error.message,)

    def filter(self, record: logging.LogRecord) -> bool:
        """Scrub the line *record*; return True."""
        record.msg, record.args = self.scrub(record.getMessage()), ()
        return True


def _spellings(secret: str) -> Iterator[str]:
    yield secret
    if len(secret) < _FRAGMENT_CHARACTERS:
        return
    yield quote(secret, safe="")
    raw = secret.encode()
    for shift in range(3):  # base64 has three spellings, by where in a group of three bytes the secret begins
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        yield encoded[(0, 2, 3)[shift] : -1]  # without characters that depend on bytes before and after it


def _fragments(folded: str) -> frozenset[str]:
    length = min(len(folded), _FRAGMENT_CHARACTERS)
    return frozenset(folded[start : start + length] for start in range(len(folded) - length + 1))


def _folded(text: str) -> str:
    """Return *text*, at the same length, in lower case and with one character for those of `_ALIKE`."""
    lower = text.lower()
    return (lower if len(lower) == len(text) else text).translate(_ALIKE)
