"""Which backups have had their time, and how they leave."""

from collections.abc import Callable, Iterable
from pathlib import Path

from backtestdb.backups.catalogue import (
    EXPIRED,
    FAILED_DRILL,
    NAME,
    PREFIXES,
    Backup,
    scripts_path_of,
    verified,
)
from backtestdb.backups.manifest import Kind
from backtestdb.files import fsync_directory, remove_database, remove_tree


def choose_expired(backups: Iterable[Backup], kind: Kind, keep: int) -> list[Backup]:
    """Given everything in the folder, return the verified backups of one kind beyond the newest `keep`."""
    if keep < 1:
        raise ValueError(f"keep={keep}: the newest verified backup always stays")
    return verified(backups, kind)[keep:]


def remove_backup(backup: Backup, on_step: Callable[[str], None] = lambda _name: None) -> None:
    """First it stops being a backup, in one step; a run that is killed after that leaves a mark for
    `finish_removals`."""
    expired = backup.manifest_path.with_suffix(EXPIRED)
    backup.manifest_path.rename(expired)
    fsync_directory(expired.parent)
    on_step("expired")
    finish_removal(expired, on_step)


def finish_removal(expired: Path, on_step: Callable[[str], None] = lambda _name: None) -> None:
    database = expired.with_suffix(".db")
    remove_database(database)
    database.with_suffix(FAILED_DRILL).unlink(missing_ok=True)
    on_step("expired database removed")
    if database.name.startswith(PREFIXES["full"]):
        remove_tree(scripts_path_of(database))
    expired.unlink()


def finish_removals(backup_dir: Path) -> None:
    """What a killed run had begun to remove."""
    for expired in sorted(backup_dir.glob(f"*{EXPIRED}")):
        if NAME.fullmatch(expired.stem + ".db"):
            finish_removal(expired)
