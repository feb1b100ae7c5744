"""What compressed bytes may expand to: a hundred kilobytes must not fill a disk.

Receives counts of bytes; hands on nothing, or an InvalidLayer.  Knows neither layers nor codecs.
"""

from imagefs.errors import InvalidLayer

FREE_STORED_BYTES = 24 << 20
"""So much on the disk is worth no question, whatever it came of."""

MAX_STORED_RATIO = 200
"""Bytes on the disk, holes left out, for each compressed one.  Program code compresses 3 times, logs 20 to 50 times."""

FREE_BYTES = 512 << 20
"""So many bytes, holes included, take a second to hash."""

MAX_RATIO = 1100
"""Bytes, holes included, for each compressed one: just beyond the most that gzip can do.  Zstd can do 30,000."""


class Expansion:
    """The bound of one stream; without a bound where the user has *allowed* any expansion."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._compressed = 0

    def arrived(self, count: int) -> None:
        """Take note of *count* more compressed bytes."""
        self._compressed += count

    def check(self, size: int, *, stored: int) -> None:
        """Raise InvalidLayer if what arrived must not expand to *size* bytes, of which *stored* are not in holes."""
        if self._allowed:
            return
        for count, free, ratio in ((stored, FREE_STORED_BYTES, MAX_STORED_RATIO), (size, FREE_BYTES, MAX_RATIO)):
            if count > free + ratio * self._compressed:
                raise InvalidLayer(
                    f"{self._compressed} compressed bytes expand to {count} and more, which is beyond"
                    f" {free >> 20} MiB and {ratio} for each; if you trust the image, use --allow-expansion"
                )
