"""Rows out of pages. A row that cannot be read in full, or that could not be one of its table, is
not taken."""

from collections import Counter
from collections.abc import Iterator, Sequence

from backtestdb.salvage.pages import (
    INDEX_KINDS,
    DamagedError,
    Page,
    PageFile,
    list_overflow,
    parse_page,
    read_payload,
)
from backtestdb.salvage.records import Value, in_utf_8, parse_record
from backtestdb.salvage.shapes import Shape, fits
from backtestdb.salvage.trees import Tree

Row = tuple[int, list[Value]]


def read_records(
    file: PageFile, pages: Sequence[int], claims: Counter[int]
) -> Iterator[Row | None]:
    """Yield the rowid (0 in a table WITHOUT ROWID) and the stored values of each row, text in
    UTF-8; None where they are lost."""
    for number in pages:
        page = parse_page(file, number)
        for cell in page.cells:
            try:
                if any(claims[number] > 1 for number in (page.number, *list_overflow(file, cell))):
                    raise DamagedError("two rows lay claim to one page")
                values = parse_record(read_payload(file, page, cell))
                yield cell.rowid, in_utf_8(values, file.encoding)
            except DamagedError:
                yield None


def read_rows(
    file: PageFile, pages: Sequence[int], shape: Shape, claims: Counter[int]
) -> Iterator[Row | None]:
    """Yield rows with the rowid in its column; None for each row that is not taken."""
    for record in read_records(file, pages, claims):
        yield make_row(shape, record) if record and fits(shape, record[1]) else None


def make_row(shape: Shape, record: Row) -> Row:
    rowid, values = record
    return rowid, [rowid if index == shape.alias else value for index, value in enumerate(values)]


def claim_pages(file: PageFile, trees: Sequence[Tree]) -> Counter[int]:
    """Return how often each page is laid claim to: more than once, and there is no telling whose it
    is."""
    claims: Counter[int] = Counter()
    for tree in trees:
        claims.update(tree.inner)
        claims.update(tree.pages)
        for number in tree.pages:
            claims.update(claimed_by(file, parse_page(file, number)))
    return claims


def claimed_by(file: PageFile, page: Page) -> Iterator[int]:
    if page.is_interior and page.kind not in INDEX_KINDS:
        return
    for cell in page.cells:
        try:
            yield from list_overflow(file, cell)
        except DamagedError:
            continue
