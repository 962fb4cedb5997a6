"""Which copy is a base and which a delta: pure rules, and the walk from a delta to its base.

A restore of a minute reads three copies at most: the minute's delta refers to the small copy of its
hour, that one to the small base. A delta of a full backup refers to the full base. A minute
straight to a base that is days old would cost four times as much to send (81 kB instead of 17 kB
after an hour at 19 MB), and a base of 5 MB each hour twice what all minutes of the hour cost.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from backtestdb.offsite.record import CopyClass, CopyName
from backtestdb.offsite.state import Reference

FULL_BASE_MAX_AGE, SMALL_BASE_MAX_AGE = timedelta(days=30), timedelta(days=7)
# Twice the usual time between small backups: without them a minute's copy takes the place of one.
HOUR_MAX_AGE = timedelta(hours=2)
# A delta of half the base costs half as much each day: the next base is cheaper from the third day
# on.
LARGEST_DELTA = 0.5


def needs_new_reference(
    reference: Reference | None, now_utc: datetime, max_age: timedelta, price: int
) -> bool:
    """Return whether a new reference is due; `price`: the bytes that it would cost. What its deltas
    grew by is what a new reference would have saved: once that has reached the price, waiting was
    wrong. (Never more than twice the best possible, and one delta.)"""
    if reference is None:
        return True
    age = now_utc - reference.sent_at_utc
    return not timedelta(0) <= age < max_age or reference.grown_bytes >= max(price, 1)


def is_too_large(delta_bytes: int, reference: Reference) -> bool:
    return delta_bytes > LARGEST_DELTA * reference.sent_bytes


def note_delta(reference: Reference, delta_bytes: int) -> None:
    """Remember what a delta to `reference` cost."""
    if reference.first_delta_bytes < 0:
        reference.first_delta_bytes = delta_bytes
    reference.last_delta_bytes = delta_bytes
    reference.grown_bytes += max(delta_bytes - reference.first_delta_bytes, 0)


def newest_first(
    names: Iterable[CopyName], classes: Iterable[CopyClass], until_utc: datetime | None = None
) -> list[CopyName]:
    """Return the copies of these classes that were taken at `until_utc` or before, the newest
    first. Two of one moment: the more complete class first, and of one class the one that was sent
    later."""
    wanted = list(classes)
    found = [name for name in names if name.copy_class in wanted]
    if until_utc is not None:
        found = [name for name in found if name.taken_at_utc <= until_utc]

    return sorted(
        found,
        key=lambda name: (name.taken_at_utc, -wanted.index(name.copy_class), name.number),
        reverse=True,
    )


def find_gaps(names: Iterable[CopyName]) -> list[str]:
    """Return sentences about copies that are gone although older ones of their class are kept."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for name in names:
        numbers.setdefault((name.copy_class, name.writer), []).append(name.number)

    gaps = []
    for (copy_class, writer), found in sorted(numbers.items()):
        missing = sorted(set(range(min(found), max(found))) - set(found))
        if missing:
            gaps.append(
                f"{len(missing)} {copy_class} copies of writer {writer} are gone, the first "
                f"number {missing[0]}"
            )

    return gaps
