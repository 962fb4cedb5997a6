"""The hash of a table by its description: computed a second time here, from bytes."""

import hashlib
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from backtestdb.backups import content_hash
from backtestdb.backups.content_hash import (
    hash_contents,
    hash_structure,
    hash_table,
    header_numbers,
)

SCHEMA = """
PRAGMA user_version = 7;
CREATE TABLE lab (id INTEGER PRIMARY KEY AUTOINCREMENT, n, amount REAL, name TEXT, data BLOB,
    twice AS (n * 2));
CREATE TABLE pairs (one TEXT, other INT, PRIMARY KEY (other, one)) WITHOUT ROWID;
CREATE TABLE ohlcv_data (id INTEGER PRIMARY KEY AUTOINCREMENT, ticker TEXT);
CREATE INDEX by_name ON lab (name);
CREATE INDEX by_ticker ON ohlcv_data (ticker);
CREATE VIEW names AS SELECT name FROM lab;
CREATE TRIGGER bar_noted AFTER INSERT ON ohlcv_data BEGIN SELECT 1; END;
INSERT INTO lab (id, n, amount, name, data) VALUES
    (9, NULL, 1.5, 'last', x''), (1, 7, -0.25, '', x'00ff'),
    (2, 2.5, NULL, CAST(x'ff' AS TEXT), 'x');
INSERT INTO pairs VALUES ('b', 1), ('a', 2), ('a', 1);
INSERT INTO ohlcv_data (ticker) VALUES ('AAPL');
"""
# In the order of the rowid: a letter for each type, the numbers, the lengths, the texts and blobs.
LAB_ROWS = [
    b"iiftb;" + struct.pack("<qqdqq", 1, 7, -0.25, 0, 2) + b"\x00\xff",
    b"ifntt;" + struct.pack("<qdqq", 2, 2.5, 1, 1) + b"\xff" + b"x",
    b"inftb;" + struct.pack("<qdqq", 9, 1.5, 4, 0) + b"last",
]
LAB_COLUMNS = repr(["id", "n", "amount", "name", "data"]).encode()
PAIRS_ROWS = [
    b"ti;" + struct.pack("<qq", number, 1) + text
    for number, text in ((1, b"a"), (1, b"b"), (2, b"a"))
]
PAIRS_COLUMNS = repr(["one", "other"]).encode()


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        opened.executescript(SCHEMA)
        yield opened


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


# ── tables


@pytest.mark.parametrize("joined_bytes", [1, 60, 1 << 18])
def test_hash_of_a_table_is_that_of_its_columns_and_rows_however_many_go_at_once(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, joined_bytes: int
) -> None:
    monkeypatch.setattr(content_hash, "JOINED_BYTES", joined_bytes)
    size = sum(map(len, LAB_ROWS))
    assert hash_table(connection, "lab") == ("2:" + digest(LAB_COLUMNS, *LAB_ROWS), size)
    size = sum(map(len, PAIRS_ROWS))
    assert hash_table(connection, "pairs") == ("2:" + digest(PAIRS_COLUMNS, *PAIRS_ROWS), size)


@pytest.mark.parametrize("joined_bytes", [1, 1 << 18])
def test_hash_like_one_of_the_first_form_has_that_form(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, joined_bytes: int
) -> None:
    monkeypatch.setattr(content_hash, "JOINED_BYTES", joined_bytes)
    rows = [
        b"(bytearray(b'a'), 1)\n",
        b"(bytearray(b'b'), 1)\n",
        b"(bytearray(b'a'), 2)\n",
    ]
    found = hash_table(connection, "pairs", like="00ff")
    assert found == (digest(PAIRS_COLUMNS, *rows), sum(map(len, rows)))


def test_hash_of_a_table_of_another_schema_is_the_same(connection: sqlite3.Connection) -> None:
    connection.execute("ATTACH ':memory:' AS other")
    connection.execute("CREATE TABLE other.pairs (one TEXT, other INT)")
    connection.execute("INSERT INTO other.pairs VALUES ('a', 1), ('b', 1), ('a', 2)")
    assert hash_table(connection, "pairs", "other") == hash_table(connection, "pairs")


def test_rows_are_read_in_the_order_of_the_rowid_whatever_index_there_is(
    connection: sqlite3.Connection,
) -> None:
    """SQLite would rather read the small index, in its own order."""
    wide = "a TEXT, wide TEXT AS (printf('%.900c', 'x')) STORED"
    for name, index in (("one", ""), ("other", "CREATE INDEX i ON other (a);")):
        connection.executescript(
            f"CREATE TABLE {name} ({wide}); {index}"
            f"INSERT INTO {name} (a) VALUES ('z'), ('y'), ('x');"
        )
    assert connection.execute("SELECT a FROM other").fetchall() == [("x",), ("y",), ("z",)]
    assert hash_table(connection, "one") == hash_table(connection, "other")


# ── everything that no download brings back


def test_contents_are_every_irreplaceable_table_in_the_form_that_is_asked_for(
    connection: sqlite3.Connection,
) -> None:
    connection.executescript(
        "CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('x');"
    )
    contents = hash_contents(connection)
    shadows = {f"notes_{part}" for part in ("config", "content", "data", "docsize", "idx")}
    assert set(contents.tables) == {"lab", "pairs"} | shadows
    assert contents.tables["lab"] == hash_table(connection, "lab")[0]
    assert contents.structure == hash_structure(connection)
    assert contents.bytes == sum(hash_table(connection, table)[1] for table in contents.tables)
    like = hash_contents(connection, {"pairs": "00ff"}).tables
    assert like["pairs"] == hash_table(connection, "pairs", like="00ff")[0]
    assert like["lab"] == contents.tables["lab"]


def test_structure_is_the_text_of_what_is_kept_with_its_numbers(
    connection: sqlite3.Connection,
) -> None:
    texts = {
        name: (kind, name, table, sql)
        for kind, name, table, sql in connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema"
        )
    }
    kept = ["by_name", "lab", "pairs", "bar_noted", "names"]
    parts = [*(texts[name] for name in kept), ("lab", 9), 7]
    assert hash_structure(connection) == hashlib.sha256(repr(parts).encode()).hexdigest()
    connection.execute("PRAGMA application_id = 11")
    parts.append(11)
    assert hash_structure(connection) == hashlib.sha256(repr(parts).encode()).hexdigest()


def test_numbers_of_the_header_are_one_or_two(connection: sqlite3.Connection) -> None:
    assert header_numbers(connection) == [7]
    connection.execute("PRAGMA application_id = 11")
    assert header_numbers(connection) == [7, 11]
