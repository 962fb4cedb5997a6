"""From the pages of a small damaged file and its backup to the new database."""

import os
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from backtestdb.backups.catalogue import Backup
from backtestdb.backups.manifest import Kind
from backtestdb.backups.restore_choice import RestoreChoice
from backtestdb.database import connect
from backtestdb.salvage import build as build_module
from backtestdb.salvage.build import (
    Built,
    build,
    find_orphaned_tables,
    load_known_objects,
    newest_of,
    opened_backup,
    prepare,
)
from backtestdb.salvage.objects import Schema, load_backup_schema
from backtestdb.salvage.pages import open_pages
from backtestdb.salvage.union import TableOutcome
from manifests import make_backup_of, make_manifest
from schema_text import NEWER_VERSION, change_text, write_version
from small_database import make_small_database, pages_of, zero

PAGE = 4096
# Not in UTC: the date in a name is the user's.
TAKEN_AT = datetime(2026, 11, 23, 2).astimezone()
DATE = "2026_11_23"
TABLE = "CREATE TABLE lab (id INTEGER PRIMARY KEY, name TEXT);"
TWO = f"{TABLE} INSERT INTO lab VALUES (1, 'a'), (2, 'b');"
MARKET = """
CREATE TABLE ohlcv_data (id INTEGER PRIMARY KEY AUTOINCREMENT, ticker TEXT);
CREATE INDEX by_ticker ON ohlcv_data (ticker);
CREATE TRIGGER bar_noted AFTER INSERT ON ohlcv_data BEGIN SELECT 1; END;
INSERT INTO ohlcv_data (ticker) VALUES ('AAPL');
"""


def make_backup(path: Path, sql: str, kind: Kind = "full") -> Backup:
    make_small_database(path, sql)
    return make_backup_of(path, make_manifest(path, kind, TAKEN_AT, {}))


def choice_of(folder: Path, full: str = "", small: str = "") -> RestoreChoice | None:
    one = make_backup(folder / "full.db", full) if full else None
    other = make_backup(folder / "small.db", small, "irreplaceable") if small else None
    return RestoreChoice(one, other) if one or other else None


def empty_schema(path: Path) -> None:
    """What a graft leaves of the first page: a header, and a schema without anything."""
    data = bytearray(path.read_bytes())
    data[100:PAGE] = (b"\x0d\0\0\0\0" + PAGE.to_bytes(2)).ljust(PAGE - 100, b"\0")
    path.write_bytes(data)


def build_from(
    folder: Path, live: Path, choice: RestoreChoice | None = None, *, is_lost: bool = False
) -> tuple[Built, Path]:
    new = folder / "new.db"
    with open_pages(live) as file:
        return build(new, file, choice, first_page_is_lost=is_lost), new


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(connect(path)) as database:
        return database.execute(sql).fetchall()


def names_in(path: Path) -> set[str]:
    """Without SQLite's own."""
    return {
        name for (name,) in query(path, "SELECT name FROM sqlite_schema") if "sqlite_" not in name
    }  # type: ignore[operator]


def outcome_of(built: Built, table: str) -> TableOutcome:
    (outcome,) = (one for one in built.tables if one.table == table)
    return outcome


# ── a file whose damage lies elsewhere


