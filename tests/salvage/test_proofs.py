"""Whether a row is of today: what the indexes of its table say."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.salvage.objects import SchemaObject
from backtestdb.salvage.pages import open_pages
from backtestdb.salvage.proofs import (
    Index,
    describe_proofs,
    entry_of,
    is_named,
    load_entries,
    load_proofs,
    make_entry,
)
from backtestdb.salvage.rows import Row
from backtestdb.salvage.shapes import describe_table
from small_database import make_small_database, pages_of

TABLE = """
CREATE TABLE t (a TEXT, virtual TEXT AS (upper(a)) VIRTUAL, b INT, c REAL UNIQUE);
CREATE INDEX first ON t (a);
CREATE INDEX all_of_it ON t (c DESC, a, b);
CREATE INDEX partial ON t (a) WHERE b > 0;
CREATE INDEX expression ON t (a, lower(a));
CREATE INDEX made ON t (virtual);
CREATE INDEX in_the_backup ON t (b);
CREATE INDEX unknown ON t (b);
"""


def make_object(name: str, root: int, *, kind: str = "index", is_live: bool = True) -> SchemaObject:
    return SchemaObject(kind=kind, name=name, table="t", root=root, sql="", is_live=is_live)


def test_proofs_are_the_indexes_of_the_file_that_name_every_row() -> None:
    objects = [
        make_object("t", 2, kind="table"),
        make_object("first", 3),
        make_object("all_of_it", 4),
        make_object("partial", 5),
        make_object("expression", 6),
        make_object("made", 7),
        make_object("sqlite_autoindex_t_1", 8),
        make_object("in_the_backup", 9, is_live=False),
    ]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLE)
        found = describe_proofs(connection, describe_table(connection, "t"), objects)
    # A record holds a, b and c.
    assert sorted(found, key=lambda one: one.root) == [
        Index((0,), 3),
        Index((2, 0, 1), 4),
        Index((2,), 8),
    ]


def test_table_without_rowid_has_no_proofs() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(
            "CREATE TABLE t (a TEXT PRIMARY KEY) WITHOUT ROWID; CREATE INDEX i ON t (a);"
        )
        shape = describe_table(connection, "t")
        assert describe_proofs(connection, shape, [make_object("i", 3)]) == []


@pytest.fixture
def live(tmp_path: Path) -> Path:
    sql = (
        "CREATE TABLE t (a TEXT, b REAL); CREATE INDEX one ON t (a); CREATE INDEX two ON t (b, a);"
    )
    sql += "CREATE TABLE empty (x); CREATE INDEX none ON empty (x);"
    sql += "INSERT INTO t VALUES ('x', 3.0), (NULL, 2.5), (printf('%.6000c', 'y'), 1);"
    return make_small_database(tmp_path / "live.db", sql)


def root_of(path: Path, index: str) -> int:
    return pages_of(path, index)[0]


def test_entries_are_key_and_rowid_of_all_that_can_be_read(live: Path) -> None:
    long = make_entry([bytearray(b"y" * 6000), 3])
    one, two = Index((0,), root_of(live, "one")), Index((1, 0), root_of(live, "two"))
    with open_pages(live) as file:
        short = {make_entry([bytearray(b"x"), 1]), make_entry([None, 2])}
        assert load_entries(file, one) == short | {long}
        entries = load_entries(file, two)
        assert entries is not None
        assert make_entry([3, bytearray(b"x"), 1]) in entries
        # Entries of another index have another number of values.
        assert load_entries(file, Index((0,), two.root)) == set()
        assert load_entries(file, Index((0, 1, 2), one.root)) == set()
        assert load_entries(file, Index((0,), root_of(live, "none"))) == set()
        assert load_entries(file, Index((0,), root_of(live, "t"))) is None

    data = bytearray(live.read_bytes())
    for page in pages_of(live, "one", "overflow"):
        data[(page - 1) * 4096 : page * 4096] = bytes(4096)
    live.write_bytes(data)
    with open_pages(live) as file:
        assert load_entries(file, one) == short


def test_proofs_are_those_of_which_something_can_be_read(live: Path) -> None:
    none, lost = Index((0,), root_of(live, "none")), Index((0,), root_of(live, "t"))
    with open_pages(live) as file:
        assert load_proofs(file, [none, lost]) == [(none, set())]


def test_entry_of_a_number_is_the_same_whether_it_has_a_point_or_not() -> None:
    assert make_entry([3.0, 7]) == make_entry([3, 7]) == "[3, 7]"
    assert make_entry([2.5, None, bytearray(b"x"), b"x"]) == "[2.5, None, bytearray(b'x'), b'x']"


def test_entry_of_a_row_is_its_key_and_rowid_or_nothing_where_it_ends_before() -> None:
    row: Row = (9, [bytearray(b"a"), 5])
    assert entry_of(row, Index((1, 0), 3)) == make_entry([5, bytearray(b"a"), 9])
    assert entry_of(row, Index((0,), 3)) == make_entry([bytearray(b"a"), 9])
    assert entry_of(row, Index((0, 2), 3)) == ""
    assert entry_of((9, []), Index((0,), 3)) == ""
    assert entry_of((9, [1]), Index((2,), 3)) == ""


def test_row_is_named_when_one_index_names_it() -> None:
    index, other = Index((0,), 3), Index((1,), 4)
    row: Row = (9, [5, 6])
    assert is_named(row, [(other, set()), (index, {"[5, 9]"})])
    assert not is_named(row, [(other, {"[5, 9]"}), (index, {"[5, 8]"})])
    assert not is_named(row, [])
