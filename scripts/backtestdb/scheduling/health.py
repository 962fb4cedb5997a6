"""The loop's sign of life, for the health check of the container: a small file in the backup folder."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.backups.catalogue import verified
from backtestdb.backups.identity import load_own_catalogue
from backtestdb.scheduling.due import BackupTimes, find_stale, find_stuck, newest_until


@dataclass(frozen=True)
class Liveness:
    """`running`: the kind of the backup under way, empty when idle. `last_failure`: empty after a success."""

    ticked_at: datetime
    process_id: int
    running: str = ""
    last_failure: str = ""


def scheduler_path(backup_dir: Path, database: Path, suffix: str) -> Path:
    """A file of the scheduler of this database: several databases may share a backup folder."""
    mark = hashlib.sha256(os.path.realpath(database).encode(errors="surrogateescape")).hexdigest()[:12]
    return backup_dir / f".scheduler-{mark}{suffix}"


def save_liveness(backup_dir: Path, database: Path, liveness: Liveness) -> None:
    """Whole-old or whole-new; not flushed, because after a power cut the loop writes it again."""
    path = scheduler_path(backup_dir, database, ".json")
    arriving = path.with_name(path.name + ".arriving")
    arriving.write_text(json.dumps(asdict(liveness) | {"ticked_at": liveness.ticked_at.isoformat()}) + "\n")
    arriving.replace(path)


def load_liveness(backup_dir: Path, database: Path) -> Liveness | None:
    """None when there is none, or none that can be read."""
    try:
        values = json.loads(scheduler_path(backup_dir, database, ".json").read_text())
        return Liveness(**values | {"ticked_at": datetime.fromisoformat(values["ticked_at"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def make_liveness(now: datetime, running: str = "", last_failure: str = "") -> Liveness:
    return Liveness(now, os.getpid(), running, last_failure)


def load_backup_times(backup_dir: Path, database: Path) -> BackupTimes:
    """From the manifests; of the database only its id is read."""
    catalogue = load_own_catalogue(backup_dir, database)
    full = (backup.manifest.clock_utc for backup in verified(catalogue, "full") if backup.manifest)
    irreplaceable = (
        moment
        for backup in verified(catalogue, "irreplaceable")
        if backup.manifest
        for moment in (backup.manifest.clock_utc, backup.confirmed_at_utc)
    )
    return BackupTimes(tuple(full), tuple(irreplaceable))


def find_problems(backup_dir: Path, database: Path, now: datetime, *, loop: bool) -> list[str]:
    """What is wrong with the schedule, nothing when all is well. `loop`: whether there should be a loop."""
    liveness = load_liveness(backup_dir, database)
    stuck = find_stuck(now, liveness.ticked_at if liveness else None) if loop else ""
    failure = f"the last backup failed: {liveness.last_failure}" if liveness and liveness.last_failure else ""
    found = [find_stale(now, load_backup_times(backup_dir, database).full), stuck]
    return [ailment for ailment in [*found, failure if any(found) else ""] if ailment]


def describe_newest(backup_dir: Path, database: Path, now: datetime) -> str:
    newest = newest_until(now, load_backup_times(backup_dir, database).full)
    if newest is None:
        return "no verified full backup yet"
    hours = (now - newest).total_seconds() / 3600
    return f"the newest verified full backup was made {newest.astimezone():%Y-%m-%d %H:%M}, {hours:.1f} h ago"
