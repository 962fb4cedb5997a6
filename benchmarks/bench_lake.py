#!/usr/bin/env python3
"""Measure the lake on this machine; RESULTS.md keeps what was measured.

(a) minute bars from the sandbox's flat files into the lake, (b) the 27 metrics by the engine on one
and on two processes beside the database's own way, equal row for row, (c) four queries beside
SQLite, warm, (d) a cluster of any size, simulated. --full takes the sizes of the whole market:
8,000 tickers × 80 sessions of 5-minute bars, 8,000 × 1,254 days. Such a run goes on where the last
one ended: --folder F --at-once 10 --steps 2.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "scripts"), str(PROJECT / "tests" / "support")]

from backtestdb.lake.publish import publish  # noqa: E402
from backtestdb.lake.store import Store  # noqa: E402
from lake_flat_files import bench_flat_files, now  # noqa: E402
from lake_metrics import bench_metrics  # noqa: E402
from lake_queries import bench_queries  # noqa: E402
from lake_simulation import simulate  # noqa: E402
from measuring import describe_machine, print_result  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts that the arguments name; return the exit code."""
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
        print_result(simulate())
    return 0


if __name__ == "__main__":
    sys.exit(main())
