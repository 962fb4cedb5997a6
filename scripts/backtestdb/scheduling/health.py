"""The loop's sign of life, for the health check of the container: a small file in the backup folder."""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.backups.catalogue import load_catalogue, verified
from backtestdb.scheduling.due import Taken, find_stale, find_stuck, newest_until

PULSE_NAME = ".scheduler.json"


@dataclass(frozen=True)
class Pulse:
    """`running`: the kind of the backup under way, empty when idle. `last_failure`: empty after a success."""

    ticked_at: datetime
    process_id: int
    running: str = ""
    last_failure: str = ""


def save_pulse(backup_dir: Path, pulse: Pulse) -> None:
    """Whole-old or whole-new; not flushed, because after a power cut the loop writes it again."""
    path = backup_dir / PULSE_NAME
    arriving = path.with_name(path.name + ".arriving")
    arriving.write_text(json.dumps(asdict(pulse) | {"ticked_at": pulse.ticked_at.isoformat()}) + "\n")
    arriving.replace(path)


def load_pulse(backup_dir: Path) -> Pulse | None:
    """None when there is none, or none that can be read."""
    try:
        values = json.loads((backup_dir / PULSE_NAME).read_text())
        return Pulse(**values | {"ticked_at": datetime.fromisoformat(values["ticked_at"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def make_pulse(now: datetime, running: str = "", last_failure: str = "") -> Pulse:
    return Pulse(now, os.getpid(), running, last_failure)


def load_taken(backup_dir: Path) -> Taken:
    """From the manifests; no database is read."""
    catalogue = load_catalogue(backup_dir)
    full = (backup.manifest.clock_utc for backup in verified(catalogue, "full") if backup.manifest)
    small = (
        moment
        for backup in verified(catalogue, "irreplaceable")
        if backup.manifest
        for moment in (backup.manifest.clock_utc, backup.confirmed_at_utc)
    )
    return Taken(tuple(full), tuple(small))


def find_ailments(backup_dir: Path, now: datetime, *, loop: bool) -> list[str]:
    """What is wrong with the schedule, nothing when all is well. `loop`: whether there should be a loop."""
    pulse = load_pulse(backup_dir)
    stuck = find_stuck(now, pulse.ticked_at if pulse else None) if loop else ""
    failure = f"the last backup failed: {pulse.last_failure}" if pulse and pulse.last_failure else ""
    found = [find_stale(now, load_taken(backup_dir).full), stuck]
    return [ailment for ailment in [*found, failure if any(found) else ""] if ailment]


def describe_newest(backup_dir: Path, now: datetime) -> str:
    newest = newest_until(now, load_taken(backup_dir).full)
    if newest is None:
        return "no verified full backup yet"
    hours = (now - newest).total_seconds() / 3600
    return f"the newest verified full backup was made {newest.astimezone():%Y-%m-%d %H:%M}, {hours:.1f} h ago"
