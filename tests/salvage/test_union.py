"""Which rows the new database gets: those that were read, and which of the backup's."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.errors import VerificationError
from backtestdb.salvage import union
from backtestdb.salvage.objects import SchemaObject
from backtestdb.salvage.pages import PageFile
from backtestdb.salvage.sources import TableSource
from backtestdb.salvage.union import (
    TableOutcome,
    add_from_backup,
    can_be_united,
    count_missing,
    count_saved,
    create_virtual_tables,
    fill_table,
    insert_row,
    keep_together,
    make_orphaned_outcome,
    put_beside,
    raise_sequences,
)
from small_database import make_small_database, pages_of
from small_salvage import opened_source, opened_target, shape_of

DATE = "2026_11_23"
TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);"
UNIQUE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE);"
FOUR = "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');"
Change = Callable[[PageFile, TableSource], None]


def rows_of(target: sqlite3.Connection, table: str = "t") -> list[tuple[object, ...]]:
    return target.execute(f"SELECT * FROM main.{table} ORDER BY 1").fetchall()


def fill(
    folder: Path,
    live: str,
    saved: str = "",
    *,
    schema: str = TABLE,
    claims: Counter[int] | None = None,
    change: Change = lambda _file, _source: None,
) -> tuple[TableOutcome, list[tuple[object, ...]]]:
    """Fill a new database from one with the rows of `live`, and from a backup made by `saved`."""
    folder = folder / str(len([*folder.iterdir()]))
    folder.mkdir()
    path = make_small_database(folder / "live.db", schema + live)
    backup = make_small_database(folder / "saved.db", saved) if saved else None
    with (
        opened_source(path) as (file, source),
        opened_target(folder / "new.db", schema, backup) as target,
    ):
        change(file, source)
        date = DATE if saved else ""
        outcome = fill_table(target, file, source, claims or Counter(), backup_date=date)
        return outcome, rows_of(target)


# ── a table that was read whole


def test_whole_table_without_a_backup_is_what_was_read(tmp_path: Path) -> None:
    outcome, rows = fill(tmp_path, FOUR)
    assert outcome == TableOutcome(
        table="t",
        from_damaged=4,
        from_backup=0,
        lost_pages=0,
        lost_rows=0,
        left_out=0,
        beside="",
        rows_beside=0,
        is_whole=True,
    )
    assert rows == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


@pytest.mark.parametrize(("deleted", "is_whole"), [(0, True), (1, True), (2, True), (3, False)])
def test_rows_that_only_the_backup_has_were_deleted_unless_they_are_most_of_it(
    tmp_path: Path, deleted: int, is_whole: bool
) -> None:
    """Most of them gone, and no index that says so: the root may be another table's page."""
    outcome, rows = fill(tmp_path, f"{FOUR} DELETE FROM t WHERE id <= {deleted};", TABLE + FOUR)
    assert outcome.is_whole is is_whole
    assert outcome.from_damaged == 4 - deleted
    assert outcome.from_backup == (0 if is_whole else deleted)
    assert len(rows) == (4 - deleted if is_whole else 4)


@pytest.mark.parametrize("index_agrees", [True, False])
def test_table_that_lost_most_rows_is_whole_when_an_index_says_so(
    tmp_path: Path, index_agrees: bool
) -> None:
    def take_another_index(_file: PageFile, source: TableSource) -> None:
        if not index_agrees:
            source.indexes = [replace(one, root=1) for one in source.indexes]

    outcome, rows = fill(
        tmp_path,
        f"{FOUR} DELETE FROM t WHERE id <= 3;",
        UNIQUE + FOUR,
        schema=UNIQUE,
        change=take_another_index,
    )
    assert outcome.is_whole is index_agrees
    assert len(rows) == (1 if index_agrees else 4)


