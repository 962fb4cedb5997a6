"""One look at every page of the file: which pages have no parent, and which are free."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from backtestdb.salvage.pages import (
    INDEX_KINDS,
    INTERIOR,
    TABLE_KINDS,
    DamagedError,
    PageFile,
    parse_page,
)

FreeList = Literal["known", "likely", "broken"]


@dataclass(frozen=True)
class Scan:
    """`parentless`: sound pages of tables and indexes that no other page names, and no list of free
    pages. `free_list`: whether all free pages are known, so that none of `parentless` is one;
    "likely" when there is no sign of any."""

    parentless: list[int]
    free_list: FreeList


class Trunk(NamedTuple):
    """A page of the list of free pages."""

    following: int
    listed: frozenset[int]


def scan_pages(file: PageFile, *, first_page_is_lost: bool) -> Scan:
    """Look at every page."""
    trunks = find_trunks(file)
    free = set().union(*(trunk.listed for trunk in trunks.values()))
    children: set[int] = set()
    found = []

    for number in range(2, file.count + 1):
        kind = file.data[(number - 1) * file.page_size]
        # A free page keeps what it held when it was in use: rows that were deleted or have moved
        # since.
        if number not in free and kind in TABLE_KINDS | INDEX_KINDS:
            found.append(number)
            if kind in INTERIOR:
                children |= find_children(file, number)

    if not first_page_is_lost:
        children |= find_children(file, 1)
    parentless = [number for number in found if number not in children and is_sound(file, number)]
    return Scan(parentless, judge_free_list(file, trunks, first_page_is_lost=first_page_is_lost))


def is_sound(file: PageFile, number: int) -> bool:
    try:
        parse_page(file, number)
    except DamagedError:
        return False
    return True


def find_children(file: PageFile, number: int) -> set[int]:
    try:
        page = parse_page(file, number)
    except DamagedError:
        return set()
    return {page.right, *(cell.child for cell in page.cells)} if page.is_interior else set()


def find_trunks(file: PageFile) -> dict[int, Trunk]:
    """Find the pages of the list of free pages by their look."""
    # The list cannot be followed behind a page of it that is lost.
    return {
        number: trunk
        for number in range(2, file.count + 1)
        if file.data[(number - 1) * file.page_size] == 0
        and (trunk := parse_trunk(file, number))
        and trunk.listed
    }


def parse_trunk(file: PageFile, number: int) -> Trunk | None:
    """Return None when this page cannot be part of the list of free pages."""
    at = (number - 1) * file.page_size
    following, count = (int.from_bytes(file.data[at + n : at + n + 4]) for n in (0, 4))
    if count > file.usable // 4 - 2 or following > file.count:
        return None
    numbers = file.data[at + 8 : at + 8 + 4 * count]
    listed = frozenset(int.from_bytes(numbers[n : n + 4]) for n in range(0, len(numbers), 4))
    is_list = len(listed) == count and all(1 < page <= file.count for page in listed)
    return Trunk(following, listed) if is_list else None


def judge_free_list(
    file: PageFile, trunks: dict[int, Trunk], *, first_page_is_lost: bool
) -> FreeList:
    """Tell how much of the list of free pages was found."""
    if not first_page_is_lost:
        # The header says where the list begins and how long it is.
        first, expected = (int.from_bytes(file.data[at : at + 4]) for at in (32, 36))
        return "known" if count_free(file, first) == expected else "broken"
    if not trunks:
        return "likely"

    heads = set(trunks) - {trunk.following for trunk in trunks.values()}
    if len(heads) != 1:
        return "broken"

    # Without the header: SQLite puts a new page before the first one of the list only when that is
    # full, so one that is not full is the first.
    (head,) = heads
    is_full = len(trunks[head].listed) >= file.usable // 4 - 8
    expected = len(trunks) + sum(len(trunk.listed) for trunk in trunks.values())
    return "known" if not is_full and count_free(file, head) == expected else "broken"


def count_free(file: PageFile, first: int) -> int:
    """Count pages in the list that begins at `first`, its own included, as far as it can be
    followed."""
    seen: set[int] = set()
    total = 0
    while 1 < first <= file.count and first not in seen:
        seen.add(first)
        trunk = parse_trunk(file, first)
        if not trunk:
            break
        total += 1 + len(trunk.listed)
        first = trunk.following
    return total
