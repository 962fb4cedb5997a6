"""Salvage from beginning to end: a private copy, what can be read of it, the backup, a new
database.

The result gets its name when it is whole and checked; a kill before that leaves none.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.backups.catalogue import Backup
from backtestdb.backups.restore_choice import RestoreChoice, choose_backup
from backtestdb.config import follow_link
from backtestdb.console import Say
from backtestdb.database import connect, verify_integrity, verify_no_dangling_link
from backtestdb.errors import DatabaseFileError, VerificationError
from backtestdb.files import choose_free_names, exclusive_lock, remove_database, rename_durably
from backtestdb.salvage.build import Built, build, newest_of
from backtestdb.salvage.pages import open_pages
from backtestdb.salvage.union import TableOutcome
from backtestdb.salvage.working_copy import make_private_copy
from backtestdb.schema import ensure_schema


class NothingSalvagedError(DatabaseFileError):
    """Not one row could be read, and no backup has any."""


@dataclass(frozen=True)
class SalvageResult:
    """`path`: an ordinary database with everything irreplaceable and no market data. `backup`: what
    it was united with."""

    path: Path
    backup: Backup | None
    built: Built

    @property
    def tables(self) -> list[TableOutcome]:
        return self.built.tables

    @property
    def is_complete(self) -> bool:
        """Return whether every row of every table was read, into a table like its own."""
        is_whole = all(table.is_whole for table in self.built.tables)
        return is_whole and not (self.built.strays or self.built.not_created or self.built.plain)


def salvage(
    database: Path,
    backup_dir: Path,
    now_local: datetime,
    *,
    say: Say = lambda _message: None,
    step: Callable[[str], None] = lambda _name: None,
    in_use: Path | None = None,
) -> SalvageResult:
    """Write `<database>.salvaged-STAMP`; `database` is only read. `in_use`: the database whose
    backups it is united with, when `database` is a file of it that was kept aside. Raise
    DatabaseFileError when there is no such file, NothingSalvagedError when nothing comes out,
    BusyError when another program writes to it."""
    verify_no_dangling_link(database)
    database = follow_link(database)
    if not database.is_file() or not database.stat().st_size:
        raise DatabaseFileError(
            f"there is nothing to salvage: {database} is missing or empty",
            next_step="make restore-from-backup",
        )

    copy, new = (
        database.with_name(f"{database.name}.salvaging{suffix}") for suffix in ("", ".new")
    )
    lock = copy.with_name(copy.name + ".lock")

    with exclusive_lock(lock, "a salvage of this database"), removed_afterwards(copy, new):
        choice = choose_newest(backup_dir, in_use or database, say)
        say(f"reading {database}, united with {describe(choice)}")
        first_page_is_lost = copy_database(database, copy, new, choice)
        step("copied")

        with open_pages(copy) as file:
            built = build(new, file, choice, first_page_is_lost=first_page_is_lost)
        step("built")

        verify_result(new, built.tables, database)
        (path,) = choose_free_names(
            lambda stamp: [database.with_name(f"{database.name}.salvaged-{stamp}")], now_local
        )
        rename_durably(new, path)
        step("named")

    return SalvageResult(path, newest_of(choice) if choice else None, built)


@contextmanager
def removed_afterwards(*paths: Path) -> Iterator[None]:
    """Remove these files afterwards, and before too: a killed run leaves its files to the next
    one."""
    for path in paths:
        remove_database(path)
    try:
        yield
    finally:
        for path in paths:
            remove_database(path)


def choose_newest(backup_dir: Path, database: Path, say: Say) -> RestoreChoice | None:
    try:
        return choose_backup(backup_dir, database, None, say)
    except VerificationError as error:
        say(str(error))
        return None


def describe(choice: RestoreChoice | None) -> str:
    return newest_of(choice).path.name if choice else "no backup, because none is there"


def copy_database(database: Path, copy: Path, new: Path, choice: RestoreChoice | None) -> bool:
    """Make the private copy. The template for a lost header is a backup, or without one a new
    database."""
    template = (choice.full or newest_of(choice)).path if choice else new
    if not choice:
        with closing(connect(new, create=True)) as connection:
            ensure_schema(connection)
    is_lost = make_private_copy(database, copy, template)
    remove_database(new)
    return is_lost


def verify_result(new: Path, tables: list[TableOutcome], database: Path) -> None:
    if not any(t.is_whole or t.from_damaged or t.from_backup or t.rows_beside for t in tables):
        raise NothingSalvagedError(
            f"not one row could be read of {database}, and there is no backup",
            next_step="make restore",
        )
    with closing(connect(new)) as connection:
        verify_integrity(connection, full=True)
