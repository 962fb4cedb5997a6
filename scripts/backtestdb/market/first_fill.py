"""A first fill: sessions are set aside as they arrive, and loaded by ticker when all are there.

Rows that arrive by session and are stored by ticker hit another page each: 2.4 times slower with the default
cache. So each session goes as one value into a file of its own, `<database>.staging`, in a transaction that is
its record too. A killed run finds it again.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtestdb.database import BUSY_CODES, DAMAGE_CODES, connect, primary_code, transaction
from backtestdb.errors import BusyError
from backtestdb.files import remove_database
from backtestdb.market.bar_rows import save_bar_columns, save_rejected
from backtestdb.market.grouped import ASIDE_COLUMNS, SessionBars
from backtestdb.market.request_log import EVERY_TICKER, load_ticker_set, save_session_answer
from backtestdb.market.sessions import make_midnights_ms, sunday_based_weekday
from backtestdb.market.work_done import clear_done, load_done, save_done
from backtestdb.schema import SQL_DIR, ensure_schema

INDEX_NAME = re.compile(r"CREATE INDEX IF NOT EXISTS (\w+)")
# Rows that are there already take part in making an index, so it pays while they are few.
FEW = 4
SORTING_THREADS = 2

TICKERS_PER_READ = 1000
TICKERS_PER_INSERT = 100
SUFFIX = ".staging"
TASK = "staging"
SCHEMA = (
    "CREATE TABLE job (ticker_set INTEGER NOT NULL)",
    "CREATE TABLE tickers (id INTEGER PRIMARY KEY, ticker TEXT NOT NULL UNIQUE)",
    "CREATE TABLE sessions (session_date TEXT PRIMARY KEY, received INTEGER NOT NULL, stored INTEGER NOT NULL,"
    " dropped INTEGER NOT NULL, set_aside INTEGER NOT NULL, asked_at_utc TEXT NOT NULL, bars BLOB NOT NULL)",
    f"CREATE TABLE aside ({', '.join(ASIDE_COLUMNS)})",
)


@dataclass
class Staging:
    """The open file, and the numbers that its tickers have in it."""

    connection: sqlite3.Connection
    ticker_set: int
    numbers: dict[str, int]

    def session_dates(self) -> list[date]:
        rows = self.connection.execute("SELECT session_date FROM sessions ORDER BY 1").fetchall()
        return [date.fromisoformat(day) for (day,) in rows]


def staging_path(database: Path) -> Path:
    return database.with_name(database.name + SUFFIX)


def database_path(connection: sqlite3.Connection) -> Path:
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])


def open_staging(path: Path) -> Staging | None:
    """What an earlier run set aside, for this process alone; None where there is nothing. A file that is no
    database any more, or one that was never begun, is removed: its sessions are asked for again. Raise BusyError
    while another process has it."""
    if not path.exists():
        return None
    connection = connect_alone(path)
    try:
        (ticker_set,) = connection.execute("SELECT ticker_set FROM job").fetchone()
        numbers = connection.execute("SELECT ticker, id FROM tickers").fetchall()
        return Staging(connection, ticker_set, dict(numbers))
    except sqlite3.DatabaseError as error:
        connection.close()
        if primary_code(error) in BUSY_CODES:
            raise BusyError(
                f"another process fills this database (it holds {path})", next_step="wait for it to end"
            ) from error
        if primary_code(error) not in {*DAMAGE_CODES, sqlite3.SQLITE_ERROR}:
            raise
    remove_database(path)
    return None


def connect_alone(path: Path) -> sqlite3.Connection:
    """Two processes must not fill one staging file: the first one keeps its lock for as long as it is open."""
    connection = connect(path, create=True, timeout_seconds=1.0)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


def create_staging(path: Path, ticker_set: int) -> Staging:
    """WAL with synchronous=NORMAL: after a power cut the last sessions may be missing, none is torn."""
    connection = connect_alone(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    with transaction(connection):
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO job VALUES (?)", (ticker_set,))
    return Staging(connection, ticker_set, {})


def stage_session(staging: Staging, bars: SessionBars, asked_at_utc: str) -> None:
    """Set a session aside: its bars as one value, and what was found out about the answer."""
    new = [ticker for ticker in bars.tickers if ticker not in staging.numbers]
    first = len(staging.numbers)
    numbers = {ticker: first + place for place, ticker in enumerate(new)}
    staging.numbers.update(numbers)
    ids = np.array([staging.numbers[ticker] for ticker in bars.tickers], dtype="int32")
    values = ids.tobytes() + bars.prices.tobytes() + bars.volume.tobytes()
    rejected = [tuple(row) for row in bars.rejected.to_numpy().tolist()]
    with transaction(staging.connection):
        staging.connection.executemany(
            "INSERT INTO tickers VALUES (?, ?)", [(n, t) for t, n in numbers.items()]
        )
        staging.connection.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
            (bars.session_date.isoformat(), *bars.counts, asked_at_utc, values),
        )
        marks = ", ".join("?" * len(ASIDE_COLUMNS))
        staging.connection.executemany(f"INSERT INTO aside VALUES ({marks})", rejected)


def load_staging(connection: sqlite3.Connection, staging: Staging, advance: Any) -> None:
    """Store all that was set aside, ticker by ticker, and end with the record of the sessions. Killed, it goes
    on where it was. Nothing more may be set aside once this has begun."""
    tickers = sorted(staging.numbers)
    place_of = np.empty(len(tickers), dtype="int64")
    place_of[[staging.numbers[ticker] for ticker in tickers]] = np.arange(len(tickers))
    done = load_done(connection, TASK)
    advance(done)
    days = staging.session_dates()
    for first in range(done, len(tickers), TICKERS_PER_READ):
        stop = min(first + TICKERS_PER_READ, len(tickers))
        values = read_bars(staging, place_of, first, stop, len(days))
        for start in range(first, stop, TICKERS_PER_INSERT):
            end = min(start + TICKERS_PER_INSERT, stop)
            with transaction(connection):
                part = values[:, start - first : end - first]
                save_bar_columns(connection, make_columns(tickers[start:end], days, part))
                save_done(connection, TASK, end)
            advance(end - start)
    finish_loading(connection, staging)


def read_bars(staging: Staging, place_of: np.ndarray, first: int, stop: int, sessions: int) -> np.ndarray:
    """open, high, low, close, volume × tickers from place `first` to before `stop` × sessions; NaN where there
    is no bar."""
    values = np.full((5, stop - first, sessions), np.nan)
    rows = staging.connection.execute("SELECT stored, bars FROM sessions ORDER BY session_date")
    for session, (count, blob) in enumerate(rows):
        places = place_of[np.frombuffer(blob, "int32", count)] - first
        here = (places >= 0) & (places < stop - first)
        prices = np.frombuffer(blob, "float64", 4 * count, 4 * count).reshape(4, count)
        volume = np.frombuffer(blob, "int64", count, 36 * count)
        values[:4, places[here], session] = prices[:, here]
        values[4, places[here], session] = volume[here]
    return values


def make_columns(tickers: Sequence[str], days: Sequence[date], values: np.ndarray) -> list[list[Any]]:
    """BAR_COLUMNS by ticker and session, of those that have a bar."""
    index = pd.DatetimeIndex(list(days))
    ticker, session = np.nonzero(np.isfinite(values[0]))
    count = len(ticker)
    return [
        np.array(tickers, dtype=object)[ticker].tolist(),
        make_midnights_ms(index)[session].tolist(),
        *(values[row, ticker, session].tolist() for row in range(4)),
        values[4, ticker, session].astype("int64").tolist(),
        ["1day"] * count,
        [None] * count,
        sunday_based_weekday(index)[session].tolist(),
    ]


def finish_loading(connection: sqlite3.Connection, staging: Staging) -> None:
    rejected = pd.DataFrame(
        staging.connection.execute("SELECT * FROM aside").fetchall(), columns=ASIDE_COLUMNS
    )
    with transaction(connection):
        for row in iterate_records(staging):
            session_date, *counts, asked_at_utc = row
            save_session_answer(connection, session_date, staging.ticker_set, counts, asked_at_utc)
        if len(rejected):
            save_rejected(connection, rejected, max(row[-1] for row in iterate_records(staging)))
        clear_done(connection, TASK)


def iterate_records(staging: Staging) -> Iterator[tuple[Any, ...]]:
    return staging.connection.execute(
        "SELECT session_date, received, stored, dropped, set_aside, asked_at_utc FROM sessions ORDER BY 1"
    )


def is_loaded(connection: sqlite3.Connection, staging: Staging) -> bool:
    """Whether the database has every session of the file already: a kill came before the file was removed."""
    recorded = set(
        connection.execute(
            "SELECT session_date, asked_at_utc FROM _sessions_asked WHERE ticker_set = ?",
            (staging.ticker_set,),
        )
    )
    return all((row[0], row[-1]) in recorded for row in iterate_records(staging))


def remove_staging(database: Path) -> None:
    remove_database(staging_path(database))


def load_staged_dates(connection: sqlite3.Connection, tickers: Sequence[str]) -> list[date]:
    """The sessions that wait in a staging file, if they are kept for all of `tickers`."""
    database = database_path(connection)
    staging = open_staging(staging_path(database)) if database.name else None  # in memory: no file, no name
    if staging is None:
        return []
    with closing(staging.connection):
        return staged_for(connection, staging, tickers)


def staged_for(connection: sqlite3.Connection, staging: Staging, tickers: Sequence[str]) -> list[date]:
    is_kept = staging.ticker_set == EVERY_TICKER or set(tickers) <= set(
        load_ticker_set(connection, staging.ticker_set)
    )
    return staging.session_dates() if is_kept else []


def count_staged_bars(staging: Staging) -> int:
    found = staging.connection.execute("SELECT coalesce(sum(stored), 0) FROM sessions").fetchone()
    return int(found[0])


@contextmanager
def deferred_indexes(connection: sqlite3.Connection, table: str, coming_rows: int) -> Iterator[None]:
    """Drop the table's indexes of the schema while it is filled with many times the rows that it has, and make
    them again: daily_metrics takes 0.2 instead of 0.05 million rows a second. Should the process be killed in
    between, the next command that writes makes them (`ensure_schema`)."""
    (rows,) = connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()
    if rows * FEW > coming_rows:
        yield
        return
    for name in INDEX_NAME.findall((SQL_DIR / "schema" / "recoverable" / f"{table}.sql").read_text()):
        connection.execute(f"DROP INDEX IF EXISTS {name}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA threads = {SORTING_THREADS}")
        ensure_schema(connection, ["recoverable"])
