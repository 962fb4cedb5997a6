"""Which backup a restore takes: the newest that verifies, or the file that the user named."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from backtestdb.backups.catalogue import Backup, load_catalogue, look_at_backup
from backtestdb.backups.verify import examine, verify_backup
from backtestdb.errors import DatabaseFileError, ProjectError, VerificationError
from backtestdb.files import same_file

Say = Callable[[str], None]


@dataclass(frozen=True)
class RestoreChoice:
    """What to restore. `full`: a database with market data; `irreplaceable`: one with everything else, put on top of
    `full` or, without it, into the database that is there."""

    full: Backup | None
    irreplaceable: Backup | None


def choose_backup(backup_dir: Path, target: Path, path: Path | None, say: Say) -> RestoreChoice:
    """Every backup that is chosen has been read and checked in this very call.

    Without `path`: the newest full backup that verifies, and the newest small one made after it, so that
    nothing irreplaceable is older than it must be. Raise VerificationError when none verifies.
    """
    if path is not None:
        return choose_named(path, target, say)
    catalogue = load_catalogue(backup_dir)
    full = find_good((backup for backup in catalogue if backup.kind == "full"), say)
    newer = (backup for backup in catalogue if not full or backup.taken_at_utc > full.taken_at_utc)
    irreplaceable = find_good((backup for backup in newer if backup.kind == "irreplaceable"), say)
    if not full and not irreplaceable:
        raise VerificationError(
            f"no backup in {backup_dir} verifies",
            next_step="name a file with --from-backup PATH, or rebuild with make restore",
        )
    return RestoreChoice(full, irreplaceable)


def find_good(backups: Iterable[Backup], say: Say) -> Backup | None:
    """The first that verifies, read in full; what is passed over is said with its reason."""
    for backup in backups:
        try:
            verify_backup(backup)
        except VerificationError as error:
            say(f"passed over {backup.path.name}: {error}")
        else:
            return backup
    return None


def choose_named(path: Path, target: Path, say: Say) -> RestoreChoice:
    """The file that the user named. Raise ProjectError when it is missing, the database itself, or not sound."""
    if not path.is_file():
        raise DatabaseFileError(f"there is no file {path}", next_step="make backups lists what there is")
    if same_file(path, target):
        raise ProjectError(f"{path} is the database itself", next_step="name a backup")
    backup = look_at_backup(path)
    if backup.manifest_path.exists():
        verify_backup(backup)
        return RestoreChoice(backup, None) if backup.kind == "full" else RestoreChoice(None, backup)
    say(f"{path.name} has no manifest: checking it in full")
    has_market_data = "ohlcv_data" in examine(path, full=True).tables
    return RestoreChoice(backup, None) if has_market_data else RestoreChoice(None, backup)
