"""Sessions of the calendar on which nothing traded: a closure that the calendar does not know (a
hurricane, a day of mourning that was announced after the calendar's release)."""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

from exchange_calendars import ExchangeCalendar

from backtestdb.database import transaction
from backtestdb.market.client import MarketData, MarketDataError
from backtestdb.market.request_log import forget_unconfirmed, load_answered, load_frontier
from backtestdb.market.session_mask import mask_between
from backtestdb.market.sessions import sessions_between
from backtestdb.new_york import midnight_ms

SEVERAL = 2
AROUND = timedelta(days=10)


def is_session_empty(
    client: MarketData, calendar: ExchangeCalendar, ticker: str, session_date: date
) -> bool:
    """Return whether one ticker, asked for by itself, has bars before and after a session and none
    of it. False when the vendor does not say."""
    try:
        answer = client.fetch_bars(ticker, "1day", session_date - AROUND, session_date + AROUND)
    except MarketDataError:
        return False

    sessions = sessions_between(calendar, session_date - AROUND, session_date + AROUND)
    stamps = {row.get("t") for row in answer.rows}
    before, after = (
        any(midnight_ms(day) in stamps for day in days)
        for days in (
            [d for d in sessions if d < session_date],
            [d for d in sessions if d > session_date],
        )
    )

    return before and after and midnight_ms(session_date) not in stamps


def find_unseen_sessions(
    connection: sqlite3.Connection, tickers: Sequence[str], sessions: Sequence[date]
) -> list[date]:
    """Return those of `sessions` before the newest with bars that were asked for of all `tickers`
    (several) and of which no ticker has a day bar, nor the whole market a single row."""
    if len(tickers) < SEVERAL or not sessions:
        return []
    answered = mask_between(sessions, date.min, load_frontier(connection, "1day"))
    asked = load_answered(connection, "1day", sessions)
    for ticker in tickers:
        answered &= asked.of(ticker)

    # One row of any ticker, in a cut answer too, and the market was open.
    seen = (
        "SELECT EXISTS (SELECT 1 FROM daily_metrics WHERE date = ?1) OR EXISTS "
        "(SELECT 1 FROM _sessions_asked WHERE session_date = ?1 AND received > 0)"
    )
    known = {day for (day,) in connection.execute("SELECT session_date FROM _closed_sessions")}
    return [
        day
        for day in answered.days(sessions)
        if day.isoformat() not in known
        and not connection.execute(seen, (day.isoformat(),)).fetchone()[0]
        and not has_day_bar(connection, tickers, day)
    ]


def has_day_bar(connection: sqlite3.Connection, tickers: Iterable[str], session_date: date) -> bool:
    query = (
        "SELECT EXISTS (SELECT 1 FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' AND "
        "timestamp = ?)"
    )
    stamp = midnight_ms(session_date)
    return any(connection.execute(query, (ticker, stamp)).fetchone()[0] for ticker in tickers)


def save_closures(
    connection: sqlite3.Connection, closed: Iterable[date], found_at_utc: str
) -> None:
    """Record sessions that did not take place: they are not asked for any more."""
    with transaction(connection):
        for day in closed:
            text = day.isoformat()
            connection.execute(
                "INSERT OR REPLACE INTO _closed_sessions (session_date, found_at_utc)"
                " VALUES (?, ?)",
                (text, found_at_utc),
            )
            waiting = connection.execute(
                "SELECT ticker, timeframe FROM _unconfirmed WHERE start_date <= ? AND end_date >= "
                "?",
                (text, text),
            ).fetchall()
            for ticker, timeframe in waiting:
                forget_unconfirmed(connection, ticker, timeframe, text, text)
