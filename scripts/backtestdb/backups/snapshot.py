"""Take a copy of the live database that is exactly one committed state of it."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backtestdb.backups.contents import Contents, ordinary_tables
from backtestdb.carrying import carry_tables
from backtestdb.copying import copy_pinned
from backtestdb.database import connect, look_at_file, primary_code, quote, table_names
from backtestdb.errors import BusyError, DatabaseFileError
from backtestdb.files import remove_database, verify_space
from backtestdb.schema import schema_version, tables_to_keep

DEADLINE_SECONDS = 3600.0
SPARE_BYTES = 1 << 20
PagesDone = Callable[[int, int], None]


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
    source: sqlite3.Connection,
    target: Path,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    on_pages: PagesDone = lambda _done, _total: None,
) -> SourceFacts:
    """`source` is pinned. The bytes needed are known before the first is written."""
    verify_space(target.parent, database_bytes(source) + SPARE_BYTES, f"the backup {target.name}")
    copy_pinned(source, target, deadline_seconds=deadline_seconds, on_step=on_pages, private=True)
    return read_facts(source, table_names(source), None)


def copy_kept_tables(
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
