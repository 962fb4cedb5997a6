"""Where a salvage looks for the rows of a table, and when it believes a root that only the backup
names."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.salvage import sources
from backtestdb.salvage.pages import PageFile, open_pages
from backtestdb.salvage.proofs import Index, entry_of, load_entries
from backtestdb.salvage.rows import Row
from backtestdb.salvage.sources import (
    TableSource,
    agrees_with_an_index,
    count_matches,
    describe_tables,
    find_source,
    is_tree_of,
    read_source,
    sample_rows,
)
from backtestdb.salvage.trees import Gap, Tree, read_tree
from small_database import make_small_database, pages_of
from small_salvage import (
    described,
    load_schema,
    opened_saved,
    opened_source,
    shape_of,
    source_of,
)

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE);"
THREE = f"{TABLE} INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');"
MANY = (
    f"{TABLE} WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) "
    "INSERT INTO t SELECT i, printf('%.80c%d', 'x', i) FROM n;"
)
GAP = Gap(9, None, None, 1)
# What says that nothing is known of where a table lies: its pages may be at any depth.
ANYWHERE = Gap(0, None, None, -1)


def empty_source() -> TableSource:
    return TableSource(shape=shape_of(TABLE), is_rooted=True, indexes=[])


# ── what is lost


@pytest.mark.parametrize(
    ("trees", "doubtful", "lost"),
    [
        ([], [], 1),
        ([Tree(pages=[2])], [], 0),
        ([Tree(pages=[2], gaps=[GAP])], [Tree(gaps=[GAP, GAP])], 3),
        ([], [Tree(gaps=[GAP, GAP])], 2),
    ],
)
def test_lost_pages_are_the_gaps_or_one_where_there_is_no_tree_at_all(
    trees: list[Tree], doubtful: list[Tree], lost: int
) -> None:
    source = empty_source()
    source.trees, source.doubtful = trees, doubtful
    assert source.lost_pages == lost


# ── rows, and the indexes that name them


def test_rows_of_doubtful_pages_are_taken_only_when_an_index_names_them(tmp_path: Path) -> None:
    with opened_source(make_small_database(tmp_path / "live.db", THREE)) as (file, source):
        (index,) = source.indexes
        rows = [row for row in read_source(file, source, Counter()) if row]
        assert [rowid for rowid, _ in rows] == [1, 2, 3]
        source.trees, source.doubtful = [], source.trees
        source.proofs = [(index, {entry_of(rows[0], index), entry_of(rows[2], index)})]
        assert list(read_source(file, source, Counter())) == [rows[0], None, rows[2]]
        source.proofs = []
        assert list(read_source(file, source, Counter())) == [None, None, None]
        # Nothing can be read: nothing to be named.
        assert list(read_source(file, source, Counter({2: 2}))) == [None, None, None]


def test_row_whose_key_is_null_is_taken_when_the_index_of_the_key_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite lets a key be NULL that is not the rowid; so does a page of another table look."""
    sql = "CREATE TABLE t (id TEXT PRIMARY KEY, n INT); "
    values = "(NULL, 1), ('b', NULL), (NULL, 3), (NULL, 4)"
    loaded: list[int] = []
    load_proofs = sources.load_proofs

    def load_and_count(file: PageFile, indexes: list[Index]) -> list[tuple[Index, set[str]]]:
        loaded.append(len(indexes))
        return load_proofs(file, indexes)

    monkeypatch.setattr(sources, "load_proofs", load_and_count)
    live = make_small_database(
        tmp_path / "live.db",
        f"{sql} INSERT INTO t VALUES {values}; ALTER TABLE t ADD COLUMN later TEXT;",
    )
    with opened_source(live) as (file, source):
        found = list(read_source(file, source, Counter()))
        assert found == [(1, [None, 1]), (2, [b"b", None]), (3, [None, 3]), (4, [None, 4])]
        assert loaded == [1]
        source.indexes = []
        found = list(read_source(file, source, Counter()))
        assert found == [None, (2, [b"b", None]), None, None]
        # Doubtful pages have to name more than that.
        source.trees, source.doubtful = [], source.trees
        assert list(read_source(file, source, Counter())) == [None] * 4


