"""Salvage where the platform moved on: columns renamed, dropped or added since the backup, and
tables that this SQLite cannot create. No row is lost in silence."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from backtestdb.config import Settings
from backtestdb.database import column_names, connect, quote
from backtestdb.salvage.report import describe_losses
from backtestdb.salvage.salvage import SalvageResult, salvage
from backtestdb.schema import ensure_schema, load_table_classes
from backup_tools import back_up, environment_of, make_settings
from commands import Project
from salvage_tools import LATER, pages_of
from small_database import zero

KEPT = sorted(name for name, group in load_table_classes().items() if group == "irreplaceable")
ROWS = 12


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Every irreplaceable table with rows, and a full backup of them."""
    settings = make_settings(tmp_path)
    settings.database_path.parent.mkdir(parents=True)
    with closing(connect(settings.database_path, create=True)) as connection:
        ensure_schema(connection)
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for table in KEPT:
            fill(connection, table)
    back_up(settings)
    return settings


def fill(connection: sqlite3.Connection, table: str) -> None:
    columns = connection.execute(f"PRAGMA table_info({quote(table)})").fetchall()
    marks = ", ".join("?" * len(columns))
    for n in range(1, ROWS + 1):
        values = [n if "INT" in row[2] or "REAL" in row[2] else f"{row[1]} {n}" for row in columns]
        connection.execute(f"INSERT INTO {quote(table)} VALUES ({marks})", values)


def rename_column(connection: sqlite3.Connection, table: str) -> bool:
    """The last one; a NOT NULL one where there is one, as the platform did on 2025-11-12."""
    columns = connection.execute(f"PRAGMA table_info({quote(table)})").fetchall()
    chosen = next((row[1] for row in reversed(columns) if row[3] and not row[5]), columns[-1][1])
    connection.execute(f"ALTER TABLE {quote(table)} RENAME COLUMN {quote(chosen)} TO renamed")
    return False


def rename_key(connection: sqlite3.Connection, table: str) -> bool:
    columns = connection.execute(f"PRAGMA table_info({quote(table)})").fetchall()
    chosen = next((row[1] for row in columns if row[5]), columns[0][1])
    connection.execute(f"ALTER TABLE {quote(table)} RENAME COLUMN {quote(chosen)} TO renamed_key")
    return False


def drop_column(connection: sqlite3.Connection, table: str) -> bool:
    for name in reversed(column_names(connection, table)):
        with suppress(sqlite3.OperationalError):  # it is part of a key or an index
            connection.execute(f"ALTER TABLE {quote(table)} DROP COLUMN {quote(name)}")
            return False
    return True


def add_column(connection: sqlite3.Connection, table: str) -> bool:
    connection.execute(f"ALTER TABLE {quote(table)} ADD COLUMN added TEXT NOT NULL DEFAULT 'new'")
    return True


@pytest.mark.parametrize("change", [rename_column, rename_key, drop_column, add_column])
def test_salvage_after_a_change_of_columns_keeps_every_row_of_the_backup(
    settings: Settings, change: Callable[[sqlite3.Connection, str], bool]
) -> None:
    database = settings.database_path
    saved = read_rows(database, KEPT)
    with closing(connect(database)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        united = {table for table in KEPT if change(connection, table)}
    for table in KEPT:
        zero(database, *pages_of(database, table))
    salvaged = salvage(database, settings.backup_dir, LATER)
    assert not salvaged.is_complete
    losses = "\n".join(describe_losses(salvaged))
    for outcome in salvaged.tables:
        if outcome.table not in KEPT:
            continue
        assert outcome.left_out == 0, "other columns are no clash"
        if outcome.table in united:
            assert (outcome.from_backup, outcome.beside) == (ROWS, ""), outcome.table
            assert all(
                row[: len(saved[outcome.table][0])] in saved[outcome.table]
                for row in rows_of(salvaged, outcome.table)
            )
        else:
            assert (outcome.from_backup, outcome.rows_beside) == (0, ROWS), outcome.table
            assert rows_of(salvaged, outcome.beside) == saved[outcome.table]
            assert f"{outcome.table} has other columns in the backup" in losses


def read_rows(database: Path, tables: list[str]) -> dict[str, list[tuple[object, ...]]]:
    with closing(connect(database)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {quote(table)} ORDER BY 1, 2").fetchall()
            for table in tables
        }


def rows_of(salvaged: SalvageResult, table: str) -> list[tuple[object, ...]]:
    return read_rows(salvaged.path, [table])[table]


def test_salvage_of_whole_tables_with_renamed_columns_needs_no_backup(settings: Settings) -> None:
    with closing(connect(settings.database_path)) as connection:
        for table in KEPT:
            rename_key(connection, table)
    salvaged = salvage(settings.database_path, settings.backup_dir, LATER)
    assert salvaged.is_complete
    assert not any(outcome.beside for outcome in salvaged.tables)


def test_restore_over_damage_behind_a_renamed_column_succeeds(
    settings: Settings, tmp_path: Path
) -> None:
    database = settings.database_path
    with closing(connect(database)) as connection:
        rename_column(connection, "strategies")
    zero(database, *pages_of(database, "strategies"))
    project = Project(tmp_path, settings=environment_of(settings))
    said = project.check("restore_database.py", "--skip-backfill", "--yes", expect=3)
    assert "strategies has other columns in the backup" in said
    with closing(connect(database)) as connection:
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_schema WHERE name LIKE 'strategies_backup%'"
            )
        ]
        assert len(tables) == 1
        assert connection.execute(f"SELECT count(*) FROM {tables[0]}").fetchone() == (ROWS,)