def test_table_whose_root_the_file_does_not_name_is_never_whole(tmp_path: Path) -> None:
    def take_root_away(_file: PageFile, source: TableSource) -> None:
        source.is_rooted = False

    saved = f"{TABLE} {FOUR} INSERT INTO t VALUES (9, 'z');"
    outcome, rows = fill(tmp_path, FOUR, saved)
    assert (outcome.is_whole, len(rows)) == (True, 4)
    outcome, rows = fill(tmp_path, FOUR, saved, change=take_root_away)
    assert (outcome.is_whole, len(rows)) == (False, 5)


# ── a table that was not


def test_rows_that_cannot_be_read_come_from_the_backup_or_are_counted(tmp_path: Path) -> None:
    claims = Counter({2: 2})  # two tables lay claim to its only page
    outcome, rows = fill(tmp_path, FOUR, claims=claims)
    assert (outcome.from_damaged, outcome.lost_rows, outcome.is_whole) == (0, 4, False)
    assert rows == []
    outcome, rows = fill(tmp_path, FOUR, TABLE + FOUR, claims=claims)
    assert (outcome.from_backup, outcome.lost_rows, outcome.left_out) == (4, 4, 0)
    assert len(rows) == 4


def test_row_that_comes_twice_is_taken_once_and_counted(tmp_path: Path) -> None:
    def read_twice(_file: PageFile, source: TableSource) -> None:
        source.trees *= 2

    outcome, rows = fill(tmp_path, FOUR, change=read_twice)
    assert (outcome.from_damaged, outcome.lost_rows, outcome.is_whole) == (4, 4, False)
    assert len(rows) == 4


def test_row_of_the_backup_that_clashes_with_a_newer_one_is_left_out(tmp_path: Path) -> None:
    def lose_a_page(_file: PageFile, source: TableSource) -> None:
        source.trees = [replace(source.trees[0], gaps=[None])]  # type: ignore[list-item]

    saved = f"{UNIQUE} INSERT INTO t VALUES (1, 'older'), (8, 'a'), (9, 'z');"
    outcome, rows = fill(tmp_path, FOUR, saved, schema=UNIQUE, change=lose_a_page)
    assert (outcome.lost_pages, outcome.from_backup, outcome.left_out) == (1, 1, 1)
    assert rows == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (9, "z")]


def test_table_that_the_backup_does_not_have_is_what_was_read(tmp_path: Path) -> None:
    outcome, rows = fill(tmp_path, FOUR, "CREATE TABLE other (x);", claims=Counter({2: 2}))
    assert (outcome.is_whole, outcome.lost_rows, outcome.from_backup) == (False, 4, 0)
    assert rows == []


def test_backup_whose_columns_are_others_goes_beside_whole(tmp_path: Path) -> None:
    saved = (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO t VALUES (1, 'older');"
    )
    outcome, rows = fill(tmp_path, FOUR, saved, claims=Counter({2: 2}))
    assert (outcome.beside, outcome.rows_beside) == (f"t_backup_{DATE}", 1)
    assert (outcome.from_backup, rows) == (0, [])


@pytest.mark.parametrize(
    ("ours", "theirs", "can"),
    [
        ("id INTEGER PRIMARY KEY, name TEXT", "id INTEGER PRIMARY KEY, name TEXT", True),
        ("id INTEGER PRIMARY KEY, name TEXT", "ID INTEGER PRIMARY KEY, Name TEXT", True),
        ("id TEXT PRIMARY KEY NOT NULL, n INT NOT NULL", "id TEXT, n INT", True),
        ("id INTEGER PRIMARY KEY, name TEXT, added TEXT", "id INTEGER, name TEXT", True),
        ("id INTEGER PRIMARY KEY, n INT NOT NULL DEFAULT 1", "id INTEGER", True),
        ("id INTEGER PRIMARY KEY, n INT NOT NULL", "id INTEGER", False),
        ("id INTEGER PRIMARY KEY, title TEXT", "id INTEGER PRIMARY KEY, name TEXT", False),
        ("id INTEGER PRIMARY KEY", "id INTEGER PRIMARY KEY, name TEXT", False),
        ("key INTEGER PRIMARY KEY, name TEXT", "name TEXT", False),
    ],
)
def test_backup_is_united_only_when_nothing_of_its_rows_is_lost(
    tmp_path: Path, ours: str, theirs: str, can: bool
) -> None:
    saved = make_small_database(tmp_path / "saved.db", f"CREATE TABLE t ({theirs});")
    with opened_target(tmp_path / "new.db", f"CREATE TABLE t ({ours});", saved) as target:
        assert can_be_united(target, shape_of(f"CREATE TABLE t ({ours})")) is can


