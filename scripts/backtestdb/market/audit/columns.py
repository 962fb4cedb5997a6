"""Stored rows as columns of numpy, and their times in New York. Knows no database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from backtestdb.market.sessions import make_midnights_ms, make_new_york_times

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]

EPOCH = date(1970, 1, 1).toordinal()
LATEST_MS = 4_000_000_000_000  # the year 2096: a time stamp in microseconds lies behind it
CODE = 1 << 20  # more days than a code's share of a key can ever need


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars of one timeframe in order of ticker and time; every array has an entry a bar.

    `code` is the ticker's place in `tickers`, `day` the New York date in days since 1970, `minute`
    the minutes since its midnight. What is no number in the database is NaN here.
    """

    timeframe: str
    tickers: Sequence[str]
    code: Ints
    timestamp: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    day_of_week: Floats
    time_of_day: Texts
    day: Ints
    minute: Ints
    midnight: Ints

    def __len__(self) -> int:
        return len(self.code)

    @property
    def follows(self) -> Flags:
        """Return which bars have a bar of the same ticker right before them."""
        return np.concatenate([[False], self.code[1:] == self.code[:-1]])[: len(self)]

    @property
    def key(self) -> Ints:
        """Return a number for each ticker and day, in the order of the bars."""
        return self.code * CODE + self.day


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Rows of daily_metrics in order of ticker and date: `day` from the column `date` (-1: no
    date), `values` a row of numbers each, in the order in which they were asked for."""

    code: Ints
    day: Ints
    values: Floats

    @property
    def key(self) -> Ints:
        return self.code * CODE + self.day


def make_bars(
    timeframe: str, tickers: Sequence[str], counts: Sequence[int], rows: Sequence[tuple[Any, ...]]
) -> Bars:
    """Given `rows` (timestamp, open, high, low, close, volume, day_of_week, time_of_day) of one
    ticker after the other and the `counts` of each, return them as columns."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 8
    stamps = np.clip(make_ints(columns[0]), 0, LATEST_MS)
    distinct, place = np.unique(stamps, return_inverse=True)  # tickers share their time stamps

    local = make_new_york_times(distinct)
    midnights = make_midnights_ms(local.normalize())
    days = local.normalize().as_unit("s").asi8 // 86_400

    numbers = [make_floats(column) for column in columns[1:7]]

    return Bars(
        timeframe=timeframe,
        tickers=tickers,
        code=np.repeat(np.arange(len(tickers)), counts),
        timestamp=stamps,
        open=numbers[0],
        high=numbers[1],
        low=numbers[2],
        close=numbers[3],
        volume=numbers[4],
        day_of_week=numbers[5],
        time_of_day=make_texts(columns[7]),
        day=days[place],
        minute=(local.hour * 60 + local.minute).to_numpy("int64")[place],
        midnight=midnights[place],
    )


def make_floats(column: Sequence[Any]) -> Floats:
    """Return a column as floats; NULL, and text where SQLite found no number, are NaN."""
    try:
        return np.array(column, dtype="float64")
    except (TypeError, ValueError):
        return np.array([value if isinstance(value, int | float) else np.nan for value in column])


def make_ints(column: Sequence[Any]) -> Ints:
    """Return a column as whole numbers; anything else is 0, a time in 1970 without a session."""
    try:
        return np.array(column, dtype="int64")
    except (TypeError, ValueError, OverflowError):
        fits = [value if isinstance(value, int) and abs(value) < 2**62 else 0 for value in column]
        return np.array(fits, dtype="int64")


def make_texts(column: Sequence[Any]) -> Texts:
    texts = np.empty(len(column), dtype=object)
    texts[:] = column
    return texts


def day_number(text: str) -> int:
    """Return days since 1970 of an ISO date; -1 for what is none."""
    try:
        return date.fromisoformat(text).toordinal() - EPOCH
    except (TypeError, ValueError):
        return -1


def day_text(day: int) -> str:
    return date.fromordinal(int(day) + EPOCH).isoformat()
