#!/usr/bin/env python3
"""Bytes and time of copies off the machine: a busy day of minutes, one session more beside other
tools, and what the process that stays costs and whom it delays.

  bench_offsite.py [--minutes 1440] [--megabytes 19] [--sessions 60] [--tickers 4000] [--days 30]
                   [--alone] [--commits 30]

Everything goes to a folder on this disk. restic, borg and rclone are measured where they are
installed. A part is left out with 0.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "scripts")]

from offsite_commits import bench_commits  # noqa: E402
from offsite_days import bench_days  # noqa: E402
from offsite_minutes import bench_minutes  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts that the arguments leave in; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=1440)
    parser.add_argument("--megabytes", type=float, default=19)
    parser.add_argument(
        "--sessions", type=int, default=60, help="sessions in the first full backup"
    )
    parser.add_argument("--tickers", type=int, default=4000)
    parser.add_argument("--days", type=int, default=30, help="daily backups after the first")
    parser.add_argument("--alone", action="store_true", help="without the other tools")
    parser.add_argument(
        "--commits", type=int, default=30, help="seconds of a writer without and with the process"
    )
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="bench-offsite-"))
    try:
        if chosen.minutes:
            bench_minutes(folder / "minutes", chosen.minutes, chosen.megabytes)
        if chosen.days:
            others = not chosen.alone
            bench_days(folder / "days", chosen.sessions, chosen.tickers, chosen.days, others)
        for journal in ("WAL", "DELETE") if chosen.commits else ():
            bench_commits(folder / journal, journal, chosen.commits)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
