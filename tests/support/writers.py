"""A program that writes to a database while the tests work on it: a real process, one commit after
another.

Run as a script: `python writers.py DATABASE PAUSE_SECONDS [JOURNAL_MODE]`. Every commit counts up
the same number in two tables, so that a copy in which they differ is not one committed state."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS counter_one (n INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS counter_two (n INTEGER NOT NULL);
INSERT INTO counter_one SELECT 0 WHERE NOT EXISTS (SELECT * FROM counter_one);
INSERT INTO counter_two SELECT 0 WHERE NOT EXISTS (SELECT * FROM counter_two);
COMMIT;
"""


def add_counters(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(SCHEMA)


def read_counters(database: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            "SELECT one.n, two.n FROM counter_one one, counter_two two"
        ).fetchone()


@contextmanager
def running_writer(
    database: Path, *, pause_seconds: float, journal: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Yield once the writer has committed; `.stdout` then holds a line "delay N" with the slowest
    commit in milliseconds, written when it is told to end (SIGTERM)."""
    add_counters(database)
    with running_program(__file__, str(database), str(pause_seconds), journal) as process:
        yield process


@contextmanager
def running_program(file: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Given a program that writes, and its arguments, yield its process once it has said "writing";
    it is killed at the end of the block."""
    process = subprocess.Popen([sys.executable, file, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.wait()


def write_forever(database: str, pause_seconds: float, journal: str) -> None:
    import signal

    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    if journal:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    slowest = 0.0
    count = 0
    while not ending:
        started = time.monotonic()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE counter_one SET n = n + 1")
        connection.execute("UPDATE counter_two SET n = n + 1")
        connection.execute("COMMIT")
        slowest = max(slowest, time.monotonic() - started)
        count += 1
        if count == 1:
            print("writing", flush=True)
        time.sleep(pause_seconds)
    print(f"delay {slowest * 1000:.1f}", flush=True)


if __name__ == "__main__":
    write_forever(sys.argv[1], float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
