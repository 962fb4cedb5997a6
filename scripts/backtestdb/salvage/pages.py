"""Pages of a damaged database file, read without SQLite: its cursor gives up below a bad page, this
does not.

Source of every offset and formula: https://www.sqlite.org/fileformat2.html, chapter 1. Whatever
does not agree with it in every number is damaged: a page is believed wholly or not at all.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

HEADER_BYTES = 100
TABLE_INTERIOR, TABLE_LEAF = 0x05, 0x0D
INDEX_INTERIOR, INDEX_LEAF = 0x02, 0x0A
INTERIOR = {TABLE_INTERIOR, INDEX_INTERIOR}
TABLE_KINDS = {TABLE_INTERIOR, TABLE_LEAF}
INDEX_KINDS = {INDEX_INTERIOR, INDEX_LEAF}
MOST_FRAGMENTED_BYTES = 60


class DamagedError(Exception):
    """A page, a cell or a record is not what the file format says; only this package sees it."""


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """`usable`: bytes of a page without the reserved ones at its end. Pages count from 1."""

    data: mmap.mmap
    page_size: int
    usable: int
    count: int
    encoding: str

    def page(self, number: int) -> bytes:
        if not 1 <= number <= self.count:
            raise DamagedError(f"page {number} is outside the file")
        return self.data[(number - 1) * self.page_size : number * self.page_size]


class Cell(NamedTuple):
    """`child` is 0 in leaves, `rowid` 0 in indexes, `size` (of the whole payload) 0 in interior
    pages of tables, `overflow` 0 where the payload lies in the page."""

    begin: int
    end: int
    child: int
    rowid: int
    size: int
    payload: int
    local: int
    overflow: int


@dataclass(frozen=True, kw_only=True)
class Page:
    number: int
    kind: int
    data: bytes
    cells: list[Cell]
    right: int

    @property
    def is_interior(self) -> bool:
        return self.kind in INTERIOR


@contextmanager
def open_pages(path: Path) -> Iterator[PageFile]:
    """Open a file for reading by pages. `path` has a header that is right (see working_copy) and is
    not written to meanwhile."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        page_size = parse_page_size(data[:HEADER_BYTES])
        encoding = {2: "utf-16-le", 3: "utf-16-be"}.get(int.from_bytes(data[56:60]), "utf-8")
        yield PageFile(
            data=data,
            page_size=page_size,
            usable=page_size - data[20],
            count=len(data) // page_size,
            encoding=encoding,
        )


def parse_page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18])
    return 65536 if size == 1 else size


def parse_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number, with its sign, and where it ends."""
    value = 0
    for index in range(9):
        if position + index >= len(data):
            raise DamagedError("a number goes beyond its page")
        byte = data[position + index]
        if index == 8:
            value = (value << 8) | byte
            return value - (1 << 64) if value >> 63 else value, position + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, position + index + 1

    raise AssertionError("a ninth byte ends every number")


def parse_page(file: PageFile, number: int) -> Page:
    """Raise DamagedError unless header, cell pointers and cells agree, and no two cells overlap."""
    data = file.page(number)
    start = HEADER_BYTES if number == 1 else 0
    kind = data[start]
    if kind not in TABLE_KINDS | INDEX_KINDS:
        raise DamagedError(f"page {number} is of no kind")

    pointers = start + (12 if kind in INTERIOR else 8)
    count = int.from_bytes(data[start + 3 : start + 5])
    content = int.from_bytes(data[start + 5 : start + 7]) or 65536
    if (
        not pointers + 2 * count <= content <= file.usable
        or data[start + 7] > MOST_FRAGMENTED_BYTES
    ):
        raise DamagedError(f"page {number} has an impossible header")

    offsets = [int.from_bytes(data[at : at + 2]) for at in range(pointers, pointers + 2 * count, 2)]
    if offsets and min(offsets) < content:
        raise DamagedError(f"page {number} points before its content")

    cells = [parse_cell(data, kind, offset, file.usable) for offset in offsets]
    for one, other in pairwise(sorted(cells)):
        if one.end > other.begin:
            raise DamagedError(f"page {number} has overlapping cells")

    right = int.from_bytes(data[start + 8 : start + 12]) if kind in INTERIOR else 0
    return Page(number=number, kind=kind, data=data, cells=cells, right=right)


def parse_cell(data: bytes, kind: int, begin: int, usable: int) -> Cell:
    """Given a page and where a cell begins, return the cell. `kind`: the page's type byte;
    `usable`: bytes of a page without what is reserved. Raise DamagedError for what cannot be a
    cell."""
    child, position, rowid = 0, begin, 0
    if kind in INTERIOR:
        child, position = int.from_bytes(data[begin : begin + 4]), begin + 4
    if kind == TABLE_INTERIOR:
        rowid, end = parse_varint(data, position)
        return Cell(begin, verify_end(end, usable), child, rowid, 0, end, 0, 0)

    size, position = parse_varint(data, position)
    if kind == TABLE_LEAF:
        rowid, position = parse_varint(data, position)
    if size < 1:
        raise DamagedError("a payload of no bytes")

    local = local_bytes(kind, size, usable)
    end = position + local
    overflow = 0
    if local < size:
        overflow, end = int.from_bytes(data[end : end + 4]), end + 4

    return Cell(begin, verify_end(end, usable), child, rowid, size, position, local, overflow)


def verify_end(end: int, usable: int) -> int:
    if end > usable:
        raise DamagedError("a cell goes beyond its page")
    return end


def local_bytes(kind: int, size: int, usable: int) -> int:
    """Return how much of a payload lies in the page itself; the rest lies in overflow pages."""
    most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    return local if local <= most else least


def list_overflow(file: PageFile, cell: Cell) -> list[int]:
    """Return the pages behind a cell. Raise DamagedError for one that is lost."""
    pages: dict[int, None] = {}  # in their order, and quick to look up: a row may have thousands
    number, left = cell.overflow, cell.size - cell.local
    while left > 0:
        data = file.page(number)
        # As the last page of a row, one of zeros would pass for an end, and fill a text with zeros.
        if number in pages or not data.strip(b"\0"):
            raise DamagedError(f"overflow page {number} is lost")
        pages[number] = None
        number, left = int.from_bytes(data[:4]), left - (file.usable - 4)

    if number and pages:
        raise DamagedError("a row goes on behind its end")
    return list(pages)


def read_payload(file: PageFile, page: Page, cell: Cell) -> bytes:
    parts = [page.data[cell.payload : cell.payload + cell.local]]
    parts += [file.page(number)[4 : file.usable] for number in list_overflow(file, cell)]
    return b"".join(parts)[: cell.size]
