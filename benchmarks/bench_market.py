#!/usr/bin/env python3
"""Measure the market side on this machine, against the sandbox; RESULTS.md keeps what was measured.

(a) the tech sector as `make restore` brings it, (b) all US stocks, 8,000 × 1,254 sessions, without
a quota, (c) metrics alone beside `ta` ticker by ticker, (d) the store alone beside a bare table,
each pair in one run.
"""

import argparse
import os
import resource
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "scripts"), str(PROJECT / "tests" / "support")]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import ta  # noqa: E402

from backtestdb.market.bar_rows import save_bar_columns  # noqa: E402
from backtestdb.market.bars import BAR_COLUMNS  # noqa: E402
from backtestdb.market.first_fill import deferred_indexes  # noqa: E402
from backtestdb.market.metrics import make_metrics  # noqa: E402
from backtestdb.schema import ensure_schema  # noqa: E402
from commands import Project  # noqa: E402
from measuring import describe_machine, make_file, print_result, read_memory  # noqa: E402
from sandbox_process import SandboxProcess, running_sandbox  # noqa: E402

TODAY, END = "2026-11-20", "2026-11-19"  # five years up to END are 1,254 sessions
REPEATS = 3


def watch_memory(processes: list[int], peak: list[float], stopping: threading.Event) -> None:
    """Keep the most megabytes that the processes held together, of ten looks a second."""
    while not stopping.wait(0.1):
        peak[0] = max(peak[0], sum(read_memory(process) for process in processes))


def bench_restore(
    name: str, sandbox: SandboxProcess, folder: Path, *arguments: str
) -> dict[str, Any]:
    """Rebuild from an empty folder; return requests, seconds, rows a second, memory of it and of
    both processes."""
    folder.mkdir()
    project = Project(folder, sandbox.url)
    sandbox.clear_log()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = project.start(
        "restore_database.py", *arguments, "--end", END, POLYGON_CONCURRENCY="8"
    )
    peak, stopping = [0.0], threading.Event()
    watcher = threading.Thread(
        target=watch_memory, args=([process.pid, sandbox.process.pid], peak, stopping), daemon=True
    )
    watcher.start()
    output, errors = process.communicate()
    seconds = time.monotonic() - started
    stopping.set()
    if process.returncode:
        raise SystemExit(f"{name} failed\n{output}\n{errors}")
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    with closing(sqlite3.connect(project.database)) as connection:
        rows, metrics = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("ohlcv_data", "daily_metrics")
        )
    print(errors, file=sys.stderr)
    return {
        "what": name,
        "requests": len(sandbox.fetch_log()),
        "seconds": round(seconds, 1),
        "CPU seconds of the rebuild": round(
            cpu.ru_utime + cpu.ru_stime - used.ru_utime - used.ru_stime, 1
        ),
        "bars": rows,
        "rows of metrics": metrics,
        "bars a second": round(rows / seconds),
        "peak MB, rebuild and sandbox": round(peak[0]),
        "file MB": round(project.database.stat().st_size / 1e6),
        "bytes for a bar and its metrics": round(project.database.stat().st_size / max(metrics, 1)),
    }


