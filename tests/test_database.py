"""Connections, transactions, and what a file at the database's path is."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import (
    MAGIC,
    column_names,
    connect,
    count_foreign_key_violations,
    count_rows,
    look_at_file,
    primary_code,
    quote,
    table_names,
    transaction,
    verify_integrity,
    virtual_table_names,
)
from backtestdb.errors import DatabaseFileError, VerificationError
from schema_text import change_text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    with closing(connect(path, create=True)) as connection:
        connection.execute("CREATE TABLE t (x UNIQUE)")
        with transaction(connection):
            connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(3000)])
    return path


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


@pytest.mark.parametrize(
    "name", ["a b.db", "50%.db", "what?.db", "mode=ro#.db", "ümläut.db", "a&b.db", "'q'.db"]
)
def test_connection_opens_exactly_the_named_file(tmp_path: Path, name: str) -> None:
    with closing(connect(tmp_path / name, create=True)) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_connection_to_a_missing_file_is_an_error_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(DatabaseFileError, match=r"no database at .*missing\.db") as caught:
        connect(tmp_path / "missing.db")
    assert caught.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_connection_in_a_missing_folder_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(DatabaseFileError, match=r"nowhere/a\.db"):
        connect(tmp_path / "nowhere" / "a.db", create=True)


def test_read_only_connection_cannot_write(path: Path) -> None:
    with (
        closing(connect(path, read_only=True)) as connection,
        pytest.raises(sqlite3.OperationalError) as caught,
    ):
        connection.execute("DELETE FROM t")
    assert primary_code(caught.value) == sqlite3.SQLITE_READONLY


def test_connection_enforces_foreign_keys(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE child (x REFERENCES t (x))")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO child VALUES (-1)")


def test_transaction_is_visible_to_others_only_when_it_has_ended(path: Path) -> None:
    with closing(connect(path)) as connection:
        with transaction(connection):
            connection.execute("DELETE FROM t")
            assert count(path) == 3000
        assert count(path) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_transaction_that_raises_leaves_nothing(path: Path, error: type[BaseException]) -> None:
    with closing(connect(path)) as connection:
        with pytest.raises(error), transaction(connection):
            connection.execute("DELETE FROM t")
            raise error
        assert not connection.in_transaction
    assert count(path) == 3000


def test_transaction_whose_commit_fails_leaves_nothing(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE child (x REFERENCES t (x) DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(sqlite3.IntegrityError), transaction(connection):
            connection.execute("INSERT INTO child VALUES (-1)")
        assert not connection.in_transaction
        assert count_rows(connection, ["child"]) == {"child": 0}


def test_transaction_takes_the_write_lock_at_its_beginning(path: Path) -> None:
    with closing(connect(path)) as one, closing(connect(path, timeout_seconds=0)) as other:
        with (
            transaction(one),
            pytest.raises(sqlite3.OperationalError, match="locked"),
            transaction(other),
        ):
            pass
        with transaction(other):
            pass


def test_primary_code_drops_the_extension(path: Path) -> None:
    with closing(connect(path)) as connection, pytest.raises(sqlite3.IntegrityError) as caught:
        connection.execute("INSERT INTO t VALUES (1)")
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE
    assert primary_code(caught.value) == sqlite3.SQLITE_CONSTRAINT
    assert primary_code(sqlite3.ProgrammingError("of the module")) == 0


def test_look_at_file_tells_missing_empty_and_database_apart(path: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    assert look_at_file(tmp_path / "missing.db") == "missing"
    assert look_at_file(empty) == "empty"
    assert look_at_file(path) == "database"


@pytest.mark.parametrize(
    "content", [b"x", b"text " * 1000, MAGIC, MAGIC + bytes(84), MAGIC + bytes(8176)]
)
def test_look_at_file_says_damaged_of_what_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.db"
    path.write_bytes(content)
    assert look_at_file(path) == "damaged"
    assert path.read_bytes() == content


def test_look_at_file_says_damaged_of_a_schema_that_cannot_be_read(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:200] = b"\xff" * 100
    path.write_bytes(content)
    assert look_at_file(path) == "damaged"


def test_look_at_file_leaves_the_log_of_a_damaged_database_alone(path: Path) -> None:
    log = path.with_name("a.db-wal")
    log.write_bytes(b"the last commits")
    path.write_bytes(b"overwritten " * 1000)
    assert look_at_file(path) == "damaged"
    assert log.read_bytes() == b"the last commits"


def test_look_at_file_does_not_take_a_busy_database_for_a_damaged_one(path: Path) -> None:
    with closing(connect(path)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert look_at_file(path, timeout_seconds=0) == "database"


def test_look_at_file_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DatabaseFileError, match="folder"):
        look_at_file(tmp_path)


@pytest.mark.parametrize("name", ["plain", "two words", 'a"b', "select", "it's", "[x]", "ü;--"])
def test_quoted_name_reaches_the_table_of_that_name(path: Path, name: str) -> None:
    with closing(connect(path)) as connection:
        connection.execute(f"CREATE TABLE {quote(name)} ({quote(name)} INTEGER)")
        assert table_names(connection) == ["t", name]
        assert column_names(connection, name) == [name]
        assert count_rows(connection, [name, "t"]) == {name: 0, "t": 3000}


def test_table_names_leave_out_sqlites_own_and_keep_those_that_look_alike(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE sqliteXtable (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(word)")
        assert table_names(connection)[:2] == ["t", "sqliteXtable"]
        assert "sqlite_sequence" not in table_names(connection)
        assert virtual_table_names(connection) == {"words"}


def test_column_names_leave_out_generated_columns(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE g (a, b AS (a + 1), c AS (a + 2) STORED, d)")
        assert column_names(connection, "g") == ["a", "d"]


def test_integrity_of_a_sound_database_passes(path: Path) -> None:
    with closing(connect(path)) as connection:
        verify_integrity(connection)
        verify_integrity(connection, full=True)


def test_integrity_check_finds_a_broken_page(path: Path) -> None:
    with closing(connect(path)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 't'").fetchone()[
            0
        ]
    content = bytearray(path.read_bytes())
    content[(root - 1) * 4096 : (root - 1) * 4096 + 12] = b"\xff" * 12
    path.write_bytes(content)
    with (
        closing(connect(path)) as connection,
        pytest.raises(VerificationError, match="quick_check found"),
    ):
        verify_integrity(connection)


def test_only_the_full_check_compares_indexes_with_their_tables(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("CREATE INDEX i ON t (x) WHERE x > 10")
    change_text(path, "i", "CREATE INDEX i ON t (x) WHERE x > 9")
    with closing(connect(path)) as connection:
        verify_integrity(connection)
        with pytest.raises(
            VerificationError, match="integrity_check found: row 11 missing from index i"
        ):
            verify_integrity(connection, full=True)


def test_foreign_key_violations_are_counted(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE child (x REFERENCES t (x))")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.executemany("INSERT INTO child VALUES (?)", [(1,), (-1,), (-2,), (None,)])
        assert count_foreign_key_violations(connection) == 2
