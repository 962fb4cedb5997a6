"""Which backup a restore takes: the newest that verifies, or the file that the user named."""

import json
import os
import shlex
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backtestdb.backups.catalogue import Backup, is_foreign, load_catalogue, look_at_backup
from backtestdb.backups.identity import (
    Identity,
    find_identities,
    identify,
    identify_current,
    mark_others,
    read_database_id,
)
from backtestdb.backups.shrinkage import describe_losses
from backtestdb.backups.verify import examine, verify_backup
from backtestdb.config import follow_link
from backtestdb.console import Say
from backtestdb.database import look_at_file, quote, table_names, virtual_table_names
from backtestdb.errors import DatabaseFileError, ProjectError, UsageError, VerificationError
from backtestdb.files import same_file
from backtestdb.schema import load_table_classes
from backtestdb.untouched import read_untouched


class NoBackupError(VerificationError):
    """There is no backup of this database at all, as opposed to some that do not verify."""


@dataclass(frozen=True)
class LeftOut:
    """A backup newer than the chosen one of its kind that could not be read, or is not what its
    manifest says."""

    backup: Backup
    reason: str


@dataclass(frozen=True)
class RestoreChoice:
    """What to restore. `full`: a database with market data; `irreplaceable`: one with everything
    else, put on top of `full` or, without it, into the database that is there."""

    full: Backup | None
    irreplaceable: Backup | None
    left_out: tuple[LeftOut, ...] = ()


def choose_backup(
    backup_dir: Path, target: Path, path: Path | None, say: Say, *, all_are_meant: bool = False
) -> RestoreChoice:
    """Choose what to restore; every backup that is chosen has been read and checked in this very
    call.

    Without `path`: of the backups of this very database the newest full one that verifies, and the
    newest small one made after it, so that nothing irreplaceable is older than it must be.
    `all_are_meant`: the folder holds what the user chose already, of whichever database. Raise
    VerificationError when none verifies, UsageError when there is no database yet and the folder
    holds backups of several."""
    if path is not None:
        return choose_named(path, backup_dir, target, say)

    load = (
        load_catalogue
        if all_are_meant
        else lambda folder: load_backups_to_restore(folder, target, say)
    )
    everything = load(backup_dir)
    catalogue = [backup for backup in everything if not backup.other_database]
    left_out: list[LeftOut] = []

    def is_wanted(backup: Backup) -> bool:
        if backup.manifest and backup.manifest.is_suspicious:
            word = "note: suspicious:" if all_are_meant else "passed over, suspicious:"
            say(f"{word} {backup.path.name}: {describe_losses(backup.manifest.losses)}")
            return all_are_meant
        return True

    full = find_good((b for b in catalogue if b.kind == "full" and is_wanted(b)), say, left_out)
    # A small one made before the full one is older than what that holds of its tables.
    newer = (backup for backup in catalogue if not full or backup.taken_at_utc > full.taken_at_utc)
    irreplaceable = find_good(
        (b for b in newer if b.kind == "irreplaceable" and is_wanted(b)), say, left_out
    )

    if not full and not irreplaceable:
        others = find_identities([backup for backup in everything if backup.other_database])
        is_bad = any(not is_foreign(backup) for backup in catalogue)
        raise (VerificationError if is_bad else NoBackupError)(
            f"no backup in {backup_dir} verifies that was made of {target}"
            + describe_others(others),
            next_step="name a file with make restore-from-backup BACKUP=PATH, or rebuild with "
            "make restore",
        )

    return RestoreChoice(full, irreplaceable, tuple(left_out))


