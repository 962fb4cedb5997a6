"""One look at every page: which have no parent, and whether all free ones are known."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.salvage.pages import PageFile, open_pages
from backtestdb.salvage.scan import (
    Scan,
    Trunk,
    count_free,
    find_trunks,
    judge_free_list,
    parse_trunk,
    scan_pages,
)
from small_database import pages_of, zero

PAGE = 512
ROWS = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 700) "
    "INSERT INTO {} SELECT i, printf('%.200c', 'x') FROM n;"
)
# Small pages: 64 bytes have room for the numbers of 14 free pages.
SMALL_PAGE, PAGES = 64, 20
Told = tuple[int, Sequence[int]]


def make_deep(path: Path) -> Path:
    """Two tables of several levels, an index, and the free pages of a third, with what it held."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {PAGE}")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA secure_delete = OFF")
        for name in ("one", "gone", "other"):
            database.executescript(
                f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, text); {ROWS.format(name)}"
            )
        database.executescript("CREATE INDEX i ON other (id); DROP TABLE gone;")
    return path


def scan(path: Path, *, is_lost: bool = False) -> Scan:
    with open_pages(path) as file:
        return scan_pages(file, first_page_is_lost=is_lost)


def query(path: Path, sql: str) -> list[int]:
    with closing(sqlite3.connect(path)) as database:
        return [number for (number,) in database.execute(sql)]


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    return make_deep(tmp_path / "live.db")


def test_pages_without_a_parent_are_the_roots_of_a_sound_file(deep: Path) -> None:
    found = scan(deep)
    assert found.parentless == sorted(query(deep, "SELECT rootpage FROM sqlite_schema"))
    assert found.parentless[0] == 2
    assert found.free_list == "known"
    assert query(deep, "PRAGMA freelist_count")[0] > 200


def test_pages_whose_parent_is_lost_have_none(deep: Path) -> None:
    roots = query(deep, "SELECT rootpage FROM sqlite_schema ORDER BY name")
    (index, one, other) = roots
    level = "SELECT pageno FROM dbstat WHERE name = 'one' AND path LIKE '/___/'"
    children = query(deep, level)
    assert len(children) > 1
    zero(deep, one)
    assert scan(deep).parentless == sorted([index, other, *children])


def test_page_that_is_damaged_is_none_and_has_no_children(deep: Path) -> None:
    (root,) = query(deep, "SELECT rootpage FROM sqlite_schema WHERE name = 'one'")
    whole = scan(deep).parentless
    data = bytearray(deep.read_bytes())
    data[(root - 1) * PAGE + 5 : (root - 1) * PAGE + 7] = b"\xff\xff"  # where its content begins
    deep.write_bytes(data)
    parentless = scan(deep).parentless
    assert root not in parentless
    assert set(whole) - {root} < set(parentless)


