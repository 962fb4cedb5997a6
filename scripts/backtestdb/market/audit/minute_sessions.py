"""The 5-minute bars of each session taken together, to be held against its day bar."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtestdb.market.audit.columns import Bars, Flags, Floats, Ints
from backtestdb.market.audit.rule import Batch


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """The 5-minute bars of a batch, an entry for each ticker and session.

    `day_bar`: the place of the day bar, -1 where there is none. `regular`: bars within regular
    hours, `share` of 78 (42). High and low of regular hours and of all; `near_open`, `near_close`:
    lowest and highest price of the bars that surround opening and close. What a session without a
    regular bar does not have is NaN.
    """

    code: Ints
    day: Ints
    day_bar: Ints
    regular: Ints
    full: Ints
    high: Floats
    low: Floats
    regular_high: Floats
    regular_low: Floats
    near_open: tuple[Floats, Floats]
    near_close: tuple[Floats, Floats]
    volume: Floats

    @property
    def share(self) -> Floats:
        return self.regular / self.full


def make_sessions(batch: Batch) -> Sessions:
    """Return the sessions of the 5-minute bars."""
    known = batch.known
    # Bars of days without a session are left out: another rule names them.
    minutes = take(batch.minutes, known.place_of(batch.minutes.day) >= 0)
    starts = np.flatnonzero(np.diff(minutes.key, prepend=-1))
    session = known.place_of(minutes.day[starts])

    # For each bar its session, and whether it lies within regular hours: 09:30 to 16:00, or to
    # 13:00.
    bars = np.diff(np.append(starts, len(minutes)))
    closes = known.close_minute[session]
    opens = closes - 5 * known.full_bars[session]
    in_hours = (minutes.minute >= np.repeat(opens, bars)) & (
        minutes.minute < np.repeat(closes, bars)
    )
    regular = reduce(np.add, in_hours.astype("int64"), starts)

    places = np.arange(len(minutes))
    first = reduce(np.minimum, np.where(in_hours, places, len(minutes)), starts)
    last = reduce(np.maximum, np.where(in_hours, places, -1), starts)

    return Sessions(
        code=minutes.code[starts],
        day=minutes.day[starts],
        day_bar=find_day_bars(batch.days, minutes.key[starts]),
        regular=regular,
        full=known.full_bars[session],
        high=reduce(np.fmax, minutes.high, starts),
        low=reduce(np.fmin, minutes.low, starts),
        regular_high=reduce(np.fmax, np.where(in_hours, minutes.high, np.nan), starts),
        regular_low=reduce(np.fmin, np.where(in_hours, minutes.low, np.nan), starts),
        near_open=range_of(minutes, first, first - 1, regular > 0),
        near_close=range_of(minutes, last, last + 1, regular > 0),
        volume=reduce(np.add, minutes.volume, starts),
    )


def take(bars: Bars, where: Flags) -> Bars:
    if where.all():
        return bars
    arrays: dict[str, Any] = {
        name: value[where] for name, value in vars(bars).items() if isinstance(value, np.ndarray)
    }
    return replace(bars, **arrays)


def reduce(how: np.ufunc, values: np.ndarray, starts: Ints) -> np.ndarray:
    return np.asarray(how.reduceat(values, starts)) if len(starts) else values[:0]


def find_day_bars(days: Bars, keys: Ints) -> Ints:
    places = np.searchsorted(days.key, keys)
    inside = np.minimum(places, max(len(days) - 1, 0))
    return np.where(days.key[inside] == keys, inside, -1) if len(days) else np.full(len(keys), -1)


def range_of(minutes: Bars, edge: Ints, beside: Ints, has_regular: Flags) -> tuple[Floats, Floats]:
    """Return lowest and highest price of the bar at an edge of regular hours and of the bar beside
    it outside of them."""
    # The auctions print into either.
    if not len(minutes):
        return np.zeros(0), np.zeros(0)
    edge = np.clip(edge, 0, len(minutes) - 1)
    beside = np.clip(beside, 0, len(minutes) - 1)
    beside = np.where(minutes.key[beside] == minutes.key[edge], beside, edge)
    low = np.fmin(minutes.low[edge], minutes.low[beside])
    high = np.fmax(minutes.high[edge], minutes.high[beside])
    return np.where(has_regular, low, np.nan), np.where(has_regular, high, np.nan)
