"""What no download brings back: from the old database, its remains or a file to the new."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.restore_choice import NoBackupError, choose_backup
from backtestdb.config import Settings
from backtestdb.console import say
from backtestdb.database import (
    connect,
    count_foreign_key_violations,
    look_at_file,
    table_names,
    transaction,
    verify_integrity,
)
from backtestdb.errors import DatabaseFileError, UsageError, VerificationError
from backtestdb.files import remove_database
from backtestdb.market.universes import write_universe
from backtestdb.newer_sqlite import NEWER_PYTHON, TOO_NEW
from backtestdb.salvage.report import describe_losses
from backtestdb.salvage.salvage import NothingSalvagedError, SalvageResult, salvage
from backtestdb.schema import agents_table_was_renamed, migrate, tables_to_keep
from backtestdb.table_copy import carry_header_numbers, carry_tables


@dataclass(frozen=True)
class PlannedUniverse:
    """A rebuild's list: its name, active and delisted tickers, names of companies."""

    name: str
    active: list[str]
    delisted: list[str]
    company_names: dict[str, str | None]


def make_carry_over(carried: dict[str, int], universe: str) -> Callable[[sqlite3.Connection], None]:
    """Return the function that `replace_database` runs between the old content (schema main) and
    the new one (schema fresh), in one transaction; it leaves the rows per table in `carried`.
    `universe`: the name of the planned one, empty for none."""

    def carry_over(connection: sqlite3.Connection) -> None:
        carried.clear()
        planned = load_planned_universe(connection, universe)
        # What the user accepted of an audit's findings is the user's word, too.
        accepted = [name for name in table_names(connection) if name == "_audit_accepted"]
        carried.update(carry_tables(connection, [*tables_to_keep(connection), *accepted]))

        if planned:
            # The lists came over with their ids and all columns: the planned one is brought up to
            # date by its name.
            write_universe(
                connection,
                planned.name,
                planned.active,
                delisted=planned.delisted,
                company_names=planned.company_names,
                schema="fresh",
            )

        if agents_table_was_renamed(connection) and "trading_agents" in table_names(
            connection, "fresh"
        ):
            connection.execute("DROP TABLE fresh.trading_agents")

        carry_header_numbers(connection)
        migrate(connection, "fresh")
        verify_carried(connection)

    return carry_over


def load_planned_universe(connection: sqlite3.Connection, universe: str) -> PlannedUniverse | None:
    """Return the universe that a rebuild has filled; None where it has none of this name."""
    rows = connection.execute(
        "SELECT ticker, s.name, is_active FROM fresh.universe_stocks s "
        "JOIN fresh.universe u ON u.id = universe_id WHERE u.name = ? ORDER BY s.id",
        (universe,),
    ).fetchall()
    if not rows:
        return None

    return PlannedUniverse(
        universe,
        [ticker for ticker, _, is_active in rows if is_active],
        [ticker for ticker, _, is_active in rows if not is_active],
        {ticker: name for ticker, name, _ in rows},
    )


def verify_carried(connection: sqlite3.Connection) -> None:
    """Raise VerificationError when the new content is damaged, or has more rows without their
    parents than the old one had."""
    verify_integrity(connection, schema="fresh")
    before = count_foreign_key_violations(connection)
    after = count_foreign_key_violations(connection, "fresh")
    if after > before:
        raise VerificationError(
            f"the new database has {after} rows whose parent is missing, the old one {before}",
            next_step="the old database was not touched; keep it and report this",
        )


@dataclass(frozen=True)
class OldContent:
    """`rows`: what will be carried over, per table. `is_damaged`: it has to be salvaged first.
    `from_backup`: the name of the backup that it comes from, because there is no database; empty
    otherwise."""

    rows: dict[str, int]
    is_damaged: bool = False
    from_backup: str = ""


def read_old_content(
    settings: Settings, source: Path | None, trial: Path, now_local: datetime
) -> OldContent:
    """Return what there is to carry over, and proof that it can be: all of it is carried once into
    `trial`, a new database that the caller removes. Before hours of download and not after them.
    `source`: a file that the user named instead of the database; that one has to be sound."""
    database = settings.database_path
    if source:
        return OldContent(rehearse(source, trial))

    state = look_at_file(database)
    if state in {"missing", "empty"}:
        backup = find_backup_to_carry(settings)
        return (
            OldContent(rehearse(backup, trial), from_backup=backup.name)
            if backup
            else OldContent({})
        )

    if state == "too_new":
        raise DatabaseFileError(
            f"{database}: {TOO_NEW}; what stands in it could not be carried over",
            next_step=NEWER_PYTHON,
        )

    if state == "database":
        try:
            return OldContent(rehearse(database, trial))
        except VerificationError as error:
            say(f"{database} is damaged: {error}")
    else:
        say(
            f"{database} is not a database any more, or its schema cannot be read: it will be "
            "kept aside"
        )

    with salvaged_content(settings, now_local) as salvaged:
        if not salvaged:
            return OldContent({}, is_damaged=True)
        for line in describe_losses(salvaged):
            say(line)
        return OldContent(rehearse(salvaged.path, trial), is_damaged=True)


def rehearse(source: Path, trial: Path) -> dict[str, int]:
    """Return the rows per table that are carried over, where there are any. Raise VerificationError
    when `source` is damaged, and whatever else would stop the carry-over at the end."""
    with closing(connect(source)) as connection:
        verify_integrity(connection)
    return {table: rows for table, rows in carry_from(source, trial, universe="").items() if rows}


def find_backup_to_carry(settings: Settings) -> Path | None:
    """Return, where the database is gone, its newest backup that verifies. None where there never
    was a backup. Raise VerificationError when there are some and none verifies."""
    if not load_catalogue(settings.backup_dir):
        return None

    try:
        choice = choose_backup(settings.backup_dir, settings.database_path, None, say)
    except NoBackupError as error:
        say(str(error))
        return None
    except VerificationError as error:
        raise VerificationError(
            f"{settings.database_path} is gone, and {error}",
            next_step="to begin without what they held, add ARGS=--discard-irreplaceable",
        ) from error
    except UsageError as error:
        raise UsageError(
            str(error),
            next_step="name one of these backups: make restore ARGS='--carry-over-from FILE', or "
            "begin without them: make restore ARGS=--discard-irreplaceable",
        ) from error

    # A small backup holds all that no download brings back.
    newest = choice.irreplaceable or choice.full
    return newest.path if newest else None


@contextmanager
def salvaged_content(settings: Settings, now_local: datetime) -> Iterator[SalvageResult | None]:
    """Yield what can be read of the damaged database and its backups, for as long as it is needed;
    None when that is nothing at all."""
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


def carry_from(source: Path, work: Path, universe: str) -> dict[str, int]:
    """Fill the new database, while it is beside the old one; return rows per table."""
    carried: dict[str, int] = {}
    with closing(connect(source)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH ? AS fresh", (str(work),))
        # DEFERRED: nothing is written to `source`, whose programs go on writing meanwhile.
        with transaction(connection, "DEFERRED"):
            make_carry_over(carried, universe)(connection)
    return carried


def carry_salvaged(
    settings: Settings, work: Path, universe: str, now_local: datetime
) -> tuple[dict[str, int], list[str]]:
    """Salvage once more, because programs may have written since the plan was shown; return rows
    per table and what could not be read."""
    with salvaged_content(settings, now_local) as salvaged:
        if not salvaged:
            return {}, []  # said already; there is no sign that the file ever held rows
        carried = carry_from(salvaged.path, work, universe)
        return carried, [] if salvaged.is_complete else describe_losses(salvaged)
