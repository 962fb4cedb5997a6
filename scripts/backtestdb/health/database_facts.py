"""The database itself: where, how large, which tables, how many rows."""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from backtestdb.backups.backup_dir import find_missing_disk
from backtestdb.backups.identity import load_database_id
from backtestdb.database import BUSY_CODES, DAMAGE_CODES, primary_code, quote, table_names
from backtestdb.schema import load_table_classes
from backtestdb.untouched import size_of

State = Literal[
    "missing", "no_disk", "empty", "damaged", "too_new", "interrupted", "unreadable", "present"
]
COUNTED_UP_TO = 100_000


@dataclass(frozen=True)
class Table:
    """`group` is the folder of its SQL file. Above 100,000 rows `rows` is the span of the row
    numbers, an upper bound that costs two look-ups instead of the whole index; `is_exact` is then
    False."""

    name: str
    group: str
    rows: int
    is_exact: bool


@dataclass(frozen=True, kw_only=True)
class DatabaseFacts:
    """`origin`: where DATABASE_PATH came from. `bytes` counts the log beside the file. `detail`:
    SQLite's words when the file is damaged or cannot be read. `empty`: no tables, or none with a
    row in it. `interrupted`: a killed program left a transaction that the next one with the right
    to write takes back. `database_id`: empty where none is stored, or the file cannot be read."""

    path: Path
    origin: str
    state: State
    bytes: int = 0
    tables: list[Table] = field(default_factory=list)
    detail: str = ""
    database_id: str = ""


def make_absent_facts(path: Path, origin: str) -> DatabaseFacts | None:
    """Return facts about a file that need not be opened, None where there is something to open."""
    if path.is_dir():
        return DatabaseFacts(path=path, origin=origin, state="unreadable", detail="it is a folder")
    if path.is_symlink() and not path.exists():
        return DatabaseFacts(
            path=path,
            origin=origin,
            state="no_disk",
            detail=f"a symbolic link to {path.readlink()}",
        )

    if missing := find_missing_disk(path):
        return DatabaseFacts(
            path=path,
            origin=origin,
            state="no_disk",
            detail=f"on a disk that is to be mounted at {missing}",
        )

    if not path.exists():
        return DatabaseFacts(path=path, origin=origin, state="missing")
    if not size_of(path) and not size_of(Path(f"{path}-wal")):
        return DatabaseFacts(path=path, origin=origin, state="empty")

    return None


def make_failed_facts(path: Path, origin: str, error: sqlite3.Error) -> DatabaseFacts:
    """Return the facts of a database that cannot be read."""
    code = primary_code(error)
    state: State = "damaged" if code in DAMAGE_CODES else "unreadable"
    # A journal waits to be rolled back.
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN} and size_of(
        Path(f"{path}-journal")
    ):
        state = "interrupted"
    detail = "another program holds it" if code in BUSY_CODES else str(error)
    return DatabaseFacts(path=path, origin=origin, state=state, bytes=size_of(path), detail=detail)


def load_database_facts(connection: sqlite3.Connection, path: Path, origin: str) -> DatabaseFacts:
    """Return the facts of a database that can be read."""
    classes = load_table_classes()
    tables = [
        Table(name, classes.get(name, "irreplaceable"), *count_quickly(connection, name))
        for name in table_names(connection)
    ]

    has_rows = any(table.rows for table in tables if table.group != "bookkeeping")
    return DatabaseFacts(
        path=path,
        origin=origin,
        state="present" if has_rows else "empty",
        bytes=size_of(path) + size_of(Path(f"{path}-wal")),
        tables=tables,
        database_id=load_database_id(connection),
    )


def rows_of(database: DatabaseFacts) -> dict[str, int]:
    """Return rows per table, of large ones an upper bound."""
    return {table.name: table.rows for table in database.tables}


def count_quickly(connection: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Count the rows of a table; return whether that is exact, too: see Table."""
    name = quote(table)
    try:
        first, last = connection.execute(
            f"SELECT (SELECT min(rowid) FROM {name}), (SELECT max(rowid) FROM {name})"
        ).fetchone()
    except sqlite3.OperationalError as error:
        if primary_code(error) in BUSY_CODES:
            raise
        # WITHOUT ROWID: the project's own small tables, and perhaps some of the platform's.
        first, last = (0, 0)

    span = 0 if last is None else last - first + 1
    if span > COUNTED_UP_TO:
        return span, False
    return (
        connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] if last is not None else 0
    ), True
