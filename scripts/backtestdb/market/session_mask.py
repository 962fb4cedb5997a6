"""Sets of sessions as whole numbers: bit i stands for the i-th session of the calendar list at
hand."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import TypeVar

Day = TypeVar("Day", date, str)


def iterate_bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def iterate_runs(mask: int) -> Iterator[tuple[int, int]]:
    """Yield first and last bit of each run of ones, lowest first."""
    shift = 0
    while mask:
        first = (mask & -mask).bit_length() - 1
        ones = ~(mask >> first)
        length = (ones & -ones).bit_length() - 1
        yield shift + first, shift + first + length - 1
        mask >>= first + length
        shift += first + length


def mask_between(sessions: Sequence[Day], start: Day, end: Day) -> int:
    """Return the bits of the sessions from `start` to `end`, both included. Dates or their ISO
    texts: thousands of records need no dates."""
    first, stop = bisect_left(sessions, start), bisect_right(sessions, end)
    return ((1 << stop) - 1) & ~((1 << first) - 1) if stop > first else 0


def mask_of(sessions: Sequence[Day], days: Iterable[Day]) -> int:
    """Return the bits of those of `days` that are among `sessions`."""
    mask = 0
    for day in days:
        mask |= mask_between(sessions, day, day)
    return mask


def days_of(sessions: Sequence[date], mask: int) -> list[date]:
    return [sessions[bit] for bit in iterate_bits(mask)]
