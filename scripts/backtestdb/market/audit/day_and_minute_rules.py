"""A day bar against the 5-minute bars of its session."""

from collections.abc import Iterable

import numpy as np

from backtestdb.market.audit.columns import Flags, Floats
from backtestdb.market.audit.minute_sessions import Sessions, make_sessions
from backtestdb.market.audit.rule import Batch, Hits, Rule, price_text

# Corrections and odd lots count in one kind of bar and not in the other: a hundredth, and a cent
# for cheap shares.
TOLERANCE, TOLERANCE_DOLLARS = 0.01, 0.01
# Shares that the 5-minute bars may have of the day bar's: not every trade enters a 5-minute bar.
VOLUME_AT_LEAST, VOLUME_AT_MOST, VOLUME_SLACK = 0.6, 1.25, 1000.0
# A ticker that has nine in ten of its bars usually, and less than half of them once.
LIVELY, CUT, SESSIONS_TO_JUDGE = 0.9, 0.5, 5


def tolerance(prices: Floats) -> Floats:
    return TOLERANCE * np.abs(prices) + TOLERANCE_DOLLARS


def paired(batch: Batch) -> tuple[Sessions, Flags]:
    """Return the sessions, and which of them have a day bar and a regular 5-minute bar."""
    sessions = make_sessions(batch)
    return sessions, (sessions.day_bar >= 0) & (sessions.regular > 0)


def day_prices(batch: Batch, sessions: Sessions, name: str) -> Floats:
    """Return the day bar's price for each session; of any bar where there is none, to be masked."""
    column = getattr(batch.days, name)
    return column[sessions.day_bar] if len(column) else np.full(len(sessions.day_bar), np.nan)


def hits_in(
    batch: Batch, sessions: Sessions, broken: Flags, timeframe: str, texts: dict[int, str]
) -> Hits:
    places = np.flatnonzero(broken)
    tickers = [batch.tickers[code] for code in sessions.code[places].tolist()]
    return Hits(timeframe, tickers, sessions.day[places], lambda i: texts[int(places[i])])


def find_wrong_ranges(batch: Batch) -> Iterable[Hits]:
    """Yield day bars whose high is below that of regular hours or above that of all hours, and
    whose low accordingly."""
    sessions, both = paired(batch)
    high, low = day_prices(batch, sessions, "high"), day_prices(batch, sessions, "low")

    with np.errstate(invalid="ignore"):
        broken_high = both & (
            (high < sessions.regular_high - tolerance(high))
            | (high > sessions.high + tolerance(high))
        )
        broken_low = both & (
            (low > sessions.regular_low + tolerance(low)) | (low < sessions.low - tolerance(low))
        )

    edges = (
        ("low", broken_low, low, sessions.regular_low, sessions.low),
        ("high", broken_high, high, sessions.regular_high, sessions.high),
    )
    texts = {
        place: describe_edge(name, day[place], regular[place], every[place])
        for name, broken, day, regular, every in edges
        for place in np.flatnonzero(broken).tolist()
    }
    yield hits_in(batch, sessions, broken_high | broken_low, "1day", texts)


def describe_edge(name: str, day: float, regular: float, every: float) -> str:
    return (
        f"the day's {name} is {price_text(day)}, that of its 5-minute bars {price_text(regular)} "
        f"in regular hours, {price_text(every)} with the rest"
    )


def find_wrong_edges(batch: Batch) -> Iterable[Hits]:
    """Yield day bars that do not open within the first regular bar or the bar before it, or do not
    close within the last or the next."""
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
                f"the day's {name} is {price_text(price[place])}, the 5-minute bars there lie "
                f"between {price_text(low[place])} and {price_text(high[place])}"
            )

    yield hits_in(batch, sessions, broken, "1day", texts)


def find_wrong_volumes(batch: Batch) -> Iterable[Hits]:
    """Yield day bars whose volume does not fit the sum of their 5-minute bars."""
    sessions, both = paired(batch)
    volume = day_prices(batch, sessions, "volume")

    with np.errstate(invalid="ignore"):
        # Not every trade enters a 5-minute bar.
        broken = both & (
            (sessions.volume > VOLUME_AT_MOST * volume + VOLUME_SLACK)
            | (sessions.volume < VOLUME_AT_LEAST * volume - VOLUME_SLACK)
        )

    texts = {
        place: f"{volume[place]:,.0f} shares in the day bar, {sessions.volume[place]:,.0f} in its "
        "5-minute bars"
        for place in np.flatnonzero(broken).tolist()
    }
    yield hits_in(batch, sessions, broken, "1day", texts)


def find_cut_sessions(batch: Batch) -> Iterable[Hits]:
    """Yield sessions with few 5-minute bars, of tickers that usually have nearly all."""
    sessions = make_sessions(batch)
    broken = np.zeros(len(sessions.code), dtype=bool)

    for code in np.unique(sessions.code).tolist():
        mine = sessions.code == code
        shares = sessions.share[mine]
        if len(shares) >= SESSIONS_TO_JUDGE and np.median(shares) >= LIVELY:
            broken[mine] = shares < CUT

    texts = {
        place: f"{sessions.regular[place]} of {sessions.full[place]} bars in regular hours; the "
        "ticker usually has nearly all"
        for place in np.flatnonzero(broken).tolist()
    }
    yield hits_in(batch, sessions, broken, "5min", texts)


def find_minutes_without_day(batch: Batch) -> Iterable[Hits]:
    """Yield sessions between a ticker's first and last day bar with 5-minute bars alone."""
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
        checks="the day's high or low differs by more than 1 % and a cent from what the 5-minute "
        "bars of regular hours, or those of all hours, allow",
        source="both are made from the same trades; extended hours explain the difference",
        mend="refetch",
        in_batch=find_wrong_ranges,
    ),
    Rule(
        id="day-open-close",
        level="error",
        checks="the day opens (closes) outside of the 5-minute bars that surround the opening (the "
        "close), by more than 1 % and a cent",
        source="both are made from the same trades; the auctions print into either bar",
        mend="refetch",
        in_batch=find_wrong_edges,
    ),
    Rule(
        id="day-volume",
        level="warning",
        checks="the 5-minute bars of a session hold less than 60 % or more than 125 % of the "
        "day's volume",
        source="both are made from the same trades; not every trade enters a 5-minute bar",
        mend="refetch",
        in_batch=find_wrong_volumes,
    ),
    Rule(
        id="cut-session",
        level="error",
        checks="a ticker that usually has nearly all of the 78 regular bars (42 on a half day) "
        "has less than half",
        source="78 bars of five minutes from 09:30 to 16:00; an answer with too small a limit is "
        "cut",
        mend="refetch",
        in_batch=find_cut_sessions,
    ),
    Rule(
        id="day-bar-missing",
        level="error",
        checks="a session between a ticker's first and last day bar has 5-minute bars and no day "
        "bar",
        source="both are made from the same trades",
        mend="refetch",
        in_batch=find_minutes_without_day,
    ),
)
