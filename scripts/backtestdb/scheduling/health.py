"""How the scheduler is: a small file in the backup folder says when it last looked, and what
failed."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from backtestdb.backups.backup_dir import describe_absent, find_reason_to_keep_off
from backtestdb.backups.catalogue import FAILED_DRILL, is_foreign, verified
from backtestdb.backups.identity import load_own_catalogue
from backtestdb.backups.manifest import Kind
from backtestdb.backups.shrinkage import describe_losses, find_newest
from backtestdb.config import Settings
from backtestdb.files import write_atomically
from backtestdb.offsite.facts import STALE_AFTER as OFFSITE_STALE
from backtestdb.offsite.facts import find_offsite_problems, load_offsite_facts
from backtestdb.scheduling.due import BackupTimes, find_stale, find_stuck, newest_until


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """`kind`: a loop lives on, `once` ended after what was due. `running`: the task under way,
    empty when idle. `failures`: task -> why its last attempt failed, until that task succeeds.
    `database_device`, `database_inode`: which file the scheduler sees under the name of the
    database, 0 where there is none."""

    kind: Literal["loop", "once"]
    ticked_at: datetime
    process_id: int
    running: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)
    database_device: int = 0
    database_inode: int = 0

    @property
    def last_failure(self) -> str:
        return "; ".join(self.failures.values())


def scheduler_path(backup_dir: Path, database: Path, suffix: str) -> Path:
    """Return a file of the scheduler of this database: several databases may share a backup
    folder."""
    mark = hashlib.sha256(os.path.realpath(database).encode(errors="surrogateescape")).hexdigest()[
        :12
    ]
    return backup_dir / f".scheduler-{mark}{suffix}"


def save_liveness(backup_dir: Path, database: Path, liveness: Liveness) -> None:
    """Write it in one step; not flushed, because after a power cut the loop writes it again."""
    path = scheduler_path(backup_dir, database, ".json")
    text = json.dumps(asdict(liveness) | {"ticked_at": liveness.ticked_at.isoformat()}) + "\n"
    write_atomically(path, text, mode=0o666, durably=False)


def load_liveness(backup_dir: Path, database: Path) -> Liveness | None:
    """Return None when there is none, or none that can be read."""
    try:
        values = json.loads(scheduler_path(backup_dir, database, ".json").read_text())
        return Liveness(**values | {"ticked_at": datetime.fromisoformat(values["ticked_at"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def make_liveness(
    kind: Literal["loop", "once"],
    now: datetime,
    database: Path,
    *,
    running: str = "",
    failures: Mapping[str, str] | None = None,
) -> Liveness:
    """Return the sign of life of this process, with the file that it sees as the database."""
    device, inode = file_identity(database)
    return Liveness(
        kind=kind,
        ticked_at=now,
        process_id=os.getpid(),
        running=running,
        failures=dict(failures or {}),
        database_device=device,
        database_inode=inode,
    )


def file_identity(path: Path) -> tuple[int, int]:
    """Return device and inode of a file, (0, 0) where there is none."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_dev, state.st_ino


def remove_liveness(backup_dir: Path, database: Path) -> None:
    """Remove the sign that a schedule should be running, after it was taken down on purpose."""
    scheduler_path(backup_dir, database, ".json").unlink(missing_ok=True)


def load_backup_times(backup_dir: Path, database: Path) -> BackupTimes:
    """Return when its backups were made, from the manifests; of the database only its id is
    read."""
    catalogue = load_own_catalogue(backup_dir, database)
    full = (backup.manifest.clock_utc for backup in verified(catalogue, "full") if backup.manifest)
    irreplaceable = (
        moment
        for backup in verified(catalogue, "irreplaceable")
        if backup.manifest
        for moment in (backup.manifest.clock_utc, backup.confirmed_at_utc)
    )

    return BackupTimes(tuple(full), tuple(irreplaceable))


def find_suspicion(backup_dir: Path, database: Path) -> str:
    """Return which rows the newest backup misses, see backups/shrinkage.py; empty when none."""
    newest = find_newest(load_own_catalogue(backup_dir, database))
    if newest is None or newest.manifest is None or not newest.is_suspicious:
        return ""
    return describe_losses(newest.manifest.losses)


def find_kinds_that_failed_a_drill(backup_dir: Path, database: Path) -> list[Kind]:
    """Return the kinds whose newest backup could not be restored: a new one is due at once,
    whatever the hour."""
    ours = [backup for backup in load_own_catalogue(backup_dir, database) if not is_foreign(backup)]
    newest = [
        next((one for one in ours if one.kind == kind), None) for kind in ("full", "irreplaceable")
    ]
    return [one.kind for one in newest if one and one.path.with_suffix(FAILED_DRILL).exists()]


def find_problems(backup_dir: Path, database: Path, now: datetime, *, loop: bool) -> list[str]:
    """Return what is wrong with the schedule, nothing when all is well. `loop`: whether there
    should be a loop."""
    if reason := find_reason_to_keep_off(backup_dir, database):
        return [describe_absent(backup_dir, reason)]
    liveness = load_liveness(backup_dir, database)
    stuck = find_stuck(now, liveness.ticked_at if liveness else None) if loop else ""
    stale = find_stale(now, load_backup_times(backup_dir, database).full)
    failures = list(liveness.failures.values()) if liveness else []
    return [problem for problem in [stale, stuck, *failures] if problem]


def find_update_problems(
    state_dir: Path, database: Path, now: datetime, *, loop: bool
) -> list[str]:
    """Return the same for the schedule of the market data; whether the data is old, status says."""
    liveness = load_liveness(state_dir, database)
    stuck = find_stuck(now, liveness.ticked_at if liveness else None) if loop else ""
    return [
        problem for problem in [stuck, *(liveness.failures.values() if liveness else ())] if problem
    ]


def find_overdue(settings: Settings, now: datetime) -> str:
    """Return why not all is well although a backup has just been made: what failed and was not made
    since, or an old full backup. Empty when all is well."""
    folders = (settings.backup_dir, settings.database_path)
    problems = find_problems(*folders, now, loop=False)
    return "\n".join([*problems, *find_offsite_overdue(settings, now)])


def find_offsite_overdue(settings: Settings, now: datetime) -> list[str]:
    """Return what is wrong with the copies off this machine."""
    facts = load_offsite_facts(settings, now)
    problems = find_offsite_problems(facts)
    if facts is None or not problems:
        return []

    times = load_backup_times(settings.backup_dir, settings.database_path)
    ages = [now - moment for moment in (*times.full, *times.irreplaceable)]
    lag = timedelta.max if facts.lag is None else facts.lag
    # Behind is what misses a backup made OFFSITE_STALE ago or earlier: a machine that has just
    # woken up, or just got OFFSITE, is behind for half a minute, and well.
    if not any(OFFSITE_STALE < age < lag for age in ages):
        problems = [problem for problem in problems if problem.name != "offsite_stale"]
    return [problem.what for problem in problems]


def describe_newest(backup_dir: Path, database: Path, now: datetime) -> str:
    newest = newest_until(now, load_backup_times(backup_dir, database).full)
    if newest is None:
        return "no verified full backup yet"
    hours = (now - newest).total_seconds() / 3600
    return (
        f"the newest verified full backup was made {newest.astimezone():%Y-%m-%d %H:%M}, "
        f"{hours:.1f} h ago"
    )
