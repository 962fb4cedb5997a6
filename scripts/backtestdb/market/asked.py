"""What the vendor was asked and answered: the memory that keeps a run from asking twice."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date

from backtestdb.market.plan import Range, RangeRequest


def load_asked(connection: sqlite3.Connection, timeframe: str) -> dict[str, list[Range]]:
    """The answered ranges of each ticker."""
    asked: dict[str, list[Range]] = defaultdict(list)
    rows = connection.execute(
        "SELECT ticker, start_date, end_date FROM _ranges_asked WHERE timeframe = ?", (timeframe,)
    )
    for ticker, start, end in rows:
        asked[ticker].append((date.fromisoformat(start), date.fromisoformat(end)))
    return asked


def save_asked(
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


def count_asked_sessions(sessions: Sequence[date], ranges: Iterable[Range]) -> int:
    ranges = list(ranges)
    return sum(1 for day in sessions if any(first <= day <= last for first, last in ranges))
