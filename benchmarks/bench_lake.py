#!/usr/bin/env python3
"""Measure the lake on this machine; RESULTS.md keeps what was measured.

(a) minute bars from the sandbox's flat files into the lake, (b) the 27 metrics by the engine on one
and on two processes beside the database's own way, equal row for row, (c) three queries beside
SQLite, warm, (d) a cluster of any size, simulated. --full takes the sizes of the whole market:
8,000 tickers × 80 sessions of 5-minute bars, 8,000 × 1,254 days. Such a run goes on where the last
one ended: --folder F --at-once 10 --steps 2.
"""

import argparse
import json
import os
import resource
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from hashlib import md5
from heapq import heapreplace
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(PROJECT / "scripts"),
    str(PROJECT / "tests" / "support"),
    str(PROJECT / "benchmarks"),
]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402

from backtestdb.database import transaction  # noqa: E402
from backtestdb.lake.backfill import backfill_from_flat_files, find_lacking  # noqa: E402
from backtestdb.lake.compute import compute_metrics  # noqa: E402
from backtestdb.lake.executor import Engine  # noqa: E402
from backtestdb.lake.flat_files import FlatFiles  # noqa: E402
from backtestdb.lake.layout import METRIC_NAMES  # noqa: E402
from backtestdb.lake.owned import load_owned  # noqa: E402
from backtestdb.lake.publish import publish  # noqa: E402
from backtestdb.lake.scan import Lake  # noqa: E402
from backtestdb.lake.store import Store  # noqa: E402
from backtestdb.lake.table import open_lake  # noqa: E402
from backtestdb.market.bar_rows import save_bar_columns  # noqa: E402
from backtestdb.market.first_fill import deferred_indexes  # noqa: E402
from backtestdb.market.metric_store import save_metrics  # noqa: E402
from backtestdb.market.sessions import (  # noqa: E402
    load_calendar,
    make_midnights_ms,
    sessions_back,
    sessions_between,
)
from backtestdb.new_york import midnight_ms  # noqa: E402
from backtestdb.sandbox.exchange import load_market_minutes  # noqa: E402
from backtestdb.sandbox.sessions import load_sessions  # noqa: E402
from backtestdb.sandbox.state import Settings, make_sandbox  # noqa: E402
from backtestdb.schema import ensure_schema  # noqa: E402
from bench_market import describe_machine, make_file, print_result, read_memory  # noqa: E402
from sandbox_process import running_sandbox  # noqa: E402

TODAY, LAST = "2026-11-20", date(2026, 11, 19)
REPEATS = 5
TICKERS_AT_ONCE = 100
# Of the simulation, measured here on 2026-11-28: 753,718 bars into session summaries in 2.1 CPU
# seconds, files read and written included; a commit of 4,000 files in 0.17 s. Assumed: what the
# scheduler of a cluster takes for a task.
ROWS_A_CPU_SECOND, SECONDS_A_COMMIT, SECONDS_A_TASK = 350_000, 0.17, 0.01


def now() -> datetime:
    return datetime.now(UTC)


def cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def watch_workers(peak: list[float], stopping: threading.Event) -> None:
    """The most memory, in MB, that this process and its children had at a time."""
    while not stopping.wait(0.2):
        tasks = Path(f"/proc/{os.getpid()}/task")
        children = {pid for task in tasks.glob("*/children") for pid in task.read_text().split()}
        peak[0] = max(peak[0], sum(read_memory(int(pid)) for pid in {str(os.getpid()), *children}))


def measured(work: Callable[[], Any]) -> tuple[Any, float, float, float]:
    """Result, seconds, CPU seconds and peak MB of a piece of work."""
    peak, stopping = [0.0], threading.Event()
    watcher = threading.Thread(target=watch_workers, args=(peak, stopping))
    watcher.start()
    started, cpu = time.monotonic(), cpu_seconds()
    result = work()
    seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
    stopping.set()
    watcher.join()
    return result, seconds, cpu, peak[0]


def last_sessions(count: int) -> list[date]:
    calendar = load_calendar()
    return sessions_between(calendar, sessions_back(calendar, LAST, count - 1), LAST)


