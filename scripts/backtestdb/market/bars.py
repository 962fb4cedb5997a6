"""Bars as they arrive: checked one rule after another, and turned into columns. Knows no HTTP and no database."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from exchange_calendars import ExchangeCalendar

from backtestdb.market.sessions import make_midnights_ms, make_new_york_times, sunday_based_weekday

PRICES = ["open", "high", "low", "close"]
LETTERS = {"t": "timestamp", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
BAR_COLUMNS = ["ticker", "timestamp", *PRICES, "volume", "timeframe", "time_of_day", "day_of_week"]
# The dearest share ever traded in New York (Berkshire Hathaway A) stays below a million dollars; junk rows of
# 9e11 have been seen.
HIGHEST_PRICE = 1e7
# All stocks of New York together trade some 2e10 shares a day; beyond 9e18 a volume is no integer of SQLite.
HIGHEST_VOLUME = 1e12
FIVE_MINUTES_MS = 300_000
NUMBER_TYPES = (int, float)  # exactly: a bool is neither, nor is a number in quotes


@dataclass(frozen=True)
class CheckedBars:
    """`good`: BAR_COLUMNS and session_date (ISO text), in order of ticker and time. `rejected`: ticker,
    timeframe, timestamp, session_date, reason, bar (JSON as it came)."""

    good: pd.DataFrame
    rejected: pd.DataFrame


def check_bars(
    rows: Sequence[Mapping[str, Any]],
    timeframe: str,
    calendar: ExchangeCalendar,
    start: date,
    end: date,
    ticker: str | None = None,
) -> CheckedBars:
    """Sort the vendor's rows into those that can be true and those that cannot.

    `ticker` is None for grouped rows, which carry theirs in `T`. Day bars get the session's midnight in New
    York as their time, whichever endpoint they came from. `start` and `end` are the asked sessions; a bar
    outside of them is as wrong as one in the future.
    """
    frame = make_frame(rows, ticker)
    local = make_new_york_times(frame["timestamp"].to_numpy())
    days = local.normalize()
    if timeframe == "1day":
        frame["timestamp"] = make_midnights_ms(days)
    frame["timeframe"] = timeframe
    frame["session_date"] = days.strftime("%Y-%m-%d")
    frame["time_of_day"] = local.strftime("%H:%M:%S") if timeframe == "5min" else None
    frame["day_of_week"] = sunday_based_weekday(days)
    frame["reason"] = find_reasons(frame, local, timeframe, calendar, start, end)
    frame = frame.sort_values(["ticker", "timestamp"], kind="stable")
    is_good = frame["reason"] == ""
    repeated = is_good & frame[is_good].duplicated(["ticker", "timestamp"]).reindex(
        frame.index, fill_value=False
    )
    frame.loc[repeated, "reason"] = "a second bar of the same time"
    is_good &= ~repeated
    good = frame.loc[is_good, [*BAR_COLUMNS, "session_date"]]
    good["volume"] = good["volume"].round().astype("int64")  # the vendor counts fractions of shares
    return CheckedBars(good.reset_index(drop=True), make_rejected(frame[~is_good], rows))


def make_frame(rows: Sequence[Mapping[str, Any]], ticker: str | None) -> pd.DataFrame:
    """Columns of the vendor's letters under their names; what is missing or no number becomes NaN, a missing
    time becomes 1970 and is set aside as no session."""
    columns: dict[str, Any] = {}
    for letter, name in LETTERS.items():
        values = [row.get(letter) for row in rows]
        columns[name] = [value if type(value) in NUMBER_TYPES else np.nan for value in values]
    frame = pd.DataFrame(columns, dtype="float64")
    in_range = frame["timestamp"].between(0, 4e12)  # up to the year 2096
    frame["timestamp"] = frame["timestamp"].where(in_range, 0.0).astype("int64")
    frame["ticker"] = [str(row.get("T") or "") for row in rows] if ticker is None else ticker
    return frame


def find_reasons(
    frame: pd.DataFrame,
    local: pd.DatetimeIndex,
    timeframe: str,
    calendar: ExchangeCalendar,
    start: date,
    end: date,
) -> np.ndarray:
    """For each bar the first rule that it breaks; empty text when it breaks none."""
    days = local.normalize()
    minutes = local.hour * 60 + local.minute
    rules = {
        "no ticker": frame["ticker"] == "",
        "no session on this day": ~days.isin(calendar.sessions),
        "after the last asked session": days > pd.Timestamp(end),
        "before the first asked session": days < pd.Timestamp(start),
    }
    if timeframe == "5min":
        rules["outside of 04:00-20:00 or not on five minutes"] = (
            (minutes < 240) | (minutes >= 1200) | (frame["timestamp"] % FIVE_MINUTES_MS != 0)
        )
    reasons = find_number_reasons(frame[PRICES].to_numpy().T, frame["volume"].to_numpy())
    others = np.select([np.asarray(broken) for broken in rules.values()], list(rules), default="")
    return np.where(reasons == "", others, reasons)


def find_number_reasons(prices: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """For each bar the first rule that its numbers break; empty text when they break none. `prices`: open,
    high, low, close as rows."""
    opened, high, low, close = prices
    rules = {
        "not a finite number": ~np.isfinite(prices).all(axis=0) | ~np.isfinite(volume),
        "price not above 0": (prices <= 0).any(axis=0),
        f"price above {HIGHEST_PRICE:.0f}": (prices > HIGHEST_PRICE).any(axis=0),
        "volume below 0": volume < 0,
        f"volume above {HIGHEST_VOLUME:.0f}": volume > HIGHEST_VOLUME,
        "high below open or close": high < np.maximum(opened, close),
        "low above open or close": low > np.minimum(opened, close),
    }
    return np.select(list(rules.values()), list(rules), default="")


def make_rejected(frame: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rejected = frame[["ticker", "timeframe", "timestamp", "session_date", "reason"]].copy()
    rejected["bar"] = [json.dumps(rows[position], sort_keys=True) for position in frame.index]
    return rejected
