"""Make a backup of a database file that has no manifest: check it in full, then write one."""

import shlex
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from backtestdb.backups.catalogue import (
    EXPIRED,
    NAME,
    PREFIXES,
    Backup,
    guess_taken_at,
    load_catalogue,
    look_at_backup,
    partial,
    scripts_path_of,
)
from backtestdb.backups.generated_scripts import describe_scripts
from backtestdb.backups.identity import (
    Identity,
    find_identities,
    identify_current,
    load_id_of_source,
    mark_others,
)
from backtestdb.backups.manifest import Manifest, write_manifest
from backtestdb.backups.shrinkage import Shrinkage
from backtestdb.backups.verify import examine, make_manifest
from backtestdb.database import BUSY_CODES, connect, primary_code
from backtestdb.errors import UsageError, VerificationError
from backtestdb.files import fsync_directory


def adopt(path: Path, backup_dir: Path, database: Path, now_utc: datetime) -> Backup:
    """Check a foreign file in full and write its manifest: from then on it is a backup of
    `database`, or of the database whose id it holds. Raise VerificationError when it does not pass,
    UsageError when it does not lie in the backup folder under a backup's name, or is a backup of
    another database already."""
    if path.parent.resolve() != backup_dir.resolve() or not NAME.fullmatch(path.name):
        raise UsageError(
            f"{path} is not named backtesting-YYYY-MM-DD-HHmmss.db in BACKUP_DIR {backup_dir}",
            next_step="copy it there under such a name, in the local time at which it was made",
        )

    path = backup_dir / path.name
    identity = identify_current(database, backup_dir)
    (there,) = mark_others([look_at_backup(path)], identity)
    if there.counts:
        return there

    if there.is_verified:
        verify_may_change_hands(there)
    examine(path, full=True)
    leave_wal(path)

    manifest_path = path.with_suffix(".json")
    write_manifest(
        describe(path, whose(path, identity, load_catalogue(backup_dir)), now_utc),
        partial(manifest_path),
    )
    partial(manifest_path).rename(manifest_path)

    # A removal that was interrupted is called off.
    manifest_path.with_suffix(EXPIRED).unlink(missing_ok=True)
    fsync_directory(backup_dir)

    return mark_others([look_at_backup(path)], identity)[0]


def verify_may_change_hands(backup: Backup) -> None:
    """Raise UsageError unless the database that a verified backup was made from is gone without a
    trace: it was known by its path, and nothing stands there."""
    manifest = backup.manifest
    # Format 1 named itself.
    is_adopted_file = manifest and Path(manifest.source_path).name == backup.path.name

    # Without a trace: a database that was moved keeps its older backups.
    if manifest and (
        manifest.database_id or (Path(manifest.source_path).exists() and not is_adopted_file)
    ):
        raise UsageError(
            f"{backup.path.name} is a backup of another database: {backup.other_database}",
            next_step=f"make restore-from-backup BACKUP={shlex.quote(str(backup.path))} restores "
            "it all the same",
        )


def whose(path: Path, current: Identity, catalogue: list[Backup]) -> Identity:
    """Return the database in use, unless the file holds the id of another one."""
    database_id = load_id_of_source(path)
    if not database_id or current.database_id in {"", database_id}:
        return current
    known = (one for one, _newest in find_identities(catalogue) if one.database_id == database_id)
    return next(known, Identity(database_id, str(path)))


def leave_wal(path: Path) -> None:
    """Merge a -wal into its file. Raise VerificationError while another program has it open."""
    # A backup is one file that opens on read-only media.
    with closing(connect(path)) as connection:
        try:
            mode = connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
        except sqlite3.OperationalError as error:
            if primary_code(error) not in BUSY_CODES:
                raise
            mode = "busy"

    if mode != "delete":
        raise VerificationError(f"{path.name} is in use by another program")


def describe(path: Path, identity: Identity, now_utc: datetime) -> Manifest:
    """Given a file that was checked, return the manifest that makes it a backup. Raise
    VerificationError when the check finds anything."""
    findings = examine(path, full=True, flush=True)
    scripts_path = scripts_path_of(path)
    is_full = path.name.startswith(PREFIXES["full"])
    has_scripts = is_full and scripts_path.is_dir()
    scripts = describe_scripts(scripts_path, scripts_path.name) if has_scripts else None

    return make_manifest(
        findings,
        kind="full" if is_full else "irreplaceable",
        file=path.name,
        source=identity,
        shrinkage=Shrinkage({}, {}),
        accepts_loss=False,
        scripts=scripts,
        taken_at_utc=guess_taken_at(path),
        clock_utc=now_utc,
    )
