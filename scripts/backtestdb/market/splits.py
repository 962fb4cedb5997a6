"""Splits as the vendor lists them, from one look at its list to the next: pure functions of the two
lists.

The vendor's prices are adjusted as of the moment of asking, by the splits that it lists at that
moment. It lists some late (polygon-io/issues 238: two months, 1046:1000), withdraws and corrects
others. Nothing is computed from stored prices here: a ticker whose list changed is asked for again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from backtestdb.errors import ProjectError
from backtestdb.new_york import NEW_YORK

# How far back of the last look the list is read, so that late, corrected and withdrawn splits are
# noticed. The whole market has about 1,300 splits a year: one page.
LOOK_BACK = timedelta(days=400)
# A database whose bars were there before its first look: splits are taken to be listed this much
# later at most.
LISTED_WITHIN = timedelta(days=65)
OPENING = time(9, 30)
# More splits than this cannot be withdrawn between two looks: then the list is not whole.
WITHDRAWN_AT_MOST, WITHDRAWN_PART = 3, 0.05


class IncompleteListError(ProjectError):
    """The vendor's list of splits lacks too many of those that it had."""


@dataclass(frozen=True, order=True)
class Split:
    """`split_to` new shares for `split_from` old ones, from the opening of `execution_date` on."""

    execution_date: date
    ticker: str
    split_from: float
    split_to: float

    @property
    def ratio(self) -> float:
        """Return how many shares one share becomes, and by what older prices are divided."""
        return self.split_to / self.split_from

    def __str__(self) -> str:
        return f"{self.ticker} {self.split_to:g}:{self.split_from:g} on {self.execution_date}"


@dataclass(frozen=True)
class KnownSplit:
    """A split that was listed at some look. Answers from `believed_at_utc` on are adjusted by it,
    until it was found to be withdrawn."""

    split: Split
    first_seen_at_utc: datetime
    believed_at_utc: datetime
    withdrawn_at_utc: datetime | None = None

    @property
    def changed_at_utc(self) -> datetime:
        """Return the moment before which bars from before the split came adjusted in another way
        than today."""
        return self.withdrawn_at_utc or self.believed_at_utc

    def __str__(self) -> str:
        return f"{self.split} was withdrawn" if self.withdrawn_at_utc else f"{self.split} is listed"


@dataclass
class SplitLook:
    """What came of a look. `refetched`: ticker and reason of those that were asked for again;
    `due`: those that are still to be, with the reason; `failure`: why the list could not be read,
    if so."""

    refetched: dict[str, str] = field(default_factory=dict)
    due: dict[str, str] = field(default_factory=dict)
    failure: str = ""

    @property
    def has_holes(self) -> bool:
        return bool(self.due or self.failure)


def parse_splits(rows: Iterable[Mapping[str, Any]]) -> list[Split]:
    """Return the vendor's rows, oldest first, each split once, without rows that are none."""
    found = set()
    for row in rows:
        try:
            split = Split(
                date.fromisoformat(str(row["execution_date"])),
                str(row["ticker"]),
                float(row["split_from"]),
                float(row["split_to"]),
            )
        except (KeyError, TypeError, ValueError):
            continue
        if split.split_from > 0 and split.split_to > 0 and split.split_from != split.split_to:
            found.add(split)

    return sorted(found)


def look_since(last_look_utc: datetime | None, now_utc: datetime) -> date:
    """Return the execution date from which on the list is asked for."""
    return (min(last_look_utc or now_utc, now_utc) - LOOK_BACK).astimezone(NEW_YORK).date()


def compare_splits(
    known: Sequence[KnownSplit],
    listed: Sequence[Split],
    *,
    since: date,
    now_utc: datetime,
    bars_came_first: bool,
) -> list[KnownSplit]:
    """Given what earlier looks found and what the vendor lists now from `since` on, return the
    splits that are new, listed again or withdrawn. Those that are announced for a later day are
    left for that day.

    `bars_came_first`: bars were stored before the first look at all, so that it is not known when
    the splits were listed. Raise IncompleteListError when the list cannot be whole.
    """
    today = now_utc.astimezone(NEW_YORK).date()
    in_effect = {split for split in listed if split.execution_date <= today}
    expected = {each.split: each for each in known if each.split.execution_date >= since}
    listed_before = {split for split, each in expected.items() if each.withdrawn_at_utc is None}

    gone = listed_before - in_effect
    if len(gone) > max(WITHDRAWN_AT_MOST, WITHDRAWN_PART * len(listed_before)):
        raise IncompleteListError(
            f"the vendor's list of splits lacks {len(gone)} of {len(listed_before)} that it had: "
            "not believed",
            next_step="make update, later",
        )

    new = [
        KnownSplit(
            split, now_utc, find_believed_at(split, now_utc, bars_came_first=bars_came_first)
        )
        for split in in_effect - listed_before
    ]
    withdrawn = [replace(expected[split], withdrawn_at_utc=now_utc) for split in gone]
    return sorted([*new, *withdrawn], key=lambda each: each.split)


def find_believed_at(split: Split, now_utc: datetime, *, bars_came_first: bool) -> datetime:
    """Return from when on answers are adjusted by a split that was not seen before: now at the
    latest, but not before the opening of its day, because the hour of the morning at which the
    vendor adjusts is not known."""
    opening = datetime.combine(split.execution_date, OPENING, NEW_YORK)
    believed = min(now_utc, opening + LISTED_WITHIN) if bars_came_first else now_utc
    return max(believed, opening).astimezone(now_utc.tzinfo)
