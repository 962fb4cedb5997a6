"""Rows of `_coverage`: the ranges asked for, how far counting them is, and what it counted."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import date

from exchange_calendars import ExchangeCalendar

from backtestdb.market.coverage import COUNTS, Coverage
from backtestdb.market.sessions import sessions_between

RUNNING, COUNTED = "running", "counted"
Range = tuple[date, date]


def load_ranges(connection: sqlite3.Connection, universe: str, timeframe: str) -> list[Range]:
    """Return first and last session of each range asked for of a universe, oldest first."""
    row = connection.execute(
        "SELECT ranges, start_date, end_date FROM _coverage WHERE universe = ? AND timeframe = ?",
        (universe, timeframe),
    ).fetchone()
    if not row:
        return []
    texts = json.loads(row[0]) if row[0] else [row[1:]]
    return [(date.fromisoformat(start), date.fromisoformat(end)) for start, end in texts]


def has_ranges(connection: sqlite3.Connection, universe: str) -> bool:
    """Return whether anything was asked for of a universe, of whichever timeframe."""
    query = "SELECT EXISTS (SELECT 1 FROM _coverage WHERE universe = ?)"
    return bool(connection.execute(query, (universe,)).fetchone()[0])


def merge_ranges(calendar: ExchangeCalendar, ranges: Iterable[Range]) -> list[Range]:
    """Return the same sessions in the fewest ranges, oldest first: those that overlap, or have no
    session between them, are one."""
    merged: list[Range] = []

    for start, end in sorted(ranges):
        # Two sessions are the ends themselves: none lies between.
        if merged and (
            start <= merged[-1][1] or len(sessions_between(calendar, merged[-1][1], start)) <= 2
        ):
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def start_counting(
    connection: sqlite3.Connection,
    calendar: ExchangeCalendar,
    universe: str,
    timeframe: str,
    asked: Range,
    now_utc_text: str,
) -> None:
    """Note that a run asks for a range: what was counted of it is old until the run has counted."""
    ranges = merge_ranges(calendar, [*load_ranges(connection, universe, timeframe), asked])

    connection.execute(
        "INSERT INTO _coverage (universe, timeframe, start_date, end_date, tickers, expected, "
        "stored, known_empty, set_aside, beyond_plan, failed, counted_at_utc, ranges, state) "
        "VALUES (:universe, :timeframe, :start, :end, 0, 0, 0, 0, 0, 0, 0, :now, :ranges, :state) "
        "ON CONFLICT DO UPDATE "
        "SET start_date = :start, end_date = :end, ranges = :ranges, state = :state",
        {
            "universe": universe,
            "timeframe": timeframe,
            "start": ranges[0][0].isoformat(),
            "end": ranges[-1][1].isoformat(),
            "ranges": make_ranges_text(ranges),
            "state": RUNNING,
            "now": now_utc_text,
        },
    )


def make_ranges_text(ranges: Sequence[Range]) -> str:
    return json.dumps(
        [[start.isoformat(), end.isoformat()] for start, end in ranges], separators=(",", ":")
    )


def save_coverage(
    connection: sqlite3.Connection,
    universe: str,
    timeframe: str,
    tickers: int,
    coverage: Coverage,
    counted_at_utc: str,
) -> None:
    """Keep what was counted of all ranges of a universe that `start_counting` noted."""
    names = (*COUNTS, "provisional")
    connection.execute(
        f"UPDATE _coverage SET {', '.join(f'{name} = ?' for name in names)}, tickers = ?, "
        "counted_at_utc = ?, state = ? WHERE universe = ? AND timeframe = ?",
        (
            *(getattr(coverage, name) for name in names),
            tickers,
            counted_at_utc,
            COUNTED,
            universe,
            timeframe,
        ),
    )
