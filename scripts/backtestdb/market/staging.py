"""The staging file, `<database>.staging`: whole sessions as they arrived, in transactions of their
own.

It belongs to one state of the database: both hold its key (`_first_fill`). A file that was left
beside a restored database has another key, and is removed.
"""

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from backtestdb.console import say
from backtestdb.database import BUSY_CODES, DAMAGE_CODES, connect, primary_code, transaction
from backtestdb.errors import BusyError
from backtestdb.files import remove_database, staging_path
from backtestdb.market.bars import ParsedBars, RejectedBar
from backtestdb.market.request_log import EVERY_TICKER, load_ticker_set
from backtestdb.market.work_done import clear_done

LOADING_TASK = "staging"
SCHEMA = (
    "CREATE TABLE job (staging_key TEXT NOT NULL, ticker_set INTEGER NOT NULL, "
    "tickers_sha256 TEXT NOT NULL)",
    "CREATE TABLE tickers (id INTEGER PRIMARY KEY, ticker TEXT NOT NULL UNIQUE)",
    "CREATE TABLE sessions (session_date TEXT PRIMARY KEY, received INTEGER NOT NULL, "
    "stored INTEGER NOT NULL, dropped INTEGER NOT NULL, set_aside INTEGER NOT NULL, "
    "asked_at_utc TEXT NOT NULL, bars BLOB NOT NULL)",
    f"CREATE TABLE rejected (session TEXT NOT NULL, {', '.join(RejectedBar._fields)})",
)


@dataclass(frozen=True)
class Job:
    """What a staging file is for. The database has the same three values in `_first_fill`, so that
    a file which was left beside another state of the database is told from its own."""

    key: str
    ticker_set: int
    tickers_sha256: str


@dataclass
class Staging:
    """The open file, and the numbers that its tickers have in it."""

    connection: sqlite3.Connection
    job: Job
    numbers: dict[str, int]

    @property
    def ticker_set(self) -> int:
        return self.job.ticker_set

    def session_dates(self) -> list[date]:
        rows = self.connection.execute("SELECT session_date FROM sessions ORDER BY 1").fetchall()
        return [date.fromisoformat(day) for (day,) in rows]


def database_path(connection: sqlite3.Connection) -> Path:
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])


def open_staging(connection: sqlite3.Connection) -> Staging | None:
    """Return what an earlier run of this database staged, for this process alone; None where
    there is nothing.

    Raise BusyError while another process has it.
    """
    database = database_path(connection)
    path = staging_path(database) if database.name else None  # in memory: no file, no name
    if path is None or not path.exists():
        return None

    staging = read_staging(path)
    if staging and staging.job == load_job(connection):
        return staging
    if staging:
        staging.connection.close()

    # It belongs to another state of the database, is no database any more, or was never begun: its
    # sessions are asked for again.
    say(f"removed {path}: this state of the database does not wait for what it had staged")
    remove_database(path)
    return None


def read_staging(path: Path) -> Staging | None:
    """Return None for a file that nothing can be read from."""
    file = connect_alone(path)
    try:
        job = Job(
            *file.execute("SELECT staging_key, ticker_set, tickers_sha256 FROM job").fetchone()
        )
        numbers = file.execute("SELECT ticker, id FROM tickers").fetchall()
        return Staging(file, job, dict(numbers))
    except (sqlite3.DatabaseError, TypeError) as error:  # TypeError: a job without a row
        file.close()
        code = primary_code(error) if isinstance(error, sqlite3.Error) else sqlite3.SQLITE_ERROR
        if code in BUSY_CODES:
            raise BusyError(
                f"another process fills this database (it holds {path})",
                next_step="wait for it to end",
            ) from error
        if code not in {*DAMAGE_CODES, sqlite3.SQLITE_ERROR}:
            raise

    return None


def load_job(connection: sqlite3.Connection) -> Job | None:
    """Return the first fill that is under way, as long as its set of tickers is still that one."""
    row = connection.execute(
        "SELECT staging_key, ticker_set, tickers_sha256 FROM _first_fill"
    ).fetchone()
    return Job(*row) if row and row[2] == hash_tickers(connection, row[1]) else None


