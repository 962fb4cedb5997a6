"""Where the rows of each table lie in the damaged file."""

import sqlite3
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field

from backtestdb.database import quote
from backtestdb.salvage.objects import Schema, SchemaObject, create_objects
from backtestdb.salvage.pages import PageFile
from backtestdb.salvage.records import Value
from backtestdb.salvage.rows import Row, read_rows
from backtestdb.salvage.shapes import Shape, describe_indexes, describe_table
from backtestdb.salvage.trees import Gap, Tree, read_tree

COMPARED_ROWS = 200
WHOLE_TREE = Gap(0, None, None, -1)


@dataclass
class TableSource:
    """`trees`: from its root, and below pages that are lost. `is_rooted`: the damaged file itself says where
    the table begins. `gaps`: where pages of it may lie whose parents are lost."""

    shape: Shape
    sql: str
    is_rooted: bool
    trees: list[Tree] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    @property
    def pages(self) -> list[int]:
        return [number for tree in self.trees for number in tree.pages]

    @property
    def lost_pages(self) -> int:
        return sum(len(tree.gaps) for tree in self.trees) or int(not self.trees)


def describe_tables(schema: Schema) -> tuple[dict[str, tuple[SchemaObject, Shape]], list[Shape]]:
    """Every table that this SQLite can create, and the indexes of all. Virtual tables have no rows."""
    shapes: dict[str, tuple[SchemaObject, Shape]] = {}
    with closing(sqlite3.connect(":memory:")) as connection:
        for one in schema.of_kind("table"):
            if one.root and not one.name.lower().startswith("sqlite_"):
                with suppress(sqlite3.OperationalError):
                    connection.execute(one.sql)
                    shapes[one.name] = (one, describe_table(connection, one.name))
        create_objects(connection, (one for one in schema.of_kind("index") if one.sql))
        indexes = [entry for _, shape in shapes.values() for entry in describe_indexes(connection, shape)]
    return shapes, indexes


def find_source(
    file: PageFile, one: SchemaObject, shape: Shape, saved: sqlite3.Connection | None
) -> TableSource:
    """Follow the root; one that only the backup names is believed when the backup's rows are below it."""
    source = TableSource(shape, one.sql, is_rooted=one.is_live)
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
    return bool(rows) and all(rows) and count_matches(saved, shape, [row for row in rows if row]) > 0


def sample_rows(file: PageFile, tree: Tree, shape: Shape) -> list[Row | None]:
    """The first rows of the first pages, until there are enough to compare."""
    rows: list[Row | None] = []
    for number in tree.pages:
        rows += read_rows(file, [number], shape, Counter())
        if len(rows) >= COMPARED_ROWS:
            break
    return rows


def count_matches(saved: sqlite3.Connection | None, shape: Shape, rows: list[Row]) -> int:
    """How many of these rows the backup has, value for value."""
    if saved is None:
        return 0
    return sum(load_saved(saved, shape, rowid, values) == values for rowid, values in rows[:COMPARED_ROWS])


def load_saved(
    saved: sqlite3.Connection, shape: Shape, rowid: int, values: list[Value]
) -> list[Value] | None:
    names = [column.name for column in shape.columns[: len(values)]]
    listed = ", ".join(map(quote, names))
    if shape.rowid_names:
        where = f"{shape.rowid_names[0]} = ?"
        key: list[Value] = [rowid]
    elif shape.is_index:
        where = " AND ".join(
            f"{quote(name)} = {text_or_value(values[names.index(name)])}" for name in shape.key
        )
        key = [values[names.index(name)] for name in shape.key]
    else:
        return None
    try:
        row = saved.execute(f"SELECT {listed} FROM {quote(shape.table)} WHERE {where}", key).fetchone()
    except sqlite3.OperationalError:
        return None  # the table or a column is younger than the backup
    return list(row) if row else None


def text_or_value(value: Value) -> str:
    """Text is bound as its bytes: it need not be valid."""
    return "CAST(? AS TEXT)" if isinstance(value, bytearray) else "?"