def test_rows_go_beside_under_a_name_that_is_free(tmp_path: Path) -> None:
    saved = make_small_database(
        tmp_path / "saved.db",
        "CREATE TABLE T (n INT NOT NULL CHECK (n < 5)); INSERT INTO t VALUES (1), (2);",
    )
    taken = f"CREATE TABLE t_backup_{DATE} (x); CREATE TABLE t_backup_{DATE}_2 (x);"
    with opened_target(tmp_path / "new.db", taken, saved) as target:
        name = f"t_backup_{DATE}_2_2"
        assert put_beside(target, "t", DATE) == (name, 2)
        assert rows_of(target, name) == [(1,), (2,)]
        assert make_orphaned_outcome(target, "t", "2020_01_01") == TableOutcome(
            table="t",
            from_damaged=0,
            from_backup=0,
            lost_pages=0,
            lost_rows=0,
            left_out=0,
            beside="t_backup_2020_01_01",
            rows_beside=2,
            is_whole=False,
        )


def test_rows_that_fit_into_no_plain_columns_are_not_left_out_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(union, "make_plain_table", lambda *_text: None)
    saved = make_small_database(tmp_path / "saved.db", TABLE)
    with (
        opened_target(tmp_path / "new.db", "", saved) as target,
        pytest.raises(VerificationError, match="the table t of the backup could not be put beside"),
    ):
        put_beside(target, "t", DATE)


# ── tables that make sense only together


TWO = "CREATE TABLE n_data (id INTEGER PRIMARY KEY); CREATE TABLE n_docs (id INTEGER PRIMARY KEY);"
LIVE_TWO = "INSERT INTO n_data VALUES (1), (2); INSERT INTO n_docs VALUES (1);"
SAVED_TWO = f"{TWO} INSERT INTO n_data VALUES (7); INSERT INTO n_docs VALUES (7), (8), (9);"


@pytest.mark.parametrize("has_backup", [True, False])
@pytest.mark.parametrize("all_whole", [True, False])
def test_tables_behind_a_full_text_index_are_taken_whole_or_from_the_backup(
    tmp_path: Path, has_backup: bool, all_whole: bool
) -> None:
    live = make_small_database(tmp_path / "live.db", TWO)
    saved = make_small_database(tmp_path / "saved.db", SAVED_TWO)
    before = {
        "n_data": TableOutcome(table="n_data", from_damaged=2, is_whole=True),
        "n_docs": TableOutcome(table="n_docs", from_damaged=1, is_whole=all_whole),
    }
    outcomes = dict(before)
    with (
        opened_source(live, "n_data") as (_, data),
        opened_source(live, "n_docs") as (_, docs),
        opened_target(tmp_path / "new.db", TWO + LIVE_TWO, saved) as target,
    ):
        keep_together(target, [data, docs], outcomes, has_backup=has_backup)
        rows = rows_of(target, "n_data"), rows_of(target, "n_docs")
    if all_whole:
        assert outcomes == before
        assert rows == ([(1,), (2,)], [(1,)])
    else:
        assert rows == (([(7,)], [(7,), (8,), (9,)]) if has_backup else ([], []))
        assert outcomes == {
            "n_data": TableOutcome(
                table="n_data", from_damaged=0, from_backup=1 if has_backup else 0, is_whole=False
            ),
            "n_docs": TableOutcome(
                table="n_docs", from_damaged=0, from_backup=3 if has_backup else 0, is_whole=False
            ),
        }


