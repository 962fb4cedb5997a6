"""No silent holes: expected = stored + known empty + set aside + failed, counted in sessions of tickers."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from backtestdb.market.asked import load_asked
from backtestdb.market.plan import missing_sessions
from backtestdb.market.sessions import end_of_day_ms, midnight_ms

# Bars lie between 04:00 and 20:00 in New York, 08:00 to 01:00 UTC: five hours earlier, each has the UTC date
# of its session, in summer and in winter. A day bar (midnight, 04:00 or 05:00 UTC) needs four.
SESSION_SHIFT_MS = {"1day": 4 * 3_600_000, "5min": 5 * 3_600_000}
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Coverage:
    """Counts of (ticker, session). `failed` are those that were never answered, by ticker in `failed_of`;
    `silent` are tickers of which the vendor has nothing in the whole range: renamed, delisted or unknown."""

    expected: int
    stored: int
    known_empty: int
    set_aside: int
    failed: int
    failed_of: dict[str, int]
    silent: list[str]


def load_coverage(
    connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str, sessions: Sequence[date]
) -> Coverage:
    """How much of `sessions` (not empty, in order) is there for each ticker."""
    asked = load_asked(connection, timeframe)
    stored = load_stored_sessions(connection, timeframe, sessions[0], sessions[-1])
    aside = load_aside_sessions(connection, timeframe, sessions)
    set_aside = sum(len(aside.get(ticker, ())) for ticker in tickers)
    failed_of = {}
    for ticker in tickers:
        unanswered = missing_sessions(sessions, asked.get(ticker, ()))
        holes = count_not_stored(connection, ticker, timeframe, unanswered)
        if holes:
            failed_of[ticker] = holes
    counts = {ticker: stored.get(ticker, 0) for ticker in tickers}
    expected, failed = len(tickers) * len(sessions), sum(failed_of.values())
    return Coverage(
        expected,
        stored=sum(counts.values()),
        known_empty=expected - sum(counts.values()) - set_aside - failed,
        set_aside=set_aside,
        failed=failed,
        failed_of=failed_of,
        silent=[ticker for ticker in tickers if not counts[ticker] and ticker not in failed_of],
    )


def load_stored_sessions(
    connection: sqlite3.Connection, timeframe: str, start: date, end: date
) -> dict[str, int]:
    """Sessions with at least one bar, for each ticker."""
    rows = connection.execute(
        "SELECT ticker, count(DISTINCT (timestamp - ?) / ?) FROM ohlcv_data"
        " WHERE timeframe = ? AND timestamp BETWEEN ? AND ? GROUP BY ticker",
        (SESSION_SHIFT_MS[timeframe], DAY_MS, timeframe, midnight_ms(start), end_of_day_ms(end)),
    )
    return dict(rows.fetchall())


def load_aside_sessions(
    connection: sqlite3.Connection, timeframe: str, sessions: Sequence[date]
) -> dict[str, set[str]]:
    """Sessions of which a bar was set aside and none is stored, for each ticker."""
    rows = connection.execute(
        "SELECT DISTINCT ticker, session_date FROM _bars_set_aside"
        " WHERE timeframe = ? AND session_date BETWEEN ? AND ?",
        (timeframe, sessions[0].isoformat(), sessions[-1].isoformat()),
    )
    expected = set(sessions)
    aside: dict[str, set[str]] = {}
    for ticker, session_date in rows.fetchall():
        # A bar of a weekend is set aside too, and is no session that anybody expected.
        day = date.fromisoformat(session_date)
        if day in expected and count_not_stored(connection, ticker, timeframe, [day]):
            aside.setdefault(ticker, set()).add(session_date)
    return aside


def count_not_stored(
    connection: sqlite3.Connection, ticker: str, timeframe: str, sessions: Sequence[date]
) -> int:
    query = (
        "SELECT 1 FROM ohlcv_data WHERE ticker = ? AND timeframe = ? AND timestamp BETWEEN ? AND ? LIMIT 1"
    )
    return sum(
        1
        for day in sessions
        if not connection.execute(query, (ticker, timeframe, midnight_ms(day), end_of_day_ms(day))).fetchone()
    )
