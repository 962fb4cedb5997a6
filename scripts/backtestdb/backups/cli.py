"""`restore_database.py --from-backup`: arguments to choice, choice to result, result to words."""

import sqlite3
from datetime import datetime
from pathlib import Path

from backtestdb import console
from backtestdb.backups.backup import Hooks
from backtestdb.backups.report import (
    describe_choice,
    print_changed_rows,
    print_left_out,
    show_restored,
)
from backtestdb.backups.restore import restore_from_backup
from backtestdb.backups.restore_choice import RestoreChoice, rows_after
from backtestdb.backups.unlocked_copy import cannot_be_opened
from backtestdb.config import Settings
from backtestdb.database import count_rows, virtual_table_names
from backtestdb.errors import ProjectError
from backtestdb.files import remove_database, staging_path
from backtestdb.schema import tables_to_keep
from backtestdb.untouched import read_untouched


def run_restore_from_backup(
    settings: Settings,
    backup: Path | None,
    now_local: datetime,
    *,
    assume_yes: bool,
    all_are_meant: bool = False,
) -> int:
    """Restore and print the result; return the exit code. `backup` None means the newest that
    verifies; `all_are_meant`: see choose_backup."""

    def approve(choice: RestoreChoice) -> bool:
        console.say(describe_choice(choice))
        print_changed_rows(load_kept_rows(settings.database_path), rows_after(choice))
        if cannot_be_opened(settings.database_path):
            console.say(
                "warning: file locks do not cross this mount: stop every program on the other side "
                f"that has {settings.database_path} open before you go on, or restore over there"
            )
        return console.confirm(f"Replace {settings.database_path}?", assume_yes=assume_yes)

    restored = restore_from_backup(
        settings,
        backup,
        now_local,
        hooks=Hooks(say=console.say),
        approve=approve,
        all_are_meant=all_are_meant,
    )
    if restored:
        remove_database(staging_path(settings.database_path))
    show_restored(restored, settings.database_path)
    return print_left_out(restored.choice)


def load_kept_rows(database: Path) -> dict[str, int]:
    """Return the rows of each table that no download brings back; none where it cannot be read."""

    def count(connection: sqlite3.Connection) -> dict[str, int]:
        virtual = virtual_table_names(connection)
        return count_rows(connection, [t for t in tables_to_keep(connection) if t not in virtual])

    if not database.is_file() or cannot_be_opened(database):
        return {}
    try:
        return read_untouched(database, count)
    except (sqlite3.Error, ProjectError, UnicodeDecodeError):
        return {}