def test_new_database_holds_all_that_is_irreplaceable_and_nothing_else(tmp_path: Path) -> None:
    sql = f"""{TWO} {MARKET}
        CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
        INSERT INTO counted VALUES (7, 'x');
        DELETE FROM counted;
        CREATE TABLE pairs (name TEXT, number INT);
        INSERT INTO pairs VALUES ('counted', 999);
        CREATE UNIQUE INDEX by_name ON lab (name);
        CREATE VIEW names AS SELECT name FROM lab;
        CREATE TRIGGER noted AFTER INSERT ON lab BEGIN UPDATE pairs SET number = 0; END;
        CREATE TRIGGER through INSTEAD OF INSERT ON names BEGIN SELECT 1; END;
        CREATE VIRTUAL TABLE notes USING fts5(body);
        INSERT INTO notes VALUES ('momentum breaks out');
        PRAGMA user_version = {0x01020304};"""
    umask = os.umask(0)
    try:
        built, new = build_from(tmp_path, make_small_database(tmp_path / "live.db", sql))
    finally:
        os.umask(umask)

    assert new.stat().st_mode & 0o777 == 0o600
    expected = {"lab", "counted", "pairs", "by_name", "names", "noted", "through", "notes"}
    shadows = {f"notes_{part}" for part in ("config", "content", "data", "docsize", "idx")}
    assert names_in(new) == expected | shadows
    assert query(new, "SELECT * FROM lab") == [(1, "a"), (2, "b")]
    assert query(new, "SELECT name, seq FROM sqlite_sequence") == [("counted", 7)]
    assert query(new, "SELECT number FROM pairs") == [(999,)]
    assert query(new, "SELECT rowid FROM notes WHERE notes MATCH 'momentum'") == [(1,)]
    assert query(new, "PRAGMA user_version") == [(0x01020304,)]
    assert query(new, "PRAGMA integrity_check") == [("ok",)]
    assert {one.table for one in built.tables} == {"lab", "counted", "pairs"} | shadows
    assert all(one.is_whole for one in built.tables)
    assert (built.strays, built.not_created, built.plain) == (0, [], {})


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_new_database_has_page_size_and_encoding_of_the_damaged_one(
    tmp_path: Path, encoding: str
) -> None:
    live = tmp_path / "live.db"
    with closing(sqlite3.connect(live)) as database:
        database.execute("PRAGMA page_size = 8192")
        database.execute(f"PRAGMA encoding = '{encoding}'")
        database.executescript(
            f"BEGIN; {TWO} INSERT INTO lab VALUES (3, 'häß\u20ac \U0001f600'), (4, x'6100'); "
            "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); "
            "INSERT INTO counted VALUES (5); COMMIT;"
        )
    built, new = build_from(tmp_path, live)
    assert query(new, "PRAGMA page_size") == [(8192,)]
    assert query(new, "PRAGMA encoding") == [(encoding,)]
    assert query(new, "SELECT name FROM lab ORDER BY id") == [
        ("a",),
        ("b",),
        ("häß\u20ac \U0001f600",),
        (b"a\0",),
    ]
    assert query(new, "SELECT name, seq FROM sqlite_sequence") == [("counted", 5)]
    assert all(one.is_whole for one in built.tables)


