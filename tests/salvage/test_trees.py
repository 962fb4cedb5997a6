"""The pages of a tree from its root down, and what is known of those that cannot be read."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.salvage import trees
from backtestdb.salvage.pages import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    TABLE_INTERIOR,
    TABLE_LEAF,
    Cell,
    DamagedError,
    Page,
    open_pages,
    parse_page,
)
from backtestdb.salvage.trees import Gap, Tree, children_of, read_tree, verify_place
from small_database import pages_of, zero

PAGE = 512
ROWS = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) "
    "INSERT INTO t SELECT 2 * i, printf('%.60c', 'x') FROM n;"
)
TABLE = f"CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT); {ROWS}"
INDEX = f"CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT) WITHOUT ROWID; {ROWS}"


def make_deep(path: Path, sql: str) -> Path:
    """A table of several levels: its pages are small."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {PAGE}")
        database.executescript(f"PRAGMA synchronous = OFF; BEGIN; {sql} COMMIT;")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return make_deep(tmp_path / "table.db", TABLE)


def query(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def depth_of_leaves(path: Path) -> int:
    """A path of dbstat has a slash for the root and one for each level below it."""
    (one,) = query(
        path,
        "SELECT max(length(path) - length(replace(path, '/', ''))) FROM dbstat WHERE name = 't'",
    )
    return int(one[0]) - 1


def read(path: Path, *, is_index: bool = False) -> Tree:
    (root,) = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 't'")
    with open_pages(path) as file:
        return read_tree(file, root[0], is_index=is_index)


def test_tree_of_a_table_is_its_leaves_in_order_and_the_pages_above_them(table: Path) -> None:
    tree = read(table)
    assert tree.pages == pages_of(table, "t", "leaf")
    assert sorted(tree.inner) == sorted(pages_of(table, "t", "internal"))
    assert (tree.gaps, tree.leaf_depth) == ([], depth_of_leaves(table))
    assert depth_of_leaves(table) == 2


def test_tree_without_rowid_has_rows_in_all_of_its_pages(tmp_path: Path) -> None:
    path = make_deep(tmp_path / "index.db", INDEX)
    tree = read(path, is_index=True)
    assert sorted(tree.pages) == sorted(pages_of(path, "t"))
    assert (tree.inner, tree.gaps) == ([], [])
    assert tree.leaf_depth == depth_of_leaves(path) > 1


def test_tree_is_followed_down_to_so_many_levels_and_no_more(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "MOST_LEVELS", 2)
    assert read(table).gaps == []
    monkeypatch.setattr(trees, "MOST_LEVELS", 1)
    tree = read(table)
    assert tree.pages == []
    assert [gap.page for gap in tree.gaps] == pages_of(table, "t", "leaf")


def test_page_that_is_lost_is_a_gap_between_its_neighbours(table: Path) -> None:
    leaves = pages_of(table, "t", "leaf")
    whole = table.read_bytes()
    for place in (0, 7, len(leaves) - 1):
        low, high = bounds_of(table, leaves, place)
        zero(table, leaves[place])
        assert read(table).gaps == [Gap(leaves[place], low, high, 2)]
        table.write_bytes(whole)


def bounds_of(path: Path, leaves: list[int], place: int) -> tuple[int | None, int | None]:
    """The last rowid of the leaf before, and of this one; None at either end of the table."""
    with open_pages(path) as file:
        last = [parse_page(file, leaf).cells[-1].rowid for leaf in leaves]
    return (last[place - 1] if place else None, last[place] if place < len(leaves) - 1 else None)


def test_sound_page_of_another_place_is_a_gap_like_a_lost_one(table: Path) -> None:
    """A write that went astray."""
    leaves = pages_of(table, "t", "leaf")
    data = bytearray(table.read_bytes())
    of_another = data[(leaves[3] - 1) * PAGE : leaves[3] * PAGE]
    data[(leaves[7] - 1) * PAGE : leaves[7] * PAGE] = of_another
    low, high = bounds_of(table, leaves, 7)
    table.write_bytes(data)
    assert read(table).gaps == [Gap(leaves[7], low, high, 2)]


def test_lost_root_is_a_gap_without_bounds(table: Path) -> None:
    (root,) = query(table, "SELECT rootpage FROM sqlite_schema")[0]
    zero(table, root)
    with open_pages(table) as file:
        tree = read_tree(file, root, is_index=False)
    assert (tree.pages, tree.gaps, tree.leaf_depth) == ([], [Gap(root, None, None, 0)], None)
    assert tree.open_gaps == tree.gaps


def test_page_that_comes_twice_is_taken_once(tmp_path: Path) -> None:
    """An index has no bounds that would tell."""
    path = make_deep(tmp_path / "index.db", INDEX)
    inner = pages_of(path, "t", "internal")[1]
    content = bytearray(path.read_bytes())
    at = (inner - 1) * PAGE
    one, other = (at + int.from_bytes(content[at + 12 + 2 * n : at + 14 + 2 * n]) for n in (0, 1))
    lost = int.from_bytes(content[other : other + 4])
    twice = int.from_bytes(content[one : one + 4])
    content[other : other + 4] = content[one : one + 4]
    path.write_bytes(content)
    with open_pages(path) as file:
        tree = read_tree(file, query_root(path), is_index=True)
    assert tree.pages.count(twice) == 1
    assert lost not in tree.pages
    assert [gap.page for gap in tree.gaps] == [twice]


def query_root(path: Path) -> int:
    return int(query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 't'")[0][0])


@pytest.mark.parametrize(
    ("leaf_depth", "depth", "is_open"),
    [(None, 3, True), (2, 0, True), (2, 1, True), (2, 2, False), (2, 3, False)],
)
def test_gap_is_open_where_leaves_may_lie_below_it(
    leaf_depth: int | None, depth: int, is_open: bool
) -> None:
    gap = Gap(9, None, None, depth)
    assert Tree(gaps=[gap], leaf_depth=leaf_depth).open_gaps == ([gap] if is_open else [])


# ── one page


def make_page(kind: int, rowids: list[int]) -> Page:
    """With a child of page number 100 + n below each cell."""
    cells = [Cell(0, 0, 100 + number, rowid, 0, 0, 0, 0) for number, rowid in enumerate(rowids)]
    return Page(number=9, kind=kind, data=b"", cells=cells, right=200)


def test_children_have_the_bounds_that_the_rowids_between_them_are() -> None:
    page = make_page(TABLE_INTERIOR, [10, 20])
    assert list(children_of(page, 5, 30)) == [(100, 5, 10), (101, 10, 20), (200, 20, 30)]
    assert next(children_of(page, None, None)) == (100, None, 10)
    assert list(children_of(make_page(INDEX_INTERIOR, [0, 0]), None, None)) == [
        (100, None, None),
        (101, None, None),
        (200, None, None),
    ]
    assert list(children_of(make_page(TABLE_LEAF, [1]), None, None)) == []


@pytest.mark.parametrize(
    ("kind", "is_index", "fits"),
    [
        (TABLE_LEAF, False, True),
        (TABLE_INTERIOR, False, True),
        (INDEX_LEAF, False, False),
        (INDEX_INTERIOR, False, False),
        (INDEX_LEAF, True, True),
        (INDEX_INTERIOR, True, True),
        (TABLE_LEAF, True, False),
        (TABLE_INTERIOR, True, False),
    ],
)
def test_page_is_of_the_kind_of_its_tree(kind: int, is_index: bool, fits: bool) -> None:
    check(make_page(kind, [5]), is_index=is_index, problem="" if fits else "is of another kind")


@pytest.mark.parametrize(
    ("kind", "leaf_depth", "depth", "fits"),
    [
        (TABLE_LEAF, None, 5, True),
        (TABLE_LEAF, 2, 1, False),
        (TABLE_LEAF, 2, 2, True),
        (TABLE_LEAF, 2, 3, False),
        (TABLE_INTERIOR, None, 5, True),
        (TABLE_INTERIOR, 2, 0, True),
        (TABLE_INTERIOR, 2, 1, True),
        (TABLE_INTERIOR, 2, 2, False),
        (TABLE_INTERIOR, 2, 3, False),
    ],
)
def test_leaves_are_all_equally_deep_and_the_others_above_them(
    kind: int, leaf_depth: int | None, depth: int, fits: bool
) -> None:
    problem = "" if fits else "is at a wrong depth"
    check(make_page(kind, [5]), leaf_depth=leaf_depth, depth=depth, problem=problem)


@pytest.mark.parametrize(
    ("rowids", "low", "high", "problem"),
    [
        ([], 1, 2, ""),
        ([1, 2, 3], None, None, ""),
        ([1, 3, 2], None, None, "has rowids out of order"),
        ([1, 1, 2], None, None, "has rowids out of order"),
        ([5, 7, 9], 4, 9, ""),
        ([5, 7, 9], 5, None, "has rowids of another place"),
        ([5, 7, 9], 6, None, "has rowids of another place"),
        ([5, 7, 9], None, 8, "has rowids of another place"),
        ([5, 7, 9], None, 10, ""),
        ([-5, -3], -6, -3, ""),
        ([5], 4, 5, ""),
        ([5], None, 4, "has rowids of another place"),
        ([5, 7, 9], 4, 8, "has rowids of another place"),
        ([5, 7, 9], 5, 9, "has rowids of another place"),
    ],
)
def test_rowids_of_a_page_rise_and_lie_within_its_bounds(
    rowids: list[int], low: int | None, high: int | None, problem: str
) -> None:
    check(make_page(TABLE_LEAF, rowids), low=low, high=high, problem=problem)


def test_pages_of_an_index_have_no_rowids() -> None:
    check(make_page(INDEX_LEAF, [0, 0, 0]), is_index=True, low=7, high=8, problem="")


def check(
    page: Page,
    *,
    low: int | None = None,
    high: int | None = None,
    leaf_depth: int | None = None,
    depth: int = 1,
    is_index: bool = False,
    problem: str,
) -> None:
    if not problem:
        verify_place(page, low, high, leaf_depth, depth, is_index)
        return
    with pytest.raises(DamagedError, match=f"page 9 {problem}"):
        verify_place(page, low, high, leaf_depth, depth, is_index)
