"""Which tables have lost rows since the last good backup.

An emptied file passes every check of SQLite, and its backup is a true copy: of nothing. So each
backup's rows are compared with those of the one before it, and what a table has lost is carried on
from manifest to manifest until the rows are back or the user says that it was meant.
"""

import re
import sqlite3
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.backups.catalogue import Backup
from backtestdb.backups.manifest import Loss, Manifest
from backtestdb.database import column_names, connect
from backtestdb.errors import DatabaseFileError

# Below that a table may lose half of its rows by ordinary work.
FEW_ROWS = 20
SIMILAR_COLUMNS = 0.5
# What SQLite's full-text modules keep beside the text shrinks whenever they tidy up.
INDEX_OF_TEXT = re.compile(r"(?P<of>.+)_(data|idx|docsize|config|segments|segdir|stat)")


@dataclass(frozen=True)
class Expected:
    """The rows that a table should have, and the time of the backup that held them."""

    rows: int
    at_utc: datetime


@dataclass(frozen=True)
class TableShape:
    """What a renamed table is recognised by."""

    rows: int
    columns: frozenset[str]


@dataclass(frozen=True)
class Shrinkage:
    """`losses`: table -> what it lost. `renames`: table that is gone -> the new one that holds its
    rows."""

    losses: Mapping[str, Loss]
    renames: Mapping[str, str]


def compare_with_newest(copy: Path, now: Mapping[str, int], backups: Iterable[Backup]) -> Shrinkage:
    """Given a copy of the database, the rows of its kept tables and all backups, newest first,
    return what was lost since the newest backup that counts, of either kind."""
    newest = find_newest(backups)
    losses = find_losses(load_expected(newest.manifest if newest else None), now)
    gone = [table for table in losses if table not in now]
    if newest is None or newest.manifest is None or not gone:
        return Shrinkage(losses, {})

    rows = newest.manifest.rows
    before = load_shapes(newest.path, {table: rows[table] for table in gone if table in rows})
    new = load_shapes(copy, {table: count for table, count in now.items() if table not in rows})
    renames = find_renames(before, new)
    return Shrinkage(
        {table: loss for table, loss in losses.items() if table not in renames}, renames
    )


def load_shapes(database: Path, rows: Mapping[str, int]) -> dict[str, TableShape]:
    """Return the shape of each table; none if the backup cannot be read any more."""
    try:
        with closing(connect(database, read_only=True)) as connection:
            return {
                table: TableShape(count, frozenset(column_names(connection, table)))
                for table, count in rows.items()
            }
    except (sqlite3.Error, DatabaseFileError):
        return {}


def find_newest(backups: Iterable[Backup]) -> Backup | None:
    return next((backup for backup in backups if backup.counts), None)


def load_expected(manifest: Manifest | None) -> dict[str, Expected]:
    """Return what each kept table should have after the backup of `manifest`: the rows that it has
    there, or those that it had before it lost them."""
    if manifest is None:
        return {}
    expected = {
        table: Expected(rows, manifest.taken_at_utc) for table, rows in manifest.kept_rows.items()
    }

    if not manifest.accepts_loss:
        expected |= {
            table: Expected(loss.before, loss.before_at_utc)
            for table, loss in manifest.losses.items()
        }

    return expected


def find_losses(expected: Mapping[str, Expected], now: Mapping[str, int]) -> dict[str, Loss]:
    """Return tables that are empty or gone, or lost more than half of FEW_ROWS rows or more."""
    known = {*expected, *now}
    return {
        table: Loss(before.rows, before.at_utc, now.get(table, 0))
        for table, before in sorted(expected.items())
        if has_lost(before.rows, now.get(table, 0)) and not is_index_of_text(table, known)
    }


def has_lost(before: int, now: int) -> bool:
    return (before > 0 and now == 0) or (before >= FEW_ROWS and now * 2 < before)


def is_index_of_text(table: str, tables: Container[str]) -> bool:
    """Return whether the table is a full-text module's own; its text, <name>_content, counts."""
    match = INDEX_OF_TEXT.fullmatch(table)
    return match is not None and any(
        f"{match['of']}_{suffix}" in tables for suffix in ("docsize", "segdir")
    )


def find_renames(gone: Mapping[str, TableShape], new: Mapping[str, TableShape]) -> dict[str, str]:
    """Return table that is gone -> new table with as many rows and similar columns. Each new one
    takes one."""
    renames: dict[str, str] = {}
    for table, before in gone.items():
        fitting = [
            (similarity(before, shape), name)
            for name, shape in new.items()
            if name not in renames.values() and shape.rows == before.rows and before.rows
        ]
        best = max(fitting, default=(0.0, ""))
        if best[0] >= SIMILAR_COLUMNS:
            renames[table] = best[1]

    return renames


def similarity(one: TableShape, other: TableShape) -> float:
    """Return the columns that both have, as a part of all columns."""
    return len(one.columns & other.columns) / max(len(one.columns | other.columns), 1)


def find_highest(backups: Sequence[Backup]) -> set[Path]:
    """Return the backups that hold the most rows of a kept table, since a loss of it was accepted
    or the table renamed: the newest of those with as many, a small one rather than a full one.
    `backups`: newest first."""
    open_tables: dict[str, Backup] = {}
    closed: set[str] = set()
    for backup in (backup for backup in backups if backup.counts):
        manifest = backup.manifest
        if manifest is None:
            continue
        for table, rows in manifest.kept_rows.items():
            if (
                table not in closed
                and rows
                and is_better(rows, backup, open_tables.get(table), table)
            ):
                open_tables[table] = backup
        if manifest.accepts_loss:
            break
        closed |= set(manifest.renames)

    return {backup.path for backup in open_tables.values()}


def is_better(rows: int, backup: Backup, best: Backup | None, table: str) -> bool:
    best_rows = best.manifest.rows[table] if best and best.manifest else 0
    if best is None or rows != best_rows:
        return rows > best_rows
    return best.kind == "full" and backup.kind == "irreplaceable"


def describe_losses(losses: Mapping[str, Loss]) -> str:
    """Return `trading_agents: 40 on Monday 2026-11-23 02:00, 0 now`, in local time."""
    return "; ".join(
        f"{table}: {loss.before:,} on {loss.before_at_utc.astimezone():%A %Y-%m-%d %H:%M}, "
        f"{loss.now:,} now"
        for table, loss in losses.items()
    )
