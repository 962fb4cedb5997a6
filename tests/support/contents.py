"""What is in a database, in a form that two of them can be compared in."""

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from backtestdb.market.coverage_rows import merge_ranges
from backtestdb.market.sessions import load_calendar

METRICS = "SELECT * FROM daily_metrics ORDER BY ticker, date"
MARKET = {
    "ohlcv_data": "ticker, timeframe, timestamp, open, high, low, close, volume, time_of_day, "
    "day_of_week",
    "daily_metrics": "*",
    "universe": "name, description, total_stocks",
    "universe_stocks": "universe_id, ticker, is_active",
    "_sessions_asked": "session_date, ticker_set, received, stored, dropped, set_aside, "
    "metrics_due",
    "_bars_set_aside": "ticker, timeframe, timestamp, reason, bar",
}


def query_all(database: Path, sql: str, *values: object) -> list[tuple]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql, values).fetchall()


def digest_market(database: Path) -> dict[str, str]:
    """A digest of each market table, without ids and the times at which rows were written, and of
    what was asked, as ranges."""
    digests = {"_ranges_asked": make_digest(map(repr, load_asked_ranges(database)))}
    with closing(sqlite3.connect(database)) as connection:
        for table, columns in MARKET.items():
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            compared = ", ".join(name for name in names if name not in {"id", "created_at"})
            listed = compared if columns == "*" else columns
            rows = connection.execute(f"SELECT {listed} FROM {table}").fetchall()
            digests[table] = make_digest(map(repr, rows))
    return digests


def make_digest(rows: Iterable[str]) -> str:
    ordered = sorted(rows)
    return f"{len(ordered)} rows {hashlib.sha256(''.join(ordered).encode()).hexdigest()[:16]}"


def load_asked_ranges(database: Path) -> list[tuple]:
    """For each ticker and timeframe the ranges that were asked for, and the first and the last bar.
    Rows are joined: a run that goes on where another was killed is a second witness, and asks once
    more about the sessions that came empty, in a range of its own."""
    query = (
        "SELECT ticker, timeframe, start_date, end_date, first_date, last_date FROM _ranges_asked"
    )
    of_series = defaultdict(list)
    for ticker, timeframe, *days in query_all(database, query):
        of_series[ticker, timeframe].append(days)
    joined = []
    for series, rows in of_series.items():
        ranges = [(date.fromisoformat(start), date.fromisoformat(end)) for start, end, *_ in rows]
        first = min((row[2] for row in rows if row[2]), default="")
        last = max((row[3] for row in rows if row[3]), default="")
        joined.append((*series, merge_ranges(load_calendar(), ranges), first, last))
    return joined


def read_tables(database: Path, tables: list[str]) -> dict[str, list[tuple]]:
    """All rows with their types."""
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        return {
            table: connection.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables
        }


def find_damage(database: Path) -> str:
    """What SQLite's full check says; "ok" for a sound database."""
    with closing(sqlite3.connect(database)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def verify_metrics_equal(one: Path, other: Path) -> None:
    """Fail unless all rows of metrics are within 1e-9 of each other, NULL beside NULL; ids and
    times of storing differ."""
    rows, expected = (query_all(path, METRICS) for path in (one, other))
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        for value, right in zip(row[1:-1], wanted[1:-1], strict=True):
            is_number = isinstance(right, float)
            assert value == (pytest.approx(right, rel=1e-9, abs=1e-9) if is_number else right), row
