"""What can be told of a database at a glance, to see that one holds what another held."""

import sqlite3
from dataclasses import dataclass

from backtestdb.database import count_rows, names_as_stored, ordinary_table_names

Object = tuple[str, str, str, str | None]


@dataclass(frozen=True)
class Outline:
    """`objects`: the schema's type, name, table and text. `rows`: not of virtual tables."""

    pages: int
    objects: frozenset[Object]
    rows: dict[str, int]


def read_outline(connection: sqlite3.Connection) -> Outline:
    """Return the outline of what is seen now: of one state within a transaction."""
    with names_as_stored(connection):
        query = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema"
        objects = frozenset(connection.execute(query).fetchall())
    return Outline(
        pages=connection.execute("PRAGMA main.page_count").fetchone()[0],
        objects=objects,
        rows=count_rows(connection, ordinary_table_names(connection)),
    )


def find_differences(expected: Outline, found: Outline) -> list[str]:
    """Return a sentence for each thing in which the two differ; none when they agree."""
    differences = []
    if expected.pages != found.pages:
        differences.append(f"{found.pages:,} pages instead of {expected.pages:,}")
    lacking = sorted(f"{kind} {name}" for kind, name, *_ in expected.objects - found.objects)
    added = sorted(f"{kind} {name}" for kind, name, *_ in found.objects - expected.objects)
    differences += [f"{name} is missing or another" for name in lacking]
    differences += [f"{name} was not there" for name in added if name not in lacking]
    differences += [
        f"table {table} has {found.rows[table]:,} rows instead of {rows:,}"
        for table, rows in expected.rows.items()
        if found.rows.get(table, rows) != rows
    ]

    return differences