# ── a row


def test_row_is_new_once_and_keeps_its_types(tmp_path: Path) -> None:
    sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c, d DEFAULT 'later');"
    shape = shape_of(sql)
    with opened_target(tmp_path / "new.db", sql) as target:
        # Text as its bytes, which need not be UTF-8; the last column was added since.
        assert insert_row(target, shape, 7, [7, bytearray(b"\xff12"), b"12", 12])
        assert not insert_row(target, shape, 7, [7, None, None, None])
        assert target.execute(
            "SELECT id, typeof(a), hex(a), typeof(b), b, typeof(c), c, d FROM t"
        ).fetchall() == [(7, "text", "FF3132", "blob", b"12", "integer", 12, "later")]


def test_row_of_a_table_without_rowid_or_with_generated_columns_is_written_without_them(
    tmp_path: Path,
) -> None:
    plain = "CREATE TABLE t (id TEXT PRIMARY KEY, n INT) WITHOUT ROWID;"
    with opened_target(tmp_path / "plain.db", plain) as target:
        assert insert_row(target, shape_of(plain), 0, [bytearray(b"k"), 5])
        assert rows_of(target) == [("k", 5)]
    made = "CREATE TABLE t (name TEXT, twice TEXT AS (name || name) STORED, n INT);"
    with opened_target(tmp_path / "made.db", made) as target:
        assert insert_row(target, shape_of(made), 3, [bytearray(b"a"), bytearray(b"aa"), 5])
        assert target.execute("SELECT rowid, * FROM t").fetchall() == [(3, "a", "aa", 5)]


# ── rows of the backup


def add(folder: Path, ours: str, theirs: str) -> tuple[int, list[tuple[object, ...]]]:
    """Add the rows of `theirs` to `ours`, which begins with the table."""
    saved = make_small_database(folder / "saved.db", theirs)
    with opened_target(folder / "new.db", ours, saved) as target:
        added = add_from_backup(target, shape_of(ours.partition(";")[0]))
        return added, target.execute("SELECT * FROM main.t ORDER BY 1").fetchall()


def test_backup_adds_rows_whose_key_is_not_there(tmp_path: Path) -> None:
    ours = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, more TEXT DEFAULT 'new');"
    theirs = f"{TABLE} INSERT INTO t VALUES (1, 'older'), (2, 'b'), (3, 'c');"
    added, rows = add(tmp_path, f"{ours} INSERT INTO t VALUES (1, 'a', 'x');", theirs)
    assert added == 2
    assert rows == [(1, "a", "x"), (2, "b", "new"), (3, "c", "new")]


def test_backup_adds_a_row_under_another_rowid_where_its_own_is_taken(tmp_path: Path) -> None:
    table = "CREATE TABLE t (id TEXT PRIMARY KEY, n INT);"
    ours = f"{table} INSERT INTO t (rowid, id, n) VALUES (1, 'x', 1);"
    theirs = f"{table} INSERT INTO t (rowid, id, n) VALUES (1, 'y', 2), (2, 'x', 3);"
    assert add(tmp_path, ours, theirs) == (1, [("x", 1), ("y", 2)])


def test_backup_adds_rows_without_a_key_only_where_their_rowid_is_free(tmp_path: Path) -> None:
    table = "CREATE TABLE t (n INT);"
    ours = f"{table} INSERT INTO t (rowid, n) VALUES (1, 10);"
    theirs = f"{table} INSERT INTO t (rowid, n) VALUES (1, 11), (2, 12);"
    assert add(tmp_path, ours, theirs) == (1, [(10,), (12,)])


def test_backup_without_the_table_adds_nothing(tmp_path: Path) -> None:
    assert add(tmp_path, f"{TABLE} {FOUR}", "CREATE TABLE other (x);")[0] == 0