def hash_tickers(connection: sqlite3.Connection, ticker_set: int) -> str:
    """Return the SHA-256 of a set's tickers. Empty for a set that is gone."""
    if ticker_set == EVERY_TICKER:
        return "every ticker"
    if not connection.execute("SELECT 1 FROM _ticker_sets WHERE id = ?", (ticker_set,)).fetchone():
        return ""
    # After a restore the number may be another set's.
    text = json.dumps(load_ticker_set(connection, ticker_set))
    return hashlib.sha256(text.encode()).hexdigest()


def connect_alone(path: Path) -> sqlite3.Connection:
    """Return a connection that holds its lock until it is closed: two must not fill one file."""
    connection = connect(path, create=True, timeout_seconds=1.0)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


def create_staging(connection: sqlite3.Connection, ticker_set: int, begun_at_utc: str) -> Staging:
    """Create a staging file for this database, which knows it from now on."""
    job = Job(uuid.uuid4().hex, ticker_set, hash_tickers(connection, ticker_set))
    file = connect_alone(staging_path(database_path(connection)))
    file.execute("PRAGMA journal_mode = WAL")
    # After a power cut the last sessions may be missing, none is torn.
    file.execute("PRAGMA synchronous = NORMAL")

    with transaction(file):
        for statement in SCHEMA:
            file.execute(statement)
        file.execute(
            "INSERT INTO job (staging_key, ticker_set, tickers_sha256) VALUES (?, ?, ?)",
            (job.key, job.ticker_set, job.tickers_sha256),
        )

    with transaction(connection):
        connection.execute(
            "INSERT OR REPLACE INTO _first_fill (id, staging_key, ticker_set, tickers_sha256, "
            "begun_at_utc) VALUES (1, ?, ?, ?, ?)",
            (job.key, job.ticker_set, job.tickers_sha256, begun_at_utc),
        )
        clear_done(connection, LOADING_TASK)

    return Staging(file, job, {})


def stage_session(
    staging: Staging, session_date: date, bars: ParsedBars, asked_at_utc: str
) -> None:
    """Stage a session, instead of what an earlier answer about it said: its bars as one value,
    and what was found out about the answer."""
    new = [ticker for ticker in bars.tickers.tolist() if ticker not in staging.numbers]
    numbers = {ticker: len(staging.numbers) + place for place, ticker in enumerate(new)}
    number_of = {**staging.numbers, **numbers}
    ids = np.array([number_of[ticker] for ticker in bars.tickers], dtype="int32")

    values = ids.tobytes() + bars.prices.tobytes() + bars.volume.tobytes()
    day = session_date.isoformat()

    with transaction(staging.connection):
        staging.connection.executemany(
            "INSERT INTO tickers (ticker, id) VALUES (?, ?)", list(numbers.items())
        )
        staging.connection.execute(
            "INSERT OR REPLACE INTO sessions (session_date, received, stored, dropped, set_aside, "
            "asked_at_utc, bars) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (day, *bars.counts, asked_at_utc, values),
        )

        staging.connection.execute("DELETE FROM rejected WHERE session = ?", (day,))
        names = ("session", *RejectedBar._fields)
        staging.connection.executemany(
            f"INSERT INTO rejected ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            [(day, *bar) for bar in bars.rejected],
        )

    staging.numbers.update(numbers)


def iterate_records(staging: Staging) -> Iterator[tuple[Any, ...]]:
    return staging.connection.execute(
        "SELECT session_date, received, stored, dropped, set_aside, asked_at_utc FROM sessions "
        "ORDER BY 1"
    )


def remove_staging(database: Path) -> None:
    remove_database(staging_path(database))


def load_staged_dates(connection: sqlite3.Connection, tickers: Sequence[str]) -> list[date]:
    """Return the sessions that wait in a staging file, if they are kept for all of `tickers`."""
    staging = open_staging(connection)
    if staging is None:
        return []
    with closing(staging.connection):
        return staged_for(connection, staging, tickers)


def staged_for(
    connection: sqlite3.Connection, staging: Staging, tickers: Sequence[str]
) -> list[date]:
    is_kept = staging.ticker_set == EVERY_TICKER or set(tickers) <= set(
        load_ticker_set(connection, staging.ticker_set)
    )
    return staging.session_dates() if is_kept else []


def count_staged_bars(staging: Staging) -> int:
    found = staging.connection.execute("SELECT coalesce(sum(stored), 0) FROM sessions").fetchone()
    return int(found[0])
