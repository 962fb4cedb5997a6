"""A program that writes to a database through SQLite's unix-none VFS, which takes no locks: what a
program on the other side of a lock-blind mount looks like from here.

Run as a script: `python blind_writer.py DATABASE JOURNAL_MODE SEED`. Bursts of commits, now and
then one that is rolled back after it has written pages, and pauses in which a backup may succeed.
"""

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from writers import running_program

ROWS = 400
SCHEMA = "".join(
    f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, n, filler);" for name in ("one", "two")
)


def make_twin_tables(path: Path, journal: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.executescript(SCHEMA)
    for table in ("one", "two"):
        connection.executemany(
            f"INSERT INTO {table} VALUES (?, 0, ?)", ((n, "x" * 900) for n in range(ROWS))
        )
    connection.commit()
    connection.close()


def is_torn(path: Path) -> bool:
    """Every commit sets the same number in some rows, the same in both tables."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        found = connection.execute(
            "SELECT count(*) FROM one JOIN two USING (id) WHERE one.n = two.n"
        ).fetchone()[0]
        return found != ROWS or connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok"
    except sqlite3.DatabaseError:
        return True


@contextmanager
def running_blind_writer(
    database: Path, journal: str, seed: int
) -> Iterator[subprocess.Popen[str]]:
    with running_program(__file__, str(database), journal, str(seed)) as process:
        yield process


def write_forever(database: str, journal: str, seed: int) -> None:
    chance = random.Random(seed)
    connection = sqlite3.connect(f"file:{database}?vfs=unix-none", uri=True, isolation_level=None)
    if journal == "WAL":
        # Without locks there is no shared memory either.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = 20")  # pages are written before the commit
    connection.execute("PRAGMA wal_autocheckpoint = 50")
    number = 0
    while True:
        for _ in range(chance.randrange(1, 6)):
            number += 1
            connection.execute("BEGIN")
            some = chance.randrange(8)
            for table in ("one", "two"):
                connection.execute(f"UPDATE {table} SET n = ? WHERE id / 50 = ?", (number, some))
            connection.execute("ROLLBACK" if chance.random() < 0.2 else "COMMIT")
            if number == 1:
                print("writing", flush=True)
        time.sleep(chance.choice((0.0, 0.01, 0.05, 0.15)))


if __name__ == "__main__":
    write_forever(sys.argv[1], sys.argv[2], int(sys.argv[3]))