@pytest.mark.parametrize(
    ("rows", "agrees"),
    [
        ("'a'), (2, 'b'), (3, 'c'", True),
        ("'a'", False),
        ("'a'), (2, 'b'), (3, 'c'), (4, 'd'", False),
    ],
)
def test_rows_agree_with_an_index_that_names_them_and_no_more(
    tmp_path: Path, rows: str, agrees: bool
) -> None:
    """The index of another table of the same shape, as if it were this one's."""
    other = f"{TABLE.replace(' t ', ' u ')} INSERT INTO u VALUES (1, {rows});"
    with opened_source(make_small_database(tmp_path / "live.db", THREE + other)) as (file, source):
        assert agrees_with_an_index(file, source, Counter())
        source.indexes = source_of(file, "u").indexes
        assert agrees_with_an_index(file, source, Counter()) is agrees
        source.indexes = []
        assert not agrees_with_an_index(file, source, Counter())


# ── the tables of a schema


def test_tables_are_described_with_their_indexes_and_all_entries(tmp_path: Path) -> None:
    sql = f"{THREE} CREATE TABLE u (x INT); CREATE INDEX u_x ON u (x); CREATE VIEW v AS SELECT 1;"
    live = make_small_database(tmp_path / "live.db", sql)
    with open_pages(live) as file:
        tables, entries = describe_tables(load_schema(file))
        assert list(tables) == ["t", "u"]
        assert tables["t"].shape == shape_of(TABLE)
        (proof,) = tables["u"].indexes
        assert proof == Index((0,), pages_of(live, "u_x")[0])
        assert load_entries(file, proof) == set()
    assert sorted(entry.table for entry in entries) == ["index sqlite_autoindex_t_1", "index u_x"]


# ── the root


def test_root_that_the_file_names_is_followed_also_where_it_is_the_second_page(
    tmp_path: Path,
) -> None:
    live = make_small_database(tmp_path / "live.db", THREE)
    assert pages_of(live, "t") == [2]
    with open_pages(live) as file:
        source = find_source(file, described(file), None)
        assert (source.is_rooted, [tree.pages for tree in source.trees]) == (True, [[2]])
        assert source.gaps == []
        assert source.shape == shape_of(TABLE)


def test_gaps_below_a_root_are_those_behind_which_pages_may_lie(tmp_path: Path) -> None:
    live = make_small_database(tmp_path / "live.db", MANY)
    data = bytearray(live.read_bytes())
    root = pages_of(live, "t")[0]
    data[(root - 1) * 4096 : root * 4096] = bytes(4096)
    live.write_bytes(data)
    with open_pages(live) as file:
        source = find_source(file, described(file), None)
        assert source.gaps == source.trees[0].open_gaps == [Gap(root, None, None, 0)]


@pytest.mark.parametrize("root", [1, -1])
def test_table_that_cannot_begin_there_may_be_anywhere(tmp_path: Path, root: int) -> None:
    """Page 1 is the schema's, and the backup says -1 of what it does not know."""
    with open_pages(make_small_database(tmp_path / "live.db", THREE)) as file:
        table = described(file)
        source = find_source(
            file, table._replace(one=replace(table.one, root=root, is_live=root == 1)), None
        )
        assert (source.trees, source.gaps) == ([], [ANYWHERE])


@pytest.mark.parametrize(
    ("saved_rows", "is_believed"),
    [
        ("(1, 'a'), (2, 'b'), (3, 'c')", True),
        ("(1, 'other'), (3, 'c')", True),
        ("(1, 'other'), (2, 'values')", False),
        ("(7, 'a')", False),
    ],
)
def test_root_that_only_the_backup_names_is_believed_when_its_rows_are_there(
    tmp_path: Path, saved_rows: str, is_believed: bool
) -> None:
    saved = make_small_database(
        tmp_path / "saved.db", f"{TABLE} INSERT INTO t VALUES {saved_rows};"
    )
    with (
        open_pages(make_small_database(tmp_path / "live.db", THREE)) as file,
        opened_saved(saved) as backup,
    ):
        table = described(file)
        table = table._replace(one=replace(table.one, is_live=False))
        source = find_source(file, table, backup)
        assert bool(source.trees) is is_believed
        assert source.gaps == ([] if is_believed else [ANYWHERE])
        assert not source.is_rooted
        assert not find_source(file, table, None).trees


