"""One look at every page of the file: which pages nobody points at, and which are free."""

from dataclasses import dataclass

from backtestdb.salvage.pages import (
    INDEX_KINDS,
    INTERIOR,
    TABLE_KINDS,
    DamagedError,
    PageFile,
    parse_page,
)


@dataclass(frozen=True)
class Scan:
    """`parentless`: sound pages of tables and indexes that no other page names, and no list of free pages.
    `free_is_known`: the list of free pages is as long as the file's header says, so none of them is free."""

    parentless: list[int]
    free_is_known: bool


def scan_pages(file: PageFile, *, first_page_is_lost: bool) -> Scan:
    """A free page keeps what it held when it was in use: rows that were deleted or have moved since."""
    free, trunks = find_free_pages(file)
    children: set[int] = set()
    found = []
    for number in range(2, file.count + 1):
        kind = file.data[(number - 1) * file.page_size]
        if number not in free and kind in TABLE_KINDS | INDEX_KINDS:
            found.append(number)
            if kind in INTERIOR:
                children |= find_children(file, number)
    if not first_page_is_lost:
        children |= find_children(file, 1)
    expected = int.from_bytes(file.data[36:40])
    is_known = not first_page_is_lost and expected == len(free) + trunks
    return Scan([n for n in found if n not in children and is_sound(file, n)], is_known)


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


def find_free_pages(file: PageFile) -> tuple[set[int], int]:
    """Pages that the list of free pages names, and how many pages the list itself takes. Those are found by
    their look, because the list cannot be followed behind one that is lost."""
    free: set[int] = set()
    trunks = 0
    for number in range(2, file.count + 1):
        at = (number - 1) * file.page_size
        count = int.from_bytes(file.data[at + 4 : at + 8])
        if file.data[at] == 0 and 0 < count <= file.usable // 4 - 2:
            listed = file.data[at + 8 : at + 8 + 4 * count]
            pages = {int.from_bytes(listed[at : at + 4]) for at in range(0, len(listed), 4)}
            following = int.from_bytes(file.data[at : at + 4])
            if (
                len(pages) == count
                and following <= file.count
                and min(pages) > 1
                and max(pages) <= file.count
            ):
                free |= pages
                trunks += 1
    return free, trunks
