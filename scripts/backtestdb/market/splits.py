"""Splits that the vendor announces after bars from before them were stored.

Its prices are adjusted as of the day of asking. So a bar is `raw` in respect of a split when its session lies
before the execution day, and so does the New York day on which it was last fetched: only those are changed.
Announcements come twice, late, or for nothing; whether one happened shows where the raw bars end.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from math import log, prod
from typing import Any

import numpy as np

# Splits at one and the same boundary are tried in every combination; more than this many were never seen.
SPLITS_TOGETHER = 6
# A price that moves by a quarter overnight is news; one that moves by a small split's ratio is not.
NIGHT = log(1.25)


@dataclass(frozen=True, order=True)
class Split:
    """`split_to` new shares for `split_from` old ones, from the opening of `execution_date` on."""

    execution_date: date
    ticker: str
    split_from: float
    split_to: float

    @property
    def ratio(self) -> float:
        """How many shares one share becomes, and by what older prices are divided."""
        return self.split_to / self.split_from


@dataclass(frozen=True)
class FetchedBars:
    """Bars of one ticker and timeframe in order of time: session and New York day of the last fetch as ordinals
    of dates, opening and closing price."""

    session: np.ndarray
    fetched: np.ndarray
    open: np.ndarray
    close: np.ndarray

    def is_raw(self, split: Split) -> np.ndarray:
        """Which bars were fetched before the split took effect, and are from before it."""
        executed = split.execution_date.toordinal()
        return (self.session < executed) & (self.fetched < executed)


@dataclass(frozen=True)
class Finding:
    """What the bars say about a split: `applied` when it is to be, `unconfirmed`, or `waiting` for the first bar
    after the raw ones. `seen_ratio`: the last raw close to the next open."""

    split: Split
    state: str
    seen_ratio: float | None = None


def parse_splits(rows: Iterable[Mapping[str, Any]]) -> list[Split]:
    """The vendor's rows, oldest first, each split once; rows that are no split are left out."""
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


def judge_splits(splits: Sequence[Split], bars: FetchedBars) -> list[Finding]:
    """A finding for each of a ticker's splits that has raw bars, oldest first.

    At the end of the raw bars the price jumps by the split's ratio. Several splits may end there together (a
    ticker that was not updated for years): of all combinations that one is taken whose ratio is nearest to what
    is seen, so that a split counts only when it explains the jump better than none.
    """
    ends: dict[int, list[Split]] = {}
    for split in sorted(splits):
        raw = np.flatnonzero(bars.is_raw(split))
        if len(raw):
            ends.setdefault(int(raw[-1]), []).append(split)
    findings = []
    for end, together in ends.items():
        if end + 1 == len(bars.close):
            findings += [Finding(split, "waiting") for split in together]
            continue
        seen = float(bars.close[end] / bars.open[end + 1])
        chosen = choose_explanation(seen, together)
        findings += [
            Finding(split, "applied" if split in chosen else "unconfirmed", seen) for split in together
        ]
    return sorted(findings, key=lambda finding: finding.split)


def choose_explanation(seen_ratio: float, splits: Sequence[Split]) -> tuple[Split, ...]:
    """The combination whose ratios multiplied come nearest to `seen_ratio`, of equally near ones the smallest;
    none when even that one leaves more unexplained than a night may bring."""
    every = [
        chosen
        for count in range(min(len(splits), SPLITS_TOGETHER) + 1)
        for chosen in combinations(splits, count)
    ]
    ratios = {chosen: log(prod(split.ratio for split in chosen)) for chosen in every}
    nearest = min(every, key=lambda chosen: abs(log(seen_ratio) - ratios[chosen]))
    unexplained = abs(log(seen_ratio) - ratios[nearest])
    return nearest if unexplained <= max(NIGHT, abs(ratios[nearest]) / 2) else ()
