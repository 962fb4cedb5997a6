"""No silent holes: expected = stored + known empty + set aside + beyond the plan + failed, counted in sessions of
tickers."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from backtestdb.market.plan_limits import load_limits
from backtestdb.market.request_log import load_answered
from backtestdb.market.session_mask import mask_between, mask_of
from backtestdb.market.sessions import end_of_day_ms, midnight_ms

COUNTS = ("expected", "stored", "known_empty", "set_aside", "beyond_plan", "failed")

# Bars lie between 04:00 and 20:00 in New York, 08:00 to 01:00 UTC: five hours earlier, each has the UTC date
# of its session, in summer and in winter. A day bar (midnight, 04:00 or 05:00 UTC) needs four.
SESSION_SHIFT_MS = {"1day": 4 * 3_600_000, "5min": 5 * 3_600_000}
DAY_MS = 86_400_000
FIRST_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class Coverage:
    """Counts of (ticker, session). `failed` are those that were never answered, by ticker in `failed_of`,
    unless the key's plan does not cover them; `silent` are tickers of which the vendor has nothing in the whole
    range: renamed, delisted or unknown."""

    expected: int = 0
    stored: int = 0
    known_empty: int = 0
    set_aside: int = 0
    beyond_plan: int = 0
    failed: int = 0
    failed_of: dict[str, int] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)


def load_coverage(
    connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str, sessions: Sequence[date]
) -> Coverage:
    """How much of `sessions` (not empty, in order) is there for each ticker."""
    asked = load_answered(connection, timeframe, sessions)
    plan_lacks = load_limits(connection).mask(sessions)
    every = (1 << len(sessions)) - 1
    stored, beyond_plan = 0, 0
    failed_of, silent = {}, []
    for ticker in tickers:
        count = count_stored_sessions(connection, ticker, timeframe, sessions)
        lacking = every & ~asked.of(ticker)
        if lacking and count:
            lacking &= ~load_stored_mask(connection, ticker, timeframe, sessions)
        beyond_plan += (lacking & plan_lacks).bit_count()
        if lacking & ~plan_lacks:
            failed_of[ticker] = (lacking & ~plan_lacks).bit_count()
        elif not count and lacking != every:
            silent.append(ticker)
        stored += count
    expected, failed = len(tickers) * len(sessions), sum(failed_of.values())
    set_aside = count_rejected(connection, tickers, timeframe, sessions)
    known_empty = expected - stored - set_aside - beyond_plan - failed
    return Coverage(expected, stored, known_empty, set_aside, beyond_plan, failed, failed_of, silent)


def count_stored_sessions(
    connection: sqlite3.Connection, ticker: str, timeframe: str, sessions: Sequence[date]
) -> int:
    """Sessions with at least one bar; a day bar is a session."""
    counted = "count(*)" if timeframe == "1day" else f"count(DISTINCT {session_number(timeframe)})"
    query = (
        f"SELECT {counted} FROM ohlcv_data WHERE ticker = ? AND timeframe = ? AND timestamp BETWEEN ? AND ?"
    )
    values = (ticker, timeframe, midnight_ms(sessions[0]), end_of_day_ms(sessions[-1]))
    return int(connection.execute(query, values).fetchone()[0])


def load_stored_mask(
    connection: sqlite3.Connection, ticker: str, timeframe: str, sessions: Sequence[date]
) -> int:
    """The ones of `sessions` with at least one bar, as bits."""
    query = (
        f"SELECT DISTINCT {session_number(timeframe)} FROM ohlcv_data WHERE ticker = ? AND timeframe = ?"
        " AND timestamp BETWEEN ? AND ?"
    )
    values = (ticker, timeframe, midnight_ms(sessions[0]), end_of_day_ms(sessions[-1]))
    days = (date.fromordinal(FIRST_DAY + number) for (number,) in connection.execute(query, values))
    return mask_of(sessions, days)


def session_number(timeframe: str) -> str:
    """SQL: days from 1970 to the session of a bar."""
    return f"(timestamp - {SESSION_SHIFT_MS[timeframe]}) / {DAY_MS}"


def count_rejected(
    connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str, sessions: Sequence[date]
) -> int:
    """Sessions of tickers of which a bar was set aside and none is stored."""
    rows = connection.execute(
        "SELECT DISTINCT ticker, session_date FROM _bars_set_aside"
        " WHERE timeframe = ? AND session_date BETWEEN ? AND ?",
        (timeframe, sessions[0].isoformat(), sessions[-1].isoformat()),
    ).fetchall()
    members, asked_for = set(tickers), set(sessions)
    return sum(
        1
        for ticker, text in rows
        if ticker in members
        and (day := date.fromisoformat(text)) in asked_for
        and not count_stored_sessions(connection, ticker, timeframe, [day])
    )


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
    members, asked = set(tickers), load_answered(connection, "1day", sessions)
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
                f"{ticker}: no bar between {before} and {after}; the prices before may be those of another company,"
                " and the metrics begin anew"
            )
    return notes


def is_empty_between(connection: sqlite3.Connection, ticker: str, before: str, after: str) -> bool:
    query = (
        "SELECT 1 FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' AND timestamp > ? AND timestamp < ?"
        " LIMIT 1"
    )
    first_ms, last_ms = end_of_day_ms(date.fromisoformat(before)), midnight_ms(date.fromisoformat(after))
    return connection.execute(query, (ticker, first_ms, last_ms)).fetchone() is None