def test_last_page_is_looked_at_too(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {PAGE}")
        database.executescript("CREATE TABLE a (x); CREATE TABLE b (x);")
    assert path.stat().st_size == 3 * PAGE
    assert scan(path).parentless == [2, 3]


def test_pages_of_a_large_schema_have_page_1_for_their_parent(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {PAGE}")
        database.executescript(
            "BEGIN;"
            + "".join(f"CREATE TABLE t{n} (a, b, c, d, e, f);" for n in range(40))
            + "COMMIT;"
        )
    roots = query(path, "SELECT rootpage FROM sqlite_schema")
    leaves = [page for page in pages_of(path, "sqlite_schema") if page != 1]
    assert leaves
    assert scan(path).parentless == sorted(roots)
    assert scan(path, is_lost=True).parentless == sorted([*roots, *leaves])


def test_free_pages_are_found_by_the_look_of_their_list(deep: Path) -> None:
    data = deep.read_bytes()
    expected: dict[int, Trunk] = {}
    number = int.from_bytes(data[32:36])
    while number:
        page = data[(number - 1) * PAGE : number * PAGE]
        count = int.from_bytes(page[4:8])
        numbers = [int.from_bytes(page[8 + 4 * n : 12 + 4 * n]) for n in range(count)]
        expected[number] = Trunk(int.from_bytes(page[:4]), frozenset(numbers))
        number = expected[number].following
    assert len(expected) > 1
    with open_pages(deep) as file:
        assert find_trunks(file) == expected
        assert scan_pages(file, first_page_is_lost=True).free_list == "known"


# ── the list of free pages


def make_file(
    trunks: Mapping[int, Told], *, first: int = 0, free: int = 0, behind: int = 0
) -> PageFile:
    """`first`, `free`: what the header says. `behind`: the number that stands behind page 2."""
    data = bytearray(SMALL_PAGE * PAGES)
    for number, (following, listed) in trunks.items():
        content = b"".join(n.to_bytes(4) for n in (following, len(listed), *listed))
        at = (number - 1) * SMALL_PAGE
        data[at : at + len(content)] = content
    if behind:
        data[2 * SMALL_PAGE : 2 * SMALL_PAGE + 4] = behind.to_bytes(4)
    data[32:36], data[36:40] = first.to_bytes(4), free.to_bytes(4)
    return PageFile(
        data=bytes(data),  # type: ignore[arg-type]
        page_size=SMALL_PAGE,
        usable=SMALL_PAGE,
        count=PAGES,
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("told", "is_one"),
    [
        ((0, [5, 6]), True),
        ((PAGES, [5]), True),
        ((PAGES + 1, [5]), False),
        ((3, []), True),
        ((0, range(3, 17)), True),
        ((0, range(3, 18)), False),
        ((0, [2, PAGES]), True),
        ((0, [1, 5]), False),
        ((0, [0, 5]), False),
        ((0, [5, PAGES + 1]), False),
        ((0, [5, 5]), False),
    ],
)
def test_page_is_one_of_the_list_when_every_number_in_it_can_be(told: Told, is_one: bool) -> None:
    following, listed = told
    file = make_file({2: told}, behind=17 if len(listed) > 14 else 0)
    assert parse_trunk(file, 2) == (Trunk(following, frozenset(listed)) if is_one else None)


def test_trunks_are_pages_that_list_some_page() -> None:
    file = make_file({2: (5, [3, 4]), 5: (0, []), PAGES: (0, [7])})
    assert find_trunks(file) == {2: Trunk(5, frozenset([3, 4])), PAGES: Trunk(0, frozenset([7]))}


@pytest.mark.parametrize(
    ("trunks", "first", "total"),
    [
        ({2: (0, [3, 4])}, 2, 3),
        ({2: (PAGES, [3, 4]), PAGES: (0, [7, 8, 9])}, 2, 7),
        ({2: (2, [3])}, 2, 2),
        ({2: (5, [3]), 5: (2, [4])}, 2, 4),
        ({2: (5, [3]), 5: (0, [5, 5])}, 2, 2),
        ({2: (0, [3])}, 0, 0),
        ({2: (0, [3])}, 1, 0),
        ({2: (0, [3])}, PAGES + 1, 0),
    ],
)
def test_free_pages_are_counted_as_far_as_the_list_can_be_followed(
    trunks: dict[int, Told], first: int, total: int
) -> None:
    assert count_free(make_file(trunks), first) == total


def judge(trunks: dict[int, Told], *, first: int = 0, free: int = 0, is_lost: bool = False) -> str:
    file = make_file(trunks, first=first, free=free)
    return judge_free_list(file, find_trunks(file), first_page_is_lost=is_lost)


@pytest.mark.parametrize(("free", "known"), [(2, False), (3, True), (4, False)])
def test_list_is_known_when_it_is_as_long_as_the_header_says(free: int, known: bool) -> None:
    assert judge({2: (0, [3, 4])}, first=2, free=free) == ("known" if known else "broken")
    assert judge({}) == "known"


@pytest.mark.parametrize(
    ("trunks", "verdict"),
    [
        ({}, "likely"),
        ({2: (0, [3, 4])}, "known"),
        ({2: (5, [3, 4]), 5: (0, [6])}, "known"),
        # Two heads, or none: a part of the list is lost.
        ({2: (0, [3, 4]), 5: (0, [6])}, "broken"),
        ({2: (5, [3, 4]), 5: (2, [6])}, "broken"),
        # The first one is full: there may be another before it.
        ({2: (0, range(3, 10))}, "known"),
        ({2: (0, range(3, 11))}, "broken"),
        ({2: (0, range(3, 12))}, "broken"),
        # Some trunks that cannot be reached from the head.
        ({2: (0, [3]), 5: (6, [7]), 6: (5, [8])}, "broken"),
        # One in the list that lists nothing.
        ({2: (5, [3]), 5: (0, [])}, "broken"),
    ],
)
def test_list_without_a_header_is_known_when_its_beginning_is(
    trunks: dict[int, Told], verdict: str
) -> None:
    assert judge(trunks, is_lost=True) == verdict
