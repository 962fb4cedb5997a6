"""What is said of damaged, newer and busy databases, and which connection may do what."""

import errno
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb import database as database_module
from backtestdb.database import (
    HEADER_BYTES,
    connect,
    connect_to_read,
    count_rows,
    is_writable_format,
    look_at_file,
    make_sqlite_error,
    ordinary_table_names,
    quote,
    save_rows,
    table_names,
    unreadable_table_names,
    verify_integrity,
)
from backtestdb.errors import DatabaseFileError, VerificationError
from schema_text import NEWER_VERSION, change_text, write_version
from small_database import make_small_database

TABLES = "CREATE TABLE one (x); CREATE TABLE other (x); INSERT INTO one VALUES (1), (2), (3);"
UNREADABLE = "malformed database schema"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_small_database(tmp_path / "a.db", TABLES)


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        yield connection


def write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def put(path: Path, old: bytes, new: bytes) -> None:
    """Write over words in the file, as damage does."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def damage_schema(path: Path) -> Path:
    put(path, b"CREATE TABLE other (x)", b"CREATE TABLE other \xff\xff\xff")
    return path


def make_too_new(path: Path, what: str = "CREATE VIEW") -> Path:
    """As a newer SQLite leaves it that knows a word more."""
    sql = "CREATE VIEW later AS SELECT 1" if what == "CREATE VIEW" else "CREATE TABLE later (x)"
    with closing(sqlite3.connect(path)) as database:
        database.execute(sql)
        if what != "CREATE VIEW":
            database.execute("INSERT INTO later VALUES (1)")
        database.commit()
    change_text(path, "later", f"{what} later PICK one")
    write_version(path, NEWER_VERSION)
    return path


# ── connections


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection: connection.execute("SELECT * FROM one"),
        lambda connection: connection.executemany("INSERT INTO one VALUES (?)", [(1,)]),
        lambda connection: connection.executescript("INSERT INTO one VALUES (1);"),
    ],
    ids=["execute", "executemany", "executescript"],
)
def test_damage_whose_words_are_no_text_is_an_error_of_sqlite(
    path: Path, ask: Callable[[sqlite3.Connection], object]
) -> None:
    damage_schema(path)
    with closing(connect(path)) as connection:
        with pytest.raises(sqlite3.DatabaseError, match=UNREADABLE) as caught:
            ask(connection)
        assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CORRUPT


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"malformed database schema (a) - near \xff", sqlite3.SQLITE_CORRUPT),
        (b"no such column: \xff", sqlite3.SQLITE_ERROR),
    ],
)
def test_error_in_words_that_are_no_text_keeps_them_and_what_they_mean(
    message: bytes, code: int
) -> None:
    error = make_sqlite_error(UnicodeDecodeError("utf-8", message, 0, 1, "invalid"))
    assert str(error) == message.decode("ascii", "backslashreplace")
    assert error.sqlite_errorcode == code


def test_connection_answers_with_cursors_as_sqlites_own_does(
    connection: sqlite3.Connection,
) -> None:
    assert connection.executemany("INSERT INTO one VALUES (?)", [(4,), (5,)]).rowcount == 2
    assert isinstance(connection.executescript("DELETE FROM one;"), sqlite3.Cursor)
    assert connection.execute("SELECT count(*) FROM one").fetchone() == (0,)


def test_connection_is_used_from_the_threads_that_check_backups(
    connection: sqlite3.Connection,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(count_rows, connection, ["one"]).result() == {"one": 3}


def test_file_that_vanishes_before_it_is_opened_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", lambda _path: True)
        with pytest.raises(DatabaseFileError, match="cannot open the database"):
            connect(tmp_path / "gone.db")
    assert list(tmp_path.iterdir()) == []


def test_only_a_lenient_connection_reads_beside_what_a_newer_sqlite_wrote(path: Path) -> None:
    make_too_new(path)
    with (
        closing(connect(path)) as connection,
        pytest.raises(sqlite3.DatabaseError, match=UNREADABLE),
    ):
        connection.execute("SELECT * FROM one")
    with closing(connect(path, lenient=True)) as connection:
        assert count_rows(connection, table_names(connection)) == {"one": 3, "other": 0}


# ── to read


def test_connection_to_read_cannot_write(path: Path) -> None:
    with (
        closing(connect_to_read(path)) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("DELETE FROM one")


def test_connection_to_read_sees_what_it_can_of_a_newer_database(path: Path) -> None:
    with closing(connect_to_read(make_too_new(path))) as connection:
        assert count_rows(connection, ["one"]) == {"one": 3}


@pytest.mark.parametrize(
    ("offset", "data", "why"),
    [(0, b"", UNREADABLE), (44, b"\0\0\0\x09", "unsupported file format")],
)
def test_connection_to_read_refuses_damage_and_leaves_nothing_open(
    path: Path, offset: int, data: bytes, why: str
) -> None:
    if data:
        write_at(path, offset, data)
    else:
        damage_schema(path)
    before = sorted(Path("/dev/fd").iterdir())
    with pytest.raises(sqlite3.DatabaseError, match=why) as caught:
        connect_to_read(path)
    assert sorted(Path("/dev/fd").iterdir()) == before
    assert caught.value


# ── what a file is


def test_file_of_a_newer_sqlite_is_too_new_and_a_damaged_schema_is_not(path: Path) -> None:
    assert look_at_file(make_too_new(path)) == "too_new"
    damage_schema(path)
    assert look_at_file(path) == "damaged"


def test_file_whose_schema_has_an_unknown_format_is_damaged(path: Path) -> None:
    write_at(path, 44, b"\0\0\0\x09")
    assert look_at_file(path) == "damaged"


def test_file_that_cannot_be_opened_for_another_reason_is_not_called_damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    path.with_name("a.db-wal").mkdir()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        look_at_file(path)


def test_file_in_wal_mode_and_a_link_to_it_are_databases(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with closing(connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        assert look_at_file(path) == look_at_file(link) == "database"


def test_link_whose_disk_is_not_there_is_no_empty_place(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "disk" / "a.db")
    with pytest.raises(DatabaseFileError, match="and nothing is there") as caught:
        look_at_file(link)
    assert caught.value.next_step == "connect the disk that it leads to, or change DATABASE_PATH"


@pytest.mark.parametrize(
    ("byte", "log", "is_writable"),
    [
        (1, None, True),
        (2, None, True),
        (3, None, False),
        (3, b"", False),
        (3, b"frames", True),
    ],
)
def test_format_above_2_is_damage_unless_a_log_may_hold_a_better_page(
    path: Path, byte: int, log: bytes | None, is_writable: bool
) -> None:
    write_at(path, 18, bytes([byte]))
    if log is not None:
        path.with_name("a.db-wal").write_bytes(log)
    assert is_writable_format(path, path.read_bytes()[:HEADER_BYTES]) is is_writable
    if log is None:
        assert look_at_file(path) == ("database" if is_writable else "damaged")


# ── names


def test_tables_that_cannot_be_read_here_are_told_from_the_ordinary_ones(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE VIRTUAL TABLE words USING fts5(word); CREATE TABLE Upper (x);"
            'CREATE TABLE "abcde" (x); CREATE TABLE "fghij" (x);'
        )
    make_too_new(path, "CREATE TABLE")
    # Names that are not UTF-8; one goes on with a letter beyond the surrogates that stand for it.
    put(path, b"abcde", b"\xffbcde")
    put(path, b"fghij", b"\xff\xf0\x9f\x98\x80")
    with closing(connect(path, lenient=True)) as connection:
        strange = ["\udcffbcde", "\udcff\U0001f600"]
        assert unreadable_table_names(connection) == [*strange, "later"]
        ordinary = ordinary_table_names(connection)
        assert {"words", "later", *strange}.isdisjoint(ordinary)
        assert [name for name in ordinary if "words" not in name] == ["one", "other", "Upper"]
        assert "words_content" in ordinary


# ── checks


def test_check_returns_rows_that_break_a_rule_and_calls_them_no_damage(
    connection: sqlite3.Connection, path: Path
) -> None:
    connection.execute("INSERT INTO one VALUES (NULL)")
    change_text(path, "one", "CREATE TABLE one (x NOT NULL)")
    with closing(connect(path)) as again:
        assert verify_integrity(again) == ["NULL value in one.x"]
        assert verify_integrity(again, full=True) == ["NULL value in one.x"]


def test_check_without_a_function_of_the_platform_is_done_with_a_stand_in(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.create_function("is_ticker", 1, lambda _text: 1, deterministic=True)
        database.execute("CREATE TABLE rules (x CHECK (is_ticker(x)))")
        database.execute("INSERT INTO rules VALUES ('AAPL')")
        database.commit()
    with closing(connect(path)) as connection:
        assert verify_integrity(connection) == []
        assert verify_integrity(connection, full=True) == []


def test_check_finds_damage_that_lies_in_no_table(path: Path) -> None:
    write_at(path, 36, b"\0\0\0\x05")  # so many pages are free, says the header
    with (
        closing(connect(path)) as connection,
        pytest.raises(VerificationError, match="reelist: size is 0 but should be 5"),
    ):
        verify_integrity(connection)


def test_check_beside_a_table_of_a_newer_sqlite_looks_at_all_others(path: Path) -> None:
    make_too_new(path, "CREATE TABLE")
    with closing(connect(path, lenient=True)) as connection:
        assert verify_integrity(connection) == []
        query = "SELECT rootpage FROM sqlite_schema WHERE name = 'other'"
        (root,) = connection.execute(query).fetchone()
    write_at(path, (root - 1) * 4096, b"\xff" * 12)
    with closing(connect(path, lenient=True)) as connection, pytest.raises(VerificationError):
        verify_integrity(connection)


def test_check_of_a_schema_that_cannot_be_read_finds_damage(path: Path) -> None:
    damage_schema(path)
    with (
        closing(connect(path)) as connection,
        pytest.raises(VerificationError, match=f"quick_check found: {UNREADABLE}"),
    ):
        verify_integrity(connection)


def test_check_takes_memory_for_indexes_only_in_full(connection: sqlite3.Connection) -> None:
    before = connection.execute("PRAGMA cache_size").fetchone()
    verify_integrity(connection)
    assert connection.execute("PRAGMA cache_size").fetchone() == before
    verify_integrity(connection, full=True)
    assert connection.execute("PRAGMA cache_size").fetchone() == (-16384,)  # KiB


def test_check_that_could_not_read_the_disk_says_nothing_about_the_file(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ["Tree 2 page 2: unable to get the page. error code=10"]
    monkeypatch.setattr(database_module, "find_faults", lambda *_arguments: found)
    with pytest.raises(OSError, match="quick_check could not read the disk: Tree 2") as caught:
        verify_integrity(connection)
    assert caught.value.errno == errno.EIO


def test_check_of_a_busy_database_says_that_it_is_busy(
    connection: sqlite3.Connection, path: Path
) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    with (
        closing(connect(path, timeout_seconds=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        verify_integrity(other)


def test_check_that_is_stopped_says_so_and_does_not_begin_again(
    connection: sqlite3.Connection,
) -> None:
    save_rows(connection, "INSERT INTO one", "", [list(range(3000))])
    calls = iter(range(1000))
    # Once, amid the check: what is asked before it takes fewer steps.
    connection.set_progress_handler(lambda: next(calls) == 3, 1000)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        verify_integrity(connection)
    connection.set_progress_handler(None, 0)
    assert verify_integrity(connection) == []


# ── rows


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 450])
def test_columns_are_stored_as_rows_however_many(
    connection: sqlite3.Connection, count: int
) -> None:
    connection.execute("CREATE TABLE pairs (a INTEGER PRIMARY KEY, b)")
    connection.execute("INSERT INTO pairs VALUES (3, 'was there')")
    columns = [list(range(count)), [f"b{number}" for number in range(count)]]
    save_rows(connection, "INSERT INTO pairs (a, b)", "ON CONFLICT DO NOTHING", columns)
    expected = {number: f"b{number}" for number in range(count)} | {3: "was there"}
    assert dict(connection.execute("SELECT a, b FROM pairs")) == expected


def test_single_column_is_stored_too(connection: sqlite3.Connection) -> None:
    save_rows(connection, f"INSERT INTO {quote('other')} (x)", "", [[1, 2]])
    assert count_rows(connection, ["other"]) == {"other": 2}
