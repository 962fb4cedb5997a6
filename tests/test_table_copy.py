"""Tables that go from one database to another come out as they went in: schema, rows, types,
sequences."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backtestdb import table_copy
from backtestdb.database import connect, table_names, transaction, verify_integrity
from backtestdb.errors import VerificationError
from backtestdb.schema import ensure_schema, tables_to_keep
from backtestdb.table_copy import carry_header_numbers, carry_tables
from schema_text import NEWER_VIEW, add_newer_view, change_text

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
        connection.executescript(f"PRAGMA synchronous = OFF; BEGIN; {PLATFORM} COMMIT;")
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


@contextmanager
def attached(old: Path, fresh: Path) -> Iterator[sqlite3.Connection]:
    """The old database and the new one, ready to be carried to by a lenient connection."""
    with closing(connect(old, lenient=True)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH ? AS fresh", (str(fresh),))
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")


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
    change_text(tmp_path / "old.db", "t", "CREATE TABLE t (x NOT NULL ON CONFLICT IGNORE)")
    with pytest.raises(VerificationError, match="table t arrived with 1 rows instead of 2"):
        carry(tmp_path / "old.db", make_fresh(tmp_path / "fresh.db"))


def test_carrying_without_a_transaction_is_a_mistake_of_the_caller(old: Path) -> None:
    with closing(connect(old)) as connection, pytest.raises(ValueError, match="foreign_keys"):
        carry_tables(connection, ["strategies"])


@pytest.mark.parametrize(("foreign_keys", "begun"), [("ON", True), ("OFF", False)])
def test_carrying_needs_both_foreign_keys_off_and_a_transaction(
    old: Path, foreign_keys: str, begun: bool
) -> None:
    with closing(connect(old)) as connection:
        connection.execute(f"PRAGMA foreign_keys = {foreign_keys}")
        if begun:
            connection.execute("BEGIN")
        with pytest.raises(ValueError, match="foreign_keys"):
            carry_tables(connection, ["strategies"])


def test_carrying_tells_the_rows_of_every_ordinary_table_and_leaves_its_settings_as_they_were(
    old: Path, tmp_path: Path
) -> None:
    with attached(old, make_fresh(tmp_path / "fresh.db")) as connection:
        connection.execute("PRAGMA writable_schema = OFF")
        rows = carry_tables(connection, ["loose", "strategies", "notes", "notes_content"])
        assert rows == {"loose": 5, "strategies": 2, "notes_content": 2}
        for name in ("writable_schema", "ignore_check_constraints"):
            assert connection.execute(f"PRAGMA {name}").fetchone() == (0,)


def test_carrying_twice_without_the_module_of_a_virtual_table_gives_the_same_as_once(
    old: Path, tmp_path: Path
) -> None:
    change_text(old, "notes", "CREATE VIRTUAL TABLE notes USING vec0(body)")
    fresh = make_fresh(tmp_path / "fresh.db")
    for _ in range(2):
        with closing(carry(old, fresh)) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM main.sqlite_schema")]
            assert len(names) == len(set(names))
            assert "notes" in names
            sequences = connection.execute("SELECT name, seq FROM main.sqlite_sequence").fetchall()
            assert sequences == [("strategies", 3)]


# ── what this SQLite cannot read


def test_view_in_words_that_this_sqlite_does_not_know_is_carried_as_it_is_and_once(
    old: Path, tmp_path: Path
) -> None:
    add_newer_view(old)
    fresh = make_fresh(tmp_path / "fresh.db")
    for _ in range(2):
        with attached(old, fresh) as connection:
            carry_tables(connection, ["strategies"])
            query = "SELECT sql FROM fresh.sqlite_schema WHERE name = 'names'"
            assert connection.execute(query).fetchall() == [(NEWER_VIEW,)]


def test_table_that_this_sqlite_cannot_read_is_not_carried_without_its_rows(
    old: Path, tmp_path: Path
) -> None:
    change_text(old, "loose", "CREATE TABLE loose (x PRIMARY PICK)")
    with (
        attached(old, make_fresh(tmp_path / "fresh.db")) as connection,
        pytest.raises(VerificationError, match=r"^'loose': SQLite .* its rows cannot be carried"),
    ):
        carry_tables(connection, ["strategies", "loose"])


def test_table_in_the_target_that_this_sqlite_cannot_read_is_not_struck_from_its_schema(
    old: Path, tmp_path: Path
) -> None:
    """Its pages would belong to nothing."""
    fresh = make_fresh(tmp_path / "fresh.db")
    with closing(sqlite3.connect(fresh)) as connection:
        connection.execute("CREATE TABLE loose (x)")
    change_text(fresh, "loose", "CREATE TABLE loose (x PRIMARY PICK)")
    with attached(old, fresh) as connection, pytest.raises(sqlite3.OperationalError):
        carry_tables(connection, ["loose"])


@pytest.mark.parametrize(
    ("name", "sql"),
    [
        ("loose", "CREATE TABLE loose (x, y NUMERIC, rowid TEXT) TOO_NEW"),
        ("odd index", 'CREATE UNIQUE INDEX "odd index" ON strategies (name) TOO_NEW'),
    ],
)
def test_table_or_index_with_a_word_that_this_sqlite_does_not_know_is_named(
    old: Path, tmp_path: Path, name: str, sql: str
) -> None:
    """The rows can be read, but a word may decide how they are stored."""
    change_text(old, name, sql)
    with (
        attached(old, make_fresh(tmp_path / "fresh.db")) as connection,
        pytest.raises(
            VerificationError, match=rf"^'{name}': SQLite .*TOO_NEW.*: it cannot be carried"
        ) as refused,
    ):
        carry_tables(connection, ["strategies", "loose"])
    assert "make backup copies this database as it is" in refused.value.next_step


def test_carrying_without_room_is_no_question_of_words(old: Path, tmp_path: Path) -> None:
    with (
        attached(old, make_fresh(tmp_path / "fresh.db")) as connection,
        pytest.raises(sqlite3.OperationalError, match="full"),
    ):
        connection.execute("PRAGMA fresh.max_page_count = 1")
        carry_tables(connection, ["loose"])


@pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "setconfig"), reason="Python 3.12 has this switch"
)
def test_content_of_a_full_text_index_is_carried_where_sqlite_protects_it(
    old: Path, tmp_path: Path
) -> None:
    """The SQLite of macOS does so by itself."""
    with attached(old, make_fresh(tmp_path / "fresh.db")) as connection:
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)  # type: ignore[attr-defined]
        rows = carry_tables(connection, ["notes", "notes_content", "notes_data"])
    assert rows["notes_content"] == 2


def test_text_within_a_view_that_reads_like_a_statement_stays_what_it_is(
    old: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE VIEW said AS SELECT 'CREATE TABLE made' AS said")
    with closing(carry(old, make_fresh(tmp_path / "fresh.db"))) as connection:
        assert connection.execute("SELECT said FROM said").fetchone() == ("CREATE TABLE made",)


# ── rows that break a rule, functions and collations of the platform


PLATFORMS_OWN = """
CREATE TABLE said (name TEXT, loud TEXT AS (shout(name)) STORED);
CREATE INDEX said_by_loud ON said (shout(name));
CREATE INDEX said_by_length ON said (length(name));
CREATE TABLE sorted (name TEXT COLLATE german);
CREATE INDEX sorted_by_name ON sorted (name);
CREATE INDEX sorted_by_bytes ON sorted (name COLLATE BINARY);
CREATE TABLE checked (n INT CHECK (n < 5));
CREATE TABLE named (name TEXT NOT NULL, n INT, UNIQUE (n, name));
INSERT INTO said (name) VALUES ('abc'), ('def');
INSERT INTO sorted VALUES ('b'), ('A');
PRAGMA ignore_check_constraints = ON;
INSERT INTO checked VALUES (1), (99);
"""


def open_as_platform(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.create_function("shout", 1, lambda text: text and text.upper(), deterministic=True)
    connection.create_collation("german", lambda one, other: (one > other) - (one < other))
    return connection


@pytest.fixture
def ruled(tmp_path: Path) -> Path:
    """The database of a platform with rules and functions of its own; some rows break a rule."""
    path = tmp_path / "ruled.db"
    with closing(open_as_platform(path)) as platform:
        platform.executescript(f"PRAGMA synchronous = OFF; {PLATFORMS_OWN}")
    change_text(path, "named", "CREATE TABLE named (name TEXT, n INT, UNIQUE (n, name))")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO named VALUES ('first', 1), (NULL, 2)")
    change_text(path, "named", "CREATE TABLE named (name TEXT NOT NULL, n INT, UNIQUE (n, name))")
    return path


def test_rows_made_with_functions_of_the_platform_are_carried_as_they_were_stored(
    ruled: Path, tmp_path: Path
) -> None:
    fresh = make_fresh(tmp_path / "fresh.db")
    carry(ruled, fresh).close()
    with closing(open_as_platform(fresh)) as platform:
        assert platform.execute("SELECT * FROM said").fetchall() == [("abc", "ABC"), ("def", "DEF")]
        assert platform.execute("SELECT name FROM sorted ORDER BY name").fetchall() == [
            ("A",),
            ("b",),
        ]
        assert platform.execute("SELECT n FROM checked").fetchall() == [(1,), (99,)]
        assert platform.execute("SELECT * FROM named").fetchall() == [("first", 1), (None, 2)]
        findings = platform.execute("PRAGMA integrity_check").fetchall()
        assert sorted(findings) == [
            ("CHECK constraint failed in checked",),
            ("NULL value in named.name",),
        ]


def test_indexes_that_need_the_platform_are_left_to_it_and_all_others_carried(
    ruled: Path, tmp_path: Path
) -> None:
    with closing(carry(ruled, make_fresh(tmp_path / "fresh.db"))) as connection:
        query = (
            "SELECT name FROM main.sqlite_schema WHERE type = 'index'"
            " AND tbl_name IN ('said', 'sorted', 'named') ORDER BY name"
        )
        assert [name for (name,) in connection.execute(query)] == [
            "said_by_length",
            "sorted_by_bytes",
            "sqlite_autoindex_named_1",
        ]


def test_rule_that_carried_rows_break_holds_for_the_next_row_at_once(
    ruled: Path, tmp_path: Path
) -> None:
    with attached(ruled, make_fresh(tmp_path / "fresh.db")) as connection:
        carry_tables(connection, ["named"])
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO fresh.named VALUES (NULL, 3)")


def test_table_whose_rows_fit_into_no_plain_columns_is_not_carried(
    ruled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_copy, "make_plain_table", lambda *_text, **_how: None)
    with (
        attached(ruled, make_fresh(tmp_path / "fresh.db")) as connection,
        pytest.raises(VerificationError, match="table named cannot be carried: its rows break"),
    ):
        carry_tables(connection, ["named"])


def test_numbers_of_the_header_are_carried(old: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA user_version = 7")
        connection.execute("PRAGMA application_id = 11")
    fresh = make_fresh(tmp_path / "fresh.db")
    with attached(old, fresh) as connection:
        carry_header_numbers(connection)
    with closing(sqlite3.connect(fresh)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)
        assert connection.execute("PRAGMA application_id").fetchone() == (11,)
