"""A platform that lives beside a restore: it starts, migrates, writes, crashes and is started again
at once.

Run as a script: `python platform_process.py DATABASE LOG SEED [newest | node MODULE]`. Each life is
a process of its own. The token of every commit is written to LOG after SQLite said that it is
there, so each has to be somewhere. `newest` speaks to SQLite through apsw, whose SQLite is newer
than that of any Python here.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

START = """
CREATE TABLE IF NOT EXISTS platform_log (token TEXT PRIMARY KEY, life INTEGER);
CREATE TABLE IF NOT EXISTS strategies (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
CREATE INDEX IF NOT EXISTS platform_log_by_life ON platform_log (life);
"""
NEWEST_VIEW = (
    "CREATE VIEW IF NOT EXISTS lives AS SELECT group_concat(token ORDER BY life) tokens "
    "FROM platform_log"
)
Execute = Callable[[str], object]


@contextmanager
def running_platform(
    database: Path, log: Path, seed: int, *words: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The supervisor with its platform, until the end of the block; then both are gone."""
    log.touch()
    command = [sys.executable, __file__, str(database), str(log), str(seed), *words]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read_tokens(log: Path) -> list[str]:
    return log.read_text().split()


def supervise_node(database: str, log: str, seed: int, module: str) -> None:
    """The same with better-sqlite3, which lies in the folder `module`."""
    script = str(Path(__file__).with_name("platform.js"))
    for life in range(1_000_000):
        command = ["node", script, module, database, log, str(life), str(seed)]
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
            time.sleep(0.005)


def supervise(database: str, log: str, seed: int, *, newest: bool) -> None:
    """Start one life after the other, without end."""
    for life in range(1_000_000):
        child = os.fork()
        if not child:
            is_well = False
            try:
                live(database, log, life, random.Random(f"{seed} {life}"), newest=newest)
                is_well = True
            finally:  # it dies with its error as any platform does, and is started again
                os._exit(not is_well)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            time.sleep(0.005)


def live(database: str, log: str, life: int, chance: random.Random, *, newest: bool) -> None:
    """Start, migrate, write; leave by closing the database or as a crash does."""
    execute, close = open_newest(database) if newest else open_plain(database)
    execute(f"PRAGMA journal_mode = {chance.choice(['WAL', 'DELETE'])}")
    for statement in START.split(";\n"):
        execute(statement)
    if newest and chance.random() < 0.3:
        execute(NEWEST_VIEW)
    if chance.random() < 0.2:
        execute(f"CREATE TABLE IF NOT EXISTS migrated_{life % 7} (a, b)")
    with Path(log).open("ab", buffering=0) as said:
        for number in range(chance.randrange(40)):
            token = f"{life}-{number}"
            execute("BEGIN IMMEDIATE")
            execute(f"INSERT INTO platform_log VALUES ('{token}', {life})")
            execute("COMMIT")
            said.write(f"{token}\n".encode())
            time.sleep(chance.random() * 0.004)
    if chance.random() < 0.5:
        close()


def open_plain(database: str) -> tuple[Execute, Callable[[], object]]:
    connection = sqlite3.connect(database, timeout=5, isolation_level=None)
    return lambda sql: connection.execute(sql).fetchall(), connection.close


def open_newest(database: str) -> tuple[Execute, Callable[[], object]]:
    import apsw

    connection = apsw.Connection(database)
    connection.set_busy_timeout(5000)
    return lambda sql: list(connection.execute(sql)), connection.close


if __name__ == "__main__":
    if sys.argv[4:5] == ["node"]:
        supervise_node(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[5])
    supervise(sys.argv[1], sys.argv[2], int(sys.argv[3]), newest="newest" in sys.argv[4:])
