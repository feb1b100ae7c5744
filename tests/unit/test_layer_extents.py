"""Runs of data: the ones that a range needs, without walking all of them."""

import random
from typing import Any

import pytest

from imagefs.layer.extents import Extents


def test_the_runs_that_a_range_touches_are_those_that_walking_finds() -> None:
    chance = random.Random(5)
    for _ in range(200):
        runs, at = [], 0
        for _ in range(chance.randrange(12)):
            at += chance.choice([0, 0, 1, 7])
            length = chance.randrange(1, 6)
            runs.append((at, length))
            at += length
        extents = Extents.of(runs)
        for offset in range(at + 3):
            for size in (1, 2, 5, at + 5):
                expected, place = [], 0
                for start, length in runs:
                    if start < offset + size and start + length > offset:
                        expected.append((start, length, place))
                    place += length
                assert list(extents.touching(offset, size)) == expected
                assert extents.count_touching(offset, size) == len(expected)


def test_a_million_runs_are_found_by_bisection_and_take_sixteen_bytes_each() -> None:
    class Counted(Extents):
        looks = 0

        def __getitem__(self, number: Any) -> Any:
            self.looks += 1
            return super().__getitem__(number)

    count = 1 << 20
    extents = Counted.of((8 * number, 1) for number in range(count))
    assert len(extents.to_bytes()) == 16 * count
    assert extents.stored_bytes == count
    for number in (0, 1, 4095, 4096, 4097, count // 2, count - 1):
        assert list(extents.touching(8 * number, 8)) == [(8 * number, 1, number)]
    assert extents.looks == 7
    assert list(extents.touching(8 * count, 8)) == []


def test_they_come_back_from_bytes_and_half_a_run_does_not() -> None:
    extents = Extents.of([(0, 1), (5, 1 << 40)])
    assert Extents.from_bytes(extents.to_bytes()) == extents
    assert tuple(extents) == ((0, 1), (5, 1 << 40))
    assert extents != Extents.of([(0, 1)])
    assert hash(extents) == hash(Extents.from_bytes(extents.to_bytes()))
    assert extents[1:] == ((5, 1 << 40),)
    with pytest.raises(ValueError, match="half"):
        Extents.from_bytes(extents.to_bytes()[:-8])


def test_data_and_holes_are_found_from_any_byte() -> None:
    extents = Extents.of([(2, 3), (7, 1)])
    assert [extents.next_data(offset) for offset in range(10)] == [2, 2, 2, 3, 4, 7, 7, 7, None, None]
    assert [extents.next_hole(offset) for offset in range(10)] == [0, 1, 5, 5, 5, 5, 6, 8, 8, 9]
