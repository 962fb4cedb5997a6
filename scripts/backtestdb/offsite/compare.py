"""What differs between two states of the same tables: rows added, removed, changed, by table."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from backtestdb.database import column_names, connect, count_rows, ordinary_table_names, quote
from backtestdb.schema import tables_to_keep
from backtestdb.table_copy import rowid_name


@dataclass(frozen=True, kw_only=True)
class TableChange:
    """From the older state to the newer; `there`: whether the table is in each of them."""

    table: str
    added: int
    removed: int
    changed: int
    there: tuple[bool, bool] = (True, True)

    @property
    def is_change(self) -> bool:
        return self.there != (True, True) or bool(self.added or self.removed or self.changed)


def compare_states(older: Path, newer: Path) -> list[TableChange]:
    """Given two database files, return a change for each irreplaceable table of either, in the
    order of creation. A row is the same row when its key (primary key, or else rowid) is the
    same."""
    with closing(connect(newer, read_only=True)) as connection:
        connection.execute("ATTACH ? AS older", (str(older),))
        now = kept_tables(connection, "main")
        before = kept_tables(connection, "older")
        connection.execute("BEGIN")
        changes = [
            compare_table(connection, table, table in before, table in now)
            for table in dict.fromkeys([*before, *now])
        ]
        connection.execute("ROLLBACK")

    return changes


def kept_tables(connection: sqlite3.Connection, schema: str) -> list[str]:
    ordinary = set(ordinary_table_names(connection, schema))
    return [table for table in tables_to_keep(connection, schema) if table in ordinary]


def compare_table(
    connection: sqlite3.Connection, table: str, was_there: bool, is_there: bool
) -> TableChange:
    """Given a table of either state, return how many rows were added, removed and changed."""
    there = (was_there, is_there)
    if not all(there):
        rows = count_rows(connection, [table], "main" if is_there else "older")[table]
        return TableChange(
            table=table,
            added=rows if is_there else 0,
            removed=rows if was_there else 0,
            changed=0,
            there=there,
        )

    key = find_key(connection, table)
    match = " AND ".join(f"a.{name} IS b.{name}" for name in key)
    names = [quote(name) for name in shared_columns(connection, table)]
    differs = " OR ".join(f"a.{name} IS NOT b.{name}" for name in names) or "FALSE"

    def count_missing(schema: str, other: str) -> int:
        return count(
            connection,
            f"SELECT count(*) FROM {schema}.{quote(table)} a"
            f" WHERE NOT EXISTS (SELECT 1 FROM {other}.{quote(table)} b WHERE {match})",
        )

    changed = count(
        connection,
        f"SELECT count(*) FROM older.{quote(table)} a JOIN main.{quote(table)} b ON {match} "
        f"WHERE {differs}",
    )

    return TableChange(
        table=table,
        added=count_missing("main", "older"),
        removed=count_missing("older", "main"),
        changed=changed,
        there=there,
    )


def find_key(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns that tell a row from others, quoted, in both states."""
    rows = connection.execute(f"PRAGMA main.table_xinfo({quote(table)})").fetchall()
    keys = [quote(row[1]) for row in sorted(rows, key=lambda row: row[5]) if row[5]]
    older = set(column_names(connection, table, "older"))
    if keys and all(name.strip('"') in older for name in keys):
        return keys
    return rowid_name(connection, table) or [
        quote(name) for name in shared_columns(connection, table)
    ]


def shared_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    older = set(column_names(connection, table, "older"))
    return [name for name in column_names(connection, table, "main") if name in older]


def count(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])
