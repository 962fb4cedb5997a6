"""The checks of a new database, before anything of the old one is touched."""

import sqlite3
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from backtestdb.database import connect, count_foreign_key_violations, table_names, verify_integrity
from backtestdb.errors import VerificationError

LARGEST = ("daily_metrics", "ohlcv_data")
TABLES_AT_ONCE = 2
CACHE_KILOBYTES = 131_072


def verify_new_content(
    connection: sqlite3.Connection, path: Path, expected_tables: Collection[str]
) -> None:
    """Raise VerificationError unless the whole file `path`, which `connection` has open outside of
    a transaction, holds what it must."""
    verify_tables(path, table_names(connection))
    verify_integrity(connection)

    missing = set(expected_tables) - set(table_names(connection))
    if missing:
        raise VerificationError(
            f"tables are missing in the new database: {', '.join(sorted(missing))}"
        )

    violations = count_foreign_key_violations(connection)
    if violations:
        raise VerificationError(f"{violations} rows of the new database have no parent")


def verify_tables(path: Path, tables: list[str]) -> None:
    """Compare every index with its table. Raise VerificationError with the first finding."""
    # With ten million rows that takes as long as fetching them, and SQLite works on one core for a
    # connection: so two tables at a time, the large ones first.
    ordered = [*(t for t in LARGEST if t in tables), *(t for t in tables if t not in LARGEST)]
    with ThreadPoolExecutor(TABLES_AT_ONCE) as workers:
        for table, finding in zip(
            ordered, workers.map(lambda table: check_table(path, table), ordered), strict=True
        ):
            if finding != "ok":
                raise VerificationError(f"integrity_check of {table} found: {finding}")


def check_table(path: Path, table: str) -> str:
    with closing(connect(path, read_only=True)) as connection:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KILOBYTES}")
        name = table.replace("'", "''")
        return str(connection.execute(f"PRAGMA integrity_check('{name}')").fetchone()[0])
