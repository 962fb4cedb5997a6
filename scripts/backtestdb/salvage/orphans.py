"""Pages of tables whose parent is lost: whose rows are they?

A page belongs to a table when all of its rows could be rows of it, its rowids lie in a gap of it,
and no other table can say the same. Where several can, the page goes to the table of whose rows in
the backup some are on it. A page with no such table, or several, is left alone: a lost row is
better than a wrong one."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

from backtestdb.salvage.objects import parse_objects
from backtestdb.salvage.pages import INDEX_KINDS, DamagedError, Page, PageFile, parse_page
from backtestdb.salvage.proofs import load_proofs
from backtestdb.salvage.rows import Row, make_row, read_records, read_rows
from backtestdb.salvage.scan import Scan
from backtestdb.salvage.shapes import Shape, fits
from backtestdb.salvage.sources import TableSource, count_matches, sample_rows
from backtestdb.salvage.trees import MOST_LEVELS, Gap, Tree, read_tree


def adopt_orphans(
    file: PageFile,
    scan: Scan,
    sources: Mapping[str, TableSource],
    rivals: Iterable[Shape],
    roots: set[int],
    saved: sqlite3.Connection | None,
) -> int:
    """Give each source the trees that belong below its gaps; return the number of trees without a
    table. `rivals`: tables that are not salvaged, whose pages must not be taken for others.
    `roots`: pages at which the damaged file itself says that something begins."""
    if not any(source.gaps for source in sources.values()):
        return 0
    taken = roots.union(
        *(set(tree.pages) | set(tree.inner) for s in sources.values() for tree in s.trees)
    )
    shapes = [source.shape for source in sources.values() if source.gaps] + list(rivals)
    found: dict[str, list[Tree]] = {}
    strays = 0

    for number in scan.parentless:
        if number in taken or parse_objects(file, number):
            continue
        is_index = file.page(number)[0] in INDEX_KINDS
        alike = [shape for shape in shapes if shape.is_index == is_index]
        owner = find_owner(file, number, alike, sources, saved)
        if owner in sources:
            found.setdefault(owner, []).append(read_tree(file, number, is_index=is_index))
        strays += not owner and not is_index

    for table, trees in found.items():
        adopt(file, scan, sources[table], trees, saved)
    return strays


def adopt(
    file: PageFile,
    scan: Scan,
    source: TableSource,
    trees: list[Tree],
    saved: sqlite3.Connection | None,
) -> None:
    """Take the trees for this table: as its own, or as doubtful ones."""
    if source.shape.is_index:
        kept = without_shared_keys(file, trees, source.shape)
    else:
        kept = without_overlaps(file, inside(file, trees, source.gaps))

    # Where pages may have been free, an index has to name their rows.
    if scan.free_list != "known":
        source.proofs = load_proofs(file, source.indexes)

    # A table without an index has no proof: its pages are taken unless there is a sign that free
    # pages are among them, or that none is its own.
    is_doubtful = scan.free_list == "broken" or (
        scan.free_list == "likely" and not is_known_to_backup(file, source.shape, kept, saved)
    )

    if source.proofs or is_doubtful:
        source.doubtful += kept
    else:
        source.trees += kept


def is_known_to_backup(
    file: PageFile, shape: Shape, trees: Iterable[Tree], saved: sqlite3.Connection | None
) -> bool:
    """Return whether some of these rows are in the backup; without a backup there is no telling,
    and the answer is yes."""
    if saved is None:
        return True
    return any(
        count_matches(saved, shape, [row for row in sample_rows(file, tree, shape) if row])
        for tree in trees
    )


def find_owner(
    file: PageFile,
    number: int,
    shapes: Iterable[Shape],
    sources: Mapping[str, TableSource],
    saved: sqlite3.Connection | None,
) -> str:
    """Return the table that alone can own the page and what is below it; empty when there is
    none."""
    stored = (
        record for record in read_records(file, [first_leaf(file, number)], Counter()) if record
    )
    records = list(islice(stored, 1))
    fitting = [shape for shape in shapes if records and fits(shape, records[0][1])]

    if not any(shape.table in sources for shape in fitting):
        return fitting[0].table if fitting else ""  # most pages are market data: one row tells
    records += stored
    fitting = [shape for shape in fitting if all(fits(shape, values) for _, values in records)]
    longest = max(len(values) for _, values in records)
    # Rows end early only where an older platform wrote them: a table that they fill is the better
    # match.
    candidates = [shape for shape in fitting if len(shape.columns) == longest] or fitting
    if len(candidates) > 1:
        candidates = keep_best(candidates, records, saved)

    return candidates[0].table if len(candidates) == 1 else ""


def keep_best(
    candidates: list[Shape], records: list[Row], saved: sqlite3.Connection | None
) -> list[Shape]:
    scores = {
        shape.table: count_matches(saved, shape, [make_row(shape, record) for record in records])
        for shape in candidates
    }
    best = max(scores.values())
    return [shape for shape in candidates if best and scores[shape.table] == best]


def first_leaf(file: PageFile, number: int, levels: int = MOST_LEVELS) -> int:
    """Return the leftmost leaf below a page that can be read; the page itself where there is
    none."""
    page = parse_or_none(file, number)
    if page is None or not page.is_interior or not levels:
        return number
    for child in (*(cell.child for cell in page.cells), page.right):
        below = parse_or_none(file, child)
        if below and below.cells and (below.kind in INDEX_KINDS) == (page.kind in INDEX_KINDS):
            return first_leaf(file, child, levels - 1)
    return number


def parse_or_none(file: PageFile, number: int) -> Page | None:
    try:
        return parse_page(file, number)
    except DamagedError:
        return None


def bounds_of(file: PageFile, tree: Tree) -> tuple[int, int] | None:
    """Return the first and the last rowid."""
    rowids = [cell.rowid for number in tree.pages for cell in parse_page(file, number).cells]
    return (rowids[0], rowids[-1]) if rowids else None


def inside(file: PageFile, trees: Iterable[Tree], gaps: Iterable[Gap]) -> list[Tree]:
    kept = []
    for tree in trees:
        bounds = bounds_of(file, tree)
        if bounds and any(
            (gap.low is None or bounds[0] > gap.low) and (gap.high is None or bounds[1] <= gap.high)
            for gap in gaps
        ):
            kept.append(tree)
    return kept


def without_overlaps(file: PageFile, trees: Iterable[Tree]) -> list[Tree]:
    """Leave out two pages for the same rowids: nothing tells which is from an earlier time."""
    ordered = sorted(
        (bounds, index, tree)
        for index, tree in enumerate(trees)
        if (bounds := bounds_of(file, tree))
    )
    clashing: set[int] = set()
    last, furthest = None, -1
    for (low, high), index, _ in ordered:
        # Not only the one before: a longer one further back may reach over it.
        if last is not None and low <= last:
            clashing |= {index, furthest}
        if last is None or high > last:
            last, furthest = high, index

    return [tree for _, index, tree in ordered if index not in clashing]


def without_shared_keys(file: PageFile, trees: Iterable[Tree], shape: Shape) -> list[Tree]:
    """Leave out the same pages of a table WITHOUT ROWID, whose rows have no numbers to compare but
    their keys."""
    names = [column.name for column in shape.columns]
    places = [names.index(name) for name in shape.key]
    keys = [
        {
            repr([row[1][place] for place in places])
            for row in read_rows(file, tree.pages, shape, Counter())
            if row
        }
        for tree in trees
    ]
    seen = Counter(key for tree_keys in keys for key in tree_keys)

    return [
        tree
        for tree, tree_keys in zip(trees, keys, strict=True)
        if all(seen[key] == 1 for key in tree_keys)
    ]
