"""Part (c) of bench_lake.py: four queries beside SQLite, warm."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from backtestdb.lake.scan import Lake
from backtestdb.lake.store import Store
from backtestdb.lake.table import open_lake
from backtestdb.new_york import midnight_ms
from lake_flat_files import LAST

REPEATS = 5


def bench_queries(database: Path, store: Store) -> dict[str, Any]:
    """Return for each query the seconds of the lake and of SQLite. Exit where they find another
    number of rows."""
    lake = Lake(open_lake(store)).connection
    day = str(LAST)
    pairs = {
        "one ticker's years": (
            "SELECT * FROM days_of('Z00007')",
            "SELECT * FROM daily_metrics WHERE ticker = 'Z00007'",
        ),
        "one ticker's 5-minute bars": (
            "SELECT * FROM bars_of('Z00007')",
            "SELECT * FROM ohlcv_data WHERE ticker = 'Z00007' AND timeframe = '5min'",
        ),
        "a session of all tickers": (
            f"SELECT sum(volume), max(high), count(*) FROM session_bars('{day}')",
            "SELECT sum(volume), max(high), count(*) FROM ohlcv_data "
            f"WHERE timeframe = '5min' AND timestamp BETWEEN {midnight_ms(LAST)} AND 9e12",
        ),
        "a scan of everything": (
            "SELECT count(*) FROM daily_metrics WHERE gap_percent > 5 AND volume_ratio > 2",
            "SELECT count(*) FROM daily_metrics "
            "WHERE 100 * (open * (1 + change_percent / 100) / close - 1) > 5 AND volume_ratio > 2",
        ),
    }
    result: dict[str, Any] = {"what": "(c) queries, warm, best of five: lake / SQLite, seconds"}
    with closing(sqlite3.connect(database)) as connection:
        for name, (ours, theirs) in pairs.items():
            one, other = lake.execute(ours).fetchall(), connection.execute(theirs).fetchall()
            if len(one) != len(other):
                raise SystemExit(f"{name}: {len(one)} rows, SQLite has {len(other)}")
            mine = best_seconds(lambda q=ours: lake.execute(q).fetchall())
            their = best_seconds(lambda q=theirs: connection.execute(q).fetchall())
            result[name] = f"{mine:.3f} / {their:.3f}"
    return result


def best_seconds(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of REPEATS runs."""
    found = []
    for _ in range(REPEATS):
        started = time.monotonic()
        work()
        found.append(time.monotonic() - started)
    return min(found)