def bench_flat_files(folder: Path, tickers: int, sessions: int, at_once: int) -> dict[str, Any]:
    """Given where a lake may have been begun, bring at most `at_once` more sessions into it and
    return what all runs together took. Each of their bars is compared with what was traded."""
    store, record = Store(str(folder / "lake")), folder / "flat_files.json"
    runs = json.loads(record.read_text()) if record.exists() else []
    days = last_sessions(sessions)
    lacking = find_lacking(load_owned(open_lake(store, may_be_missing=True)), days)[:at_once]

    with running_sandbox("--tickers", str(tickers), today=TODAY) as sandbox:
        keys = {"AWS_ACCESS_KEY_ID": sandbox.key, "AWS_SECRET_ACCESS_KEY": sandbox.key}
        files = FlatFiles(
            "flatfiles", {"AWS_ENDPOINT_URL": sandbox.url, "AWS_REGION": "us-east-1", **keys}
        )

        def fill(wanted: Sequence[date]) -> Any:
            return backfill_from_flat_files(
                store, files, wanted, [], folder / "staging", now, processes=2
            )

        done, seconds, cpu, peak = measured(lambda: fill(lacking))
        rest = find_lacking(load_owned(open_lake(store)), days)
        there = [day for day in days if day not in rest]
        again, again_seconds, _, _ = measured(lambda: fill(there))

    compared = compare_with_exchange(store, tickers, lacking)
    runs.append([len(lacking), done.received, done.stored, seconds, cpu, peak, compared])
    record.write_text(json.dumps(runs))
    read, received, stored, seconds, cpu = (sum(run[place] for run in runs) for place in range(5))
    size = sum(part.bytes for part in open_lake(store).parts_of("bars_5min"))
    return {
        "what": f"(a) flat files of {read} of {sessions} sessions into the lake, {tickers} stocks "
        f"and what trades beside them, in {len(runs)} runs",
        "minutes": received,
        "bars of five minutes": stored,
        "bars equal to those of the exchange": sum(run[6] for run in runs),
        "bytes a bar": round(size / stored, 2),
        "seconds, the sandbox making the files included": round(seconds, 1),
        "CPU seconds without the sandbox": round(cpu, 1),
        "bars a second, a CPU second": f"{stored / seconds:,.0f}, {stored / cpu:,.0f}",
        "peak MB of all processes": round(max(run[5] for run in runs)),
        "again": f"{again.sessions} sessions fetched, version {again.version} after "
        f"{done.version}, {again_seconds:.1f} s",
    }


def compare_with_exchange(store: Store, tickers: int, days: Sequence[date]) -> int:
    """Exit where a bar differs from the exchange's own 5-minute bars, which the flat files take
    apart into minutes; return how many are equal in all columns."""
    exchange = make_sandbox(Settings(), today=date.fromisoformat(TODAY), tickers=tickers).exchange
    names = pa.array([listing.ticker for listing in exchange.universe.listings])
    names_of = ["open", "high", "low", "close", "volume"]
    lake, equal = Lake(open_lake(store)).connection, 0
    for day in days:
        session = load_sessions().index_range(day, day).start
        listing, made = load_market_minutes(exchange, session)
        expected = pa.table(
            {
                "ticker": pa.DictionaryArray.from_arrays(pa.array(listing), names).cast("string"),
                "ms": made.start_ms,
                **{name: getattr(made.bars, name) for name in names_of[:-1]},
                "volume": np.floor(made.bars.volume),  # flat files count whole shares
            }
        )
        found = lake.sql(
            "SELECT ticker, epoch_ms(timestamp) AS ms, open, high, low, close, "
            "CAST(volume AS DOUBLE) AS volume FROM session_bars(?)",
            params=[str(day)],
        ).to_arrow_table()
        order = [("ticker", "ascending"), ("ms", "ascending")]
        if found.cast(expected.schema).sort_by(order) != expected.sort_by(order):
            raise SystemExit(f"the lake's bars of {day} are not those of the exchange")
        equal += len(found)
    return equal


def make_database(path: Path, tickers: int, sessions: int, minute_sessions: int) -> None:
    """Random walks: day bars of all sessions with their metrics, 78 bars of five minutes of the
    last ones."""
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
    names = [f"Z{number:05d}" for number in range(tickers)]
    with closing(make_file_again(path)) as connection:
        for first in range(0, tickers, TICKERS_AT_ONCE):
            with transaction(connection):
                save_metrics(connection, names[first : first + TICKERS_AT_ONCE], start)


