"""A rebuild with far fewer bars than the old file is stopped before it replaces it."""

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from backtestdb.database import connect, look_at_file, table_names
from backtestdb.errors import ProjectError
from backtestdb.market.jobs import Job
from backtestdb.new_york import end_of_day_ms, midnight_ms

# Tickers leave a list, and a vendor corrects; a tenth less of the same tickers and sessions is
# neither.
FEWEST_OF_OLD = 0.9
BARS_BETWEEN = (
    "SELECT count(*) FROM ohlcv_data "
    "WHERE ticker = ? AND timeframe = ? AND timestamp BETWEEN ? AND ?"
)


class FewerBarsError(ProjectError):
    """The new content has far fewer bars than the old file, which was not allowed."""


@dataclass(frozen=True)
class FewerBars:
    """Bars of the same tickers and sessions, in the old file and in the new one."""

    label: str
    old: int
    new: int

    def describe(self) -> str:
        return (
            f"{self.label}: {self.new:,} bars, the old file has {self.old:,} of the same "
            "tickers and sessions"
        )


def stop_at_fewer_bars(
    database: Path, work: sqlite3.Connection, jobs: dict[str, Job], ask: Callable[[str], bool]
) -> None:
    """Raise FewerBarsError unless the user wants far fewer bars in the old ones' place."""
    fewer = find_fewer_bars(database, work, jobs)
    if not fewer:
        return

    told = "; ".join(each.describe() for each in fewer)
    if not (sys.stdin.isatty() and ask(f"{told}. Replace the old file all the same?")):
        raise FewerBarsError(
            f"{told}; the old file was not touched",
            next_step="the same command asks for what is missing; with ARGS=--accept-fewer it "
            "replaces all the same",
        )


def find_fewer_bars(
    database: Path, work: sqlite3.Connection, jobs: dict[str, Job]
) -> list[FewerBars]:
    """Given the file in use and the one that was built, return the jobs that brought far fewer
    bars."""
    # A file that cannot be read has none to compare.
    if look_at_file(database) != "database":
        return []
    found = []

    with closing(connect(database, read_only=True)) as old:
        try:
            if "ohlcv_data" not in table_names(old):
                return []
            for label, job in jobs.items():
                before, now = count_bars(old, job), count_bars(work, job)
                if now < FEWEST_OF_OLD * before:
                    found.append(FewerBars(label, before, now))
        except sqlite3.DatabaseError:
            return []  # damaged: what is left is salvaged, its bars are what the rebuild is for

    return found


def count_bars(connection: sqlite3.Connection, job: Job) -> int:
    bounds = midnight_ms(job.sessions[0]), end_of_day_ms(job.sessions[-1])
    return sum(
        connection.execute(BARS_BETWEEN, (ticker, job.timeframe, *bounds)).fetchone()[0]
        for ticker in job.tickers
    )
