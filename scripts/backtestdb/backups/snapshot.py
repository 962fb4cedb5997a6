"""Take a copy of the live database that is exactly one committed state of it."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from backtestdb.backups.content_hash import Contents, hash_contents, hash_structure
from backtestdb.backups.precopy import copy_ahead, create_private, make_mark, patch_changed_blocks
from backtestdb.database import (
    connect,
    connect_to_read,
    look_at_file,
    ordinary_table_names,
    primary_code,
    quote,
    table_names,
)
from backtestdb.errors import BusyError, DatabaseFileError
from backtestdb.files import remove_database, verify_space
from backtestdb.newer_sqlite import keep_writer_version, load_writer_version
from backtestdb.pinned_copy import copy_pinned
from backtestdb.schema import tables_to_keep
from backtestdb.table_copy import carry_header_numbers, carry_tables

DEADLINE_SECONDS = 3600.0
SPARE_BYTES = 1 << 20
# Up to here a pinned copy keeps writers waiting for less than 0.1 s.
LARGE_BYTES = 48 << 20
# How long writers wait for the patching of a copy made ahead before it is copied ahead again, and
# in which round the patching goes on to its end.
LOCKED_SECONDS = 1.0
ROUNDS = 3
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class SourceFacts:
    """What the source held in the very state that was copied. `structure` and `contents`, hashes,
    are those of a small backup, empty otherwise; the contents are read from the copy."""

    tables: list[str]
    filled_tables: list[str]
    structure: str = ""
    contents: Contents | None = None


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
            f"{path} is not a database, or damaged beyond reading",
            next_step="make restore-from-backup",
        )


@contextmanager
def pinned_source(path: Path, *, fresh: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Yield a connection that sees one committed state until the end, whatever other programs
    commit. `fresh`, a new file, is attached to it. Of a database that a newer SQLite wrote, only a
    part is seen."""
    written_by = load_writer_version(path)

    with closing(connect(path, lenient=True)) as source:
        source.execute("PRAGMA foreign_keys = OFF")
        if fresh:
            remove_database(fresh)
            fresh.touch(0o600)
            source.execute("ATTACH ? AS fresh", (str(fresh),))
            # It stays private until it is checked and flushed: SQLite need not protect it.
            source.execute("PRAGMA fresh.journal_mode = OFF")
            source.execute("PRAGMA fresh.synchronous = OFF")

        source.execute("BEGIN")
        if not table_names(source):
            raise DatabaseFileError(
                f"{path} holds no table", next_step="make restore-from-backup, or make restore"
            )
        yield source

    if fresh:
        keep_writer_version(fresh, written_by)


def copy_everything(
    path: Path,
    target: Path,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    on_step: OnStep = lambda _name: None,
) -> SourceFacts:
    """Copy one committed state of the database `path` to the new file `target`. The bytes needed
    are known before the first is written."""
    written_by = load_writer_version(path)
    if has_waiting_writers(path):
        return copy_without_waiting(path, target, deadline_seconds, on_step)

    with pinned_source(path) as source:
        on_step("pinned")
        verify_space(
            target.parent, database_bytes(source) + SPARE_BYTES, f"the backup {target.name}"
        )
        copy_pinned(
            source,
            target,
            deadline_seconds=deadline_seconds,
            on_step=lambda _done, _total: on_step("copying"),
            private=True,
            written_by=written_by,
        )
        return read_facts(source, table_names(source))


def has_waiting_writers(path: Path) -> bool:
    """Return whether a commit would wait for longer than a moment until a pinned copy is done."""
    with closing(connect(path, lenient=True)) as source:
        is_large = database_bytes(source) >= LARGE_BYTES
        return is_large and journal_mode(source) != "wal"


def copy_without_waiting(
    path: Path, target: Path, deadline_seconds: float, on_step: OnStep
) -> SourceFacts:
    """Copy ahead and patch (see precopy). Raise BusyError after `deadline_seconds`."""
    verify_space(target.parent, path.stat().st_size + SPARE_BYTES, f"the backup {target.name}")
    remove_database(target)
    live, copy = os.open(path, os.O_RDONLY), create_private(target)

    try:
        for attempt in range(1, ROUNDS + 1):
            before = make_mark(live)
            hashes = copy_ahead(
                live,
                copy,
                deadline_seconds=deadline_seconds,
                on_bytes=lambda _done, _total: on_step("copying"),
                # While both files are in memory, comparing them takes less time than hashing one.
                # Where they do not fit, both come from the disk again; so from now on only the
                # source is read.
                hash_blocks=attempt > 1,
            )
            with pinned_source(path) as source:
                if journal_mode(source) == "wal":
                    raise BusyError(
                        f"{path} changed its journal mode during the copy", next_step="try again"
                    )
                on_step("pinned")
                size = database_bytes(source)
                if before.proves_unchanged(make_mark(live)):
                    os.ftruncate(copy, size)
                    return read_facts(source, table_names(source))
                # The last round ends sooner than a pinned copy, which reads as much and writes.
                limit_seconds = LOCKED_SECONDS if attempt < ROUNDS else deadline_seconds
                patched = patch_changed_blocks(
                    live, copy, size, hashes=hashes, limit_seconds=limit_seconds
                )
                if patched is not None:
                    return read_facts(source, table_names(source))
        raise BusyError(f"copying the database was given up after {deadline_seconds:.0f} s")
    finally:
        os.close(copy)
        os.close(live)  # after SQLite is done with the file: closing it drops SQLite's lock


def journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA main.journal_mode").fetchone()[0])


def copy_irreplaceable_tables(
    source: sqlite3.Connection,
    target: Path,
    *,
    expected_bytes: int,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> SourceFacts:
    """Return the small backup: the tables that no download brings back, with their own schema, from
    a pinned source to which `target` is attached as `fresh`. `expected_bytes`: the size of the last
    one, 0 where there is none."""
    verify_space(target.parent, expected_bytes + SPARE_BYTES, f"the backup {target.name}")
    tables = tables_to_keep(source)
    facts = read_facts(source, tables, hash_structure(source))
    with deadline(source, deadline_seconds, f"copying to {target}"):
        carry_tables(source, tables)
        carry_header_numbers(source)
    source.execute("COMMIT")
    source.execute("DETACH fresh")
    return facts


def with_contents(facts: SourceFacts, copy: Path) -> SourceFacts:
    """Add the hashes of what was copied, read from the closed file `copy`."""
    with closing(connect_to_read(copy)) as connection:
        found = hash_contents(connection)
    return replace(facts, contents=replace(found, structure=facts.structure))


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


def read_facts(source: sqlite3.Connection, tables: list[str], structure: str = "") -> SourceFacts:
    """Return what a pinned source holds of `tables`; `structure`: their hash, of a small backup."""
    ordinary = set(ordinary_table_names(source))
    filled = [
        table
        for table in tables
        if table in ordinary
        and source.execute(f"SELECT EXISTS (SELECT 1 FROM main.{quote(table)})").fetchone()[0]
    ]
    return SourceFacts(sorted(tables), filled, structure)


def database_bytes(connection: sqlite3.Connection) -> int:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])
