"""Tables that go from one database to another come out as they went in: schema, rows, types,
sequences."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import connect, table_names, transaction, verify_integrity
from backtestdb.errors import VerificationError
from backtestdb.schema import ensure_schema, tables_to_keep
from backtestdb.table_copy import carry_tables

PLATFORM = """
CREATE TABLE ohlcv_data (id INTEGER PRIMARY KEY, ticker TEXT);
CREATE TABLE strategies (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, "odd ""column"" [x]" BLOB,
    shout TEXT GENERATED ALWAYS AS (upper(name)) VIRTUAL, stored INT AS (length(name)) STORED);
CREATE UNIQUE INDEX "odd index" ON strategies (name) WHERE name <> '';
CREATE TABLE "it's a ""word"" table" (word TEXT PRIMARY KEY, n ANY,
    parent INTEGER REFERENCES strategies (id)
    ON DELETE CASCADE) WITHOUT ROWID;
CREATE TABLE loose (x, y NUMERIC, rowid TEXT);
CREATE TABLE audit (what TEXT);
CREATE TRIGGER main.noted AFTER INSERT ON strategies BEGIN INSERT INTO audit VALUES (new.name); END;
CREATE VIEW both AS SELECT s.name, o.ticker FROM strategies s, ohlcv_data o;
CREATE TRIGGER through_view INSTEAD OF INSERT ON both
    BEGIN INSERT INTO audit VALUES (new.name); END;
CREATE VIRTUAL TABLE notes USING fts5(body);
INSERT INTO strategies (name, "odd ""column"" [x]")
    VALUES ('first', x'00ff'), ('second', 7), ('gone', 1.5);
DELETE FROM strategies WHERE name = 'gone';
INSERT INTO "it's a ""word"" table" VALUES ('k', '007', 1), ('l', 7, 99);
INSERT INTO loose (_rowid_, x, y, rowid)
    VALUES (5, '12', '12', 'r'), (900, CAST(x'c328' AS TEXT), NULL, 's');
INSERT INTO loose (x) VALUES (CAST(x'610062' AS TEXT)), (9007199254740993), (1e999);
INSERT INTO notes (rowid, body) VALUES (42, 'momentum breaks out'), (43, 'mean reverts');
INSERT INTO ohlcv_data (ticker) VALUES ('AAPL');
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(PLATFORM)
    return path


