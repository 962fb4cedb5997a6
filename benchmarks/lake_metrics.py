"""Part (b) of bench_lake.py: the 27 metrics by the engine on one and on two processes, beside the
database's own way, equal row for row."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from backtestdb.database import transaction
from backtestdb.lake.compute import compute_metrics
from backtestdb.lake.executor import Engine
from backtestdb.lake.publish import publish
from backtestdb.lake.store import Store
from backtestdb.lake.table import open_lake
from backtestdb.market.bar_rows import save_bar_columns
from backtestdb.market.first_fill import deferred_indexes
from backtestdb.market.metric_store import save_metrics
from backtestdb.market.metrics import COMPUTED_METRICS
from backtestdb.market.sessions import make_midnights_ms
from backtestdb.schema import ensure_schema
from lake_flat_files import last_sessions, now
from measuring import make_file, measured, pool_cpu_seconds

TICKERS_AT_ONCE = 100


def bench_metrics(folder: Path, tickers: int, sessions: int, steps: int) -> dict[str, Any]:
    """Given where the steps may have been begun, take at most `steps` of those that are left and
    return what is known by now. The database's metrics are stored after its publications, so that
    the lake has to compute its own."""
    record = folder / "metrics.json"
    known: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    database, rows = folder / "backtesting.db", tickers * sessions
    minute_sessions = 20 if tickers <= 1000 else 5

    def make() -> str:
        database.unlink(missing_ok=True)
        make_database(database, tickers, sessions, minute_sessions)
        return f"{database.stat().st_size / 1e9:.2f} GB, {minute_sessions} sessions of minutes"

    def fill_lake() -> str:
        place = Store(str(folder / "metrics1"))
        done, seconds, cpu, peak = measured(lambda: publish(database, place, now()))
        shutil.copytree(folder / "metrics1", folder / "metrics2", dirs_exist_ok=True)
        return (
            f"{done.rows:,} rows in {seconds:.1f} s ({cpu:.1f} CPU seconds, {peak:.0f} MB, "
            f"{done.bytes / done.rows:.1f} bytes a row)"
        )

    def compute(processes: int) -> str:
        place = Store(str(folder / f"metrics{processes}"))
        with Engine(processes=processes) as engine:
            list(engine.run(abs, range(processes)))  # imports are no part of the work
            before = pool_cpu_seconds()
            done, seconds, cpu, peak = measured(
                lambda: compute_metrics(place, engine, now(), tables=["daily_metrics"])
            )
            cpu += pool_cpu_seconds() - before
        if done.rows != rows:
            raise SystemExit(f"{done.rows} bars were read, not {rows}")
        return (
            f"{seconds:.1f} s, {rows / seconds:,.0f} rows/s ({cpu:.1f} CPU seconds), {peak:.0f} MB"
        )

    def own_way() -> str:
        _, seconds, cpu, peak = measured(
            lambda: save_all_metrics(database, tickers, date(2000, 1, 3))
        )
        return (
            f"{seconds:.1f} s, {rows / seconds:,.0f} rows/s ({cpu:.1f} CPU seconds), {peak:.0f} MB"
        )

    plan: dict[str, Callable[[], str]] = {
        "database": make,
        "publish": fill_lake,
        "engine, 1 process": lambda: compute(1),
        "engine, 2 processes": lambda: compute(2),
        "the database's own way, storing included": own_way,
        "largest relative difference": lambda: str(
            compare_metrics(database, Store(str(folder / "metrics2")))
        ),
    }
    for name in [name for name in plan if name not in known][:steps]:
        known[name] = plan[name]()
        record.write_text(json.dumps(known))
    result = {"what": f"(b) 27 metrics of {tickers} × {sessions} day bars", **known}
    one, two = (known.get(name, "").split(" ")[0] for name in list(plan)[2:4])
    if one and two:
        result["two processes against one"] = f"{float(one) / float(two):.2f} times"
    return result


def make_database(path: Path, tickers: int, sessions: int, minute_sessions: int) -> None:
    """Make random walks: day bars of all sessions, 78 bars of five minutes of the last ones."""
    days = last_sessions(sessions)
    midnights = make_midnights_ms(pd.DatetimeIndex(days))
    dice = np.random.default_rng(1)
    with closing(make_file(path)) as connection:
        ensure_schema(connection)
        slots = (midnights[-minute_sessions:, None] + (570 + 5 * np.arange(78)) * 60_000).ravel()
        with deferred_indexes(connection, "ohlcv_data", tickers * (len(days) + len(slots))):
            for number in range(tickers):
                with transaction(connection):
                    for timeframe, stamps in (("1day", midnights), ("5min", slots)):
                        save_bar_columns(
                            connection, make_columns(f"Z{number:05d}", timeframe, stamps, dice)
                        )


def make_columns(
    ticker: str, timeframe: str, stamps: np.ndarray, dice: np.random.Generator
) -> list[list[Any]]:
    """Return the columns of ohlcv_data for one random walk, a bar for each stamp."""
    count = len(stamps)
    close = np.round(np.exp(3 + 0.01 * dice.standard_normal(count).cumsum()), 4)
    opened = np.round(close * (1 + 0.01 * dice.standard_normal(count)), 4)
    prices = [opened, np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99, close]
    return [
        [ticker] * count,
        stamps.tolist(),
        *(column.tolist() for column in prices),
        dice.integers(1_000, 10_000_000, count).tolist(),
        [timeframe] * count,
        [None] * count,
        [1] * count,
        ["2026-11-20 01:30:00"] * count,
    ]


def save_all_metrics(path: Path, tickers: int, start: date) -> None:
    """Store the metrics of all tickers in the database's own way."""
    names = [f"Z{number:05d}" for number in range(tickers)]
    with closing(make_file_again(path)) as connection:
        for first in range(0, tickers, TICKERS_AT_ONCE):
            with transaction(connection):
                save_metrics(connection, names[first : first + TICKERS_AT_ONCE], start)


def make_file_again(path: Path) -> sqlite3.Connection:
    """Return a connection to the database that there is."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def compare_metrics(database: Path, store: Store) -> float:
    """Return the largest relative difference of all rows and columns. Exit when a NULL stands in
    one of them only."""
    version, largest = open_lake(store), 0.0
    with closing(sqlite3.connect(database)) as connection:
        for part in version.parts_of("daily_metrics"):
            rows = version.read(part.key)
            tickers, days = (
                rows["ticker"].to_pylist(),
                [str(day) for day in rows["session_date"].to_pylist()],
            )
            query = f"SELECT {', '.join(COMPUTED_METRICS)} FROM daily_metrics"
            query += " WHERE ticker = ? AND date BETWEEN ? AND ? ORDER BY date"
            expected = [
                row
                for ticker in dict.fromkeys(tickers)
                for row in connection.execute(query, (ticker, min(days), max(days)))
            ]
            for name, column in zip(COMPUTED_METRICS, zip(*expected, strict=True), strict=True):
                theirs = np.array(column, dtype="float64")
                mine = rows[name].cast(pa.float64()).to_numpy()
                if (np.isnan(mine) != np.isnan(theirs)).any():
                    raise SystemExit(f"{name} is NULL in other rows than in the database")
                gap = np.abs(mine - theirs) / np.maximum(np.abs(theirs), 1e-3)
                largest = max(largest, float(np.nanmax(gap, initial=0.0)))
    return largest
