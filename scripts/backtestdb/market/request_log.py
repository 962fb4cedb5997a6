"""What the vendor was asked and answered: the memory that keeps a run from asking twice."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date

from backtestdb.database import transaction
from backtestdb.market.request_plan import AnsweredSessions, RangeRequest
from backtestdb.market.session_mask import mask_between
from backtestdb.market.work_done import clear_done

EVERY_TICKER = 0
METRICS_TASK = "metrics"


def load_answered(
    connection: sqlite3.Connection, timeframe: str, sessions: Sequence[date]
) -> AnsweredSessions:
    """The answered ones of `sessions` for each ticker."""
    of_ticker: dict[str, int] = defaultdict(int)
    rows = connection.execute(
        "SELECT ticker, start_date, end_date FROM _ranges_asked WHERE timeframe = ?", (timeframe,)
    )
    for ticker, start, end in rows:
        of_ticker[ticker] |= mask_between(sessions, date.fromisoformat(start), date.fromisoformat(end))
    if timeframe != "1day":
        return AnsweredSessions(of_ticker)
    of_set: dict[int, int] = defaultdict(int)
    for session_date, ticker_set in connection.execute(
        "SELECT session_date, ticker_set FROM _sessions_asked"
    ):
        day = date.fromisoformat(session_date)
        of_set[ticker_set] |= mask_between(sessions, day, day)
    of_everyone = of_set.pop(EVERY_TICKER, 0)
    for ticker_set, mask in of_set.items():
        for ticker in load_ticker_set(connection, ticker_set) if mask else ():
            of_ticker[ticker] |= mask
    return AnsweredSessions(of_ticker, of_everyone)


def load_ticker_set(connection: sqlite3.Connection, ticker_set: int) -> list[str]:
    (text,) = connection.execute("SELECT tickers FROM _ticker_sets WHERE id = ?", (ticker_set,)).fetchone()
    tickers: list[str] = json.loads(text)
    return tickers


def ensure_ticker_set(connection: sqlite3.Connection, tickers: Iterable[str]) -> int:
    """The number of this set of tickers; it gets one when it is new."""
    text = json.dumps(sorted(set(tickers)), ensure_ascii=False, separators=(",", ":"))
    with transaction(connection):
        connection.execute("INSERT INTO _ticker_sets (tickers) VALUES (?) ON CONFLICT DO NOTHING", (text,))
    found = connection.execute("SELECT id FROM _ticker_sets WHERE tickers = ?", (text,)).fetchone()
    return int(found[0])


def save_range_answer(
    connection: sqlite3.Connection, request: RangeRequest, session_dates: Sequence[str], asked_at_utc: str
) -> None:
    """Record an answer, an empty one too; `session_dates`: of each stored bar, in order. The caller's
    transaction."""
    first, last = (session_dates[0], session_dates[-1]) if session_dates else (None, None)
    connection.execute(
        "INSERT OR REPLACE INTO _ranges_asked VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            request.ticker,
            request.timeframe,
            request.start.isoformat(),
            request.end.isoformat(),
            first,
            last,
            len(session_dates),
            asked_at_utc,
        ),
    )


def save_session_answer(
    connection: sqlite3.Connection,
    session_date: str,
    ticker_set: int,
    counts: Sequence[int],
    asked_at_utc: str,
) -> None:
    """Record a session of the whole market. `counts`: received, stored, dropped, set aside. The caller's
    transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO _sessions_asked VALUES (?, ?, ?, ?, ?, ?, 1, ?)",
        (session_date, ticker_set, *counts, asked_at_utc),
    )
    clear_done(connection, METRICS_TASK)
