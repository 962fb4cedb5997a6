"""A day bar against the 5-minute bars of its session."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtestdb.market.audit.columns import Bars, Flags, Floats, Ints
from backtestdb.market.audit.rule import Batch, Hits, Rule, price_text

# Corrections and odd lots count in one kind of bar and not in the other: a hundredth, and a cent for cheap shares.
TOLERANCE, TOLERANCE_DOLLARS = 0.01, 0.01
# Shares that the 5-minute bars may have of the day bar's: not every trade enters a 5-minute bar.
VOLUME_AT_LEAST, VOLUME_AT_MOST, VOLUME_SLACK = 0.6, 1.25, 1000.0
# A ticker that has nine in ten of its bars usually, and less than half of them once.
LIVELY, CUT, SESSIONS_TO_JUDGE = 0.9, 0.5, 5


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """The 5-minute bars of a batch, an entry for each ticker and session.

    `day_bar`: the place of the day bar, -1 where there is none. `regular`: bars within regular hours, `share` of
    78 (42). High and low of regular hours and of all; `near_open`, `near_close`: lowest and highest price of the
    bars that surround opening and close. What a session without a regular bar does not have is NaN.
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
    """Bars of days without a session are left out: another rule names them."""
    known = batch.known
    minutes = take(batch.minutes, known.place_of(batch.minutes.day) >= 0)
    key = minutes.key
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    code, day = minutes.code[starts], minutes.day[starts]
    place = known.place_of(day)
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(key))))
    opens = known.close_minute[place] - 5 * known.full_bars[place]
    in_hours = (minutes.minute >= opens[group]) & (minutes.minute < known.close_minute[place][group])
    regular = reduce(np.add, in_hours.astype("int64"), starts)
    places = np.arange(len(key))
    first = reduce(np.minimum, np.where(in_hours, places, len(key)), starts)
    last = reduce(np.maximum, np.where(in_hours, places, -1), starts)
    high = reduce(np.fmax, minutes.high, starts)
    low = reduce(np.fmin, minutes.low, starts)
    regular_high = reduce(np.fmax, np.where(in_hours, minutes.high, np.nan), starts)
    regular_low = reduce(np.fmin, np.where(in_hours, minutes.low, np.nan), starts)
    has_regular = regular > 0
    return Sessions(
        code=code,
        day=day,
        day_bar=find_day_bars(batch.days, minutes.key[starts]),
        regular=regular,
        full=known.full_bars[place],
        high=high,
        low=low,
        regular_high=regular_high,
        regular_low=regular_low,
        near_open=range_of(minutes, first, first - 1, has_regular),
        near_close=range_of(minutes, last, last + 1, has_regular),
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
    """Lowest and highest price of the bar at an edge of regular hours, and of the one beside it outside of them:
    the auctions print into either."""
    if not len(minutes):
        return np.zeros(0), np.zeros(0)
    edge = np.clip(edge, 0, len(minutes) - 1)
    beside = np.clip(beside, 0, len(minutes) - 1)
    beside = np.where(minutes.key[beside] == minutes.key[edge], beside, edge)
    low = np.fmin(minutes.low[edge], minutes.low[beside])
    high = np.fmax(minutes.high[edge], minutes.high[beside])
    return np.where(has_regular, low, np.nan), np.where(has_regular, high, np.nan)


def tolerance(prices: Floats) -> Floats:
    return TOLERANCE * np.abs(prices) + TOLERANCE_DOLLARS


def paired(batch: Batch) -> tuple[Sessions, Flags]:
    """The sessions, and which of them have a day bar and a regular 5-minute bar."""
    sessions = make_sessions(batch)
    return sessions, (sessions.day_bar >= 0) & (sessions.regular > 0)


def day_prices(batch: Batch, sessions: Sessions, name: str) -> Floats:
    """The day bar's price for each session; of any bar where there is none, to be masked."""
    column = getattr(batch.days, name)
    return column[sessions.day_bar] if len(column) else np.full(len(sessions.day_bar), np.nan)


def hits_in(batch: Batch, sessions: Sessions, broken: Flags, timeframe: str, texts: dict[int, str]) -> Hits:
    places = np.flatnonzero(broken)
    tickers = [batch.tickers[code] for code in sessions.code[places].tolist()]
    return Hits(timeframe, tickers, sessions.day[places], lambda i: texts[int(places[i])])


def find_wrong_ranges(batch: Batch) -> Iterable[Hits]:
    """The day's high is at least that of regular hours, and at most that of all hours; its low accordingly."""
    sessions, both = paired(batch)
    high, low = day_prices(batch, sessions, "high"), day_prices(batch, sessions, "low")
    with np.errstate(invalid="ignore"):
        broken_high = both & (
            (high < sessions.regular_high - tolerance(high)) | (high > sessions.high + tolerance(high))
        )
        broken_low = both & (
            (low > sessions.regular_low + tolerance(low)) | (low < sessions.low - tolerance(low))
        )
    texts = {}
    for place in np.flatnonzero(broken_low).tolist():
        texts[place] = describe_edge("low", low[place], sessions.regular_low[place], sessions.low[place])
    for place in np.flatnonzero(broken_high).tolist():
        texts[place] = describe_edge("high", high[place], sessions.regular_high[place], sessions.high[place])
    yield hits_in(batch, sessions, broken_high | broken_low, "1day", texts)


def describe_edge(name: str, day: float, regular: float, every: float) -> str:
    return (
        f"the day's {name} is {price_text(day)}, that of its 5-minute bars {price_text(regular)} in regular"
        f" hours, {price_text(every)} with the rest"
    )


def find_wrong_edges(batch: Batch) -> Iterable[Hits]:
    """The day opens within the first regular bar or the one before it, and closes within the last or the next."""
    sessions, both = paired(batch)
    broken = np.zeros(len(sessions.code), dtype=bool)
    texts: dict[int, str] = {}
    for name, (low, high) in (("close", sessions.near_close), ("open", sessions.near_open)):
        price = day_prices(batch, sessions, name)
        with np.errstate(invalid="ignore"):
            outside = both & ((price < low - tolerance(price)) | (price > high + tolerance(price)))
        broken |= outside
        for place in np.flatnonzero(outside).tolist():
            texts[place] = (
                f"the day's {name} is {price_text(price[place])}, the 5-minute bars there lie between"
                f" {price_text(low[place])} and {price_text(high[place])}"
            )
    yield hits_in(batch, sessions, broken, "1day", texts)


def find_wrong_volumes(batch: Batch) -> Iterable[Hits]:
    sessions, both = paired(batch)
    volume = day_prices(batch, sessions, "volume")
    with np.errstate(invalid="ignore"):
        broken = both & (
            (sessions.volume > VOLUME_AT_MOST * volume + VOLUME_SLACK)
            | (sessions.volume < VOLUME_AT_LEAST * volume - VOLUME_SLACK)
        )
    texts = {
        place: f"{volume[place]:,.0f} shares in the day bar, {sessions.volume[place]:,.0f} in its 5-minute bars"
        for place in np.flatnonzero(broken).tolist()
    }
    yield hits_in(batch, sessions, broken, "1day", texts)


def find_cut_sessions(batch: Batch) -> Iterable[Hits]:
    sessions = make_sessions(batch)
    broken = np.zeros(len(sessions.code), dtype=bool)
    for code in np.unique(sessions.code).tolist():
        mine = sessions.code == code
        shares = sessions.share[mine]
        if len(shares) >= SESSIONS_TO_JUDGE and np.median(shares) >= LIVELY:
            broken[mine] = shares < CUT
    texts = {
        place: f"{sessions.regular[place]} of {sessions.full[place]} bars in regular hours; the ticker usually"
        " has nearly all"
        for place in np.flatnonzero(broken).tolist()
    }
    yield hits_in(batch, sessions, broken, "5min", texts)


def find_minutes_without_day(batch: Batch) -> Iterable[Hits]:
    """Within the time from a ticker's first day bar to its last."""
    sessions, days = make_sessions(batch), batch.days
    broken = (sessions.day_bar < 0) & (sessions.regular > 0)
    for place in np.flatnonzero(broken).tolist():
        edges = np.searchsorted(days.code, [sessions.code[place], sessions.code[place] + 1])
        mine = days.day[slice(*edges.tolist())]
        broken[place] = len(mine) > 0 and mine[0] < sessions.day[place] < mine[-1]
    texts = {
        place: f"{sessions.regular[place]} bars of five minutes and no day bar"
        for place in np.flatnonzero(broken).tolist()
    }
    yield hits_in(batch, sessions, broken, "1day", texts)


RULES = (
    Rule(
        id="day-range",
        level="error",
        checks="the day's high or low differs by more than 1 % and a cent from what the 5-minute bars of regular"
        " hours, or those of all hours, allow",
        source="both are made from the same trades; extended hours explain the difference",
        mend="refetch",
        in_batch=find_wrong_ranges,
    ),
    Rule(
        id="day-open-close",
        level="error",
        checks="the day opens (closes) outside of the 5-minute bars that surround the opening (the close), by more"
        " than 1 % and a cent",
        source="both are made from the same trades; the auctions print into either bar",
        mend="refetch",
        in_batch=find_wrong_edges,
    ),
    Rule(
        id="day-volume",
        level="warning",
        checks="the 5-minute bars of a session hold less than 60 % or more than 125 % of the day's volume",
        source="both are made from the same trades; not every trade enters a 5-minute bar",
        mend="refetch",
        in_batch=find_wrong_volumes,
    ),
    Rule(
        id="cut-session",
        level="error",
        checks="a ticker that usually has nearly all of the 78 regular bars (42 on a half day) has less than half",
        source="78 bars of five minutes from 09:30 to 16:00; an answer with too small a limit is cut",
        mend="refetch",
        in_batch=find_cut_sessions,
    ),
    Rule(
        id="day-bar-missing",
        level="error",
        checks="a session between a ticker's first and last day bar has 5-minute bars and no day bar",
        source="both are made from the same trades",
        mend="refetch",
        in_batch=find_minutes_without_day,
    ),
)
