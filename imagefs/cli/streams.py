"""Standard output and standard error as every command finds them: text that is not printable arrives escaped.

This is the one place that no command can forget.  `main` puts the streams there before a command runs.  What is data,
such as the content of a file, goes to ``sys.stdout.buffer``, byte for byte; control sequences of ours, such as colors,
go to `unescaped`.
"""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import BinaryIO, TextIO, cast

from imagefs.text import printable_lines


class PrintableStream(io.TextIOBase):
    """A text stream that escapes what is not printable, newlines and tabs excepted, and writes to *stream*.

    It keeps no text of its own, so text written to *stream* or its buffer in between stays in order.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = stream

    @property
    def buffer(self) -> BinaryIO:
        """The binary stream below, for data."""
        return self.unescaped.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property, so that it is always the stream's
        """The encoding of the stream."""
        return self.unescaped.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What happens to characters that the encoding lacks."""
        return self.unescaped.errors

    def write(self, text: str) -> int:
        """Write *text*, escaped."""
        self.unescaped.write(printable_lines(text))
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def flush(self) -> None:
        """Flush the stream."""
        self.unescaped.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self.unescaped.fileno()

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return self.unescaped.isatty()


@contextlib.contextmanager
def printable_streams() -> Iterator[None]:
    """Make ``sys.stdout`` and ``sys.stderr`` escape what is not printable for as long as the context lasts."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):  # not where a test has put something else there
            stream.reconfigure(errors="backslashreplace")  # what a terminal's own alphabet lacks must not end a command
    sys.stdout, sys.stderr = (cast("TextIO", PrintableStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unescaped(stream: TextIO) -> TextIO:
    """Return the stream below *stream*, for control sequences; the caller escapes all other text itself."""
    return stream.unescaped if isinstance(stream, PrintableStream) else stream
