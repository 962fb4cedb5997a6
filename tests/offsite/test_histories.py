"""Any history of a database: each copy gives back what the source held at that moment, table hash
by table hash."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import connect, quote
from backtestdb.offsite.record import Record
from backtestdb.schema import ensure_schema
from offsite_tools import Machine, make_machine, read_hashes

TABLES = (
    "CREATE TABLE {} (id INTEGER PRIMARY KEY, a TEXT, b REAL)",
    "CREATE TABLE {} (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b BLOB)",
    "CREATE TABLE {} (a TEXT, b)",
    "CREATE TABLE {} (a TEXT PRIMARY KEY, b INTEGER)",
    "CREATE TABLE {} (a TEXT PRIMARY KEY, b INTEGER) WITHOUT ROWID",
    "CREATE TABLE {} (id INTEGER PRIMARY KEY DESC, a TEXT UNIQUE, b)",
    "CREATE TABLE {} (a TEXT, b INTEGER, c AS (b * 2) STORED, d AS (a || 'x'))",
    "CREATE TABLE {} (rowid TEXT, a TEXT, b) STRICT",
)
Step = Callable[[sqlite3.Connection, random.Random], None]


def own_tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'own %'"
    )
    return sorted(name for (name,) in rows)


def create(connection: sqlite3.Connection, chance: random.Random) -> None:
    name = f"own {chance.randrange(10**6)}"
    text = chance.choice(TABLES).format(quote(name))
    connection.execute(
        text.replace("rowid TEXT", "rowid TEXT").replace(", b) STRICT", ", b ANY) STRICT")
    )
    if chance.random() < 0.5:
        connection.execute(f"CREATE INDEX {quote('by a of ' + name)} ON {quote(name)} (a)")
    fill(connection, chance)


def fill(connection: sqlite3.Connection, chance: random.Random) -> None:
    for table in own_tables(connection):
        for _ in range(chance.randrange(200)):
            a, b = (
                f"{chance.random()} {'text ' * chance.randrange(20)}",
                chance.choice([None, 1, 2.5, b"\0\xff"]),
            )
            kind = connection.execute("SELECT typeof(?)", (b,)).fetchone()[0]
            usable = b if kind in {"integer", "null"} else chance.randrange(9)
            connection.execute(
                f"INSERT OR IGNORE INTO {quote(table)} (a, b) VALUES (?, ?)", (a, usable)
            )


def drop(connection: sqlite3.Connection, chance: random.Random) -> None:
    if tables := own_tables(connection):
        connection.execute(f"DROP TABLE {quote(chance.choice(tables))}")


def rename(connection: sqlite3.Connection, chance: random.Random) -> None:
    if tables := own_tables(connection):
        name = f"own {chance.randrange(10**6)}"
        connection.execute(f"ALTER TABLE {quote(chance.choice(tables))} RENAME TO {quote(name)}")


def add_column(connection: sqlite3.Connection, chance: random.Random) -> None:
    if tables := own_tables(connection):
        column = quote(f"column {chance.randrange(10**6)}")
        connection.execute(
            f"ALTER TABLE {quote(chance.choice(tables))} ADD COLUMN {column} INTEGER DEFAULT 7"
        )


def delete_many(connection: sqlite3.Connection, chance: random.Random) -> None:
    for table in own_tables(connection):
        connection.execute(
            f"DELETE FROM {quote(table)} WHERE abs(random()) % 10 < {chance.randrange(10)}"
        )


def delete_all(connection: sqlite3.Connection, chance: random.Random) -> None:
    if tables := own_tables(connection):
        connection.execute(f"DELETE FROM {quote(chance.choice(tables))}")


def update(connection: sqlite3.Connection, chance: random.Random) -> None:
    for table in own_tables(connection):
        connection.execute(
            f"UPDATE OR IGNORE {quote(table)} SET a = a || 'u' WHERE b = {chance.randrange(9)}"
        )


def add_large_row(connection: sqlite3.Connection, chance: random.Random) -> None:
    connection.execute(
        "INSERT INTO strategies (name, ticker, timeframe, config) VALUES (?, 'A', '1day', ?)",
        (f"{chance.random()}", chance.randbytes(chance.choice([20_000, 300_000])).hex()),
    )


def add_ten_megabytes(connection: sqlite3.Connection, chance: random.Random) -> None:
    if chance.random() < 0.1:
        connection.execute("CREATE TABLE IF NOT EXISTS large (b BLOB)")
        connection.execute("INSERT INTO large VALUES (?)", (chance.randbytes(10_000_000),))


def vacuum(connection: sqlite3.Connection, _chance: random.Random) -> None:
    connection.execute("VACUUM")


def add_view_and_trigger(connection: sqlite3.Connection, chance: random.Random) -> None:
    name = chance.randrange(10**6)
    connection.execute(f"CREATE VIEW view_{name} AS SELECT name FROM strategies")
    connection.execute(
        f"CREATE TRIGGER trigger_{name} AFTER INSERT ON strategies BEGIN UPDATE strategies "
        "SET ticker = ticker WHERE id = new.id; END"
    )


def set_version(connection: sqlite3.Connection, chance: random.Random) -> None:
    connection.execute(f"PRAGMA user_version = {chance.randrange(100)}")


STEPS: tuple[Step, ...] = (
    *(create, create, fill, fill, update, drop, rename, add_column, delete_many, delete_all),
    *(add_large_row, add_ten_megabytes, vacuum, add_view_and_trigger, set_version),
)


def live(machine: Machine, chance: random.Random) -> list[tuple[Record, object]]:
    """A history with a copy now and then; return each with what the source held."""
    copies: list[tuple[Record, object]] = []
    with closing(connect(machine.database, create=True)) as connection:
        connection.execute(f"PRAGMA journal_mode = {chance.choice(['WAL', 'DELETE'])}")
        connection.execute("PRAGMA synchronous = OFF")
        ensure_schema(connection)
        create(connection, chance)
    for _ in range(chance.randrange(3, 9)):
        for _ in range(chance.randrange(1, 4)):
            with closing(connect(machine.database)) as connection:
                connection.execute("PRAGMA synchronous = OFF")
                chance.choice(STEPS)(connection, chance)
        copies.append(
            (machine.send(is_minute=chance.random() < 0.7), read_hashes(machine.database))
        )
    return copies


def verify_history(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    machine = make_machine(folder)
    copies = live(machine, chance)
    for record, expected in chance.sample(copies, min(3, len(copies))):
        assert read_hashes(machine.fetch(record)) == expected, f"seed {seed}: {record.name}"


@pytest.mark.parametrize("seed", range(12))
def test_a_copy_gives_back_what_the_source_held(seed: int, tmp_path: Path) -> None:
    verify_history(tmp_path, seed)


@pytest.mark.long
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_histories_come_back(hundred: int, tmp_path: Path) -> None:
    import shutil

    for seed in range(1000 + 100 * hundred, 1100 + 100 * hundred):
        verify_history(tmp_path / str(seed), seed)
        shutil.rmtree(tmp_path / str(seed))
