"""What no download brings back: read from the old database, what is left of it or a file, into the new one."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.config import Settings
from backtestdb.console import say
from backtestdb.database import (
    connect,
    count_foreign_key_violations,
    count_rows,
    look_at_file,
    table_names,
    transaction,
    verify_integrity,
    virtual_table_names,
)
from backtestdb.errors import VerificationError
from backtestdb.files import remove_database
from backtestdb.salvage.report import describe_losses
from backtestdb.salvage.salvage import NothingSalvagedError, SalvageResult, salvage
from backtestdb.schema import agents_table_was_renamed, migrate, tables_to_keep
from backtestdb.table_copy import carry_tables


def make_carry_over(carried: dict[str, int]) -> Callable[[sqlite3.Connection], None]:
    """Return the function that `replace_database` runs between the old content (schema main) and the new one
    (schema fresh), in one transaction; it leaves the rows per table in `carried`."""

    def carry_over(connection: sqlite3.Connection) -> None:
        carried.clear()
        carried.update(carry_tables(connection, tables_to_keep(connection)))
        if agents_table_was_renamed(connection) and "trading_agents" in table_names(connection, "fresh"):
            connection.execute("DROP TABLE fresh.trading_agents")
        migrate(connection, "fresh")
        verify_carried(connection)

    return carry_over


def verify_carried(connection: sqlite3.Connection) -> None:
    """Raise VerificationError when the new content is damaged, or has more rows without their parents than
    the old one had."""
    verify_integrity(connection, schema="fresh")
    before = count_foreign_key_violations(connection)
    after = count_foreign_key_violations(connection, "fresh")
    if after > before:
        raise VerificationError(
            f"the new database has {after} rows whose parent is missing, the old one {before}",
            next_step="the old database was not touched; keep it and report this",
        )


def describe_old_content(connection: sqlite3.Connection) -> dict[str, int]:
    """Rows of each table that would be carried over, where there are any. Raise VerificationError when the
    old database is damaged: better before hours of download than after them."""
    verify_integrity(connection)
    virtual = virtual_table_names(connection)
    tables = [table for table in tables_to_keep(connection) if table not in virtual]
    return {table: rows for table, rows in count_rows(connection, tables).items() if rows}


@dataclass(frozen=True)
class OldContent:
    """`rows`: what will be carried over, per table. `is_damaged`: it has to be salvaged first."""

    rows: dict[str, int]
    is_damaged: bool


def read_old_content(settings: Settings, source: Path | None, now_local: datetime) -> OldContent:
    """What there is to carry over, before hours of download and not after them. `source`: a file that the user
    named instead of the database; that one has to be sound."""
    database = settings.database_path
    if source:
        return OldContent(describe_file(source), is_damaged=False)
    state = look_at_file(database)
    if state in {"missing", "empty"}:
        return OldContent({}, is_damaged=False)
    if state == "database":
        try:
            return OldContent(describe_file(database), is_damaged=False)
        except VerificationError as error:
            say(f"{database} is damaged: {error}")
    else:
        say(f"{database} is not a database any more, or its schema cannot be read: it will be kept aside")
    with salvaged_content(settings, now_local) as salvaged:
        if not salvaged:
            return OldContent({}, is_damaged=True)
        for line in describe_losses(salvaged):
            say(line)
        return OldContent(describe_file(salvaged.path), is_damaged=True)


def describe_file(path: Path) -> dict[str, int]:
    with closing(connect(path)) as connection:
        return describe_old_content(connection)


@contextmanager
def salvaged_content(settings: Settings, now_local: datetime) -> Iterator[SalvageResult | None]:
    """What can be read of the damaged database and its backups, for as long as it is needed. None when that
    is nothing at all."""
    try:
        salvaged = salvage(settings.database_path, settings.backup_dir, now_local, say=say)
    except NothingSalvagedError as error:
        say(str(error))
        yield None
        return
    try:
        yield salvaged
    finally:
        remove_database(salvaged.path)


def carry_from(source: Path, work: Path) -> dict[str, int]:
    """Carry over into the new database while it is still beside the old one; return rows per table."""
    carried: dict[str, int] = {}
    with closing(connect(source)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH ? AS fresh", (str(work),))
        with transaction(connection):
            make_carry_over(carried)(connection)
    return carried


def carry_salvaged(settings: Settings, work: Path, now_local: datetime) -> tuple[dict[str, int], list[str]]:
    """Salvage once more, because programs may have written since the plan was shown; return rows per table
    and what could not be read."""
    with salvaged_content(settings, now_local) as salvaged:
        if not salvaged:
            return {}, []  # said already; there is no sign that the file ever held rows
        return carry_from(salvaged.path, work), [] if salvaged.is_complete else describe_losses(salvaged)