@pytest.fixture
def carried(old: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The old database and, attached as `fresh`, a new one with the project's schema and what was
    carried."""
    with closing(carry(old, make_fresh(tmp_path / "fresh.db"))) as connection:
        yield connection


def make_fresh(path: Path) -> Path:
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
    return path


def carry(old: Path, fresh: Path) -> sqlite3.Connection:
    connection = connect(old)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("ATTACH ? AS fresh", (str(fresh),))
    with transaction(connection):
        carry_tables(connection, tables_to_keep(connection))
    connection.execute("DETACH fresh")
    connection.close()
    connection = connect(fresh)
    connection.execute("ATTACH ? AS old", (str(old),))
    return connection


def every_row(
    connection: sqlite3.Connection, schema: str, table: str, columns: str
) -> list[object]:
    return connection.execute(f"SELECT {columns} FROM {schema}.{table} ORDER BY 1, 2").fetchall()


ROWS = {
    "strategies": 'rowid, id, name, typeof("odd ""column"" [x]"), "odd ""column"" [x]", shout, '
    "stored",
    '"it\'s a ""word"" table"': "word, typeof(n), n, parent",
    "loose": "_rowid_, typeof(x), hex(x), typeof(y), y, rowid",
    "audit": "rowid, what",
    "sqlite_sequence": "name, seq",
    "notes_data": "id, hex(block)",
    "notes_content": "id, c0",
}


@pytest.mark.parametrize("table", ROWS)
def test_carried_table_has_every_row_value_type_and_rowid(
    carried: sqlite3.Connection, table: str
) -> None:
    old_rows = every_row(carried, "old", table, ROWS[table])
    assert old_rows
    assert every_row(carried, "main", table, ROWS[table]) == old_rows


def test_carried_schema_has_the_old_text_of_every_object(carried: sqlite3.Connection) -> None:
    query = (
        "SELECT type, name, sql FROM {}.sqlite_schema"
        " WHERE tbl_name <> 'ohlcv_data' AND name NOT LIKE 'sqlite_autoindex%'"
    )
    old = set(carried.execute(query.format("old")))
    assert old <= set(carried.execute(query.format("main")))
    assert {kind for kind, _, _ in old} == {"table", "index", "view", "trigger"}


def test_carried_database_works_as_before(carried: sqlite3.Connection) -> None:
    verify_integrity(carried, full=True)
    assert carried.execute("SELECT rowid FROM notes WHERE notes MATCH 'momentum'").fetchall() == [
        (42,)
    ]
    assert carried.execute("SELECT count(*) FROM both").fetchone() == (0,)
    carried.execute("INSERT INTO strategies (name) VALUES ('next')")
    assert carried.execute("SELECT id FROM strategies WHERE name = 'next'").fetchone() == (4,)
    assert carried.execute("SELECT what FROM audit ORDER BY rowid DESC").fetchone() == ("next",)
    carried.execute("INSERT INTO both VALUES ('seen', 'x')")
    assert carried.execute("SELECT what FROM audit ORDER BY rowid DESC").fetchone() == ("seen",)
    with pytest.raises(sqlite3.IntegrityError):
        carried.execute("INSERT INTO strategies (name) VALUES ('next')")


def test_carrying_leaves_downloadable_tables_of_both_sides_alone(
    carried: sqlite3.Connection,
) -> None:
    assert carried.execute("SELECT count(*) FROM main.ohlcv_data").fetchone() == (0,)
    assert carried.execute("SELECT count(*) FROM old.ohlcv_data").fetchone() == (1,)


def test_carrying_twice_gives_the_same_as_once(
    carried: sqlite3.Connection, old: Path, tmp_path: Path
) -> None:
    before = carried.execute(
        "SELECT type, name, sql FROM main.sqlite_schema ORDER BY 1, 2"
    ).fetchall()
    with closing(carry(old, tmp_path / "fresh.db")) as again:
        query = "SELECT type, name, sql FROM main.sqlite_schema ORDER BY 1, 2"
        assert again.execute(query).fetchall() == before
        verify_integrity(again, full=True)


def test_carrying_a_virtual_table_without_its_module_keeps_its_content(
    old: Path, tmp_path: Path
) -> None:
    with closing(connect(old)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'USING fts5', 'USING vec0')"
        )
    with closing(carry(old, make_fresh(tmp_path / "fresh.db"))) as connection:
        assert "CREATE VIRTUAL TABLE notes USING vec0(body)" in {
            sql for (sql,) in connection.execute("SELECT sql FROM main.sqlite_schema")
        }
        assert every_row(connection, "main", "notes_content", "id, c0") == [
            (42, "momentum breaks out"),
            (43, "mean reverts"),
        ]


def test_carried_view_that_names_its_schema_can_be_attached(old: Path, tmp_path: Path) -> None:
    with closing(connect(old)) as connection:
        connection.execute(
            "CREATE VIEW named AS SELECT 'main.x ''main.y' AS said, n.name FROM main.strategies n"
        )
    fresh = make_fresh(tmp_path / "fresh.db")
    with closing(connect(old)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH ? AS fresh", (str(fresh),))
        with transaction(connection):
            carry_tables(connection, tables_to_keep(connection))
    with closing(connect(make_fresh(tmp_path / "other.db"))) as connection:
        connection.execute("ATTACH ? AS carried", (str(fresh),))
        rows = connection.execute("SELECT * FROM carried.named ORDER BY 2").fetchall()
    assert rows == [("main.x 'main.y", "first"), ("main.x 'main.y", "second")]


def test_carrying_that_is_interrupted_leaves_the_target_as_it_was(
    old: Path, tmp_path: Path
) -> None:
    fresh = make_fresh(tmp_path / "fresh.db")
    with closing(connect(fresh)) as connection:
        connection.execute(
            "INSERT INTO strategies (name, ticker, timeframe, config) "
            "VALUES ('kept', 'A', '1day', '')"
        )
    with closing(connect(old)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH ? AS fresh", (str(fresh),))
        with pytest.raises(RuntimeError), transaction(connection):
            carry_tables(connection, tables_to_keep(connection))
            raise RuntimeError
    with closing(connect(fresh)) as connection:
        assert connection.execute("SELECT name FROM strategies").fetchall() == [("kept",)]
        assert "loose" not in table_names(connection)


def test_carrying_a_table_whose_own_rules_drop_rows_is_refused(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "old.db", create=True)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (NULL), (1)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (x NOT NULL ON CONFLICT IGNORE)'"
        )
    with pytest.raises(VerificationError, match="table t arrived with 1 rows instead of 2"):
        carry(tmp_path / "old.db", make_fresh(tmp_path / "fresh.db"))


def test_carrying_without_a_transaction_is_a_mistake_of_the_caller(old: Path) -> None:
    with closing(connect(old)) as connection, pytest.raises(ValueError, match="foreign_keys"):
        carry_tables(connection, ["strategies"])
