"""Where the rows of each table lie in the damaged file."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from backtestdb.database import Connection, quote
from backtestdb.salvage.objects import Schema, SchemaObject, create_objects
from backtestdb.salvage.pages import PageFile
from backtestdb.salvage.proofs import (
    Index,
    Proofs,
    describe_proofs,
    entry_of,
    is_named,
    load_entries,
    load_proofs,
)
from backtestdb.salvage.records import Value, bindable
from backtestdb.salvage.rows import Row, read_rows
from backtestdb.salvage.shapes import Shape, describe_indexes, describe_table
from backtestdb.salvage.trees import Gap, Tree, read_tree

COMPARED_ROWS = 200
WHOLE_TREE = Gap(0, None, None, -1)


@dataclass(kw_only=True)
class TableSource:
    """`trees`: from its root, and below pages that are lost. `doubtful`: pages that may have been
    free; of their rows those count that one of `proofs` names. `is_rooted`: the damaged file itself
    says where the table begins. `gaps`: where pages of it may lie whose parents are lost."""

    shape: Shape
    is_rooted: bool
    indexes: list[Index]
    trees: list[Tree] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    doubtful: list[Tree] = field(default_factory=list)
    proofs: Proofs = field(default_factory=list)

    @property
    def lost_pages(self) -> int:
        lost = sum(len(tree.gaps) for tree in (*self.trees, *self.doubtful))
        return lost or int(not self.trees)


def read_source(file: PageFile, source: TableSource, claims: Counter[int]) -> Iterator[Row | None]:
    """Yield every row of the table; None for each that is not taken."""
    pages = [number for tree in source.trees for number in tree.pages]
    proofs: Proofs | None = None
    for row in read_rows(file, pages, replace(source.shape, key=()), claims):
        if row and lacks_key(source.shape, row):
            # SQLite lets a key be NULL that is not the rowid. Another table's page in the place of
            # this one's looks the same: the index of the key has to name the row.
            proofs = load_proofs(file, source.indexes) if proofs is None else proofs
            yield row if is_named(row, proofs) else None
        else:
            yield row

    doubtful = [number for tree in source.doubtful for number in tree.pages]
    for row in read_rows(file, doubtful, source.shape, claims):
        yield row if row and is_named(row, source.proofs) else None


def lacks_key(shape: Shape, row: Row) -> bool:
    """Return whether a column of the row's key is NULL."""
    return any(
        value is None and column.name in shape.key
        for column, value in zip(shape.columns, row[1], strict=False)
    )


def agrees_with_an_index(file: PageFile, source: TableSource, claims: Counter[int]) -> bool:
    """Return whether the rows are those that an index names, no more and no fewer. Another page in
    the place of one of the table's can look right."""
    rows = [row for row in read_source(file, source, claims) if row]
    return any(
        load_entries(file, index) == {entry_of(row, index) for row in rows}
        for index in source.indexes
    )


class Described(NamedTuple):
    one: SchemaObject
    shape: Shape
    indexes: list[Index]


def describe_tables(schema: Schema) -> tuple[dict[str, Described], list[Shape]]:
    """Return every table, and the entries of all indexes. Virtual tables have no rows."""
    created: list[SchemaObject] = []
    with closing(sqlite3.connect(":memory:", factory=Connection)) as connection:
        for one in schema.of_kind("table"):
            if one.has_rows:
                connection.execute(one.creation)
                created.append(one)

        create_objects(connection, (one for one in schema.of_kind("index") if one.sql))
        tables = {}

        for one in created:
            shape = describe_table(connection, one.name)
            tables[one.name] = Described(
                one, shape, describe_proofs(connection, shape, schema.objects)
            )

        entries = [
            entry
            for table in tables.values()
            for entry in describe_indexes(connection, table.shape)
        ]

    return tables, entries


def find_source(
    file: PageFile, described: Described, saved: sqlite3.Connection | None
) -> TableSource:
    """Follow the root; a root that only the backup names is believed when the backup's rows are
    below it."""
    one, shape, indexes = described
    source = TableSource(shape=shape, is_rooted=one.is_live, indexes=indexes)
    if one.root > 1:
        tree = read_tree(file, one.root, is_index=shape.is_index)
        if one.is_live or is_tree_of(file, tree, shape, saved):
            source.trees = [tree]
            source.gaps = tree.open_gaps
            return source
    source.gaps = [WHOLE_TREE]
    return source


def is_tree_of(file: PageFile, tree: Tree, shape: Shape, saved: sqlite3.Connection | None) -> bool:
    rows = sample_rows(file, tree, shape)
    return (
        bool(rows) and all(rows) and count_matches(saved, shape, [row for row in rows if row]) > 0
    )


def sample_rows(file: PageFile, tree: Tree, shape: Shape) -> list[Row | None]:
    """Return the first rows of the first pages, until there are enough to compare."""
    rows: list[Row | None] = []
    for number in tree.pages:
        rows += read_rows(file, [number], shape, Counter())
        if len(rows) >= COMPARED_ROWS:
            break
    return rows


def count_matches(saved: sqlite3.Connection | None, shape: Shape, rows: list[Row]) -> int:
    """Return how many of these rows the backup has, value for value."""
    if saved is None:
        return 0
    return sum(
        load_saved(saved, shape, rowid, values) == values for rowid, values in rows[:COMPARED_ROWS]
    )


def load_saved(
    saved: sqlite3.Connection, shape: Shape, rowid: int, values: list[Value]
) -> list[Value] | None:
    """Return the row of the backup with this rowid or this key; None where there is none."""
    names = [column.name for column in shape.columns[: len(values)]]
    listed = ", ".join(map(quote, names))
    if shape.rowid_names:
        where = f"{shape.rowid_names[0]} = ?"
        key: list[Value | str] = [rowid]
    elif shape.is_index:
        key = [bindable(values[names.index(name)]) for name in shape.key]
        where = " AND ".join(
            f"{quote(name)} = {text_or_value(value)}"
            for name, value in zip(shape.key, key, strict=True)
        )
    else:
        return None

    try:
        row = saved.execute(
            f"SELECT {listed} FROM {quote(shape.table)} WHERE {where}", key
        ).fetchone()
    except sqlite3.OperationalError:
        return None  # the table or a column is younger than the backup

    return list(row) if row else None


def text_or_value(value: Value | str) -> str:
    """Return how a value stands in a statement: text that is no UTF-8 is bound as its bytes."""
    return "CAST(? AS TEXT)" if isinstance(value, bytearray) else "?"
