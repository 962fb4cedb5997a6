"""The loop's sign of life, for the health check of the container: a small file in the backup folder."""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.backups.catalogue import load_catalogue, verified
from backtestdb.scheduling.due import BackupTimes, find_stale, find_stuck, newest_until

PULSE_NAME = ".scheduler.json"


@dataclass(frozen=True)
class Liveness:
    """`running`: the kind of the backup under way, empty when idle. `last_failure`: empty after a success."""

    ticked_at: datetime
    process_id: int
    running: str = ""
    last_failure: str = ""


def save_liveness(backup_dir: Path, liveness: Liveness) -> None:
    """Whole-old or whole-new; not flushed, because after a power cut the loop writes it again."""
    path = backup_dir / PULSE_NAME
    arriving = path.with_name(path.name + ".arriving")
    arriving.write_text(json.dumps(asdict(liveness) | {"ticked_at": liveness.ticked_at.isoformat()}) + "\n")
    arriving.replace(path)


def load_liveness(backup_dir: Path) -> Liveness | None:
    """None when there is none, or none that can be read."""
    try:
        values = json.loads((backup_dir / PULSE_NAME).read_text())
        return Liveness(**values | {"ticked_at": datetime.fromisoformat(values["ticked_at"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def make_liveness(now: datetime, running: str = "", last_failure: str = "") -> Liveness:
    return Liveness(now, os.getpid(), running, last_failure)


def load_backup_times(backup_dir: Path) -> BackupTimes:
    """From the manifests; no database is read."""
    catalogue = load_catalogue(backup_dir)
    full = (backup.manifest.clock_utc for backup in verified(catalogue, "full") if backup.manifest)
    irreplaceable = (
        moment
        for backup in verified(catalogue, "irreplaceable")
        if backup.manifest
        for moment in (backup.manifest.clock_utc, backup.confirmed_at_utc)
    )
    return BackupTimes(tuple(full), tuple(irreplaceable))


def find_problems(backup_dir: Path, now: datetime, *, loop: bool) -> list[str]:
    """What is wrong with the schedule, nothing when all is well. `loop`: whether there should be a loop."""
    liveness = load_liveness(backup_dir)
    stuck = find_stuck(now, liveness.ticked_at if liveness else None) if loop else ""
    failure = f"the last backup failed: {liveness.last_failure}" if liveness and liveness.last_failure else ""
    found = [find_stale(now, load_backup_times(backup_dir).full), stuck]
    return [ailment for ailment in [*found, failure if any(found) else ""] if ailment]


def describe_newest(backup_dir: Path, now: datetime) -> str:
    newest = newest_until(now, load_backup_times(backup_dir).full)
    if newest is None:
        return "no verified full backup yet"
    hours = (now - newest).total_seconds() / 3600
    return f"the newest verified full backup was made {newest.astimezone():%Y-%m-%d %H:%M}, {hours:.1f} h ago"