@pytest.mark.parametrize(
    ("ours", "theirs", "missing", "saved_rows"),
    [
        (f"{TABLE} INSERT INTO t VALUES (2, 'b'), (3, 'c');", f"{TABLE} {FOUR}", 2, 4),
        (
            "CREATE TABLE t (id INT PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES (2), (3);",
            "CREATE TABLE t (id INT PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES (1), (2);",
            1,
            2,
        ),
        (
            "CREATE TABLE t (id TEXT PRIMARY KEY, n INT); INSERT INTO t VALUES ('x', 1);",
            "CREATE TABLE t (id TEXT PRIMARY KEY, n INT); INSERT INTO t VALUES ('y', 1);",
            1,
            1,
        ),
        (
            "CREATE TABLE t (n INT); INSERT INTO t (rowid, n) VALUES (1, 1), (5, 5);",
            "CREATE TABLE t (n INT); INSERT INTO t (rowid, n) VALUES (1, 1), (2, 2), (3, 3);",
            2,
            3,
        ),
        # The key was renamed: only numbers can be compared.
        (
            f"{TABLE} INSERT INTO t VALUES (1, 'a');",
            "CREATE TABLE t (old INTEGER PRIMARY KEY, name); INSERT INTO t (old) VALUES (7), (8);",
            1,
            2,
        ),
        (
            f"{TABLE} {FOUR}",
            "CREATE TABLE t (old INTEGER PRIMARY KEY, name); INSERT INTO t (old) VALUES (7), (8);",
            0,
            2,
        ),
        # Neither a key nor a name that reaches the rowid: nothing tells.
        (
            "CREATE TABLE t (rowid, _rowid_, oid);",
            "CREATE TABLE t (rowid, _rowid_, oid); INSERT INTO t VALUES (1, 2, 3);",
            0,
            1,
        ),
        ("CREATE TABLE t (n INT);", "CREATE TABLE other (x);", 0, 0),
        (f"{TABLE} {FOUR}", "CREATE TABLE other (x);", 0, 0),
    ],
)
def test_missing_are_rows_of_the_backup_whose_key_is_not_there(
    tmp_path: Path, ours: str, theirs: str, missing: int, saved_rows: int
) -> None:
    saved = make_small_database(tmp_path / "saved.db", theirs)
    shape = shape_of(ours.partition(";")[0])
    with opened_target(tmp_path / "new.db", ours, saved) as target:
        assert count_missing(target, shape) == missing
        assert count_saved(target, shape) == saved_rows


# ── what is not rows


def test_virtual_tables_are_written_into_the_schema_without_their_module(tmp_path: Path) -> None:
    sql = "CREATE VIRTUAL TABLE notes USING vec0(body)"
    one = SchemaObject(kind="table", name="notes", table="notes", root=0, sql=sql, is_live=True)
    with opened_target(tmp_path / "new.db", TABLE) as target:
        create_virtual_tables(target, [one])
        assert target.execute("PRAGMA writable_schema").fetchone() == (0,)
        assert target.execute(
            "SELECT type, tbl_name, rootpage, sql FROM sqlite_schema WHERE name = 'notes'"
        ).fetchall() == [("table", "notes", 0, sql)]


def test_sequences_are_raised_and_never_lowered(tmp_path: Path) -> None:
    tables = "".join(
        f"CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTOINCREMENT);" for name in ("a", "b", "c")
    )
    tables += "INSERT INTO a VALUES (5); INSERT INTO b VALUES (5);"
    with opened_target(tmp_path / "new.db", tables) as target:
        raise_sequences(target, [("a", 9), ("b", 2), ("c", 7)])
        assert target.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name").fetchall() == [
            ("a", 9),
            ("b", 5),
            ("c", 7),
        ]
    with opened_target(tmp_path / "other.db", TABLE) as target:
        raise_sequences(target, [("a", 9)])


def test_pages_of_a_table_are_where_the_tests_expect_them(tmp_path: Path) -> None:
    """The page that `claims` above is about."""
    live = make_small_database(tmp_path / "live.db", TABLE + FOUR)
    assert pages_of(live, "t") == [2]
    with closing(sqlite3.connect(live)) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (4,)
