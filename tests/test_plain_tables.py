"""Tables of plain columns store the same rows in the same bytes as the tables they stand for."""

import re
import sqlite3
from contextlib import closing

import pytest

from backtestdb.plain_tables import make_plain_table
from backtestdb.schema import load_table_classes, schema_files, split_statements

TEXTS = {
    "a check with a function of the platform": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL CHECK (is_ticker(b, 'x,)')), "
        "c DECIMAL(10, 2))",
        [("a", "INTEGER", 1), ("b", "TEXT", 0), ("c", "DECIMAL(10,2)", 0)],
    ),
    "a generated column that is stored and one that is not": (
        'CREATE TABLE "t" (a, b TEXT GENERATED ALWAYS AS (shout(a)) STORED, c AS (shout(a)),'
        ' "d e" REAL DEFAULT -1.5)',
        [("a", "", 0), ("b", "TEXT", 0), ("d e", "REAL", 0)],
    ),
    "a collation in the key, and a comment": (
        "CREATE TABLE t (\n  a TEXT, -- the name, (not) unique\n  b,"
        " PRIMARY KEY (b, a COLLATE german)) WITHOUT ROWID",
        [("a", "TEXT", 2), ("b", "", 1)],
    ),
    "words of a newer SQLite": (
        "CREATE TABLE t (a ANY, b INT DEFAULT (json_new(1)) FUTURE WORDS (1, 2), c TEXT UNIQUE) "
        "STRICT, NEWER",
        [("a", "", 0), ("b", "INT", 0), ("c", "TEXT", 0)],
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_plain_table_has_the_columns_types_and_key_that_are_stored(case: str) -> None:
    sql, expected = TEXTS[case]
    plain = make_plain_table(sql, "t")
    assert plain is not None
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(plain)
        columns = connection.execute("PRAGMA table_info(t)").fetchall()
    assert [(row[1], row[2].replace(" ", ""), row[5]) for row in columns] == expected


def test_plain_tables_of_every_table_of_the_schema_have_its_columns_keys_and_defaults() -> None:
    with (
        closing(sqlite3.connect(":memory:")) as true,
        closing(sqlite3.connect(":memory:")) as plain,
    ):
        for path in schema_files():
            for statement in split_statements(path.read_text()):
                if re.match("CREATE TABLE", statement):
                    true.execute(statement)
        tables = true.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        for name, sql in tables.fetchall():
            text = make_plain_table(sql, name)
            assert text, name
            plain.execute(text)
            query = f"SELECT name, type, dflt_value, pk FROM pragma_table_info('{name}')"
            assert plain.execute(query).fetchall() == true.execute(query).fetchall()
    assert len(load_table_classes()) > 37


@pytest.mark.parametrize(
    "text", ["", "CREATE TABLE t", "CREATE TABLE t AS", "CREATE TABLE t (,)", "x" * 100]
)
def test_text_that_is_no_table_has_no_plain_one(text: str) -> None:
    assert make_plain_table(text, "t") is None
