"""What a stored row of a table can look like: the test that a row, or a whole page, belongs to
it."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from backtestdb.database import quote
from backtestdb.salvage.records import Value
from backtestdb.table_copy import rowid_name


@dataclass(frozen=True, kw_only=True)
class Column:
    """`is_generated` columns may be stored, but cannot be written."""

    name: str
    affinity: str
    is_required: bool
    is_optional: bool
    is_generated: bool


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Columns in the order in which a record holds them. `alias`: the place of the INTEGER PRIMARY
    KEY, which a record leaves empty because it is the rowid. `rowid_names`: none or one name that
    reaches the rowid. `key`: columns of the primary key; empty where the rowid is the only key."""

    table: str
    columns: tuple[Column, ...]
    alias: int | None
    rowid_names: tuple[str, ...]
    is_index: bool
    key: tuple[str, ...]

    @property
    def fewest(self) -> int:
        """Return the fewest values that a row may have: rows from before an ALTER TABLE ADD COLUMN
        end early; their missing columns have a default."""
        needed = [index for index, column in enumerate(self.columns) if not column.is_optional]
        return needed[-1] + 1 if needed else 1


def describe_table(connection: sqlite3.Connection, table: str) -> Shape:
    """Return what rows of a table can look like. `connection` is to a database that has this table,
    with or without rows."""
    info = connection.execute(f"PRAGMA main.table_xinfo({quote(table)})").fetchall()
    listed = connection.execute(
        "SELECT wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?", (table,)
    )
    (is_index, is_strict) = map(bool, listed.fetchone())
    stored = [row for row in info if row[6] != 2]

    if is_index:
        order = primary_key_order(connection, table)
        stored = sorted(
            (row for row in stored if row[0] in order), key=lambda row: order.index(row[0])
        )

    keys = sorted((row for row in info if row[5]), key=lambda row: row[5])
    columns = tuple(make_column(row, is_strict=is_strict) for row in stored)
    has_pk_index = any(
        row[3] == "pk" for row in connection.execute(f"PRAGMA main.index_list({quote(table)})")
    )
    alias = None
    if len(keys) == 1 and not is_index and not has_pk_index:
        alias = [row[0] for row in stored].index(keys[0][0])
    names = tuple(rowid_name(connection, table))

    return Shape(
        table=table,
        columns=columns,
        alias=alias,
        rowid_names=names,
        is_index=is_index,
        key=tuple(row[1] for row in keys),
    )


def describe_indexes(connection: sqlite3.Connection, shape: Shape) -> list[Shape]:
    """Return what an entry of each of its indexes looks like."""
    table = shape.table
    types = {
        row[1]: str(row[2])
        for row in connection.execute(f"PRAGMA main.table_xinfo({quote(table)})")
    }
    shapes = []

    # An entry could pass for a row of a table WITHOUT ROWID.
    for _, name, _, origin, _ in connection.execute(
        f"PRAGMA main.index_list({quote(table)})"
    ).fetchall():
        if shape.is_index and origin == "pk":
            continue
        entries = connection.execute(f"PRAGMA main.index_xinfo({quote(name)})").fetchall()
        columns = tuple(
            Column(
                name=str(column),
                affinity=affinity_of(types.get(column, "INTEGER"), is_strict=False),
                is_required=cid == -1,
                is_optional=False,
                is_generated=False,
            )
            for _, cid, column, *_ in entries
        )
        shapes.append(
            Shape(
                table=f"index {name}",
                columns=columns,
                alias=None,
                rowid_names=(),
                is_index=True,
                key=(),
            )
        )

    return shapes


def primary_key_order(connection: sqlite3.Connection, table: str) -> list[int]:
    """Return the columns as a table WITHOUT ROWID stores them: those of its key first."""
    for _, name, _, origin, _ in connection.execute(
        f"PRAGMA main.index_list({quote(table)})"
    ).fetchall():
        if origin == "pk":
            return [row[1] for row in connection.execute(f"PRAGMA main.index_xinfo({quote(name)})")]
    raise AssertionError(f"{table} has no primary key")


def make_column(row: Sequence[object], *, is_strict: bool) -> Column:
    """Given a row of PRAGMA table_xinfo, return the column. `is_strict`: of a STRICT table."""
    _, name, declared, not_null, default, _, hidden = row
    affinity = affinity_of(str(declared), is_strict=is_strict)
    is_generated = hidden != 0
    return Column(
        name=str(name),
        affinity=affinity,
        is_required=bool(not_null),
        is_optional=not not_null or default is not None,
        is_generated=is_generated,
    )


def affinity_of(declared: str, *, is_strict: bool) -> str:
    """Return a type's affinity by the rules, in their order, of
    https://www.sqlite.org/datatype3.html#determination_of_column_affinity."""
    declared = declared.upper()
    if is_strict and declared == "ANY":
        return "BLOB"

    rules = (
        ("INTEGER", ("INT",)),
        ("TEXT", ("CHAR", "CLOB", "TEXT")),
        ("BLOB", ("BLOB",)),
        ("REAL", ("REAL", "FLOA", "DOUB")),
    )

    for affinity, parts in rules:
        if any(part in declared for part in parts):
            return affinity

    return "NUMERIC" if declared else "BLOB"


def fits(shape: Shape, values: Sequence[Value]) -> bool:
    """Return whether SQLite could have stored this record in the table. Numbers in a column of
    text, for one, are turned into text before they are stored."""
    if not shape.fewest <= len(values) <= len(shape.columns):
        return False
    for index, (column, value) in enumerate(zip(shape.columns, values, strict=False)):
        if index == shape.alias:
            if value is not None:
                return False
        elif value is None:
            if column.is_required or column.name in shape.key:
                return False
        elif column.affinity == "TEXT" and isinstance(value, int | float):
            return False

    return True
