"""Pages of tables whose parent is lost: whose they are, and those of which nothing tells."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.salvage.orphans import (
    adopt,
    adopt_orphans,
    bounds_of,
    find_owner,
    first_leaf,
    inside,
    is_known_to_backup,
    keep_best,
    without_overlaps,
    without_shared_keys,
)
from backtestdb.salvage.pages import open_pages
from backtestdb.salvage.proofs import Index
from backtestdb.salvage.scan import FreeList, Scan, scan_pages
from backtestdb.salvage.shapes import Shape
from backtestdb.salvage.sources import WHOLE_TREE, TableSource, describe_tables, find_source
from backtestdb.salvage.trees import Gap, Tree
from small_database import make_small_database, pages_of, zero
from small_salvage import load_schema, opened_saved, opened_source, shape_of

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


def test_page_of_either_kind_is_not_compared_with_tables_of_the_other(tmp_path: Path) -> None:
    """A row of either looks like one of the other."""
    path = make_deep(tmp_path / "live.db", "keyed", options="WITHOUT ROWID")
    with closing(sqlite3.connect(path)) as database:
        sql = "CREATE TABLE plain (id INT, text TEXT);" + ROWS.format("plain", 60, "x")
        database.executescript(sql)
    others = {
        name: sorted({*pages_of(path, name)} - {root_of(path, name)}) for name in ("keyed", "plain")
    }
    zero(path, *(root_of(path, name) for name in others))
    sources, strays = adopt_all(path)
    assert strays == 0
    assert {name: pages_in(source) for name, source in sources.items()} == others


def test_pages_that_are_known_already_are_no_orphans(tmp_path: Path) -> None:
    path = make_deep(tmp_path / "live.db", "one", rows=2000)
    with opened_source(path, "one") as (file, source):
        source.gaps = [WHOLE_TREE]
        trees = list(source.trees)
        for known in (trees[0].pages, trees[0].inner):
            found = adopt_orphans(file, Scan(known, "known"), {"one": source}, [], set(), None)
            assert (found, source.trees) == (0, trees)

        source.trees = []
        root = root_of(path, "one")
        found = adopt_orphans(file, Scan([root], "known"), {"one": source}, [], {root}, None)
        assert (found, source.trees) == (0, [])


def test_pages_of_the_schema_are_no_orphans(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(20)]
    path = make_deep(tmp_path / "live.db", *names, rows=1)
    schema = pages_of(path, "sqlite_schema", "leaf")
    text = "kind TEXT, name TEXT, tbl TEXT, root INT, sql TEXT"
    with open_pages(path) as file:
        source = make_source(shape_of(f"CREATE TABLE t ({text});"))
        assert len(schema) > 1
        assert adopt_orphans(file, Scan(schema, "known"), {"t": source}, [], set(), None) == 0
        assert source.trees == []


# ── which table alone can own a page

TWO, THREE = "(n INT, s TEXT)", "(n INT, s TEXT, more INT)"
ANYTHING = "(a, b)"


def make_source(shape: Shape, indexes: Sequence[Index] = ()) -> TableSource:
    """Of a table of which nothing is known but what its rows look like."""
    source = TableSource(shape=shape, is_rooted=False, indexes=list(indexes))
    source.gaps = [WHOLE_TREE]
    return source


@pytest.mark.parametrize(
    ("rows", "ours", "rivals", "owner"),
    [
        ("(1, 'x')", [TWO], [], "ours0"),
        ("(1, 'x'), (2, 'y'), (3, 'z')", [TWO], ["(n INT)"], "ours0"),
        ("", [ANYTHING], [ANYTHING], ""),
        ("(1, 'x')", ["(n INT)"], [], ""),
        ("(1, 'x')", ["(n INT)"], [TWO], "rival0"),
        ("(1, 'x')", ["(n INT)"], [ANYTHING, TWO, TWO], "rival0"),
        # A row behind the first says no.
        ("(1, 'x'), (2, 2)", [TWO], [], ""),
        ("(1, 'x'), (2, 'y'), (3, 3)", [TWO], [ANYTHING], "rival0"),
        ("(1, 1), (2, 'x')", [TWO], [], ""),
        # Each of two could own it.
        ("(1, 'x')", [TWO], [TWO], ""),
        ("(1, 'x')", [TWO, TWO], [], ""),
        # The one whose columns the longest row fills is the better match.
        ("(1, 'x')", [THREE], [], "ours0"),
        ("(1, 'x')", [THREE, TWO], [], "ours1"),
        ("(1, 'x')", [TWO], [THREE], "ours0"),
        ("(1, 'x')", [THREE], [TWO], "rival0"),
    ],
)
def test_owner_of_a_page_is_the_table_that_alone_fits_all_of_its_rows(
    tmp_path: Path, rows: str, ours: list[str], rivals: list[str], owner: str
) -> None:
    insert = f"INSERT INTO page VALUES {rows};" if rows else ""
    path = make_small_database(tmp_path / "live.db", f"CREATE TABLE page (a, b); {insert}")
    sources = {
        name: make_source(shape_of(f"CREATE TABLE {name} {columns};", name))
        for name, columns in ((f"ours{place}", text) for place, text in enumerate(ours))
    }
    others = [
        shape_of(f"CREATE TABLE rival{place} {columns};", f"rival{place}")
        for place, columns in enumerate(rivals)
    ]
    shapes = [*(source.shape for source in sources.values()), *others]
    with open_pages(path) as file:
        assert find_owner(file, root_of(path, "page"), shapes, sources, None) == owner


@pytest.mark.parametrize(
    ("row_of_one", "row_of_other", "owner"),
    [
        ("(1, 'x')", "(1, 'y')", "one"),
        ("(1, 'y')", "(1, 'x')", "other"),
        ("(1, 'x')", "(1, 'x')", ""),
        ("(1, 'y')", "(1, 'y')", ""),
    ],
)
def test_owner_of_a_page_that_two_fit_is_the_one_whose_rows_the_backup_has(
    tmp_path: Path, row_of_one: str, row_of_other: str, owner: str
) -> None:
    sql = "CREATE TABLE {0} (n INTEGER PRIMARY KEY, s TEXT); INSERT INTO {0} VALUES {1};"
    path = make_small_database(tmp_path / "live.db", sql.format("page", "(1, 'x')"))
    saved = make_small_database(
        tmp_path / "saved.db", sql.format("one", row_of_one) + sql.format("other", row_of_other)
    )
    shapes = [shape_of(sql.format(name, row_of_one), name) for name in ("one", "other")]
    sources = {shape.table: make_source(shape) for shape in shapes}
    with open_pages(path) as file, opened_saved(saved) as backup:
        assert find_owner(file, root_of(path, "page"), shapes, sources, backup) == owner


# ── whether they are of today

ROW = "CREATE TABLE one (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO one VALUES (7, '{}');"


@pytest.mark.parametrize(
    ("free_list", "is_indexed", "in_backup", "is_taken"),
    [
        ("known", False, None, True),
        ("known", True, None, True),
        ("known", False, "x", True),
        ("known", False, "other", True),
        ("likely", False, None, True),
        ("likely", False, "x", True),
        ("likely", False, "other", False),
        ("likely", True, "x", False),
        ("broken", False, None, False),
        ("broken", False, "x", False),
        ("broken", True, "x", False),
    ],
)
def test_page_that_may_have_been_free_counts_as_far_as_an_index_or_the_backup_says(
    tmp_path: Path, free_list: FreeList, is_indexed: bool, in_backup: str | None, is_taken: bool
) -> None:
    path = make_small_database(
        tmp_path / "live.db", ROW.format("x") + "CREATE INDEX named ON one (text);"
    )
    saved = make_small_database(tmp_path / "saved.db", ROW.format(in_backup))
    indexes = [Index((1,), root_of(path, "named"))] if is_indexed else []
    source = make_source(shape_of(ROW, "one"), indexes)
    tree = Tree(pages=[root_of(path, "one")])

    with open_pages(path) as file, opened_saved(saved) as backup:
        adopt(file, Scan([], free_list), source, [tree], backup if in_backup else None)
    assert (source.trees, source.doubtful) == (([tree], []) if is_taken else ([], [tree]))
    assert bool(source.proofs) == (is_indexed and free_list != "known")


def test_rows_without_a_backup_are_not_said_to_be_unknown_to_it(tmp_path: Path) -> None:
    path = make_small_database(tmp_path / "live.db", ROW.format("x"))
    shape, tree = shape_of(ROW, "one"), Tree(pages=[root_of(path, "one")])
    with open_pages(path) as file, opened_saved(path) as backup:
        assert is_known_to_backup(file, shape, [], None)
        assert is_known_to_backup(file, shape, [Tree(), tree], backup)
        assert not is_known_to_backup(file, shape, [Tree()], backup)


@pytest.mark.parametrize(("options", "is_index"), [("", False), ("WITHOUT ROWID", True)])
def test_pages_of_two_times_or_outside_of_the_gaps_are_not_adopted(
    tmp_path: Path, options: str, is_index: bool
) -> None:
    sql = "".join(
        f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY) {options}; "
        f"INSERT INTO t{number} VALUES ({row});"
        for number, row in enumerate((3, 5, 5, 9))
    )
    path = make_small_database(tmp_path / "live.db", sql)
    trees = [Tree(pages=[root_of(path, f"t{number}")]) for number in range(4)]
    source = make_source(shape_of(sql, "t0"))
    source.gaps = [Gap(9, 1, 7, 1)]
    with open_pages(path) as file:
        adopt(file, Scan([], "known"), source, trees, None)
    # Without rowids there is no telling what lies in a gap.
    assert source.trees == ([trees[0], trees[3]] if is_index else [trees[0]])


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


@pytest.mark.parametrize("options", ["", "WITHOUT ROWID"])
def test_first_leaf_is_of_the_same_kind_as_the_page_above_it(tmp_path: Path, options: str) -> None:
    """A write that went astray, over the first leaf."""
    path = make_deep(tmp_path / "live.db", "one", options=options)
    other = make_deep(tmp_path / "other.db", "one", options="" if options else "WITHOUT ROWID")
    leaves, strange = pages_of(path, "one", "leaf"), pages_of(other, "one", "leaf")[0]
    data = bytearray(path.read_bytes())
    page = other.read_bytes()[(strange - 1) * PAGE : strange * PAGE]
    data[(leaves[0] - 1) * PAGE : leaves[0] * PAGE] = page
    path.write_bytes(data)
    with open_pages(path) as file:
        assert first_leaf(file, root_of(path, "one")) == leaves[1]


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
        ([(5, None)], False),
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
