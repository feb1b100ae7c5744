"""The runs of data in a sparse file, compact and found by bisection.

Receives pairs of logical offset and length; hands on the same pairs, and the runs that a range of the file needs.  A
file may have a million of them, and every read needs some.
"""

import array
import bisect
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Self, overload

RUN_BYTES = 16
"""What a run takes here, and on disk."""
_SUMMED_AT_ONCE = 4096
"""Runs summed in one call of C: Python's lock is held meanwhile, for a tenth of a millisecond."""


class Extents(Sequence[tuple[int, int]]):
    """Runs of data, as (logical offset, length), in ascending order without overlaps.  Immutable; thread-safe."""

    __slots__ = ("_ends", "_flat")

    def __init__(self, flat: "array.array[int]") -> None:
        """Take over *flat*: offset and length of each run in turn, 64 bits each."""
        self._flat = flat
        self._ends: array.array[int] | None = None

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int]]) -> Self:
        """Return *runs*.  Raises: OverflowError, if a number needs more than 64 bits."""
        flat = array.array("Q")
        for run in runs:
            flat.extend(run)
        return cls(flat)

    @classmethod
    def from_bytes(cls, raw: bytes | memoryview) -> Self:
        """Return the runs that `to_bytes` wrote.  Raises: ValueError, if *raw* ends within a run."""
        if len(raw) % RUN_BYTES:
            raise ValueError("half a run")
        flat = array.array("Q")
        flat.frombytes(raw)
        return cls(flat)

    def to_bytes(self) -> bytes:
        """Return the runs as little-endian numbers of 64 bits."""
        return self._flat.tobytes()

    @property
    def stored_bytes(self) -> int:
        """The length of all runs together: what is stored of the file."""
        return self._stored_ends()[-1] if self._flat else 0

    def prepare(self) -> None:
        """Do now what the first `touching` would do: add up all lengths."""
        self._stored_ends()

    def touching(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield (logical offset, length, place in the stored data) of the runs that overlap *size* bytes at *offset*.

        The first one costs time logarithmic in the number of runs.
        """
        ends = self._stored_ends()
        for number in self._numbers(offset, size):
            start, length = self[number]
            yield start, length, ends[number] - length

    def count_touching(self, offset: int, size: int) -> int:
        """Return how many runs `touching` yields, in logarithmic time."""
        return len(self._numbers(offset, size))

    def next_data(self, offset: int) -> int | None:
        """Return the first byte from *offset* on that is in a run, None where no run follows; in logarithmic time."""
        number = self._next(offset)
        return max(offset, self[number][0]) if number < len(self) else None

    def next_hole(self, offset: int) -> int:
        """Return *offset* if it is in no run, else the end of its run, where another may begin; in logarithmic time."""
        number = self._next(offset)
        if number == len(self):
            return offset
        start, length = self[number]
        return offset if offset < start else start + length

    def _numbers(self, offset: int, size: int) -> range:
        first = self._next(offset)
        flat = self._flat
        last = bisect.bisect_left(range(len(self)), offset + size, lo=first, key=lambda number: flat[2 * number])
        return range(first, last)

    def _next(self, offset: int) -> int:
        """Return the number of the first run that ends after *offset*; that of no run where none does."""
        flat = self._flat
        first = bisect.bisect_right(range(len(self)), offset, key=lambda number: flat[2 * number]) - 1
        first = max(first, 0)
        if first < len(self) and flat[2 * first] + flat[2 * first + 1] <= offset:
            first += 1
        return first

    def _stored_ends(self) -> "array.array[int]":
        """Return where in the stored data each run ends."""
        if self._ends is None:
            ends = array.array("Q")
            total = 0
            for at in range(0, len(self._flat), 2 * _SUMMED_AT_ONCE):
                lengths = self._flat[at + 1 : at + 2 * _SUMMED_AT_ONCE : 2]
                ends.extend(accumulate(lengths[1:], initial=total + lengths[0]))
                total = ends[-1]
            self._ends = ends
        return self._ends

    def __len__(self) -> int:
        return len(self._flat) // 2

    @overload
    def __getitem__(self, number: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[tuple[int, int], ...]: ...
    def __getitem__(self, number: int | slice) -> tuple[int, int] | tuple[tuple[int, int], ...]:
        if isinstance(number, slice):
            return tuple(self[at] for at in range(*number.indices(len(self))))
        at = 2 * range(len(self))[number]
        return self._flat[at], self._flat[at + 1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        numbers = iter(self._flat)
        return zip(numbers, numbers, strict=True)

    def __eq__(self, other: object) -> bool:
        return self._flat == other._flat if isinstance(other, Extents) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Extents({tuple(self)!r})"
