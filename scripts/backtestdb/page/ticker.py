"""What the page of one ticker shows of the database: a year of day bars, one session of 5-minute
bars, and how many bars the newest sessions have. Look-ups by the key (ticker, timeframe, timestamp)
only."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

import pandas as pd

from backtestdb.database import table_names
from backtestdb.health.coverage_facts import session_of
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.new_york import date_of, end_of_day_ms, midnight_ms
from backtestdb.page.tickers import ListedSplit, StoredBars, load_splits, load_stored_bars

SESSIONS_SHOWN, SESSIONS_COUNTED = 250, 60
BAR_MS = 300_000
DAY_BARS = """
SELECT timestamp, open, high, low, close, volume FROM ohlcv_data
WHERE ticker = ? AND timeframe = '1day' AND timestamp >= ? ORDER BY timestamp
"""
MINUTE_BARS = """
SELECT timestamp, open, high, low, close, volume FROM ohlcv_data
WHERE ticker = ? AND timeframe = '5min' AND timestamp BETWEEN ? AND ? ORDER BY timestamp
"""
NEIGHBOURS = """
SELECT
    (SELECT max(timestamp) FROM ohlcv_data
     WHERE ticker = :ticker AND timeframe = '5min' AND timestamp < :first),
    (SELECT min(timestamp) FROM ohlcv_data
     WHERE ticker = :ticker AND timeframe = '5min' AND timestamp > :last)
"""
COUNT_BARS = (
    "SELECT count(*) FROM ohlcv_data"
    " WHERE ticker = ? AND timeframe = '5min' AND timestamp >= ? AND timestamp < ?"
)


class Bar(NamedTuple):
    """Prices of one bar; `timestamp`: its beginning, ms UTC."""

    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: int


@dataclass(frozen=True)
class CountedSession:
    """How many 5-minute bars of the regular trading hours a session has, and how many it has when
    none lacks: 78, or 42 on a day that closes at 13:00."""

    session_date: str
    bars: int
    expected: int


@dataclass(frozen=True, kw_only=True)
class MinuteSession:
    """The 5-minute bars of one session. `opens_ms` and `closes_ms`: of its regular trading hours,
    None on a day without any. `before` and `after`: the sessions with bars around it."""

    session_date: str
    bars: Sequence[Bar]
    opens_ms: int | None = None
    closes_ms: int | None = None
    before: str = ""
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class TickerData:
    """`days`: the day bars of the `sessions`, the newest 250 up to the last day bar. `counted`: the
    newest 60 sessions up to the last 5-minute bar."""

    daily: StoredBars
    minutes: StoredBars
    sessions: Sequence[date] = ()
    days: Sequence[Bar] = ()
    session: MinuteSession | None = None
    counted: Sequence[CountedSession] = ()
    splits: Sequence[ListedSplit] = field(default_factory=list)


def load_ticker(connection: sqlite3.Connection, ticker: str, day: date | None) -> TickerData:
    """Given the session of the 5-minute bars to show, None for the newest, return what is
    stored."""
    tables = set(table_names(connection))
    if "ohlcv_data" not in tables:
        return TickerData(daily=StoredBars(), minutes=StoredBars())
    daily = load_stored_bars(connection, ticker, "1day")
    sessions = find_sessions(daily)

    minutes = load_stored_bars(connection, ticker, "5min")
    last = date.fromisoformat(minutes.last) if minutes.last else None
    chosen = day or last

    return TickerData(
        daily=daily,
        minutes=minutes,
        sessions=sessions,
        days=load_days(connection, ticker, sessions) if sessions else (),
        session=load_session(connection, ticker, chosen) if chosen else None,
        counted=count_sessions(connection, ticker, last) if last else (),
        splits=load_splits(connection, ticker) if "_splits" in tables else [],
    )


def find_sessions(daily: StoredBars) -> list[date]:
    """Return the newest 250 sessions between a ticker's first and last day bar, whether they have a
    bar or not."""
    if not daily.count:
        return []
    first, last = date.fromisoformat(daily.first), date.fromisoformat(daily.last)
    return sessions_between(load_calendar(), first, last)[-SESSIONS_SHOWN:]


def load_days(connection: sqlite3.Connection, ticker: str, sessions: Sequence[date]) -> list[Bar]:
    rows = connection.execute(DAY_BARS, (ticker, midnight_ms(sessions[0]))).fetchall()
    return [Bar(*row) for row in rows]


def load_session(connection: sqlite3.Connection, ticker: str, day: date) -> MinuteSession:
    """Return the 5-minute bars of one day, with its trading hours and the sessions around it."""
    first, last = midnight_ms(day), end_of_day_ms(day)
    rows = connection.execute(MINUTE_BARS, (ticker, first, last)).fetchall()
    values = {"ticker": ticker, "first": first, "last": last}
    before, after = connection.execute(NEIGHBOURS, values).fetchone()

    hours = load_trading_hours([day])
    opens, closes = hours[0] if hours else (None, None)

    return MinuteSession(
        session_date=day.isoformat(),
        bars=[Bar(*row) for row in rows],
        opens_ms=opens,
        closes_ms=closes,
        before=session_of(before),
        after=session_of(after),
    )


def count_sessions(connection: sqlite3.Connection, ticker: str, last: date) -> list[CountedSession]:
    """Return the newest 60 sessions up to `last`, none before the ticker's first 5-minute bar."""
    (first_ms,) = connection.execute(
        "SELECT min(timestamp) FROM ohlcv_data WHERE ticker = ? AND timeframe = '5min'", (ticker,)
    ).fetchone()

    first = max(date_of(first_ms), date.fromordinal(last.toordinal() - 2 * SESSIONS_COUNTED))
    sessions = sessions_between(load_calendar(), first, last)[-SESSIONS_COUNTED:]

    return [
        CountedSession(
            day.isoformat(),
            connection.execute(COUNT_BARS, (ticker, opens, closes)).fetchone()[0],
            (closes - opens) // BAR_MS,
        )
        for day, (opens, closes) in zip(sessions, load_trading_hours(sessions), strict=True)
    ]


def load_trading_hours(days: Sequence[date]) -> list[tuple[int, int]]:
    """Return opening and close of each day that has a session, ms UTC."""
    schedule = load_calendar().schedule
    known = schedule.reindex(pd.DatetimeIndex(list(days))).dropna(subset=["open", "close"])
    return [
        (int(row.open.timestamp() * 1000), int(row.close.timestamp() * 1000))
        for row in known.itertuples()
    ]
