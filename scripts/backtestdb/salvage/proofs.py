"""Whether a row is of today: an index of its table names it.

A page without a parent can be one that was freed, with rows that were deleted. Where the list of
free pages cannot tell, the indexes can: they name every row that is there, with its key and its
rowid."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backtestdb.database import quote
from backtestdb.salvage.objects import SchemaObject
from backtestdb.salvage.pages import PageFile
from backtestdb.salvage.records import Value
from backtestdb.salvage.rows import Row, read_records
from backtestdb.salvage.shapes import Shape
from backtestdb.salvage.trees import read_tree


@dataclass(frozen=True)
class Index:
    """`places`: where in a row the columns of its entries stand. `root`: the page at which it
    begins."""

    places: tuple[int, ...]
    root: int


# Indexes, each with what load_entries found in it.
Proofs = list[tuple[Index, set[str]]]


def describe_proofs(
    connection: sqlite3.Connection, shape: Shape, objects: Iterable[SchemaObject]
) -> list[Index]:
    """Return the indexes that name every row of the table; a partial one or one of expressions does
    not. `connection` is to a database with the same schema."""
    if shape.is_index:
        return []
    roots = {one.name: one.root for one in objects if one.kind == "index" and one.is_live}
    order = [column.name for column in shape.columns]
    found = []
    listed = connection.execute(f"PRAGMA main.index_list({quote(shape.table)})").fetchall()

    for _, name, _, _, is_partial in listed:
        entries = connection.execute(f"PRAGMA main.index_xinfo({quote(name)})").fetchall()
        columns = [row[2] for row in entries if row[1] >= 0]
        if (
            not is_partial
            and len(columns) == len(entries) - 1
            and roots.get(name)
            and set(columns) <= set(order)
        ):
            found.append(Index(tuple(order.index(column) for column in columns), roots[name]))

    return found


def load_entries(file: PageFile, index: Index) -> set[str] | None:
    """Return key and rowid of every entry that can still be read; None when no page of the index
    can be. An index without entries says that there are no rows."""
    tree = read_tree(file, index.root, is_index=True)
    if not tree.pages:
        return None
    records = read_records(file, tree.pages, Counter())
    return {
        make_entry(record[1])
        for record in records
        if record and len(record[1]) == len(index.places) + 1
    }


def load_proofs(file: PageFile, indexes: Iterable[Index]) -> Proofs:
    """Return those of the indexes of which something can still be read."""
    return [
        (index, entries) for index in indexes if (entries := load_entries(file, index)) is not None
    ]


def make_entry(values: Sequence[Value]) -> str:
    """Return a row's entry in an index, as it is compared: a column of type REAL may hold 3.0 as
    3."""
    return repr([int(v) if isinstance(v, float) and v.is_integer() else v for v in values])


def entry_of(row: Row, index: Index) -> str:
    """Return what the index says of this row; empty when the row ends before the columns of the
    index."""
    rowid, values = row
    if max(index.places) >= len(values):
        return ""
    return make_entry([*(values[place] for place in index.places), rowid])


def is_named(row: Row, proofs: Iterable[tuple[Index, set[str]]]) -> bool:
    """Return whether one of the indexes has an entry for this row."""
    return any(entry_of(row, index) in entries for index, entries in proofs)
