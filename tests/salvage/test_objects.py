"""The schema of a damaged file: what can be read of it, what this SQLite can make, and what the
backup knows better."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.newer_sqlite import sqlite_version_number
from backtestdb.salvage.objects import (
    Schema,
    SchemaObject,
    create_objects,
    find_refusal,
    is_text,
    load_backup_schema,
    load_live_schema,
    make_creatable,
    parse_object,
    parse_objects,
    unite,
    without_conflicts,
)
from backtestdb.salvage.pages import DamagedError, open_pages
from schema_text import write_version
from small_database import make_small_database, pages_of

SQL = """
CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT UNIQUE);
CREATE INDEX i ON t (b);
CREATE VIEW v AS SELECT a FROM t;
CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END;
CREATE VIRTUAL TABLE n USING fts5(body);
"""
MANY = "".join(f"CREATE TABLE table_number_{n} (a TEXT, b TEXT, c TEXT);" for n in range(120))
TOO_NEW = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT) TOO_NEW"


def make_table(name: str, sql: str, **values: object) -> SchemaObject:
    told = {"kind": "table", "table": name, "root": 5, "is_live": True} | values
    return SchemaObject(name=name, sql=sql, **told)  # type: ignore[arg-type]


def run(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            database.execute(statement)
        database.commit()


def load(path: Path, parentless: tuple[int, ...] = (), *, is_lost: bool = False) -> Schema:
    with open_pages(path) as file:
        return load_live_schema(file, parentless, first_page_is_lost=is_lost)


# ── one object


@pytest.mark.parametrize(
    ("values", "has_rows"),
    [
        ({}, True),
        ({"root": -1}, True),
        ({"root": 0}, False),
        ({"kind": "index"}, False),
        ({"name": "SQLITE_sequence"}, False),
        ({"kind": "view", "root": 0}, False),
    ],
)
def test_table_has_rows_when_it_begins_somewhere_and_is_none_of_sqlites(
    values: dict[str, object], has_rows: bool
) -> None:
    assert replace(make_table("t", "CREATE TABLE t (a)"), **values).has_rows is has_rows  # type: ignore[arg-type]


def test_object_is_created_by_its_own_text_or_the_plain_one() -> None:
    one = make_table("t", "CREATE TABLE t (a) TOO_NEW")
    assert (one.creation, one.is_doubtful) == ("CREATE TABLE t (a) TOO_NEW", False)
    assert replace(one, plain="CREATE TABLE t (a)").creation == "CREATE TABLE t (a)"
    view = replace(one, kind="view")
    schema = Schema([one, view], is_complete=True)
    assert schema.of_kind("table") == [one]
    assert schema.of_kind("view", "trigger") == [view]


# ── the live schema


def test_live_schema_is_every_row_of_the_files_own(tmp_path: Path) -> None:
    path = make_small_database(tmp_path / "live.db", SQL)
    schema = load(path)
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema")
        expected = [
            SchemaObject(kind=kind, name=name, table=table, root=root, sql=sql or "", is_live=True)
            for kind, name, table, root, sql in rows
        ]
    assert schema.objects == expected
    assert {one.kind for one in expected} == {"table", "index", "view", "trigger"}
    assert (schema.is_complete, schema.unreadable) == (True, [])


def test_live_schema_of_several_pages_lacks_what_stood_on_a_lost_one(tmp_path: Path) -> None:
    path = make_small_database(tmp_path / "live.db", MANY)
    assert (len(load(path).objects), load(path).is_complete) == (120, True)
    lost = pages_of(path, "sqlite_schema", "leaf")[1]
    data = bytearray(path.read_bytes())
    of_lost = data[(lost - 1) * 4096 : lost * 4096]
    data[(lost - 1) * 4096 : lost * 4096] = bytes(4096)
    path.write_bytes(data)
    schema = load(path)
    assert 0 < len(schema.objects) < 120
    assert not schema.is_complete
    # The same page elsewhere, which nothing names any more.
    path.write_bytes(data + of_lost)
    schema = load(path, (len(data) // 4096 + 1,))
    assert (len(schema.objects), schema.is_complete) == (120, False)


def test_schema_without_its_first_page_is_what_pages_without_a_parent_hold(tmp_path: Path) -> None:
    path = make_small_database(tmp_path / "live.db", MANY)
    leaves = pages_of(path, "sqlite_schema", "leaf")
    schema = load(path, tuple(leaves), is_lost=True)
    assert (len(schema.objects), schema.is_complete) == (120, False)
    assert load(path, is_lost=True).objects == []


def test_page_with_a_row_that_is_none_of_a_schema_is_no_part_of_it(tmp_path: Path) -> None:
    path = make_small_database(tmp_path / "live.db", SQL)
    run(path, "INSERT INTO sqlite_schema VALUES ('other', 'x', 'x', 0, NULL)")
    assert load(path) == Schema([], is_complete=False)


def test_table_of_which_nothing_can_be_made_is_named(tmp_path: Path) -> None:
    path = make_small_database(
        tmp_path / "live.db", f"{SQL} CREATE TABLE z (x); CREATE TABLE k (x);"
    )
    run(path, "UPDATE sqlite_schema SET sql = 'CREATE TABEL' WHERE name IN ('z', 'k')")
    schema = load(path)
    assert (schema.is_complete, schema.unreadable) == (False, ["k", "z"])
    assert "i" in {one.name for one in schema.objects}


@pytest.mark.parametrize(("more", "is_doubtful"), [(-1, True), (0, True), (1, False)])
def test_text_in_newer_words_is_doubtful_unless_a_newer_sqlite_wrote_the_file(
    tmp_path: Path, more: int, is_doubtful: bool
) -> None:
    path = make_small_database(
        tmp_path / "live.db", "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT);"
    )
    run(path, f"UPDATE sqlite_schema SET sql = '{TOO_NEW}'")
    write_version(path, sqlite_version_number() + more)
    (table,) = load(path).objects
    assert table.is_doubtful is is_doubtful
    assert table.plain == 'CREATE TABLE "t" (a INTEGER PRIMARY KEY, b TEXT)'
    assert "TOO_NEW" in table.refusal
    (table,) = load(path, (1,), is_lost=True).objects
    assert table.is_doubtful, "of a lost header nothing tells who wrote it"


# ── what can be made


@pytest.mark.parametrize(
    ("sql", "refusal", "is_doubtful"),
    [
        ("CREATE TABLE t (a CHECK (is_ticker(a)))", "no such function: is_ticker", False),
        ("CREATE TABLE t (a) TOO_NEW", "unknown table option: TOO_NEW", True),
        ("CREATE TABLE other (a)", "its text makes another table", True),
    ],
)
def test_table_that_this_sqlite_refuses_gets_plain_columns(
    sql: str, refusal: str, is_doubtful: bool
) -> None:
    one = make_table("t", sql)
    (made,) = make_creatable([one], is_from_newer_sqlite=False)
    plain = 'CREATE TABLE "t" (a)'
    assert made == replace(one, plain=plain, refusal=refusal, is_doubtful=is_doubtful)
    (made,) = make_creatable([one], is_from_newer_sqlite=True)
    assert not made.is_doubtful


def test_tables_that_can_be_made_and_all_else_stay_as_they_are() -> None:
    table = make_table("t", "CREATE TABLE t (a)")
    index = make_table("i", "CREATE INDEX i ON missing (a)", kind="index")
    no_text = make_table("z", "CREATE TABLE z (a /* \x01 */) TOO_NEW")
    assert make_creatable([table, index, no_text], is_from_newer_sqlite=False) == [table, index]


def test_refusal_is_empty_when_the_table_was_made() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        assert find_refusal(connection, make_table("t", "CREATE TABLE t (a)")) == ""
        assert "already exists" in find_refusal(connection, make_table("t", "CREATE TABLE t (a)"))


def test_objects_are_created_and_those_that_are_refused_are_named() -> None:
    good = make_table("t", "CREATE TABLE t (a) TOO_NEW", plain="CREATE TABLE t (a)")
    bad = make_table("v", "CREATE VIEW v AS PICK a", kind="view")
    with closing(sqlite3.connect(":memory:")) as connection:
        assert create_objects(connection, [good, bad]) == ["v"]
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize(
    ("sql", "text"), [("CREATE\tTABLE\r\n ä", True), ("", True), ("a\x00", False), ("\x7f", False)]
)
def test_text_is_what_can_be_printed(sql: str, text: bool) -> None:
    assert is_text(sql) is text


# ── one row


@pytest.mark.parametrize(
    ("values", "is_one"),
    [
        (["table", "t", "t", 3, "CREATE"], True),
        (["index", "i", "t", 5, None], True),
        (["view", "v", "v", 0, "CREATE"], True),
        (["trigger", "g", "t", 0, "CREATE"], True),
        (["table", "t", "t", 3], False),
        (["table", "t", "t", 3, "CREATE", 1], False),
        (["other", "t", "t", 3, "CREATE"], False),
        (["table", 1, "t", 3, "CREATE"], False),
        (["table", "t", None, 3, "CREATE"], False),
        (["table", "t", "t", "3", "CREATE"], False),
        (["table", "t", "t", -1, "CREATE"], False),
        (["table", "t", "t", 6, "CREATE"], False),
        (["table", "t", "t", 3, 7], False),
    ],
)
def test_row_of_a_schema_is_one_in_every_value(
    tmp_path: Path, values: list[object], is_one: bool
) -> None:
    path = tmp_path / "five.db"
    path.write_bytes(make_small_database(tmp_path / "live.db", SQL).read_bytes()[: 5 * 4096])
    with open_pages(path) as file:
        assert file.count == 5
        if is_one:
            kind, name, table, root, sql = values
            told = {"kind": kind, "name": name, "table": table, "root": root, "sql": sql or ""}
            assert parse_object(values, file) == SchemaObject(**told, is_live=True)  # type: ignore[arg-type]
            return
        with pytest.raises(DamagedError, match="not a row of a schema"):
            parse_object(values, file)


def test_page_that_is_no_leaf_of_a_table_holds_no_objects(tmp_path: Path) -> None:
    path = make_small_database(
        tmp_path / "live.db", f"{MANY} CREATE INDEX i ON table_number_1 (a);"
    )
    with open_pages(path) as file:
        assert parse_objects(file, 1) is None, "an upper page"
        assert parse_objects(file, pages_of(path, "i")[0]) is None, "an index"
        assert parse_objects(file, pages_of(path, "table_number_1")[0]) == []
        assert parse_objects(file, 10**6) is None


# ── two versions


def test_two_versions_of_one_object_are_both_left_out() -> None:
    one, other = make_table("t", "CREATE TABLE t (a)"), make_table("T", "CREATE TABLE T (b)")
    same, view = make_table("u", "CREATE TABLE u (a)"), make_table("t", "x", kind="view")
    assert without_conflicts([one, other, same, same, view]) == [same, view]


def test_backup_says_where_tables_began_when_it_was_made(tmp_path: Path) -> None:
    path = make_small_database(
        tmp_path / "saved.db", "CREATE TABLE t (a); CREATE TABLE u (a); CREATE VIEW v AS SELECT 1;"
    )
    with closing(sqlite3.connect(path)) as saved:
        found = load_backup_schema(saved, {"t": 7, "v": 9})
    assert [(one.name, one.root, one.is_live) for one in found] == [
        ("t", 7, False),
        ("u", -1, False),
        ("v", 0, False),
    ]
    assert found[0] == SchemaObject(
        kind="table", name="t", table="t", root=7, sql="CREATE TABLE t (a)", is_live=False
    )


def test_backup_adds_what_the_file_may_have_lost() -> None:
    live = Schema([make_table("t", "live")], is_complete=False, unreadable=["Lost", "gone"])
    saved = [make_table("T", "saved"), make_table("u", "saved"), make_table("lost", "saved")]
    assert unite(live, saved) == Schema(
        [live.objects[0], saved[1], saved[2]], is_complete=False, unreadable=["gone"]
    )


def test_complete_schema_stays_as_it_is() -> None:
    live = Schema([make_table("t", "live")], is_complete=True)
    assert unite(live, [make_table("t", "saved"), make_table("dropped", "saved")]) is live


@pytest.mark.parametrize("sql", ["a text", "z text"])
@pytest.mark.parametrize("is_complete", [True, False])
def test_text_that_may_be_damaged_is_taken_from_the_backup_where_that_has_another(
    sql: str, is_complete: bool
) -> None:
    doubtful = make_table("t", "m text", is_doubtful=True)
    sound = make_table("u", "live")
    live = Schema([doubtful, sound], is_complete=is_complete)
    saved = [make_table("T", sql), make_table("U", "saved"), make_table("dropped", "saved")]
    added = saved[:1] if is_complete else [saved[0], saved[2]]
    assert unite(live, saved) == Schema([sound, *added], is_complete=False)


def test_text_that_may_be_damaged_stays_where_the_backup_has_the_same_or_none() -> None:
    doubtful = make_table("t", "m text", is_doubtful=True)
    live = Schema([doubtful], is_complete=True)
    assert unite(live, [make_table("t", "m text")]) is live
    assert unite(live, []) is live
