"""Splits of the sandbox: which there are, and by how much prices before and after them differ."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from backtestdb.sandbox.sessions import Floats, Ints, load_sessions


@dataclass(frozen=True)
class Split:
    """One split, `split_to` new shares for `split_from` old ones from the morning of `execution_date` on.

    The splits endpoint lists it `copies` times from `listed_from` on. When `moves_prices` is false it is
    listed but never happens. The prices of the source contain those that are `in_source`.
    """

    ticker: str
    execution_date: date
    split_from: float
    split_to: float
    listed_from: date
    copies: int = 1
    moves_prices: bool = True
    in_source: bool = False

    @property
    def ratio(self) -> float:
        """How many shares one share becomes."""
        return self.split_to / self.split_from

    @property
    def direction(self) -> str:
        """The vendor's word for it."""
        return "forward_split" if self.split_to > self.split_from else "reverse_split"


def make_source_split(ticker: str, day: date) -> Split:
    """A 2:1 split that the real prices contain."""
    return Split(ticker, day, 1, 2, listed_from=day, in_source=True)


SOURCE_SPLITS = (
    make_source_split("AAPL", date(2000, 6, 21)),
    make_source_split("MSFT", date(2003, 2, 18)),
    make_source_split("AAPL", date(2005, 2, 28)),
)


def parse_split(row: dict[str, Any]) -> Split:
    """A split from its JSON form: ticker, execution_date, split_from, split_to and what a Split may have."""
    execution_date = date.fromisoformat(row["execution_date"])
    return Split(
        ticker=str(row["ticker"]),
        execution_date=execution_date,
        split_from=float(row["split_from"]),
        split_to=float(row["split_to"]),
        listed_from=date.fromisoformat(row.get("listed_from", row["execution_date"])),
        copies=int(row.get("copies", 1)),
        moves_prices=bool(row.get("moves_prices", True)),
    )


def make_divisors(splits: Iterable[Split], sessions: Ints, *, adjusted: bool, today: date) -> Floats:
    """By what to divide the unsplit prices of one ticker at each session (volumes: multiply).

    A made-up split divides what comes after it, so that announcing one never changes what was served. The
    adjusted prices of `today` are divided by every split between their session and today, the execution
    date included.
    """
    dates = load_sessions().dates
    divisors: Floats = np.ones(len(sessions))
    for split in splits:
        if not split.moves_prices:
            continue
        executed = int(np.searchsorted(dates, np.datetime64(split.execution_date)))
        if not split.in_source:
            divisors[sessions >= executed] *= split.ratio
        if adjusted and split.execution_date <= today:
            divisors[sessions < executed] *= split.ratio
    return divisors
