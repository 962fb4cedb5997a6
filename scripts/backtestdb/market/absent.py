"""Tickers that the newest answer about the whole market does not have, although they traded the
session before: that they did not trade is believed when a second answer says the same.

A session is weighed when its answer comes (see bar_store), but the session before it may come later
in the same run, or both may be set aside first: this looks again when all of them are stored.
"""

import sqlite3
from collections.abc import Collection, Sequence
from datetime import date

from exchange_calendars import ExchangeCalendar

from backtestdb.database import transaction
from backtestdb.market.closures import has_day_bar
from backtestdb.market.request_log import SAVE_UNCONFIRMED, count_final
from backtestdb.market.sessions import sessions_back

# An answer that lacks more of the tickers is cut, not early for some: it is thin (see evidence).
MOST_ABSENT = 0.5


def load_doubted_tickers(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Return what waits for a second answer about day bars: ticker, first and last date."""
    query = "SELECT ticker, start_date, end_date FROM _unconfirmed WHERE timeframe = '1day'"
    return set(connection.execute(query).fetchall())


def doubt_absent(
    connection: sqlite3.Connection,
    calendar: ExchangeCalendar,
    tickers: Sequence[str],
    doubted_before: Collection[tuple[str, str, str]],
) -> None:
    """Given the tickers of a run and what waited for a second answer when it began, let those of
    `tickers` wait that the newest session of the whole market lacks for the first time. Nothing
    happens when that session's metrics are there: it was looked at."""
    newest = connection.execute(
        "SELECT session_date, run, asked_at_utc FROM _sessions_asked WHERE metrics_due"
        " AND session_date = (SELECT max(session_date) FROM _sessions_asked WHERE received > 0)"
    ).fetchone()
    if newest is None:
        return
    text, run, asked_at_utc = newest
    session_date = date.fromisoformat(text)
    if not count_final([session_date], asked_at_utc):
        return

    before = sessions_back(calendar, session_date, 1)
    traded = [ticker for ticker in tickers if has_day_bar(connection, [ticker], before)]
    absent = [ticker for ticker in traded if not has_day_bar(connection, [ticker], session_date)]
    if len(absent) > MOST_ABSENT * len(traded):
        return

    told_twice = {ticker for ticker, start, end in doubted_before if start <= text <= end}
    with transaction(connection):
        connection.executemany(
            SAVE_UNCONFIRMED,
            [
                (ticker, "1day", text, text, run, asked_at_utc)
                for ticker in absent
                if ticker not in told_twice
            ],
        )
