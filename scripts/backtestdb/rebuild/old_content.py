"""Where the rows that no download brings back come from: the old database, what is left of it, or a file."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.config import Settings
from backtestdb.console import say
from backtestdb.database import connect, look_at_file, transaction
from backtestdb.errors import VerificationError
from backtestdb.files import remove_database
from backtestdb.rebuild.carry_over import describe_old_content, make_carry_over
from backtestdb.salvage.report import describe_losses
from backtestdb.salvage.salvage import NothingSalvagedError, Salvaged, salvage


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
def salvaged_content(settings: Settings, now_local: datetime) -> Iterator[Salvaged | None]:
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
