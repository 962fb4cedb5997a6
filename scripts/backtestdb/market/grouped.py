"""The day bars of the whole market in one session: checked as columns, without a step in Python for each bar."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from backtestdb.market.bars import NUMBER_TYPES, PRICES, find_number_reasons
from backtestdb.market.sessions import make_new_york_times, midnight_ms, sunday_based_weekday

LETTERS = "ohlcv"
ASIDE_COLUMNS = ["ticker", "timeframe", "timestamp", "session_date", "reason", "bar"]


@dataclass(frozen=True)
class SessionBars:
    """The bars of one session that can be true, each ticker once, in no order. `prices`: open, high, low,
    close as rows. `rejected`: ASIDE_COLUMNS. `received` rows are the bars, `dropped` ones of other tickers, and
    those of `rejected`."""

    session_date: date
    tickers: list[str]
    prices: np.ndarray
    volume: np.ndarray
    rejected: pd.DataFrame
    received: int
    dropped: int

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Received, stored, dropped, set aside."""
        return self.received, len(self.tickers), self.dropped, len(self.rejected)


def check_session(
    rows: Sequence[Mapping[str, Any]], session_date: date, wanted: Collection[str] | None
) -> SessionBars:
    """Given the vendor's rows about a session, keep those of the `wanted` tickers (None: of all) that can be
    true, and set aside the others of them with the rule that they break."""
    kept = [row for row in rows if wanted is None or row.get("T") in wanted]
    tickers = np.array([str(row.get("T") or "") for row in kept], dtype=object)
    numbers = [make_numbers([row.get(letter) for row in kept]) for letter in LETTERS]
    prices, volume = np.array(numbers[:4]), numbers[4]
    reasons = find_number_reasons(prices, volume)
    is_other_day = ~find_same_day(make_numbers([row.get("t") for row in kept]), session_date)
    reasons = np.where((reasons == "") & is_other_day, "another session than the asked one", reasons)
    reasons = np.where((reasons == "") & (tickers == ""), "no ticker", reasons)
    good = np.flatnonzero(reasons == "")
    repeated = good[pd.Series(tickers[good]).duplicated().to_numpy()]
    if len(repeated):
        reasons[repeated] = "a second bar of the same time"
        good = np.flatnonzero(reasons == "")
    bad = np.flatnonzero(reasons != "").tolist()
    return SessionBars(
        session_date,
        tickers[good].tolist(),
        prices[:, good],
        np.rint(volume[good]).astype("int64"),  # the vendor counts fractions of shares
        make_rejected([kept[place] for place in bad], reasons[bad], session_date),
        received=len(rows),
        dropped=len(rows) - len(kept),
    )


def make_numbers(values: list[Any]) -> np.ndarray:
    """As floats; what is missing or no number becomes NaN."""
    return np.array([value if type(value) in NUMBER_TYPES else np.nan for value in values], dtype="float64")


def find_same_day(stamps_ms: np.ndarray, session_date: date) -> np.ndarray:
    """Whether each time stamp falls on the session in New York: midnight and 16:00 both do. All bars of an
    answer mostly share one time stamp, so each distinct one is looked at once."""
    distinct, place = np.unique(np.where(np.isfinite(stamps_ms), stamps_ms, 0.0), return_inverse=True)
    in_range = np.clip(distinct, 0, 4e12).astype("int64")  # up to the year 2096
    days = make_new_york_times(in_range).normalize()
    return np.asarray(days == pd.Timestamp(session_date))[place]


def make_rejected(rows: list[Mapping[str, Any]], reasons: np.ndarray, session_date: date) -> pd.DataFrame:
    stamp, day = midnight_ms(session_date), session_date.isoformat()
    found = [
        (str(row.get("T") or ""), "1day", stamp, day, str(reason), json.dumps(row, sort_keys=True))
        for row, reason in zip(rows, reasons, strict=True)
    ]
    return pd.DataFrame(found, columns=ASIDE_COLUMNS)


def make_bar_columns(bars: SessionBars) -> list[list[Any]]:
    """BAR_COLUMNS of `bars`, by ticker."""
    order = sorted(range(len(bars.tickers)), key=bars.tickers.__getitem__)
    count = len(order)
    weekday = int(sunday_based_weekday(pd.DatetimeIndex([bars.session_date]))[0])
    return [
        [bars.tickers[place] for place in order],
        [midnight_ms(bars.session_date)] * count,
        *(bars.prices[row, order].tolist() for row in range(len(PRICES))),
        bars.volume[order].tolist(),
        ["1day"] * count,
        [None] * count,
        [weekday] * count,
    ]