def test_text_in_utf_16_that_is_none_is_lost_and_not_another_text(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    with closing(sqlite3.connect(live)) as database:
        database.execute("PRAGMA encoding = 'UTF-16le'")
        database.executescript(f"{TWO} INSERT INTO lab VALUES (3, 'HERE');")
    text = "HERE".encode("utf-16-le")
    live.write_bytes(live.read_bytes().replace(text, b"\x00\xdc" + text[2:]))  # half a pair
    built, new = build_from(tmp_path, live)
    assert query(new, "SELECT * FROM lab") == [(1, "a"), (2, "b")]
    assert outcome_of(built, "lab").lost_rows == 1


def test_rows_that_break_a_rule_are_taken_as_they_were_stored(tmp_path: Path) -> None:
    sql = f"""{TWO} CREATE TABLE checked (n INT CHECK (n < 5), lab INT REFERENCES lab (id));
        PRAGMA ignore_check_constraints = ON;
        INSERT INTO checked VALUES (99, 99);"""
    built, new = build_from(tmp_path, make_small_database(tmp_path / "live.db", sql))
    assert query(new, "SELECT * FROM checked") == [(99, 99)]
    assert outcome_of(built, "checked").is_whole


KEYED = "CREATE TABLE lab (id TEXT PRIMARY KEY, n INT);"


def test_row_without_a_key_is_taken_when_the_index_of_the_key_names_it(tmp_path: Path) -> None:
    """SQLite lets a key be NULL that is not the rowid: so a program stores it that forgot one."""
    rows = "INSERT INTO lab VALUES ('a', 1), (NULL, 2), (NULL, 3);"
    built, new = build_from(tmp_path, make_small_database(tmp_path / "live.db", f"{KEYED} {rows}"))
    assert query(new, "SELECT * FROM lab ORDER BY n") == [("a", 1), (None, 2), (None, 3)]
    assert outcome_of(built, "lab").is_whole


def test_page_of_another_table_in_the_place_of_a_keyed_one_is_not_taken(tmp_path: Path) -> None:
    """What has the rowid for its key stores NULL there."""
    other = "CREATE TABLE other (id INTEGER PRIMARY KEY, n INT); INSERT INTO other VALUES (1, 99);"
    live = make_small_database(
        tmp_path / "live.db", f"{KEYED} INSERT INTO lab VALUES ('a', 1); {other}"
    )
    (lab,), (page,) = pages_of(live, "lab"), pages_of(live, "other")
    data = bytearray(live.read_bytes())
    data[(lab - 1) * PAGE : lab * PAGE] = data[(page - 1) * PAGE : page * PAGE]
    live.write_bytes(data)
    built, new = build_from(tmp_path, live)
    assert query(new, "SELECT * FROM lab") == []
    assert outcome_of(built, "lab").lost_rows == 1
    assert query(new, "SELECT * FROM other") == [(1, 99)]


def test_target_is_prepared_for_rows_of_any_kind(tmp_path: Path) -> None:
    backup = f"{TWO} CREATE VIEW named AS SELECT name FROM main.lab;"
    live = make_small_database(tmp_path / "live.db", TWO)
    with (
        open_pages(live) as file,
        closing(connect(tmp_path / "new.db", create=True)) as target,
    ):
        prepare(target, file, choice_of(tmp_path, full=backup))
        for name, value in (
            ("foreign_keys", 0),
            ("synchronous", 0),
            ("ignore_check_constraints", 1),
        ):
            assert target.execute(f"PRAGMA {name}").fetchone() == (value,)
        assert target.execute("SELECT count(*) FROM saved.lab").fetchone() == (2,)


# ── what could not be made


def test_what_this_sqlite_refuses_is_named(tmp_path: Path) -> None:
    live = make_small_database(
        tmp_path / "live.db",
        f"""{TWO} {MARKET} CREATE VIEW names AS SELECT name FROM lab;
        CREATE TABLE torn (x); INSERT INTO torn VALUES (1);
        CREATE TABLE checked (n INT); INSERT INTO checked VALUES (1);""",
    )
    change_text(live, "names", "CREATE VIEW names AS PICK name")
    change_text(live, "torn", "CREATE TABEL torn")
    change_text(live, "checked", "CREATE TABLE checked (n INT CHECK (is_odd(n)))")
    change_text(
        live,
        "ohlcv_data",
        "CREATE TABLE ohlcv_data (id INTEGER PRIMARY KEY, ticker TEXT AS (up(id)))",
    )
    built, new = build_from(tmp_path, live)
    assert built.not_created == ["names"]
    assert built.plain == {"checked": "no such function: is_odd"}
    assert outcome_of(built, "torn") == TableOutcome(table="torn", lost_pages=1)
    assert query(new, "SELECT n FROM checked") == [(1,)]


# ── united with a backup


SEQUENCED = "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT);"


def test_rows_and_numbers_come_from_the_backup_where_the_file_does_not_tell(
    tmp_path: Path,
) -> None:
    live = make_small_database(
        tmp_path / "live.db", f"{TWO} {SEQUENCED} INSERT INTO counted VALUES (3);"
    )
    zero(live, *pages_of(live, "lab"))
    saved = f"{TABLE} INSERT INTO lab VALUES (2, 'b'), (5, 'e'); {SEQUENCED}"
    saved += "INSERT INTO counted VALUES (9); DELETE FROM counted;"
    built, new = build_from(tmp_path, live, choice_of(tmp_path, full=saved))
    assert query(new, "SELECT * FROM lab") == [(2, "b"), (5, "e")]
    assert outcome_of(built, "lab").from_backup == 2
    assert query(new, "SELECT * FROM sqlite_sequence") == [("counted", 9)]


def test_backup_without_numbers_leaves_those_of_the_file(tmp_path: Path) -> None:
    live = make_small_database(
        tmp_path / "live.db", f"{TWO} {SEQUENCED} INSERT INTO counted VALUES (3);"
    )
    _, new = build_from(tmp_path, live, choice_of(tmp_path, full=TWO))
    assert query(new, "SELECT * FROM sqlite_sequence") == [("counted", 3)]


@pytest.mark.parametrize("columns", ["a", "a, b, c"])
def test_page_of_another_table_in_the_place_of_the_numbers_is_no_number(
    tmp_path: Path, columns: str
) -> None:
    live = make_small_database(
        tmp_path / "live.db",
        f"{SEQUENCED} INSERT INTO counted VALUES (3); CREATE TABLE other ({columns}); "
        f"INSERT INTO other VALUES ({', '.join(['1'] * len(columns.split(', ')))});",
    )
    (other,) = pages_of(live, "other")
    data = bytearray(live.read_bytes())
    (numbers,) = pages_of(live, "sqlite_sequence")
    data[(numbers - 1) * PAGE : numbers * PAGE] = data[(other - 1) * PAGE : other * PAGE]
    live.write_bytes(data)
    _, new = build_from(tmp_path, live)
    assert query(new, "SELECT * FROM sqlite_sequence") == [("counted", 3)]


def test_number_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    long = "counted_" + "x" * 5000
    live = make_small_database(
        tmp_path / "live.db",
        f"{SEQUENCED} {SEQUENCED.replace('counted', long)} "
        f"INSERT INTO counted VALUES (3); INSERT INTO {long} VALUES (4);",
    )
    zero(live, *pages_of(live, "sqlite_sequence", "overflow"))
    _, new = build_from(tmp_path, live)
    assert query(new, "SELECT seq FROM sqlite_sequence WHERE name = 'counted'") == [(3,)]


def test_backup_with_other_columns_goes_beside_under_its_date(tmp_path: Path) -> None:
    live = make_small_database(tmp_path / "live.db", TWO)
    zero(live, *pages_of(live, "lab"))
    saved = (
        "CREATE TABLE lab (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO lab VALUES (1, 't');"
    )
    built, new = build_from(tmp_path, live, choice_of(tmp_path, full=saved))
    assert outcome_of(built, "lab").beside == f"lab_backup_{DATE}"
    assert query(new, f"SELECT title FROM lab_backup_{DATE}") == [("t",)]


@pytest.mark.parametrize("has_backup", [True, False])
def test_full_text_index_of_which_a_page_is_lost_is_the_backups_or_empty(
    tmp_path: Path, has_backup: bool
) -> None:
    sql = "CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('one'), ('two');"
    live = make_small_database(tmp_path / "live.db", f"{sql} INSERT INTO notes VALUES ('three');")
    zero(live, *pages_of(live, "notes_data"))
    built, new = build_from(tmp_path, live, choice_of(tmp_path, full=sql) if has_backup else None)
    assert query(new, "SELECT count(*) FROM notes_content") == [(2 if has_backup else 0,)]
    assert not outcome_of(built, "notes_content").is_whole


@pytest.mark.parametrize("small", [True, False])
def test_lost_schema_and_version_are_those_of_the_newest_backup(
    tmp_path: Path, small: bool
) -> None:
    """Only a full backup says where tables begin; they are found all the same."""
    live = make_small_database(tmp_path / "live.db", f"{TWO} PRAGMA user_version = 9;")
    empty_schema(live)
    saved = f"{TWO} PRAGMA user_version = 5;"
    choice = choice_of(tmp_path, **{"small" if small else "full": saved})
    built, new = build_from(tmp_path, live, choice, is_lost=True)
    assert query(new, "PRAGMA user_version") == [(5,)]
    assert query(new, "SELECT * FROM lab") == [(1, "a"), (2, "b")]
    assert [one.table for one in built.tables] == ["lab"]


def test_lost_schema_without_a_backup_is_the_projects_own(tmp_path: Path) -> None:
    live = make_small_database(tmp_path / "live.db", f"{TWO} PRAGMA user_version = 9;")
    empty_schema(live)
    built, new = build_from(tmp_path, live, is_lost=True)
    assert query(new, "PRAGMA user_version") == [(0,)]
    assert "trading_agents" in names_in(new)
    assert "ohlcv_data" not in names_in(new)
    assert "trading_agents" in {one.table for one in built.tables}


def test_table_of_the_backup_whose_parent_is_gone_goes_beside(tmp_path: Path) -> None:
    live = make_small_database(tmp_path / "live.db", TWO)
    empty_schema(live)
    saved = (
        f"{TWO} CREATE TABLE child (lab INT REFERENCES gone (id)); INSERT INTO child VALUES (1);"
    )
    built, new = build_from(tmp_path, live, choice_of(tmp_path, full=saved), is_lost=True)
    assert outcome_of(built, "child").beside == f"child_backup_{DATE}"
    assert query(new, "SELECT * FROM lab") == [(1, "a"), (2, "b")]
    assert "child" not in names_in(new)


def test_orphaned_are_tables_of_the_backup_alone_that_refer_to_what_is_gone(
    tmp_path: Path,
) -> None:
    sql = """CREATE TABLE parent (id INTEGER PRIMARY KEY AUTOINCREMENT);
        CREATE TABLE child (a INT REFERENCES PARENT (id));
        CREATE TABLE orphan (a INT REFERENCES parent (id), b INT REFERENCES gone (id));
        CREATE VIRTUAL TABLE notes USING fts5(body);"""
    path = make_small_database(tmp_path / "saved.db", sql)
    with closing(sqlite3.connect(path)) as saved:
        objects = load_backup_schema(saved, {"parent": 2, "child": 3, "orphan": 4})
    assert find_orphaned_tables(Schema(objects, is_complete=False)) == ["orphan"]
    live = [build_module.SchemaObject(**{**vars(one), "is_live": True}) for one in objects]
    assert find_orphaned_tables(Schema(live, is_complete=True)) == []


def test_pages_of_market_data_are_no_ones_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that are not salvaged stand against those that are, where a page has lost its root."""
    asked: list[list[str]] = []

    def note(_file: object, _scan: object, _sources: object, rivals: list, *_others: object) -> int:
        asked.append([one.table for one in rivals])
        return 7

    monkeypatch.setattr(build_module, "adopt_orphans", note)
    sql = f"{TWO} {MARKET} CREATE INDEX by_name ON lab (name);"
    built, _ = build_from(tmp_path, make_small_database(tmp_path / "live.db", sql))
    assert asked == [["ohlcv_data", "index by_name", "index by_ticker"]]
    assert built.strays == 7


# ── the backup


def test_newest_backup_is_the_small_one_where_there_is_one(tmp_path: Path) -> None:
    both = choice_of(tmp_path, full=TABLE, small=TABLE)
    assert both is not None
    assert newest_of(both) is both.irreplaceable
    assert newest_of(RestoreChoice(both.full, None)) is both.full
    with pytest.raises(ValueError, match="a choice without a backup"):
        newest_of(RestoreChoice(None, None))


def test_known_objects_are_the_newest_backups_with_the_roots_of_the_full_one(
    tmp_path: Path,
) -> None:
    choice = choice_of(
        tmp_path, full=f"CREATE TABLE first (x); {TABLE}", small=f"{TABLE} CREATE TABLE more (x);"
    )
    with opened_backup(choice) as saved:
        objects = load_known_objects(choice, saved)
        assert {one.name: one.root for one in objects} == {"lab": 3, "more": -1}
        assert saved is not None
        assert saved.text_factory is bytearray
    with opened_backup(None) as saved:
        assert saved is None
        roots = {one.name: one.root for one in load_known_objects(None, saved)}
    assert roots["trading_agents"] == -1


def test_table_of_the_backup_in_newer_words_is_not_doubtful(tmp_path: Path) -> None:
    choice = choice_of(tmp_path, full=TWO)
    assert choice is not None
    path = newest_of(choice).path
    change_text(path, "lab", "CREATE TABLE lab (id INTEGER PRIMARY KEY, name TEXT) TOO_NEW")
    write_version(path, NEWER_VERSION)
    with opened_backup(choice) as saved:
        (lab,) = load_known_objects(choice, saved)
    assert lab.plain
    assert not lab.is_doubtful
