"""A program that commits 20 times a second into a table that only this database has, and says what
it committed.

Run as a script: `python diary_writer.py DATABASE`. Each line on standard output, "n seconds", is a
commit that has ended; `text_of(n)` is what its row holds, so that a test can say what every row
must be.
"""

import hashlib
import sqlite3
import sys
import time

SCHEMA = "CREATE TABLE IF NOT EXISTS diary (n INTEGER PRIMARY KEY, text TEXT NOT NULL, weight REAL)"
PAUSE_SECONDS = 0.05


def text_of(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest() * (n % 5 + 1)


def insert(connection: sqlite3.Connection, n: int) -> None:
    connection.execute("INSERT INTO diary VALUES (?, ?, ?)", (n, text_of(n), n / 7))


def write_forever(database: str) -> None:
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    connection.execute(SCHEMA)
    n = connection.execute("SELECT coalesce(max(n), 0) FROM diary").fetchone()[0]
    while True:
        n += 1
        insert(connection, n)
        print(n, time.time(), flush=True)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    write_forever(sys.argv[1])
