"""What a stored row of a table can look like. Every table here is one that SQLite has accepted."""

import sqlite3
from contextlib import closing

import pytest

from backtestdb.salvage.records import Value
from backtestdb.salvage.shapes import (
    Column,
    Shape,
    affinity_of,
    describe_indexes,
    describe_table,
    fits,
    primary_key_order,
)
from small_salvage import shape_of

MANY = """
CREATE TABLE t (
    made TEXT AS (upper(name)) VIRTUAL,
    name TEXT NOT NULL,
    id INTEGER PRIMARY KEY,
    length INT AS (length(name)) STORED,
    score REAL NOT NULL DEFAULT 1.5,
    x,
    last BLOB NOT NULL
);
CREATE INDEX by_name ON t (name);
CREATE UNIQUE INDEX by_score ON t (score DESC, lower(name));
"""
WITHOUT_ROWID = """
CREATE TABLE t (note TEXT, left_id TEXT, right_id INTEGER, score,
    PRIMARY KEY (right_id, left_id)) WITHOUT ROWID;
CREATE INDEX by_note ON t (note);
"""


def column(
    name: str,
    affinity: str,
    *,
    required: bool = False,
    optional: bool = True,
    generated: bool = False,
) -> Column:
    return Column(
        name=name,
        affinity=affinity,
        is_required=required,
        is_optional=optional,
        is_generated=generated,
    )


def indexes_of(sql: str) -> dict[str, Shape]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(sql)
        shapes = describe_indexes(connection, describe_table(connection, "t"))
        return {shape.table: shape for shape in shapes}


# ── tables


def test_table_is_described_as_its_records_hold_it() -> None:
    assert shape_of(MANY) == Shape(
        table="t",
        columns=(
            column("name", "TEXT", required=True, optional=False),
            column("id", "INTEGER"),
            column("length", "INTEGER", generated=True),
            column("score", "REAL", required=True),
            column("x", "BLOB"),
            column("last", "BLOB", required=True, optional=False),
        ),
        alias=1,
        rowid_names=("rowid",),
        is_index=False,
        key=("id",),
    )


def test_table_without_rowid_holds_its_key_first_in_the_order_of_the_key() -> None:
    assert shape_of(WITHOUT_ROWID) == Shape(
        table="t",
        columns=(
            column("right_id", "INTEGER", required=True, optional=False),
            column("left_id", "TEXT", required=True, optional=False),
            column("note", "TEXT"),
            column("score", "BLOB"),
        ),
        alias=None,
        rowid_names=(),
        is_index=True,
        key=("right_id", "left_id"),
    )


@pytest.mark.parametrize(
    ("columns", "alias", "key"),
    [
        ("n, id INTEGER PRIMARY KEY", 1, ("id",)),
        ("n, id INTEGER, PRIMARY KEY (id)", 1, ("id",)),
        ("n, id INT PRIMARY KEY", None, ("id",)),
        ("n, id TEXT PRIMARY KEY", None, ("id",)),
        ("n, id INTEGER PRIMARY KEY DESC", None, ("id",)),
        ("n, one INTEGER, two INTEGER, PRIMARY KEY (two, one)", None, ("two", "one")),
        ("n, id INTEGER UNIQUE", None, ()),
        ("n", None, ()),
    ],
)
def test_only_one_integer_primary_key_is_the_rowid(
    columns: str, alias: int | None, key: tuple[str, ...]
) -> None:
    shape = shape_of(f"CREATE TABLE t ({columns});")
    assert (shape.alias, shape.key, shape.is_index) == (alias, key, False)


def test_table_whose_columns_took_every_name_of_the_rowid_has_none() -> None:
    assert shape_of("CREATE TABLE t (rowid, n);").rowid_names == ("_rowid_",)
    assert shape_of("CREATE TABLE t (rowid, _rowid_, oid);").rowid_names == ()


def test_value_of_any_type_is_kept_as_it_is_in_a_strict_table_alone() -> None:
    strict = shape_of("CREATE TABLE t (a ANY, n INT) STRICT;")
    assert [one.affinity for one in strict.columns] == ["BLOB", "INTEGER"]
    assert shape_of("CREATE TABLE t (a ANY);").columns[0].affinity == "NUMERIC"


