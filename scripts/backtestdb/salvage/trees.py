"""The pages of one table, from its root down: those that can be read, and the gaps."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from backtestdb.salvage.pages import (
    INDEX_KINDS,
    TABLE_KINDS,
    DamagedError,
    Page,
    PageFile,
    parse_page,
)

MOST_LEVELS = 20


@dataclass(frozen=True)
class Gap:
    """A page that cannot be read: its rowids are above `low` and up to `high` (None: no bound is
    known)."""

    page: int
    low: int | None
    high: int | None
    depth: int


@dataclass
class Tree:
    """`pages`: those that hold rows. `leaf_depth` is None while no leaf was found."""

    pages: list[int] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    leaf_depth: int | None = None

    @property
    def open_gaps(self) -> list[Gap]:
        """Return the gaps behind which pages of the table may lie. All leaves are equally deep, so
        a gap where others have their leaves has nothing behind it."""
        return [gap for gap in self.gaps if self.leaf_depth is None or gap.depth < self.leaf_depth]


def read_tree(file: PageFile, root: int, *, is_index: bool) -> Tree:
    """Follow a tree to its leaves. `is_index`: a table WITHOUT ROWID, which has rows in its
    interior pages too."""
    tree = Tree()
    seen: set[int] = set()

    def visit(number: int, low: int | None, high: int | None, depth: int) -> None:
        try:
            if number in seen or depth > MOST_LEVELS:
                raise DamagedError(f"page {number} comes twice")
            page = parse_page(file, number)
            verify_place(page, low, high, tree.leaf_depth, depth, is_index)
        except DamagedError:
            tree.gaps.append(Gap(number, low, high, depth))
            return

        seen.add(number)
        if not page.is_interior:
            tree.leaf_depth = depth
        (tree.pages if is_index or not page.is_interior else tree.inner).append(number)

        for child, child_low, child_high in children_of(page, low, high):
            visit(child, child_low, child_high, depth + 1)

    visit(root, None, None, 0)
    return tree


def children_of(
    page: Page, low: int | None, high: int | None
) -> Iterator[tuple[int, int | None, int | None]]:
    """Return each child page and its bounds; an index has no rowids, so no bounds."""
    if not page.is_interior:
        return
    bounded = page.kind in TABLE_KINDS
    for cell in page.cells:
        yield cell.child, low, cell.rowid if bounded else None
        low = cell.rowid if bounded else None
    yield page.right, low, high


def verify_place(
    page: Page,
    low: int | None,
    high: int | None,
    leaf_depth: int | None,
    depth: int,
    is_index: bool,
) -> None:
    """Raise DamagedError when a sound page does not belong here: another one's, or from another
    time."""
    if page.kind not in (INDEX_KINDS if is_index else TABLE_KINDS):
        raise DamagedError(f"page {page.number} is of another kind")
    if leaf_depth is not None and (
        depth >= leaf_depth if page.is_interior else depth != leaf_depth
    ):
        raise DamagedError(f"page {page.number} is at a wrong depth")

    if is_index:
        return

    rowids = [cell.rowid for cell in page.cells]
    # In a leaf the order is strict; an interior page may name a rowid that was deleted since.
    if any(one >= other for one, other in pairwise(rowids)):
        raise DamagedError(f"page {page.number} has rowids out of order")
    if rowids and (
        (low is not None and rowids[0] <= low) or (high is not None and rowids[-1] > high)
    ):
        raise DamagedError(f"page {page.number} has rowids of another place")
