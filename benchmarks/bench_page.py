#!/usr/bin/env python3
"""Measure the page on a large database with a rollback journal, where a reader can keep a writer
out; RESULTS.md keeps what was measured.

Answers of each page beside one scan of all bars, and the slowest commit beside the page with the
slowest one alone.
"""

import argparse
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "scripts"), str(PROJECT / "tests" / "support")]

from backtestdb.database import connect  # noqa: E402
from backtestdb.market.sessions import load_calendar, sessions_between  # noqa: E402
from backtestdb.new_york import midnight_ms  # noqa: E402
from commands import Project  # noqa: E402
from large_database import LAST, make_large_database  # noqa: E402
from mending import with_schedule  # noqa: E402
from page_server import Server, running_server  # noqa: E402

OPENS_MS = 9 * 3_600_000 + 1_800_000
MINUTE_BARS = """
WITH RECURSIVE bar (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM bar WHERE number < 77)
INSERT INTO ohlcv_data (ticker, timestamp, open, high, low, close, volume, timeframe)
SELECT ticker, ? + number * 300000, 100, 101, 99, 100.5, 1000, '5min'
FROM universe_stocks CROSS JOIN bar
"""
ASKED = (
    "INSERT INTO _ranges_asked SELECT ticker, '5min', ?, ?, ?, ?, 78, ?, 'run' FROM universe_stocks"
)
COVERAGE = (
    "INSERT INTO _coverage VALUES ('us-stocks', ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, ?, '', 0, 'counted')"
)
MINUTE_SESSIONS = 20
PAGES = [
    "/tickers",
    "/tickers?order=holes",
    "/ticker/T0007",
    f"/coverage/us-stocks/1day/{LAST.isoformat()[:7]}",
    "/api/scanner/universes/us-stocks/tickers",
    "/status.json",
]


def make_database(path: Path, tickers: int, sessions: int) -> None:
    """Make one with day bars, 20 sessions of 5-minute bars, and records of both."""
    make_large_database(path, tickers=tickers, sessions=sessions, journal="DELETE")
    days = sessions_between(load_calendar(), LAST - timedelta(days=2 * sessions), LAST)[-sessions:]
    minute_days = days[-MINUTE_SESSIONS:]
    asked_at = "2100-01-01T00:00:00+00:00"
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for day in minute_days:
            connection.execute(MINUTE_BARS, (midnight_ms(day) + OPENS_MS,))
        ends = [minute_days[0].isoformat(), minute_days[-1].isoformat()]
        connection.execute(ASKED, (*ends, *ends, asked_at))
        for timeframe, asked in (("1day", days), ("5min", minute_days)):
            count = tickers * len(asked)
            dates = (asked[0].isoformat(), asked[-1].isoformat())
            connection.execute(COVERAGE, (timeframe, *dates, tickers, count, count, asked_at))
        connection.execute("COMMIT")


@contextmanager
def committing(path: Path) -> Iterator[list[float]]:
    """Commit every 20 ms; the seconds that each commit took are what comes back."""
    seconds: list[float] = []
    ended = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            while not ended.wait(0.02):
                started = time.perf_counter()
                connection.execute("UPDATE universe SET updated_at = CURRENT_TIMESTAMP")
                connection.commit()
                seconds.append(time.perf_counter() - started)

    thread = threading.Thread(target=write)
    thread.start()
    yield seconds
    ended.set()
    thread.join()


def measure(work: Callable[[], object]) -> float:
    """Return the seconds of a piece of work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def count_all(server: Server) -> None:
    """Ask for the front page until the bars are counted."""
    while 'data-drawn="no"' in server.get("/")[1]:
        pass


def show(name: str, seconds: float, yardstick: float) -> None:
    """Print a row of the table: the time, and as a part of `yardstick`."""
    print(f"| {name} | {1000 * seconds:,.0f} ms | {seconds / yardstick:.2f} |", flush=True)


def main() -> int:
    """Make the database, measure and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tickers", type=int, default=4000)
    parser.add_argument("--sessions", type=int, default=750, help="of day bars")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="page-") as name:
        project = with_schedule(Project(Path(name)))
        make_database(project.database, given.tickers, given.sessions)
        with closing(connect(project.database, read_only=True)) as connection:
            (bars,) = connection.execute("SELECT max(id) FROM ohlcv_data").fetchone()
            scan = "SELECT sum(close) FROM ohlcv_data"
            yardstick = measure(lambda: connection.execute(scan).fetchone())
        print(f"{bars:,} bars, {project.database.stat().st_size / 1e6:,.0f} MB\n")
        print("| what | time | of one scan of all bars |\n|---|---|---|")
        show("one scan of all bars", yardstick, yardstick)
        with committing(project.database) as alone:
            time.sleep(5)
        show("slowest commit alone", max(alone), yardstick)
        with running_server(project) as server, committing(project.database) as beside:
            show("front page until all is counted", measure(lambda: count_all(server)), yardstick)
            show("front page again", measure(lambda: server.get("/")), yardstick)
            for path in PAGES:
                show(path, measure(partial(server.get, path)), yardstick)
        show("slowest commit beside the page", max(beside), yardstick)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