def make_bars(tickers: int, sessions: int) -> pd.DataFrame:
    """Return random walks in the shape in which metrics take them."""
    dice = np.random.default_rng(1)
    close = np.round(np.exp(3 + 0.02 * dice.standard_normal((tickers, sessions)).cumsum(axis=1)), 4)
    opened = np.round(close * (1 + 0.01 * dice.standard_normal(close.shape)), 4)
    days = pd.bdate_range("2021-11-22", periods=sessions)
    return pd.DataFrame(
        {
            "ticker": np.repeat([f"Z{number:04d}" for number in range(tickers)], sessions).astype(
                object
            ),
            "date": np.tile(days.strftime("%Y-%m-%d").to_numpy(dtype=object), tickers),
            "timestamp": np.tile(days.asi8 // 1_000_000, tickers),
            "open": opened.ravel(),
            "high": (np.maximum(opened, close) * 1.01).ravel(),
            "low": (np.minimum(opened, close) * 0.99).ravel(),
            "close": close.ravel(),
            "volume": dice.integers(1_000, 10_000_000, close.size),
        }
    )


def make_metrics_with_ta(bars: pd.DataFrame) -> pd.DataFrame:
    """All metrics of one ticker, with `ta` where it has them and pandas where it has not."""
    close, volume = bars["close"], bars["volume"]
    made = {"change_percent": 100 * close.pct_change(fill_method=None)}
    for sessions in (5, 10, 20):
        made[f"change_{sessions}d_percent"] = 100 * close.pct_change(sessions, fill_method=None)
    for window in (20, 50, 200):
        average = ta.trend.SMAIndicator(close, window=window, fillna=False).sma_indicator()
        made[f"sma_{window}"] = average
        made[f"price_to_sma{window}_percent"] = 100 * (close / average - 1)
    before = (
        ta.trend.SMAIndicator(volume.astype(float), window=20, fillna=False)
        .sma_indicator()
        .shift(1)
    )
    made["volume_20d_avg"], made["volume_ratio"] = before, volume / before.where(before > 0)
    made["rsi_14"] = ta.momentum.RSIIndicator(close, window=14, fillna=False).rsi()
    made["change_from_open"] = 100 * (close / bars["open"] - 1)
    made["high_low_range_percent"] = 100 * (bars["high"] - bars["low"]) / bars["open"]
    made["close_to_high_percent"] = 100 * (bars["high"] - close) / bars["high"]
    made["close_to_low_percent"] = 100 * (close - bars["low"]) / bars["low"]
    direction = np.sign(close.diff().fillna(0))
    length = direction.groupby((direction != direction.shift()).cumsum()).cumcount() + 1
    made["consecutive_up_days"] = length.where(direction > 0, 0)
    made["consecutive_down_days"] = length.where(direction < 0, 0)
    return pd.DataFrame(made)


def best_seconds(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of the shortest of some runs: what others do on the machine only ever
    adds."""
    found = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def bench_metrics(tickers: int = 200, sessions: int = 1254) -> dict[str, Any]:
    """Return the speed of the metrics beside `ta` ticker by ticker. Exit where a NULL differs."""
    bars = make_bars(tickers, sessions)
    one_by_one = [part for _, part in bars.groupby("ticker", sort=False)]
    ours = best_seconds(lambda: make_metrics(bars))
    theirs = best_seconds(lambda: [make_metrics_with_ta(part) for part in one_by_one])
    mine = make_metrics(bars)
    difference = 0.0
    for part in one_by_one:
        expected = make_metrics_with_ta(part)
        for name in ("rsi_14", "sma_20", "sma_50", "sma_200"):
            one, other = mine.loc[part.index, name].to_numpy(), expected[name].to_numpy()
            if (np.isnan(one) != np.isnan(other)).any():
                raise SystemExit(f"{name} is NULL in other rows than with ta")
            difference = max(difference, float(np.nanmax(np.abs(one - other) / np.abs(other))))
    return {
        "what": "(c) metrics",
        "rows": len(bars),
        "rows a second": round(len(bars) / ours),
        "rows a second with ta by ticker": round(len(bars) / theirs),
        "times as fast as ta by ticker": round(theirs / ours, 2),
        "largest relative difference of RSI and SMA": difference,
    }


def bench_store(folder: Path, tickers: int = 400, sessions: int = 1254) -> dict[str, Any]:
    """Return the speed into ohlcv_data with its key, and its indexes afterwards, beside a table
    without any, a row a statement."""
    bars = make_bars(tickers, sessions)
    columns: list[list[Any]] = [bars[name].tolist() for name in BAR_COLUMNS[:7]]
    columns += [["1day"] * len(bars), [None] * len(bars), [1] * len(bars)]
    rows = list(zip(*columns, strict=True))

    def store() -> None:
        with closing(make_file(folder / "store.db")) as connection:
            ensure_schema(connection)
            with deferred_indexes(connection, "ohlcv_data", len(bars)):
                connection.execute("BEGIN")
                save_bar_columns(connection, [*columns, ["2026-11-20 00:00:00"] * len(bars)])
                connection.execute("COMMIT")

    def store_bare() -> None:
        with closing(make_file(folder / "bare.db")) as connection:
            connection.execute(f"CREATE TABLE bare ({', '.join(BAR_COLUMNS)})")
            connection.execute("BEGIN")
            connection.executemany(
                f"INSERT INTO bare VALUES ({', '.join('?' * len(BAR_COLUMNS))})", rows
            )
            connection.execute("COMMIT")

    ours, bare = best_seconds(store), best_seconds(store_bare)
    return {
        "what": "(d) store",
        "rows": len(bars),
        "rows a second": round(len(bars) / ours),
        "rows a second into a bare table": round(len(bars) / bare),
        "part of the bare table's speed": round(bare / ours, 2),
    }


def main() -> int:
    """Measure the parts that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=list("abcd"), action="append", help="one part; may be given again"
    )
    parser.add_argument("--tickers", type=int, default=8000, help="stocks in (b)")
    chosen = parser.parse_args()
    parts = chosen.only or list("abcd")
    print(describe_machine())
    with tempfile.TemporaryDirectory(
        prefix="bench_market_", dir=os.environ.get("BENCH_DIR")
    ) as name:
        folder = Path(name)
        if "a" in parts:
            with running_sandbox(today=TODAY) as sandbox:
                print_result(bench_restore("(a) tech sector", sandbox, folder / "tech"))
        if "b" in parts:
            with running_sandbox("--tickers", str(chosen.tickers), today=TODAY) as sandbox:
                title = f"(b) {chosen.tickers} US stocks, 5 years"
                print_result(bench_restore(title, sandbox, folder / "market", "--full-us-stocks"))
        if "c" in parts:
            print_result(bench_metrics())
        if "d" in parts:
            print_result(bench_store(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
