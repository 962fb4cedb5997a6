"""Rows out of pages: none that another table may lay claim to, and none that does not fit."""

from collections import Counter
from pathlib import Path

import pytest

from backtestdb.salvage.pages import PageFile, open_pages
from backtestdb.salvage.rows import claim_pages, read_records, read_rows
from backtestdb.salvage.sources import TableSource
from small_database import make_small_database, pages_of
from small_salvage import opened_source, shape_of

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT);"
TWO = f"{TABLE} INSERT INTO t VALUES (3, 'x', 'y'), (5, 'z', NULL);"
TWO_ROWS = [(3, [3, b"x", b"y"]), (5, [5, b"z", None])]
LONG = f"{TABLE} INSERT INTO t VALUES (1, 'short', ''), (2, printf('%.9000c', 'x'), '');"
# Enough rows, and long ones among them, for pages above the leaves.
MANY = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) "
    "INSERT INTO t SELECT i, printf('%.*c', CASE i % 9 WHEN 0 THEN 5000 ELSE 90 END, 'x'), '' "
    "FROM n;"
)


def read(file: PageFile, source: TableSource, claims: Counter[int]) -> list[object]:
    return list(read_rows(file, source.trees[0].pages, source.shape, claims))


@pytest.mark.parametrize(("claims", "are_taken"), [(0, True), (1, True), (2, False), (3, False)])
def test_rows_of_a_page_are_taken_while_one_table_at_most_lays_claim_to_it(
    tmp_path: Path, claims: int, are_taken: bool
) -> None:
    with opened_source(make_small_database(tmp_path / "live.db", TWO)) as (file, source):
        found = read(file, source, Counter({2: claims}))
    assert found == (TWO_ROWS if are_taken else [None, None])


def test_row_whose_overflow_page_another_lays_claim_to_is_lost_alone(tmp_path: Path) -> None:
    live = make_small_database(tmp_path / "live.db", LONG)
    overflow = pages_of(live, "t", "overflow")
    assert len(overflow) == 2
    with opened_source(live) as (file, source):
        one, other = read(file, source, Counter({overflow[1]: 2}))
        assert one == (1, [1, b"short", b""])
        assert other is None
        assert read(file, source, Counter())[1] == (2, [2, b"x" * 9000, b""])


def test_row_that_could_not_be_one_of_its_table_is_lost_alone(tmp_path: Path) -> None:
    sql = "CREATE TABLE t (a TEXT, b TEXT); INSERT INTO t VALUES ('a', 'b');"
    other = "CREATE TABLE t (a INT, b INT); INSERT INTO t VALUES (1, 2);"
    shape = shape_of(sql)
    rows = []
    for number, text in enumerate((sql, other)):
        with open_pages(make_small_database(tmp_path / f"{number}.db", text)) as file:
            rows += read_rows(file, [2], shape, Counter())
            assert None not in list(read_records(file, [2], Counter()))
    assert rows == [(1, [b"a", b"b"]), None]


@pytest.mark.parametrize("rows", [TWO, f"{TABLE} {MANY}"])
def test_claims_are_laid_to_every_page_of_a_table_once(tmp_path: Path, rows: str) -> None:
    live = make_small_database(tmp_path / "live.db", rows)
    with opened_source(live) as (file, source):
        assert claim_pages(file, source.trees) == Counter(pages_of(live, "t"))
        assert claim_pages(file, [*source.trees, *source.trees]) == Counter(2 * pages_of(live, "t"))


def test_claims_are_laid_to_pages_behind_the_upper_ones_of_a_table_without_rowid(
    tmp_path: Path,
) -> None:
    """Their upper pages hold rows too."""
    table = "CREATE TABLE t (id INTEGER, a TEXT, b TEXT, PRIMARY KEY (id)) WITHOUT ROWID;"
    live = make_small_database(tmp_path / "live.db", table + MANY)
    assert pages_of(live, "t", "internal")
    with opened_source(live) as (file, source):
        assert claim_pages(file, source.trees) == Counter(pages_of(live, "t"))


def test_claims_of_a_row_that_cannot_be_followed_are_left_out(tmp_path: Path) -> None:
    live = make_small_database(
        tmp_path / "live.db", f"{LONG} INSERT INTO t VALUES (3, 'after', '');"
    )
    lost = pages_of(live, "t", "overflow")[0]
    data = bytearray(live.read_bytes())
    data[(lost - 1) * 4096 : lost * 4096] = bytes(4096)
    live.write_bytes(data)
    with opened_source(live) as (file, source):
        assert claim_pages(file, source.trees) == Counter([2])
        assert [row and row[0] for row in read(file, source, Counter())] == [1, None, 3]
