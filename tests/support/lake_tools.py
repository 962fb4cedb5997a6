"""What the tests of the lake begin with: a small database, commands that can be killed, reading
without the project.

As a process, so that it can be killed, and because a publication has a SQLite of its own in its
process, which must not meet another one there: python lake_tools.py publish DATABASE LAKE, read
LAKE SECONDS, or write DATABASE.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[2] / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))

import duckdb  # noqa: E402
import numpy as np  # noqa: E402

from backtestdb.database import connect, transaction  # noqa: E402
from backtestdb.lake.publish import Published, publish  # noqa: E402
from backtestdb.lake.store import Store  # noqa: E402
from backtestdb.lake.table import open_lake  # noqa: E402
from backtestdb.schema import ensure_schema  # noqa: E402

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
TICKERS = ["AAPL", "NA", "TRUE", "BRK.B", "KIMpL", "ZAAA", "ZAAB", "ZAAC"]


def make_lake_database(
    path: Path,
    tickers: Sequence[str] = TICKERS,
    start: str = "2025-12-01",
    end: str = "2026-02-27",
    minute_sessions: int = 12,
    seed: int = 1,
) -> Path:
    """Day bars from `start` to `end` with their metrics, 5-minute bars of the last sessions, a
    universe."""
    from backtestdb.market.metric_store import save_metrics
    from backtestdb.market.sessions import load_calendar, sessions_between
    from backtestdb.market.universes import save_universe
    from backtestdb.new_york import midnight_ms

    sessions = sessions_between(load_calendar(), date.fromisoformat(start), date.fromisoformat(end))
    with closing(connect(path, create=True)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        ensure_schema(connection)
        save_universe(connection, "tech_sector", tickers)
        for number, ticker in enumerate(tickers):
            days = [midnight_ms(day) for day in sessions]
            # 09:30 to 16:00, and what surrounds it now and then.
            slots = [
                day + (240 + 5 * slot) * 60_000
                for day in days[-minute_sessions:]
                for slot in range(0, 192, 3)
            ]
            with transaction(connection):
                add_bars(connection, ticker, "1day", days, seed * 1000 + number)
                add_bars(connection, ticker, "5min", slots, seed * 2000 + number)
                save_metrics(connection, [ticker], sessions[0])
    return path


def add_bars(
    connection: sqlite3.Connection, ticker: str, timeframe: str, stamps_ms: Sequence[int], seed: int
) -> None:
    from backtestdb.market.bar_rows import save_bar_columns
    from backtestdb.market.sessions import make_new_york_times

    dice = np.random.default_rng(seed)
    close = np.round(50 * np.exp(np.cumsum(dice.normal(0, 0.02, len(stamps_ms)))), 4)
    opened = np.round(close * (1 + dice.normal(0, 0.01, len(close))), 4)
    high = np.round(np.maximum(opened, close) * (1 + dice.random(len(close)) * 0.01), 4)
    low = np.round(np.minimum(opened, close) * (1 - dice.random(len(close)) * 0.01), 4)
    volume = dice.integers(0, 100_000, len(close))
    local = make_new_york_times(np.array(stamps_ms))
    columns: list[list[Any]] = [
        [ticker] * len(close),
        list(stamps_ms),
        *(column.tolist() for column in (opened, high, low, close, volume)),
        [timeframe] * len(close),
        local.strftime("%H:%M:%S").tolist() if timeframe == "5min" else [None] * len(close),
        [0] * len(close),
        ["2026-02-28 12:00:00"] * len(close),
    ]
    save_bar_columns(connection, columns)


def take_newest_day_away(connection: sqlite3.Connection) -> None:
    """Remove the newest row of metrics and its day bar: there are as many of both."""
    connection.execute("DELETE FROM daily_metrics WHERE id IN (SELECT max(id) FROM daily_metrics)")
    connection.execute(
        "DELETE FROM ohlcv_data WHERE timeframe = '1day' AND NOT EXISTS (SELECT 1 "
        "FROM daily_metrics d "
        "WHERE d.ticker = ohlcv_data.ticker AND d.timestamp = ohlcv_data.timestamp)"
    )


def read_database(path: Path, timeframe: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT ticker, timestamp, open, high, low, close, volume FROM ohlcv_data "
            "WHERE timeframe = ? ORDER BY ticker, timestamp",
            (timeframe,),
        ).fetchall()


def read_lake(
    root: Path, table: str, columns: str, version: int | None = None
) -> list[tuple[Any, ...]]:
    """By DuckDB's own reader, of the files that the version names: not by the project's way of
    reading."""
    files = [f"{root}/{part.path}" for part in open_lake(Store(str(root)), version).parts_of(table)]
    if not files:
        return []
    chosen = ", ".join(
        "epoch_ms(timestamp)" if name == "timestamp" else name for name in columns.split()
    )
    query = (
        f"SELECT {chosen} FROM read_parquet(?, hive_partitioning = false) ORDER BY ticker, "
        f"{columns.split()[1]}"
    )
    return duckdb.connect().execute(query, [files]).fetchall()


BARS = "ticker timestamp open high low close volume"


def publish_here(database: Path, root: Path, **options: Any) -> Published:
    return publish(database, Store(str(root)), NOW, **options)


def list_files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def start_tool(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_ready(process: "subprocess.Popen[str]") -> None:
    """Until its imports are done: kills are meant for the work."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]


def measure_seconds(process: "subprocess.Popen[str]") -> float:
    wait_until_ready(process)
    started = time.monotonic()
    process.communicate(timeout=300)
    return time.monotonic() - started


def kill_at_random(
    process: "subprocess.Popen[str]", dice: random.Random, longest_seconds: float
) -> bool:
    """Whether the process was still alive when it was killed."""
    wait_until_ready(process)
    deadline = time.monotonic() + dice.random() * longest_seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return alive


def look_at(store: Store) -> tuple[int, int, int, str]:
    """Version, number of bars, number of metrics rows, and a checksum over two tables, all read
    from the files."""
    version = open_lake(store)
    counts = []
    contents = []
    for table in ("bars_1day", "daily_metrics"):
        rows = 0
        for part in version.parts_of(table):
            read = version.read(part.key)
            assert len(read) == part.rows
            rows += len(read)
            contents.append(part.content)
        counts.append(rows)
    return version.number, counts[0], counts[1], " ".join(contents)


def write_sessions(database: Path) -> None:
    """A session of all tickers in one transaction, again and again."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        for day in range(100_000):
            with connection:
                for number, ticker in enumerate(TICKERS):
                    add_bars(
                        connection, ticker, "1day", [1_800_000_000_000 + day * 86_400_000], number
                    )


if __name__ == "__main__":
    from backtestdb.config import load_settings
    from backtestdb.lake.store import make_store

    what, *rest = sys.argv[1:]
    store = (
        make_store(load_settings())
        if os.environ.get("LAKE")
        else Store(rest[-1 if what == "publish" else 0])
    )
    print("ready", flush=True)
    if what == "publish":
        print(publish(Path(rest[0]), store, datetime.now(UTC)))
    elif what == "write":
        write_sessions(Path(rest[0]))
    else:
        seen: dict[int, Any] = {}
        reads = 0
        while not reads or not Path(rest[-1]).exists():
            number, *facts = look_at(store)
            assert seen.setdefault(number, facts) == facts, f"version {number} changed"
            assert facts[0] == facts[1], f"version {number}: {facts[:2]}"
            reads += 1
        print(json.dumps({"reads": reads, "versions": sorted(seen)}))
