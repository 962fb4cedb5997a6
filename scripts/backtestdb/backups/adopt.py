"""Make a backup of a database file that has no manifest: check it in full, then write one."""

from contextlib import closing
from datetime import datetime
from pathlib import Path

from backtestdb.backups.catalogue import (
    NAME,
    PREFIXES,
    Backup,
    guess_taken_at,
    look_at_backup,
    partial,
    scripts_path_of,
)
from backtestdb.backups.generated_scripts import describe_scripts
from backtestdb.backups.manifest import Manifest, write_manifest
from backtestdb.backups.verify import examine, make_manifest
from backtestdb.database import connect
from backtestdb.errors import UsageError, VerificationError
from backtestdb.files import fsync_directory


def adopt(path: Path, backup_dir: Path, now_utc: datetime) -> Backup:
    """Check a foreign file in full and write its manifest. Raise VerificationError when it does not pass,
    UsageError when it does not lie in the backup folder under a backup's name."""
    if path.parent.resolve() != backup_dir.resolve() or not NAME.fullmatch(path.name):
        raise UsageError(
            f"{path} is not named backtesting-YYYY-MM-DD-HHmmss.db in BACKUP_DIR {backup_dir}",
            next_step="copy it there under such a name, in the local time at which it was made",
        )
    path = backup_dir / path.name
    if look_at_backup(path).is_verified:
        return look_at_backup(path)
    examine(path, full=True)
    leave_wal(path)
    manifest_path = path.with_suffix(".json")
    write_manifest(describe(path, now_utc), partial(manifest_path))
    partial(manifest_path).rename(manifest_path)
    fsync_directory(backup_dir)
    return look_at_backup(path)


def leave_wal(path: Path) -> None:
    """A backup is one file that opens on read-only media; what stands in a -wal beside it is merged."""
    with closing(connect(path)) as connection:
        mode = connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
    if mode != "delete":
        raise VerificationError(f"{path.name} is in use by another program")


def describe(path: Path, now_utc: datetime) -> Manifest:
    findings = examine(path, full=True, flush=True)
    scripts_path = scripts_path_of(path)
    is_full = path.name.startswith(PREFIXES["full"])
    has_scripts = is_full and scripts_path.is_dir()
    scripts = describe_scripts(scripts_path, scripts_path.name) if has_scripts else None
    return make_manifest(
        findings,
        kind="full" if is_full else "irreplaceable",
        file=path.name,
        source=path,
        scripts=scripts,
        taken_at_utc=guess_taken_at(path),
        clock_utc=now_utc,
    )
