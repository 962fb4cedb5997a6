"""`make lake-export`: bars out of the lake into the database, as if a backfill had fetched them."""

import argparse
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from backtestdb.config import Settings
from backtestdb.console import DONE, say
from backtestdb.database import connect, transaction
from backtestdb.errors import UsageError
from backtestdb.lake.layout import PartKey, bucket_of
from backtestdb.lake.owned import load_owned
from backtestdb.lake.read_sqlite import as_stamps_ms
from backtestdb.lake.store import make_store
from backtestdb.lake.table import Version, open_lake
from backtestdb.market.bar_rows import make_sqlite_time, save_bar_columns
from backtestdb.market.request_log import save_range_answer
from backtestdb.market.request_plan import RangeRequest
from backtestdb.market.sessions import (
    load_calendar,
    make_new_york_times,
    sessions_between,
    sunday_based_weekday,
)
from backtestdb.schema import ensure_schema


def run_export(settings: Settings, arguments: argparse.Namespace) -> int:
    """Given the arguments of `make lake-export`, return its exit code."""
    version = open_lake(make_store(settings))
    parts = version.parts_of("bars_5min")
    if not parts:
        raise UsageError(f"{settings.lake} has no 5-minute bars", next_step="make backfill-lake")

    newest = date.fromisoformat(max(part.last_session for part in parts))
    end = min(arguments.end or newest, newest)
    sessions = sessions_between(load_calendar(), arguments.start, end)
    if not sessions:
        raise UsageError(f"there is no session between --start {arguments.start} and --end {end}")

    stored = 0
    with closing(connect(settings.database_path)) as connection:
        ensure_schema(connection, ["recoverable", "bookkeeping"])
        for ticker in dict.fromkeys(arguments.tickers):
            stored += export_ticker(version, connection, ticker, sessions)

    print(
        f"{settings.database_path}: {stored:,} bars of five minutes from version {version.number} "
        f"of {settings.lake}"
    )
    return DONE


def export_ticker(
    version: Version, connection: sqlite3.Connection, ticker: str, sessions: Sequence[date]
) -> int:
    """Store a ticker's bars of the sessions, and the record of what the lake had asked for, in one
    transaction; return how many bars."""
    rows = load_ticker(version, ticker, sessions)
    if not len(rows):
        say(f"{ticker}: the lake has no bar of it in these sessions")
        return 0

    # Adjusted for the splits that the lake knew: the database asks for those since.
    asked_at = version.row.published_at_utc.astimezone(UTC).isoformat(timespec="seconds")
    with transaction(connection):
        created_at = [make_sqlite_time(asked_at)] * len(rows)
        save_bar_columns(connection, [*make_columns(rows), created_at])

        for first, last in find_whole_ranges(version, ticker, sessions):
            request = RangeRequest(ticker, "5min", first, last)
            days = [str(day) for day in rows["session_date"].to_pylist() if first <= day <= last]
            save_range_answer(connection, request, days, asked_at, f"lake {version.number}")

    return len(rows)


def load_ticker(version: Version, ticker: str, sessions: Sequence[date]) -> pa.Table:
    """Return a ticker's bars of the sessions, in order of time."""
    months = sorted({f"{day:%Y-%m}" for day in sessions})
    tables = [version.read(PartKey("bars_5min", month, bucket_of(ticker))) for month in months]
    rows = pa.concat_tables(tables)
    mine = pc.and_(
        pc.equal(rows["ticker"], ticker),
        pc.and_(
            pc.greater_equal(rows["session_date"], sessions[0]),
            pc.less_equal(rows["session_date"], sessions[-1]),
        ),
    )

    return rows.filter(mine)


def make_columns(rows: pa.Table) -> list[list[Any]]:
    """Return the values in the order of BAR_COLUMNS."""
    stamps = as_stamps_ms(rows)
    local = make_new_york_times(stamps)

    return [
        rows["ticker"].to_pylist(),
        stamps.tolist(),
        *(rows[name].to_pylist() for name in ("open", "high", "low", "close", "volume")),
        ["5min"] * len(rows),
        local.strftime("%H:%M:%S").tolist(),
        sunday_based_weekday(pd.DatetimeIndex(local.normalize())).tolist(),
    ]


def find_whole_ranges(
    version: Version, ticker: str, sessions: Sequence[date]
) -> list[tuple[date, date]]:
    """Return runs of sessions with an answer, also an empty one: only those are a record."""
    owned = load_owned(version)
    rows = pa.table(
        {
            "ticker": pa.array([ticker] * len(sessions), pa.string()),
            "session_date": pa.array(sessions, pa.date32()),
        }
    )
    answered = owned.mask(rows).tolist()
    runs: list[tuple[date, date]] = []

    for day, is_answered, before in zip(sessions, answered, [False, *answered[:-1]], strict=True):
        if is_answered:
            runs = [*runs[:-1], (runs[-1][0], day)] if before else [*runs, (day, day)]

    return runs
