"""The coverage of each universe as it was last counted, so that a status needs no look at the bars."""

import sqlite3
from collections.abc import Sequence
from datetime import date

from backtestdb.market.coverage import Coverage
from backtestdb.market.request_log import load_asked
from backtestdb.market.request_plan import mask_between
from backtestdb.market.sessions import end_of_day_ms, midnight_ms

COUNTS = ("expected", "stored", "known_empty", "set_aside", "beyond_plan", "failed")


def save_coverage(
    connection: sqlite3.Connection,
    universe: str,
    timeframe: str,
    sessions: Sequence[date],
    tickers: int,
    coverage: Coverage,
    counted_at_utc: str,
) -> None:
    """Keep what was counted for a universe."""
    counts = [getattr(coverage, name) for name in COUNTS]
    connection.execute(
        "INSERT OR REPLACE INTO _coverage (universe, timeframe, start_date, end_date, tickers,"
        f" {', '.join(COUNTS)}, counted_at_utc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            universe,
            timeframe,
            sessions[0].isoformat(),
            sessions[-1].isoformat(),
            tickers,
            *counts,
            counted_at_utc,
        ),
    )


def load_coverage_rows(connection: sqlite3.Connection) -> list[dict[str, object]]:
    """A row for each universe and timeframe: the columns of `_coverage`, and `is_stale` when the vendor was asked
    since it was counted. Takes milliseconds whatever the size of the database."""
    cursor = connection.execute("SELECT * FROM _coverage ORDER BY universe, timeframe")
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    ranges = dict(
        connection.execute("SELECT timeframe, max(asked_at_utc) FROM _ranges_asked GROUP BY timeframe")
    )
    (sessions,) = connection.execute("SELECT max(asked_at_utc) FROM _sessions_asked").fetchone()
    asked = {**ranges, "1day": max(ranges.get("1day") or "", sessions or "")}
    return [{**row, "is_stale": asked.get(row["timeframe"], "") > str(row["counted_at_utc"])} for row in rows]


def load_range(connection: sqlite3.Connection, universe: str, timeframe: str) -> tuple[date, date] | None:
    """The first and last session that were asked for of a universe."""
    row = connection.execute(
        "SELECT start_date, end_date FROM _coverage WHERE universe = ? AND timeframe = ?",
        (universe, timeframe),
    ).fetchone()
    return (date.fromisoformat(row[0]), date.fromisoformat(row[1])) if row else None


def has_range(connection: sqlite3.Connection, universe: str) -> bool:
    """Whether anything was asked for of a universe, of whichever timeframe."""
    query = "SELECT EXISTS (SELECT 1 FROM _coverage WHERE universe = ?)"
    return bool(connection.execute(query, (universe,)).fetchone()[0])


def load_gap_notes(
    connection: sqlite3.Connection, tickers: Sequence[str], sessions: Sequence[date]
) -> list[str]:
    """A sentence for each ticker that did not trade for months between bars, although it was asked for."""
    members, asked = set(tickers), load_asked(connection, "1day", sessions)
    rows = connection.execute(
        "SELECT ticker, last_before, first_after FROM _ticker_gaps WHERE last_before >= ? AND first_after <= ?"
        " ORDER BY first_after, ticker",
        (sessions[0].isoformat(), sessions[-1].isoformat()),
    ).fetchall()
    notes = []
    for ticker, before, after in rows:
        between = mask_between(sessions, date.fromisoformat(before), date.fromisoformat(after))
        if (
            ticker in members
            and not between & ~asked.of(ticker)
            and is_empty_between(connection, ticker, before, after)
        ):
            notes.append(
                f"{ticker} changed its company: no bar between {before} and {after},"
                " and the prices before are those of another one"
            )
    return notes


def is_empty_between(connection: sqlite3.Connection, ticker: str, before: str, after: str) -> bool:
    query = (
        "SELECT 1 FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' AND timestamp > ? AND timestamp < ?"
        " LIMIT 1"
    )
    first_ms, last_ms = end_of_day_ms(date.fromisoformat(before)), midnight_ms(date.fromisoformat(after))
    return connection.execute(query, (ticker, first_ms, last_ms)).fetchone() is None