@pytest.mark.parametrize(
    ("declared", "affinity"),
    [
        ("INT", "INTEGER"),
        ("bigint", "INTEGER"),
        ("FLOATING POINT", "INTEGER"),
        ("CHARINT", "INTEGER"),
        ("VARCHAR(20)", "TEXT"),
        ("CLOB", "TEXT"),
        ("TEXT", "TEXT"),
        ("BLOB", "BLOB"),
        ("", "BLOB"),
        ("REAL", "REAL"),
        ("FLOAT", "REAL"),
        ("DOUBLE", "REAL"),
        ("NUMERIC", "NUMERIC"),
        ("BOOLEAN", "NUMERIC"),
        ("STRING", "NUMERIC"),
    ],
)
def test_affinity_of_a_type_is_the_one_that_sqlite_gives_it(declared: str, affinity: str) -> None:
    assert affinity_of(declared, is_strict=False) == affinity
    text_is_kept = {"TEXT", "BLOB"}
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t (x {declared})")
        connection.execute("INSERT INTO t VALUES ('3.0'), (3)")
        kept = [kind for (kind,) in connection.execute("SELECT typeof(x) FROM t")]
    assert kept[0] == (
        "text" if affinity in text_is_kept else "real" if affinity == "REAL" else "integer"
    )
    assert kept[1] == {"TEXT": "text", "REAL": "real"}.get(affinity, "integer")


# ── indexes


def test_entries_of_an_index_hold_its_columns_and_the_rowid() -> None:
    def entry(name: str | None, affinity: str, *, is_rowid: bool = False) -> Column:
        return column(str(name), affinity, required=is_rowid, optional=False)

    rowid = entry(None, "INTEGER", is_rowid=True)
    assert indexes_of(MANY) == {
        f"index {name}": Shape(
            table=f"index {name}",
            columns=(*columns, rowid),
            alias=None,
            rowid_names=(),
            is_index=True,
            key=(),
        )
        for name, columns in {
            "by_name": (entry("name", "TEXT"),),
            "by_score": (entry("score", "REAL"), entry(None, "INTEGER")),
        }.items()
    }


def test_key_of_a_table_without_rowid_is_the_table_and_no_index() -> None:
    assert list(indexes_of(WITHOUT_ROWID)) == ["index by_note"]
    (index,) = indexes_of(WITHOUT_ROWID).values()
    assert [one.name for one in index.columns] == ["note", "right_id", "left_id"]
    assert list(indexes_of("CREATE TABLE t (id TEXT PRIMARY KEY);")) == [
        "index sqlite_autoindex_t_1"
    ]


def test_index_over_any_type_says_nothing_of_strictness() -> None:
    (index,) = indexes_of("CREATE TABLE t (a ANY) STRICT; CREATE INDEX i ON t (a);").values()
    assert index.columns[0].affinity == "NUMERIC"


def test_order_of_a_key_that_is_not_there_is_a_mistake_of_the_caller() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (n, m UNIQUE)")
        with pytest.raises(AssertionError, match="t has no primary key"):
            primary_key_order(connection, "t")


# ── records


@pytest.mark.parametrize(
    ("columns", "fewest"),
    [
        ("a, b, c", 1),
        ("a NOT NULL, b", 1),
        ("a, b NOT NULL, c", 2),
        ("a NOT NULL, b, c NOT NULL, d, e NOT NULL, f", 5),
        ("a NOT NULL, b NOT NULL DEFAULT 1", 1),
    ],
)
def test_fewest_values_reach_to_the_last_column_that_needs_one(columns: str, fewest: int) -> None:
    assert shape_of(f"CREATE TABLE t ({columns});").fewest == fewest


TEXT = bytearray(b"text")


@pytest.mark.parametrize(
    ("columns", "values", "fit"),
    [
        # Fewer values: from before the last columns were added.
        ("a, b, c", [], False),
        ("a, b, c", [1], True),
        ("a, b, c", [1, 2, 3], True),
        ("a, b, c", [1, 2, 3, 4], False),
        ("a NOT NULL, b NOT NULL, c", [1], False),
        ("a NOT NULL, b NOT NULL, c", [1, 2], True),
        # The rowid is not in the record.
        ("a, id INTEGER PRIMARY KEY, c", [1, None, 3], True),
        ("a, id INTEGER PRIMARY KEY, c", [1, 2, 3], False),
        ("a NOT NULL, id INTEGER PRIMARY KEY, c NOT NULL", [1, None, None], False),
        ("a NOT NULL, id INTEGER PRIMARY KEY, c NOT NULL", [None, None, 3], False),
        # NULL
        ("a, b", [None, None], True),
        ("a NOT NULL, b", [None, 2], False),
        ("a TEXT PRIMARY KEY, b", [None, 2], False),
        ("a TEXT PRIMARY KEY, b", [TEXT, None], True),
        # Numbers become text in a column of text; a blob stays one.
        ("a TEXT", [1], False),
        ("a TEXT", [1.5], False),
        ("a TEXT", [TEXT], True),
        ("a TEXT", [b"blob"], True),
        ("a INT", [1], True),
        ("a INT", [TEXT], True),
        ("a", [1.5], True),
    ],
)
def test_record_fits_a_table_whose_columns_could_hold_it(
    columns: str, values: list[Value], fit: bool
) -> None:
    assert fits(shape_of(f"CREATE TABLE t ({columns});"), values) is fit
