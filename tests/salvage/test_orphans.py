"""Pages of tables whose parent is lost: whose they are, and those of which nothing tells."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.salvage.orphans import (
    adopt_orphans,
    bounds_of,
    first_leaf,
    inside,
    keep_best,
    without_overlaps,
    without_shared_keys,
)
from backtestdb.salvage.pages import open_pages
from backtestdb.salvage.scan import scan_pages
from backtestdb.salvage.shapes import Shape
from backtestdb.salvage.sources import TableSource, describe_tables, find_source
from backtestdb.salvage.trees import Gap, Tree
from small_salvage import (
    load_schema,
    make_small_database,
    opened_saved,
    opened_source,
    pages_of,
    shape_of,
)

PAGE = 512
ROWS = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {1}) "
    "INSERT INTO {0} SELECT i, printf('{2}%.60c', 'x') FROM n;"
)


def make_deep(path: Path, *tables: str, rows: int = 60, options: str = "") -> Path:
    """Tables of two columns, whose small pages have a root above them."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {PAGE}")
        database.execute("PRAGMA synchronous = OFF")
        for name in tables:
            database.executescript(
                f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, text TEXT) {options}; "
                + ROWS.format(name, rows, name)
            )
    return path


def zero(path: Path, *pages: int) -> None:
    data = bytearray(path.read_bytes())
    for page in pages:
        data[(page - 1) * PAGE : page * PAGE] = bytes(PAGE)
    path.write_bytes(data)


def root_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        return int(database.execute(query, (table,)).fetchone()[0])


def adopt_all(path: Path, saved: Path | None = None) -> tuple[dict[str, TableSource], int]:
    with open_pages(path) as file:
        schema = load_schema(file)
        tables, entries = describe_tables(schema)
        sources = {name: find_source(file, one, None) for name, one in tables.items()}
        roots = {one.root for one in schema.objects}
        scan = scan_pages(file, first_page_is_lost=False)
        if saved is None:
            return sources, adopt_orphans(file, scan, sources, entries, roots, None)
        with opened_saved(saved) as backup:
            return sources, adopt_orphans(file, scan, sources, entries, roots, backup)


def pages_in(source: TableSource) -> list[int]:
    return sorted(page for tree in source.trees for page in tree.pages)


# ── whose pages they are


def test_pages_below_a_lost_root_are_its_tables(tmp_path: Path) -> None:
    path = make_deep(tmp_path / "live.db", "one")
    leaves = sorted(pages_of(path, "one", "leaf"))
    zero(path, root_of(path, "one"))
    sources, strays = adopt_all(path)
    assert len(leaves) > 3
    assert (pages_in(sources["one"]), sources["one"].doubtful, strays) == (leaves, [], 0)


def test_pages_of_a_sound_file_are_no_orphans(tmp_path: Path) -> None:
    path = make_deep(tmp_path / "live.db", "one", "other")
    sources, strays = adopt_all(path)
    assert strays == 0
    assert pages_in(sources["one"]) == sorted(pages_of(path, "one", "leaf"))


def test_pages_that_two_tables_can_own_are_left_alone_without_a_backup(tmp_path: Path) -> None:
    path = make_deep(tmp_path / "live.db", "one", "other")
    saved = tmp_path / "saved.db"
    saved.write_bytes(path.read_bytes())
    leaves = {name: sorted(pages_of(path, name, "leaf")) for name in ("one", "other")}
    zero(path, root_of(path, "one"), root_of(path, "other"))
    sources, strays = adopt_all(path)
    assert strays == len(leaves["one"]) + len(leaves["other"])
    assert not any(pages_in(source) for source in sources.values())
    sources, strays = adopt_all(path, saved)
    assert strays == 0
    assert {name: pages_in(source) for name, source in sources.items()} == leaves


def test_pages_of_a_table_without_rowid_are_found_by_their_kind(tmp_path: Path) -> None:
    path = make_deep(tmp_path / "live.db", "one", options="WITHOUT ROWID")
    root = root_of(path, "one")
    others = sorted(page for page in pages_of(path, "one") if page != root)
    zero(path, root)
    sources, strays = adopt_all(path)
    assert (pages_in(sources["one"]), strays) == (others, 0)


def test_table_of_whose_rows_the_backup_has_most_is_the_best(tmp_path: Path) -> None:
    sql = "CREATE TABLE {0} (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO {0} VALUES {1};"
    saved = make_small_database(
        tmp_path / "saved.db",
        sql.format("a", "(1, 'x'), (2, 'y')")
        + sql.format("b", "(1, 'x'), (2, 'other')")
        + sql.format("c", "(1, 'z'), (2, 'z')"),
    )
    shapes = [shape_of(sql.format(name, "(1, '')"), name) for name in ("a", "b", "c")]
    records = [(1, [None, bytearray(b"x")]), (2, [None, bytearray(b"y")])]

    def best(chosen: Sequence[Shape], rows: int = 2) -> list[str]:
        with opened_saved(saved) as backup:
            found = keep_best(list(chosen), records[:rows], backup)  # type: ignore[arg-type]
        return [shape.table for shape in found]

    assert best(shapes) == ["a"]
    assert best(shapes, 1) == ["a", "b"]
    assert best(shapes[2:]) == []


