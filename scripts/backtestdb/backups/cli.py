"""`restore_database.py --from-backup`: arguments to choice, choice to result, result to words."""

from datetime import datetime
from pathlib import Path

from backtestdb import console
from backtestdb.backups.backup import Hooks
from backtestdb.backups.report import describe_choice, show_restored
from backtestdb.backups.restore import restore_from_backup
from backtestdb.backups.restore_choice import RestoreChoice
from backtestdb.backups.unlocked_copy import cannot_be_opened
from backtestdb.config import Settings
from backtestdb.files import remove_database, staging_path


def run_restore_from_backup(
    settings: Settings, backup: Path | None, now_local: datetime, *, assume_yes: bool
) -> int:
    """`backup` None means the newest that verifies. Return the exit code."""

    def approve(choice: RestoreChoice) -> bool:
        console.say(describe_choice(choice))
        if cannot_be_opened(settings.database_path):
            console.say(
                "warning: file locks do not cross this mount: stop every program on the other side that has "
                f"{settings.database_path} open before you go on, or restore over there"
            )
        return console.confirm(f"Replace {settings.database_path}?", assume_yes=assume_yes)

    restored = restore_from_backup(settings, backup, now_local, hooks=Hooks(say=console.say), approve=approve)
    if restored:
        remove_database(staging_path(settings.database_path))
    show_restored(restored, settings.database_path)
    return console.DONE
