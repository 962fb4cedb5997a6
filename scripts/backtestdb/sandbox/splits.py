"""Splits of the sandbox: which there are, and by how much prices before and after them differ."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from backtestdb.sandbox.sessions import Floats, Ints, load_sessions


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split, `split_to` new shares for `split_from` old ones from the morning of
    `execution_date` on.

    The splits endpoint lists it `copies` times from `listed_from` until the day before
    `listed_until`, and only while it is listed adjusted prices are divided by it. When
    `moves_prices` is false it never happens: then prices are adjusted only when `adjusts_prices`
    says so (a wrong entry of the vendor's). The prices of the source contain those that are
    `in_source`.
    """

    ticker: str
    execution_date: date
    split_from: float
    split_to: float
    listed_from: date
    copies: int = 1
    moves_prices: bool = True
    in_source: bool = False
    listed_until: date = date.max
    adjusts_prices: bool = True

    def is_listed(self, today: date) -> bool:
        return self.listed_from <= today < self.listed_until

    @property
    def ratio(self) -> float:
        """Return how many shares one share becomes."""
        return self.split_to / self.split_from

    @property
    def direction(self) -> str:
        """Return the vendor's word for it."""
        return "forward_split" if self.split_to > self.split_from else "reverse_split"


def make_source_split(ticker: str, day: date) -> Split:
    """Return a 2:1 split that the real prices contain."""
    return Split(
        ticker=ticker, execution_date=day, split_from=1, split_to=2, listed_from=day, in_source=True
    )


SOURCE_SPLITS = (
    make_source_split("AAPL", date(2000, 6, 21)),
    make_source_split("MSFT", date(2003, 2, 18)),
    make_source_split("AAPL", date(2005, 2, 28)),
)


def parse_split(row: dict[str, Any]) -> Split:
    """Return a split from JSON: ticker, execution_date, split_from, split_to, a Split's others."""
    execution_date = date.fromisoformat(row["execution_date"])
    moves_prices = bool(row.get("moves_prices", True))

    return Split(
        ticker=str(row["ticker"]),
        execution_date=execution_date,
        split_from=float(row["split_from"]),
        split_to=float(row["split_to"]),
        listed_from=date.fromisoformat(row.get("listed_from", row["execution_date"])),
        copies=int(row.get("copies", 1)),
        moves_prices=moves_prices,
        in_source=bool(row.get("in_source", False)),
        listed_until=date.fromisoformat(row.get("listed_until", str(date.max))),
        adjusts_prices=bool(row.get("adjusts_prices", moves_prices)),
    )


def with_source_splits(splits: Iterable[Split]) -> tuple[Split, ...]:
    """Return the given splits and the source's, without those that a given one replaces."""
    given = tuple(splits)
    taken = {(split.ticker, split.execution_date) for split in given if split.in_source}
    kept = (split for split in SOURCE_SPLITS if (split.ticker, split.execution_date) not in taken)
    return (*kept, *given)


def make_divisors(
    splits: Iterable[Split], sessions: Ints, *, adjusted: bool, today: date
) -> Floats:
    """Return divisors of a ticker's unsplit prices by session (volumes: factors)."""
    dates = load_sessions().dates
    divisors: Floats = np.ones(len(sessions))

    for split in splits:
        executed = int(np.searchsorted(dates, np.datetime64(split.execution_date)))

        # A made-up split divides what comes after it, so that announcing one never changes what was
        # served.
        if split.moves_prices and not split.in_source:
            divisors[sessions >= executed] *= split.ratio

        # Adjusted prices: by every listed split from their session to `today`, its day included.
        if (
            adjusted
            and split.adjusts_prices
            and split.execution_date <= today
            and split.is_listed(today)
        ):
            divisors[sessions < executed] *= split.ratio

    return divisors
