"""A first fill: sessions are staged as they arrive, and loaded by ticker when all are there.

Rows that arrive by session and are stored by ticker hit another page each. Measured with 2.4
million bars (8,000 tickers × 300 sessions) and the 128 MB of cache that a rebuild has: stored as
they came 106 s and 16.5 GB written, staged first 41 s and 0.64 GB; 100 tickers read back from
the disk 3.45 s against 0.68 s, for good. So each session goes as one value into a file of its own,
`<database>.staging`, in a transaction that is its record too. A killed run finds it again;
staging.py says when not.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from backtestdb.database import transaction
from backtestdb.market.bar_rows import save_bars, save_rejected
from backtestdb.market.bars import ParsedBars, RejectedBar, reject_unlike_neighbours
from backtestdb.market.request_log import save_session_answer, weigh_session
from backtestdb.market.sessions import make_midnights_ms, sunday_based_weekday
from backtestdb.market.staging import LOADING_TASK, Staging, iterate_records
from backtestdb.market.work_done import clear_done, load_done, save_done
from backtestdb.schema import SQL_DIR, ensure_schema

INDEX_NAME = re.compile(r"CREATE INDEX IF NOT EXISTS (\w+)")
# Rows that are there already take part in making an index, so it pays while they are few.
FEW = 4
SORTING_THREADS = 2

TICKERS_PER_READ = 1000
TICKERS_PER_INSERT = 100


def load_staging(
    connection: sqlite3.Connection, staging: Staging, run: str, advance: Callable[[int], None]
) -> list[RejectedBar]:
    """Store all that was staged, ticker by ticker, and end with the record of the sessions; return
    the bars that are unlike those of other sessions. Killed, it goes on where it was. Nothing more
    may be staged once this has begun."""
    rejected: list[RejectedBar] = []
    tickers = sorted(staging.numbers)
    place_of = np.empty(len(tickers), dtype="int64")
    place_of[[staging.numbers[ticker] for ticker in tickers]] = np.arange(len(tickers))
    done = load_done(connection, LOADING_TASK)
    advance(done)
    records = list(iterate_records(staging))

    for first in range(done, len(tickers), TICKERS_PER_READ):
        stop = min(first + TICKERS_PER_READ, len(tickers))
        values = read_bars(staging, place_of, first, stop, len(records))
        for start in range(first, stop, TICKERS_PER_INSERT):
            end = min(start + TICKERS_PER_INSERT, stop)
            bars = make_bars(tickers[start:end], records, values[:, start - first : end - first])
            with transaction(connection):
                save_bars(connection, bars, make_fetch_times(bars, records))
                # Here the bars have other sessions beside them for the first time.
                save_rejected(connection, bars.rejected, records[-1][-1])
                save_done(connection, LOADING_TASK, end)
            rejected += bars.rejected
            advance(end - start)

    finish_loading(connection, staging, run)
    return rejected


def read_bars(
    staging: Staging, place_of: np.ndarray, first: int, stop: int, sessions: int
) -> np.ndarray:
    """Return open, high, low, close, volume × tickers from place `first` to before `stop` ×
    sessions; NaN where there is no bar."""
    values = np.full((5, stop - first, sessions), np.nan)
    rows = staging.connection.execute("SELECT stored, bars FROM sessions ORDER BY session_date")

    for session, (count, blob) in enumerate(rows):
        # Numbers, prices, volumes, one behind the other: see stage_session.
        places = place_of[np.frombuffer(blob, "int32", count)] - first
        here = (places >= 0) & (places < stop - first)
        prices = np.frombuffer(blob, "float64", 4 * count, 4 * count).reshape(4, count)
        volume = np.frombuffer(blob, "int64", count, 36 * count)
        values[:4, places[here], session] = prices[:, here]
        values[4, places[here], session] = volume[here]
    return values


def make_bars(
    tickers: Sequence[str], records: Sequence[tuple[Any, ...]], values: np.ndarray
) -> ParsedBars:
    """Return the bars by ticker and session, of those that have one. `records`: as
    `iterate_records` has them."""
    days = pd.DatetimeIndex([record[0] for record in records])
    ticker, session = np.nonzero(np.isfinite(values[0]))
    bars = ParsedBars(
        timeframe="1day",
        tickers=np.array(tickers, dtype=object)[ticker],
        timestamps=make_midnights_ms(days)[session],
        prices=values[:4, ticker, session],
        volume=values[4, ticker, session].astype("int64"),
        session_dates=np.array([record[0] for record in records], dtype=object)[session],
        time_of_day=np.full(len(ticker), None),
        day_of_week=sunday_based_weekday(days)[session],
        rejected=[],
        received=len(ticker),
        dropped=0,
        clamped=0,
    )

    return reject_unlike_neighbours(bars)


def make_fetch_times(bars: ParsedBars, records: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return when each bar came: bars that waited here are as old as their answer."""
    asked_at = {record[0]: record[-1] for record in records}
    return [asked_at[day] for day in bars.session_dates.tolist()]


def finish_loading(connection: sqlite3.Connection, staging: Staging, run: str) -> None:
    """Store the records of the sessions, and end the first fill."""
    rejected = staging.connection.execute(
        f"SELECT {', '.join(RejectedBar._fields)} FROM rejected"
    ).fetchall()

    with transaction(connection):
        for session_date, *counts, asked_at_utc in iterate_records(staging):
            save_session_answer(
                connection, session_date, staging.ticker_set, counts, asked_at_utc, run
            )

            lacking = sorted({row[0] for row in rejected if row[3] == session_date})
            weigh_session(connection, session_date, lacking, run, asked_at_utc)
            newest = asked_at_utc

        if rejected:
            save_rejected(connection, [RejectedBar(*row) for row in rejected], newest)
        clear_done(connection, LOADING_TASK)
        connection.execute("DELETE FROM _first_fill")


@contextmanager
def deferred_indexes(
    connection: sqlite3.Connection, table: str, coming_rows: int
) -> Iterator[None]:
    """Drop the table's indexes of the schema while it is filled with many times the rows that it
    has, and make them again: daily_metrics takes 0.2 instead of 0.05 million rows a second."""
    (rows,) = connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()
    if rows * FEW > coming_rows:
        yield
        return

    # Killed before they are made again: the next command that writes makes them (`ensure_schema`).
    for name in INDEX_NAME.findall(
        (SQL_DIR / "schema" / "recoverable" / f"{table}.sql").read_text()
    ):
        connection.execute(f"DROP INDEX IF EXISTS {name}")

    try:
        yield
    finally:
        connection.execute(f"PRAGMA threads = {SORTING_THREADS}")
        ensure_schema(connection, ["recoverable"])
