"""Take a copy of the live database that is exactly one committed state of it."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backtestdb.backups.content_hash import Contents, ordinary_tables
from backtestdb.backups.precopy import copy_ahead, create_private, patch_changed_blocks
from backtestdb.database import connect, look_at_file, primary_code, quote, table_names
from backtestdb.errors import BusyError, DatabaseFileError
from backtestdb.files import remove_database, verify_space
from backtestdb.pinned_copy import copy_pinned
from backtestdb.schema import schema_version, tables_to_keep
from backtestdb.table_copy import carry_tables

DEADLINE_SECONDS = 3600.0
SPARE_BYTES = 1 << 20
# Up to here a pinned copy keeps writers waiting for less than 0.1 s.
LARGE_BYTES = 48 << 20
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class SourceFacts:
    """What the source held in the very state that was copied."""

    tables: list[str]
    filled_tables: list[str]
    contents: Contents | None


def verify_source(path: Path) -> None:
    """Raise DatabaseFileError unless there is a database with tables at `path`."""
    state = look_at_file(path)
    if state == "missing":
        raise DatabaseFileError(
            f"there is no database at {path}", next_step="check DATABASE_PATH, or make restore"
        )
    if state == "empty":
        raise DatabaseFileError(
            f"{path} is an empty file", next_step="make restore-from-backup, or make restore"
        )
    if state == "damaged":
        raise DatabaseFileError(
            f"{path} is not a database, or damaged beyond reading", next_step="make restore-from-backup"
        )


@contextmanager
def pinned_source(path: Path, *, fresh: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Yield a connection that sees one committed state until the end, whatever other programs commit.

    `fresh`, a new file, is attached first. It stays private until it is checked and flushed, so SQLite need
    not protect it meanwhile.
    """
    with closing(connect(path)) as source:
        source.execute("PRAGMA foreign_keys = OFF")
        if fresh:
            remove_database(fresh)
            fresh.touch(0o600)
            source.execute("ATTACH ? AS fresh", (str(fresh),))
            source.execute("PRAGMA fresh.journal_mode = OFF")
            source.execute("PRAGMA fresh.synchronous = OFF")
        source.execute("BEGIN")
        if not table_names(source):
            raise DatabaseFileError(
                f"{path} holds no table", next_step="make restore-from-backup, or make restore"
            )
        yield source


def copy_everything(
    path: Path,
    target: Path,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    on_step: OnStep = lambda _name: None,
) -> SourceFacts:
    """Copy one committed state of the database `path` to the new file `target`. The bytes needed are known
    before the first is written."""
    if has_waiting_writers(path):
        return copy_without_waiting(path, target, deadline_seconds, on_step)
    with pinned_source(path) as source:
        on_step("pinned")
        verify_space(target.parent, database_bytes(source) + SPARE_BYTES, f"the backup {target.name}")
        copy_pinned(
            source,
            target,
            deadline_seconds=deadline_seconds,
            on_step=lambda _done, _total: on_step("copying"),
            private=True,
        )
        return read_facts(source, table_names(source), None)


def has_waiting_writers(path: Path) -> bool:
    """Would a commit wait for longer than a moment until a pinned copy is done?"""
    with closing(connect(path)) as source:
        is_large = database_bytes(source) >= LARGE_BYTES
        return is_large and journal_mode(source) != "wal"


def copy_without_waiting(path: Path, target: Path, deadline_seconds: float, on_step: OnStep) -> SourceFacts:
    """See copying_ahead. The descriptor of the live file is closed after SQLite is done with it: closing it
    drops the lock."""
    verify_space(target.parent, path.stat().st_size + SPARE_BYTES, f"the backup {target.name}")
    remove_database(target)
    live, copy = os.open(path, os.O_RDONLY), create_private(target)
    try:
        copy_ahead(
            live, copy, deadline_seconds=deadline_seconds, on_bytes=lambda _done, _total: on_step("copying")
        )
        with pinned_source(path) as source:
            if journal_mode(source) == "wal":
                raise BusyError(f"{path} changed its journal mode during the copy", next_step="try again")
            on_step("pinned")
            patch_changed_blocks(live, copy, database_bytes(source))
            return read_facts(source, table_names(source), None)
    finally:
        os.close(copy)
        os.close(live)


def journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA main.journal_mode").fetchone()[0])


def copy_irreplaceable_tables(
    source: sqlite3.Connection,
    target: Path,
    contents: Contents,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> SourceFacts:
    """The small backup: the tables that no download brings back, with their own schema, from a pinned source
    to which `target` is attached as `fresh`. `contents`: what the source held in this transaction."""
    verify_space(target.parent, 2 * contents.bytes + SPARE_BYTES, f"the backup {target.name}")
    tables = tables_to_keep(source)
    facts = read_facts(source, tables, contents)
    version = schema_version(source)
    with deadline(source, deadline_seconds, f"copying to {target}"):
        carry_tables(source, tables)
        source.execute(f"PRAGMA fresh.user_version = {version}")
    source.execute("COMMIT")
    source.execute("DETACH fresh")
    return facts


@contextmanager
def deadline(connection: sqlite3.Connection, seconds: float, purpose: str) -> Iterator[None]:
    """Raise BusyError when statements of this connection take longer than that all together."""
    ends = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > ends, 100_000)
    try:
        yield
    except sqlite3.OperationalError as error:
        if primary_code(error) != sqlite3.SQLITE_INTERRUPT:
            raise
        raise BusyError(f"{purpose} was given up after {seconds:.0f} s") from error
    finally:
        connection.set_progress_handler(None, 0)


def read_facts(source: sqlite3.Connection, tables: list[str], contents: Contents | None) -> SourceFacts:
    ordinary = set(ordinary_tables(source))
    filled = [
        table
        for table in tables
        if table in ordinary
        and source.execute(f"SELECT EXISTS (SELECT 1 FROM main.{quote(table)})").fetchone()[0]
    ]
    return SourceFacts(sorted(tables), filled, contents)


def database_bytes(connection: sqlite3.Connection) -> int:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])
