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


DEFAULTS = (
    "CREATE TABLE t (a VARCHAR(10) DEFAULT 'x', b DECIMAL(10, 2) DEFAULT -1.5 NOT NULL, "
    "c DOUBLE PRECISION DEFAULT 7 NOT NULL, d DEFAULT (1 + 2) CHECK (d > 0), e DEFAULT +7, "
    "f DEFAULT 2.25 NOT NULL, g DEFAULT CURRENT_TIME, h UNSIGNED BIG INT)"
)
UNIQUE = (
    "CREATE TABLE t (a TEXT UNIQUE DEFAULT 1, b, CHECK (a > 'x'), UNIQUE (a, b COLLATE german), "
    "CONSTRAINT named UNIQUE (b), FOREIGN KEY (b) REFERENCES other (id))"
)
# The text, whether indexes of UNIQUE are kept, and what stands in the parentheses of the plain one.
EXACTLY = [
    (
        DEFAULTS,
        False,
        "a VARCHAR(10) DEFAULT 'x', b DECIMAL(10,2) DEFAULT -1.5, c DOUBLE PRECISION DEFAULT 7, "
        "d  DEFAULT (1 + 2), e  DEFAULT +7, f  DEFAULT 2.25, g  DEFAULT CURRENT_TIME, "
        "h UNSIGNED BIG INT",
    ),
    (UNIQUE, False, "a TEXT DEFAULT 1, b"),
    (UNIQUE, True, "a TEXT UNIQUE DEFAULT 1, b, UNIQUE (a, b), UNIQUE (b)"),
    ("CREATE TABLE t (a INTEGER PRIMARY KEY DESC, b)", False, "a INTEGER PRIMARY KEY DESC, b"),
    ("CREATE TABLE t (a INTEGER PRIMARY KEY ASC)", False, "a INTEGER PRIMARY KEY"),
    ("CREATE TABLE t (a INTEGER PRIMARY KEY NOT NULL)", False, "a INTEGER PRIMARY KEY"),
    ("CREATE TABLE t (a INTEGER PRIMARY KEY DESC NOT NULL)", False, "a INTEGER PRIMARY KEY DESC"),
    (
        "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT)",
        False,
        "a INTEGER PRIMARY KEY AUTOINCREMENT",
    ),
    # Words in parentheses are no words of the column.
    ("CREATE TABLE t (a CHECK (is_unique(PRIMARY, KEY)), b)", True, "a, b"),
    # A column of the name of an option is a column.
    ("CREATE TABLE t (a ANY, strict)", False, "a ANY, strict"),
    ("CREATE TABLE t (a ANY, b) STRICT", False, "a, b"),
    # This SQLite does not understand the default.
    ("CREATE TABLE t (a INT DEFAULT (b), b)", False, "a INT, b"),
    # What was cut has the columns that are left.
    ("CREATE TABLE t (a INTEGER, b", False, "a INTEGER, b"),
]


@pytest.mark.parametrize(("sql", "keep_unique", "inside"), EXACTLY)
def test_plain_table_says_what_decides_how_rows_are_stored_and_nothing_else(
    sql: str, keep_unique: bool, inside: str
) -> None:
    if keep_unique:
        plain = make_plain_table(sql, "t", keep_unique=True)
    else:
        plain = make_plain_table(sql, "t")
    assert plain == f'CREATE TABLE "t" ({inside})'


def test_plain_table_of_one_without_rowid_has_none() -> None:
    sql = "CREATE TABLE t (a, b, PRIMARY KEY (b)) WITHOUT ROWID, FUTURE"
    plain = 'CREATE TABLE "it""s" (a, b, PRIMARY KEY (b)) WITHOUT ROWID'
    assert make_plain_table(sql, 'it"s') == plain


@pytest.mark.parametrize(
    "text", ["", "CREATE TABLE t", "CREATE TABLE t AS", "CREATE TABLE t (,)", "x" * 100]
)
def test_text_that_is_no_table_has_no_plain_one(text: str) -> None:
    assert make_plain_table(text, "t") is None