OWN_TABLES = """
CREATE TABLE own_checks (id INTEGER PRIMARY KEY, ticker TEXT NOT NULL CHECK (is_ticker(ticker)),
    note TEXT);
CREATE TABLE own_loud (id INTEGER PRIMARY KEY, name TEXT,
    loud TEXT GENERATED ALWAYS AS (shout(name)) STORED);
CREATE TABLE own_order (name TEXT PRIMARY KEY COLLATE german, n INT) WITHOUT ROWID;
INSERT INTO own_checks VALUES (1, 'AAPL', 'first'), (2, 'MSFT', 'second');
INSERT INTO own_loud (id, name) VALUES (1, 'abc'), (7, 'def');
INSERT INTO own_order VALUES ('b', 1), ('A', 2);
"""
OWN_ROWS = {
    "own_checks": [(1, "AAPL", "first"), (2, "MSFT", "second")],
    "own_loud": [(1, "abc", "ABC"), (7, "def", "DEF")],
    "own_order": [("A", 2), ("b", 1)],
}


def add_own_tables(database: Path) -> None:
    """As a platform makes them that registers functions and a collation of its own."""
    with closing(apsw.Connection(str(database))) as platform:
        platform.create_scalar_function(
            "is_ticker", lambda text: text.isupper(), 1, deterministic=True
        )
        platform.create_scalar_function("shout", lambda text: text.upper(), 1, deterministic=True)
        platform.create_collation("german", lambda one, other: (one > other) - (one < other))
        platform.execute(OWN_TABLES)


@pytest.mark.parametrize("with_backup", [True, False])
def test_salvage_of_tables_that_this_sqlite_cannot_create_brings_every_row(
    settings: Settings, with_backup: bool
) -> None:
    add_own_tables(settings.database_path)
    if not with_backup:
        for path in settings.backup_dir.iterdir():
            path.unlink()
    salvaged = salvage(settings.database_path, settings.backup_dir, LATER)
    assert {table: rows_of(salvaged, table) for table in OWN_ROWS} == OWN_ROWS
    losses = describe_losses(salvaged)
    assert not salvaged.is_complete
    assert all(
        any(line.startswith(f"{table} has plain columns") for line in losses) for table in OWN_ROWS
    )
    assert all(outcome.is_whole for outcome in salvaged.tables if outcome.table in OWN_ROWS)


@pytest.mark.skipif(
    sqlite3.sqlite_version_info >= (3, 46), reason="this Python's SQLite reads 1_000"
)
def test_salvage_of_a_table_in_newer_words_brings_every_row(settings: Settings) -> None:
    with closing(apsw.Connection(str(settings.database_path))) as platform:
        platform.execute(
            "CREATE TABLE newest (id INTEGER PRIMARY KEY, n INT CHECK (n < 1_000) DEFAULT 1_0)"
        )
        platform.execute("INSERT INTO newest VALUES (1, 5), (2, 999)")
    salvaged = salvage(settings.database_path, settings.backup_dir, LATER)
    assert rows_of(salvaged, "newest") == [(1, 5), (2, 999)]
    assert "newest has plain columns" in "\n".join(describe_losses(salvaged))
    assert {outcome.table for outcome in salvaged.tables} >= {*KEPT, "newest"}