# ── one page


def test_first_leaf_is_the_leftmost_that_can_be_read(tmp_path: Path) -> None:
    path = make_deep(tmp_path / "live.db", "one", rows=2000)
    leaves, root = pages_of(path, "one", "leaf"), root_of(path, "one")
    with open_pages(path) as file:
        assert first_leaf(file, root) == leaves[0]
        assert first_leaf(file, leaves[5]) == leaves[5]
        assert first_leaf(file, root, 0) == root
        assert first_leaf(file, root, 1) not in {root, *leaves}
        assert first_leaf(file, root, 2) == leaves[0]
        assert first_leaf(file, 10**6) == 10**6
    zero(path, leaves[0])
    with open_pages(path) as file:
        assert first_leaf(file, root) == leaves[1]
    inner = [page for page in pages_of(path, "one", "internal") if page != root]
    zero(path, *inner)
    with open_pages(path) as file:
        assert first_leaf(file, root) == root


def test_bounds_of_a_tree_are_its_first_and_last_rowid(tmp_path: Path) -> None:
    path = make_deep(tmp_path / "live.db", "one")
    with opened_source(path, "one") as (file, source):
        assert bounds_of(file, source.trees[0]) == (1, 60)
        assert bounds_of(file, Tree()) is None


@pytest.mark.parametrize(
    ("gaps", "is_inside"),
    [
        ([], False),
        ([(None, None)], True),
        ([(0, 60)], True),
        ([(0, None)], True),
        ([(None, 60)], True),
        ([(1, None)], False),
        ([(1, 60)], False),
        ([(None, 59)], False),
        ([(0, 59)], False),
        ([(5, 9), (0, 61)], True),
    ],
)
def test_tree_lies_in_a_gap_from_its_first_to_its_last_rowid(
    tmp_path: Path, gaps: list[tuple[int | None, int | None]], is_inside: bool
) -> None:
    path = make_deep(tmp_path / "live.db", "one")
    with opened_source(path, "one") as (file, source):
        found = inside(file, [*source.trees, Tree()], [Gap(9, low, high, 1) for low, high in gaps])
        assert found == (source.trees if is_inside else [])


# ── two times of the same rows


@pytest.mark.parametrize(
    ("ranges", "kept"),
    [
        ([(1, 5), (6, 9)], [0, 1]),
        ([(6, 9), (1, 5)], [1, 0]),
        ([(1, 5), (5, 9)], []),
        ([(1, 5), (1, 5), (6, 9)], [2]),
        # The first reaches over the second to the third.
        ([(1, 100), (2, 3), (50, 60), (101, 102)], [3]),
        ([(1, 100), (50, 120), (110, 130), (131, 140)], [3]),
        ([], []),
    ],
)
def test_trees_for_the_same_rowids_are_all_left_out(
    tmp_path: Path, ranges: list[tuple[int, int]], kept: list[int]
) -> None:
    """Each tree is a page of two rows: the first and the last of its range."""
    sql = "".join(
        f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY); "
        f"INSERT INTO t{number} VALUES ({first}), ({last});"
        for number, (first, last) in enumerate(ranges)
    )
    path = make_small_database(tmp_path / "live.db", f"{sql} CREATE TABLE empty (id INT);")
    trees = [Tree(pages=pages_of(path, f"t{number}")) for number in range(len(ranges))]
    with open_pages(path) as file:
        found = without_overlaps(file, [*trees, Tree(pages=pages_of(path, "empty"))])
    assert found == [trees[number] for number in kept]


def test_trees_with_the_same_key_are_all_left_out(tmp_path: Path) -> None:
    keys = [("a", "b"), ("c", "d"), ("b", "e"), ("f", "g")]
    sql = "".join(
        f"CREATE TABLE t{number} (n INT, id TEXT PRIMARY KEY) WITHOUT ROWID; "
        f"INSERT INTO t{number} VALUES ({number}, '{one}'), ({number}, '{other}');"
        for number, (one, other) in enumerate(keys)
    )
    path = make_small_database(tmp_path / "live.db", sql)
    trees = [Tree(pages=pages_of(path, f"t{number}")) for number in range(len(keys))]
    shape = shape_of("CREATE TABLE t (n INT, id TEXT PRIMARY KEY) WITHOUT ROWID;")
    with open_pages(path) as file:
        assert without_shared_keys(file, trees, shape) == [trees[1], trees[3]]