def load_backups_to_restore(backup_dir: Path, target: Path, say: Say) -> list[Backup]:
    """Return every backup, those of other databases marked. On a new machine, where none is of a
    database at `target` and nothing stands there, the only database in the folder is taken for this
    one."""
    everything = load_catalogue(backup_dir)
    own = mark_others(everything, identify(target, read_database_id(target), everything))
    others = find_identities(everything)
    # A database that is still there, on this machine, is a second checkout's.
    gone = [identity for identity, _newest in others if not os.path.lexists(identity.path)]
    if not gone or any(backup.counts for backup in own) or holds_rows(target):
        return own

    if len(others) > 1:
        raise UsageError(
            f"{backup_dir} holds backups of {len(others)} databases, none of {target}"
            + describe_others(others),
            next_step="choose one: make restore-from-backup BACKUP="
            + shlex.quote(str(others[0][1].path)),
        )

    say(
        f"there is no backup of {target} yet: taking those of {gone[0].path}, the only ones in "
        f"{backup_dir}"
    )
    return mark_others(everything, gone[0])


def holds_rows(target: Path) -> bool:
    """Return whether a database at `target` has a row of the user's, or is too damaged to tell. A
    platform that was started before its database was brought back leaves tables without rows."""
    state = look_at_file(target)
    if state != "database":
        return state in {"damaged", "too_new"}
    return read_untouched(target, has_rows)


def has_rows(connection: sqlite3.Connection) -> bool:
    bookkeeping = {name for name, group in load_table_classes().items() if group == "bookkeeping"}
    tables = set(table_names(connection)) - bookkeeping - virtual_table_names(connection)
    return any(
        connection.execute(f"SELECT 1 FROM {quote(table)} LIMIT 1").fetchone() for table in tables
    )


def describe_others(others: Sequence[tuple[Identity, Backup]]) -> str:
    return "".join(f"; of another database, {one.path}: {newest.path}" for one, newest in others)


def rows_after(choice: RestoreChoice) -> dict[str, int]:
    """Return rows of each table that no download brings back, once this is restored; none for a
    file without a manifest."""
    manifests = [
        one.manifest for one in (choice.full, choice.irreplaceable) if one and one.manifest
    ]
    return {table: rows for manifest in manifests for table, rows in manifest.kept_rows.items()}


def find_good(backups: Iterable[Backup], say: Say, left_out: list[LeftOut]) -> Backup | None:
    """Return the first that verifies, read in full; what is passed over is said with its reason. A
    backup that could not be read is noted in `left_out`."""
    for backup in backups:
        try:
            verify_backup(backup)
        # Whatever is wrong with one file, the next may be good.
        except (ProjectError, sqlite3.Error, OSError, ValueError, MemoryError) as error:
            say(f"passed over {backup.path.name}: {error}")
            if not is_foreign(backup):
                left_out.append(LeftOut(backup, str(error)))
        else:
            return backup
    return None


def choose_named(path: Path, backup_dir: Path, target: Path, say: Say) -> RestoreChoice:
    """Return the user's file. Raise ProjectError if it is missing, not sound, or the database."""
    if not path.is_file():
        raise DatabaseFileError(
            f"there is no file {path}", next_step="make backups lists what there is"
        )

    path = follow_link(path)
    if same_file(path, target):
        raise ProjectError(f"{path} is the database itself", next_step="name a backup")

    backup = look_at_backup(path)
    if backup.manifest or (
        backup.manifest_path.exists() and not is_unrelated(backup.manifest_path)
    ):
        verify_backup(backup)
        (named,) = mark_others([backup], identify_current(target, backup_dir))
        if named.other_database:
            say(f"note: {path.name} is of another database: {named.other_database}")
        return RestoreChoice(backup, None) if backup.kind == "full" else RestoreChoice(None, backup)

    say(f"{path.name} has no manifest: checking it in full")
    has_market_data = "ohlcv_data" in examine(path, full=True).tables
    return RestoreChoice(backup, None) if has_market_data else RestoreChoice(None, backup)


def is_unrelated(manifest_path: Path) -> bool:
    """Return whether a JSON file that has the name of a manifest says itself that it is none. What
    cannot be read may be a damaged manifest, and then the backup is not to be trusted."""
    try:
        values = json.loads(manifest_path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(values, dict) or not {"format", "kind", "sha256"} & set(values)
