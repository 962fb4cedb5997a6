"""Pages of tables whose parent is lost: those that two times of the same rows lay claim to."""

from pathlib import Path

import pytest

from backtestdb.salvage.orphans import without_overlaps
from backtestdb.salvage.pages import open_pages
from backtestdb.salvage.trees import Tree
from small_salvage import make_small_database, pages_of


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