def make_file_again(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


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


def pool_cpu_seconds() -> float:
    """Of the children that run, in which the pool's processes are."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    children = {pid for task in tasks.glob("*/children") for pid in task.read_text().split()}
    ticks = 0
    for pid in children:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def compare_metrics(database: Path, store: Store) -> float:
    """Of all rows and columns. Exits when a NULL stands in one of them only."""
    version, largest = open_lake(store), 0.0
    with closing(sqlite3.connect(database)) as connection:
        for part in version.parts_of("daily_metrics"):
            rows = version.read(part.key)
            tickers, days = (
                rows["ticker"].to_pylist(),
                [str(day) for day in rows["session_date"].to_pylist()],
            )
            query = f"SELECT {', '.join(METRIC_NAMES)} FROM daily_metrics"
            query += " WHERE ticker = ? AND date BETWEEN ? AND ? ORDER BY date"
            expected = [
                row
                for ticker in dict.fromkeys(tickers)
                for row in connection.execute(query, (ticker, min(days), max(days)))
            ]
            for name, column in zip(METRIC_NAMES, zip(*expected, strict=True), strict=True):
                theirs = np.array(column, dtype="float64")
                mine = rows[name].cast(pa.float64()).to_numpy()
                if (np.isnan(mine) != np.isnan(theirs)).any():
                    raise SystemExit(f"{name} is NULL in other rows than in the database")
                gap = np.abs(mine - theirs) / np.maximum(np.abs(theirs), 1e-3)
                largest = max(largest, float(np.nanmax(gap, initial=0.0)))
    return largest


def best_seconds(work: Callable[[], Any]) -> float:
    found = []
    for _ in range(REPEATS):
        started = time.monotonic()
        work()
        found.append(time.monotonic() - started)
    return min(found)


def bench_queries(database: Path, store: Store) -> dict[str, Any]:
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


def simulate_cluster(rows: float, months: int, buckets: int, cores: int) -> float:
    """Return the seconds of one pass of session summaries: the months of all buckets as parts, each
    given to the core that is free first, then one commit. How evenly tickers fall into buckets is
    taken from made-up names."""
    names = [f"Z{number:05d}" for number in range(10_000)]
    sizes = Counter(
        md5(name.encode(), usedforsecurity=False).digest()[0] % buckets for name in names
    )
    free = [0.0] * cores
    for _ in range(months):
        for size in sizes.values():
            seconds = rows / months * size / len(names) / ROWS_A_CPU_SECOND + SECONDS_A_TASK
            heapreplace(free, free[0] + seconds)
    return max(free) + SECONDS_A_COMMIT * months * buckets / 4000


def print_simulation() -> None:
    result: dict[str, Any] = {"what": "(d) simulated: one pass of session summaries, 8 cores each"}
    for what, rows, buckets in (
        ("5-minute bars of 5 years, 7.9e8 rows, 32 buckets", 7.9e8, 32),
        ("ticks of 5 years, 1e11 rows, 32 buckets", 1e11, 32),
        ("ticks of 5 years, 1e11 rows, 256 buckets", 1e11, 256),
    ):
        runs = [simulate_cluster(rows, 60, buckets, 8 * machines) for machines in (1, 10, 100)]
        result[what] = "1, 10, 100 machines: " + ", ".join(f"{run:,.1f} s" for run in runs)
    print_result(result)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=list("abcd"), action="append", help="one part; may be given again"
    )
    parser.add_argument("--tickers", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=5, help="flat files in (a)")
    parser.add_argument("--days", type=int, default=1254, help="day bars of each ticker in (b)")
    parser.add_argument("--full", action="store_true", help="8,000 tickers, 80 flat files")
    parser.add_argument(
        "--folder",
        type=Path,
        help="kept, and gone on with by the next call; default: a temporary one",
    )
    parser.add_argument("--at-once", type=int, default=80, help="flat files a call in (a)")
    parser.add_argument("--steps", type=int, default=99, help="steps a call in (b)")
    chosen = parser.parse_args(arguments)
    tickers, sessions = (8000, 80) if chosen.full else (chosen.tickers, chosen.sessions)
    parts = chosen.only or list("abcd")
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="bench_lake_", dir=os.environ.get("BENCH_DIR")) as name:
        folder = chosen.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if "a" in parts:
            print_result(bench_flat_files(folder, tickers, sessions, chosen.at_once))
        if {"b", "c"} & set(parts):
            print_result(bench_metrics(folder, tickers, chosen.days, chosen.steps))
        if "c" in parts:
            database, store = folder / "backtesting.db", Store(str(folder / "metrics2"))
            publish(database, store, now())
            print_result(bench_queries(database, store))
    if "d" in parts:
        print_simulation()
    return 0


if __name__ == "__main__":
    sys.exit(main())