def test_tree_in_which_a_row_cannot_be_one_of_the_table_is_another_tables(tmp_path: Path) -> None:
    """However many of the others the backup knows."""
    sql = "CREATE TABLE t (name TEXT, n); INSERT INTO t VALUES ('a', 1), ('b', 2);"
    live = make_small_database(
        tmp_path / "live.db", sql.replace("name TEXT", "name") + "INSERT INTO t VALUES (3, 3);"
    )
    with (
        open_pages(live) as file,
        opened_saved(make_small_database(tmp_path / "s.db", sql)) as saved,
    ):
        tree = read_tree(file, 2, is_index=False)
        assert not is_tree_of(file, tree, shape_of(sql), saved)
        assert not is_tree_of(file, Tree(), shape_of(sql), saved)


def test_sample_ends_with_the_page_that_makes_it_large_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_small_database(tmp_path / "live.db", MANY)

    def sizes(file: PageFile, source: TableSource, wanted: int) -> int:
        monkeypatch.setattr(sources, "COMPARED_ROWS", wanted)
        return len(sample_rows(file, source.trees[0], source.shape))

    with opened_source(live) as (file, source):
        first = sizes(file, source, 1)
        assert 1 < first < 100
        assert sizes(file, source, first - 1) == first
        assert sizes(file, source, first) == first
        assert first < sizes(file, source, first + 1) < 200
        assert sizes(file, source, 1000) == 200


# ── compared with the backup


def rows(*names: object) -> list[Row]:
    return [
        (number, [number, bytearray(name) if isinstance(name, bytes) else name])  # type: ignore[list-item]
        for number, name in enumerate(names, 1)
    ]


def test_matches_are_rows_that_are_the_same_value_for_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = shape_of(TABLE)
    with opened_saved(make_small_database(tmp_path / "saved.db", THREE)) as saved:
        assert count_matches(None, shape, rows(b"a")) == 0
        assert count_matches(saved, shape, rows(b"a", b"b", b"c")) == 3
        assert count_matches(saved, shape, rows(b"a", b"A", b"zz", b"d")) == 1
        assert (
            count_matches(saved, shape_of(TABLE.replace("t (", "younger ("), "younger"), rows(b"a"))
            == 0
        )
        monkeypatch.setattr(sources, "COMPARED_ROWS", 2)
        assert count_matches(saved, shape, rows(b"a", b"b", b"c")) == 2


def test_row_without_rowid_is_found_by_its_key_of_any_type(tmp_path: Path) -> None:
    sql = "CREATE TABLE t (n INT, key, PRIMARY KEY (key)) WITHOUT ROWID;"
    saved = make_small_database(
        tmp_path / "saved.db",
        f"{sql} INSERT INTO t VALUES (1, 'k'), (2, x'6b'), (3, 5), (4, CAST(x'ff6b' AS TEXT));",
    )
    # Text need not be UTF-8.
    found: list[Row] = [(0, [bytearray(b"k"), 1]), (0, [b"k", 2]), (0, [5, 3])]
    found.append((0, [bytearray(b"\xffk"), 4]))
    others: list[Row] = [(0, [bytearray(b"k"), 2]), (0, [b"5", 3]), (0, [bytearray(b"5"), 3])]
    with opened_saved(saved) as backup:
        assert count_matches(backup, shape_of(sql), found) == 4
        assert count_matches(backup, shape_of(sql), others) == 0


def test_root_that_the_backup_names_is_believed_in_a_database_in_utf_16(tmp_path: Path) -> None:
    sql = (
        "CREATE TABLE t (name TEXT, PRIMARY KEY (name)) WITHOUT ROWID; INSERT INTO t VALUES ('ä');"
    )
    both = []
    for name in ("live.db", "saved.db"):
        both.append(
            make_small_database(
                tmp_path / name, f"COMMIT; PRAGMA encoding = 'UTF-16le'; BEGIN; {sql}"
            )
        )
    with open_pages(both[0]) as file, opened_saved(both[1]) as saved:
        assert file.encoding == "utf-16-le"
        table = described(file)
        table = table._replace(one=replace(table.one, is_live=False))
        assert find_source(file, table, saved).trees


def test_row_that_neither_a_rowid_nor_a_key_reaches_matches_nothing(tmp_path: Path) -> None:
    sql = "CREATE TABLE t (rowid, _rowid_, oid);"
    saved = make_small_database(tmp_path / "saved.db", f"{sql} INSERT INTO t VALUES (1, 2, 3);")
    with opened_saved(saved) as backup:
        assert count_matches(backup, shape_of(sql), [(1, [1, 2, 3])]) == 0
