"""A table that is filled for the first time gets its secondary indexes afterwards."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from backtestdb.schema import SQL_DIR, ensure_schema

INDEX_NAME = re.compile(r"CREATE INDEX IF NOT EXISTS (\w+)")
# Rows that are there already take part in making an index, so it pays while they are few.
FEW = 4
SORTING_THREADS = 2


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
