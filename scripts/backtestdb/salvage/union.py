"""The new database: rows of the damaged file first, then those that only the backup still has."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from backtestdb.database import column_names, quote, table_names
from backtestdb.errors import VerificationError
from backtestdb.plain_tables import make_plain_table
from backtestdb.salvage.objects import SchemaObject
from backtestdb.salvage.pages import PageFile
from backtestdb.salvage.records import Value, bindable
from backtestdb.salvage.shapes import Shape
from backtestdb.salvage.sources import TableSource, agrees_with_an_index, read_source
from backtestdb.table_copy import allow_schema_writes, has_sequences, rowid_name


@dataclass(frozen=True, kw_only=True)
class TableOutcome:
    """Of one table. `lost_pages`, `lost_rows`: what could not be read; how many rows were on the
    pages is not known. `left_out`: rows of the backup that clash with a newer row. `beside`: the
    table to which the rows of the backup went, `rows_beside` of them, because its columns are
    others now. `is_whole`: it was read to its last row.
    """

    table: str
    from_damaged: int = 0
    from_backup: int = 0
    lost_pages: int = 0
    lost_rows: int = 0
    left_out: int = 0
    beside: str = ""
    rows_beside: int = 0
    is_whole: bool = False


def fill_table(
    target: sqlite3.Connection,
    file: PageFile,
    source: TableSource,
    claims: Counter[int],
    *,
    backup_date: str,
) -> TableOutcome:
    """Write a table's rows, those read and those of the backup. `target` has the backup of
    `backup_date` attached as `saved`; empty where there is none."""
    shape = source.shape
    lost_rows = 0
    taken = 0

    for row in read_source(file, source, claims):
        if row is not None and insert_row(target, shape, row[0], row[1]):
            taken += 1
        else:
            lost_rows += 1

    # A table that was read to its last row is taken as it is: a row that only the backup has was
    # deleted since. When that is most of them, an index has to say so too, because another page in
    # the place of a root passes every other check.
    is_saved = bool(backup_date and column_names(target, shape.table, "saved"))
    is_whole = source.is_rooted and not source.lost_pages and not lost_rows
    if is_whole and is_saved and 2 * count_missing(target, shape) > count_saved(target, shape):
        is_whole = agrees_with_an_index(file, source, claims)

    read = TableOutcome(
        table=shape.table,
        from_damaged=taken,
        lost_pages=source.lost_pages,
        lost_rows=lost_rows,
        is_whole=is_whole,
    )

    if is_whole or not is_saved:
        return read
    if not can_be_united(target, shape):
        beside, rows = put_beside(target, shape.table, backup_date)
        return replace(read, beside=beside, rows_beside=rows)

    added = add_from_backup(target, shape)
    return replace(read, from_backup=added, left_out=count_missing(target, shape))


def can_be_united(target: sqlite3.Connection, shape: Shape) -> bool:
    """Return whether a row of the backup can become a row of this table and nothing of it is lost:
    every column of the backup is still there, and those that were added since may be left to their
    default. A column that is gone may have been renamed, and nothing tells."""
    ours = {name.lower() for name in column_names(target, shape.table)}
    theirs = {name.lower() for name in column_names(target, shape.table, "saved")}
    needed = {column.name.lower() for column in shape.columns if not column.is_optional}
    keys = {name.lower() for name in shape.key}
    return theirs <= ours and needed | keys <= theirs


def put_beside(target: sqlite3.Connection, table: str, backup_date: str) -> tuple[str, int]:
    """Put the rows of the backup, whole, into a table of plain columns with its date in the name;
    return the name and how many there are."""
    name = f"{table}_backup_{backup_date}"
    while name in table_names(target):
        name += "_2"
    query = "SELECT sql FROM saved.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)"
    plain = make_plain_table(str(target.execute(query, (table,)).fetchone()[0]), name)

    if plain is None:
        raise VerificationError(f"the table {table} of the backup could not be put beside")
    target.execute(plain)
    listed = ", ".join(map(quote, column_names(target, name)))
    target.execute(
        f"INSERT INTO main.{quote(name)} ({listed}) SELECT {listed} FROM saved.{quote(table)}"
    )

    return name, count(target, name)


def make_orphaned_outcome(target: sqlite3.Connection, table: str, backup_date: str) -> TableOutcome:
    """Return the outcome of a table that only the backup has, and that refers to one that is not
    there any more."""
    beside, rows = put_beside(target, table, backup_date)
    return TableOutcome(table=table, beside=beside, rows_beside=rows)


def keep_together(
    target: sqlite3.Connection,
    group: Sequence[TableSource],
    outcomes: dict[str, TableOutcome],
    *,
    has_backup: bool,
) -> None:
    """Make all tables behind a full-text index what the backup holds, unless all were read whole:
    parts of it make no sense together with parts of another."""
    names = [source.shape.table for source in group]
    if all(outcomes[name].is_whole for name in names):
        return
    for source in group:
        name = source.shape.table
        target.execute(f"DELETE FROM main.{quote(name)}")
        added = add_from_backup(target, source.shape) if has_backup else 0
        outcomes[name] = replace(outcomes[name], from_damaged=0, from_backup=added, is_whole=False)


def insert_row(
    target: sqlite3.Connection, shape: Shape, rowid: int, values: Sequence[Value]
) -> bool:
    """Return whether it was new: a second row of one key is not taken."""
    bound = [bindable(value) for value in values]
    texts = tuple(isinstance(value, bytearray) for value in bound)
    written = [
        v for column, v in zip(shape.columns, bound, strict=False) if not column.is_generated
    ]
    key = [rowid] if shape.rowid_names else []
    return target.execute(make_insert(shape, texts), [*key, *written]).rowcount == 1


@cache
def make_insert(shape: Shape, texts: tuple[bool, ...]) -> str:
    """Return the statement for a row. `texts`: where a value is text that is no UTF-8: it travels
    as its bytes and becomes text inside SQLite. Columns behind the last value get their default."""
    columns = [c for c in zip(shape.columns, texts, strict=False) if not c[0].is_generated]
    names = [*shape.rowid_names, *(quote(column.name) for column, _ in columns)]
    marks = ["?" for _ in shape.rowid_names] + [
        "CAST(? AS TEXT)" if text else "?" for _, text in columns
    ]
    return (
        f"INSERT OR IGNORE INTO main.{quote(shape.table)} ({', '.join(names)}) "
        f"VALUES ({', '.join(marks)})"
    )


def add_from_backup(target: sqlite3.Connection, shape: Shape) -> int:
    """Add the rows whose key is not there yet, under their rowid where that is free."""
    table = quote(shape.table)
    if shape.table not in table_names(target, "saved"):
        return 0

    ours, theirs = column_names(target, shape.table), column_names(target, shape.table, "saved")
    columns = ", ".join(quote(name) for name in theirs if name in ours)
    before = count(target, shape.table)
    rowid = rowid_name(target, shape.table)
    listed = ", ".join([*rowid, columns])
    target.execute(
        f"INSERT OR IGNORE INTO main.{table} ({listed}) SELECT {listed} FROM saved.{table}"
    )

    if rowid and shape.key and shape.alias is None:
        same = " AND ".join(f"there.{quote(name)} IS here.{quote(name)}" for name in shape.key)
        target.execute(
            f"INSERT OR IGNORE INTO main.{table} ({columns}) SELECT {columns} FROM saved.{table} "
            f"AS here WHERE NOT EXISTS (SELECT 1 FROM main.{table} AS there WHERE {same})"
        )

    return count(target, shape.table) - before


def count(target: sqlite3.Connection, table: str) -> int:
    return int(target.execute(f"SELECT count(*) FROM main.{quote(table)}").fetchone()[0])


def count_missing(target: sqlite3.Connection, shape: Shape) -> int:
    """Count rows of the backup whose key is not in the new table."""
    keys = shape.key or shape.rowid_names
    theirs = column_names(target, shape.table, "saved")
    if not keys or not theirs:
        return 0
    # The key was renamed: only numbers can be compared.
    if shape.key and not set(shape.key) <= set(theirs):
        return max(count_saved(target, shape) - count(target, shape.table), 0)

    table = quote(shape.table)
    same = " AND ".join(f"there.{quote(name)} IS here.{quote(name)}" for name in keys)
    query = (
        f"SELECT count(*) FROM saved.{table} AS here"
        f" WHERE NOT EXISTS (SELECT 1 FROM main.{table} AS there WHERE {same})"
    )

    return int(target.execute(query).fetchone()[0])


def count_saved(target: sqlite3.Connection, shape: Shape) -> int:
    if not column_names(target, shape.table, "saved"):
        return 0
    return int(target.execute(f"SELECT count(*) FROM saved.{quote(shape.table)}").fetchone()[0])


def create_virtual_tables(target: sqlite3.Connection, objects: Iterable[SchemaObject]) -> None:
    """Write virtual tables into the schema only."""
    allow_schema_writes(target)
    target.execute("PRAGMA writable_schema = ON")
    # What they show lies in ordinary tables, and their module may be missing.
    for one in objects:
        target.execute(
            "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) "
            "VALUES ('table', ?, ?, 0, ?)",
            (one.name, one.table, one.sql),
        )
    target.execute("PRAGMA writable_schema = OFF")


def raise_sequences(target: sqlite3.Connection, sequences: Iterable[tuple[str, int]]) -> None:
    """Set the highest number that each AUTOINCREMENT table gave out."""
    if not has_sequences(target, "main"):
        return

    # AUTOINCREMENT never gives a number out twice, also after the last rows were deleted.
    for table, number in sequences:
        target.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT ?1, 0"
            " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
            (table,),
        )
        target.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (number, table)
        )
