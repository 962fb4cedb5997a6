"""SessionMask: a set of sessions as bits. Bit i stands for the i-th session of the list at hand, so
that ten million pairs of ticker and session are a few thousand numbers."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import TypeVar

Day = TypeVar("Day", date, str)


class SessionMask(int):
    """A set of places in a list of sessions. `&`, `|` and `& ~` are intersection, union and
    difference; an empty mask is false."""

    def __and__(self, other: int) -> "SessionMask":
        return SessionMask(int(self) & int(other))

    def __or__(self, other: int) -> "SessionMask":
        return SessionMask(int(self) | int(other))

    def __rand__(self, other: int) -> "SessionMask":
        return self & other

    def __ror__(self, other: int) -> "SessionMask":
        return self | other

    def __invert__(self) -> "SessionMask":
        return SessionMask(~int(self))

    def first(self) -> int:
        """Return the lowest place. Raise ValueError for an empty mask."""
        if not self:
            raise ValueError("an empty mask has no first session")
        return (int(self) & -int(self)).bit_length() - 1

    def last(self) -> int:
        """Return the highest place. Raise ValueError for an empty mask."""
        if not self:
            raise ValueError("an empty mask has no last session")
        return self.bit_length() - 1

    def before(self) -> "SessionMask":
        """Return all places below the first one; none for an empty mask."""
        return SessionMask((int(self) & -int(self)) - 1) if self else EMPTY

    def until(self) -> "SessionMask":
        """Return all places up to the last one, which is included; none for an empty mask."""
        return SessionMask((1 << self.bit_length()) - 1)

    def places(self) -> Iterator[int]:
        """Yield the places, lowest first."""
        left = int(self)
        while left:
            lowest = left & -left
            yield lowest.bit_length() - 1
            left ^= lowest

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield first and last place of each run of adjacent sessions, lowest first."""
        left, shift = int(self), 0
        while left:
            first = (left & -left).bit_length() - 1
            ones = ~(left >> first)
            length = (ones & -ones).bit_length() - 1
            yield shift + first, shift + first + length - 1
            left >>= first + length
            shift += first + length

    def days(self, sessions: Sequence[Day]) -> list[Day]:
        """Return the sessions of the mask, in order."""
        return [sessions[place] for place in self.places()]


EMPTY = SessionMask(0)


def first_sessions(count: int) -> SessionMask:
    """Return the first `count` places."""
    return SessionMask((1 << count) - 1)


def mask_between(sessions: Sequence[Day], start: Day, end: Day) -> SessionMask:
    """Return the places of the sessions from `start` to `end`, both included. Dates or their ISO
    texts: thousands of records need no dates."""
    first, stop = bisect_left(sessions, start), bisect_right(sessions, end)
    return SessionMask(((1 << stop) - 1) & ~((1 << first) - 1)) if stop > first else EMPTY


def mask_of(sessions: Sequence[Day], days: Iterable[Day]) -> SessionMask:
    """Return the places of those of `days` that are among `sessions`."""
    mask = EMPTY
    for day in days:
        mask |= mask_between(sessions, day, day)
    return mask
