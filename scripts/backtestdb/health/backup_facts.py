"""The backups, from names and manifests: how many, how old, how much room is left for more."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from backtestdb.backups.catalogue import Backup, verified
from backtestdb.backups.forecast import Forecast, describe_forecast, forecast
from backtestdb.backups.identity import load_own_catalogue
from backtestdb.backups.known_folders import find_absent_disk
from backtestdb.backups.manifest import Kind, Loss
from backtestdb.backups.shrinkage import find_losses, find_newest, load_expected
from backtestdb.config import Settings
from backtestdb.files import free_bytes


@dataclass(frozen=True, kw_only=True)
class KindFacts:
    """The verified backups of one kind. `newest_age` counts a small one from when it was last found
    to be still up to date; None without any. `newest_bytes`: size of the newest, 0 without any."""

    kind: Kind
    count: int = 0
    newest: Path | None = None
    newest_at_utc: datetime | None = None
    newest_age: timedelta | None = None
    newest_bytes: int = 0
    bytes_used: int = 0


@dataclass(frozen=True, kw_only=True)
class BackupFacts:
    """`unverified`: files that do not count, with the reason. `of_others`: paths of other databases
    with backups in this folder -> how many; they count for those. `lost_rows`: table -> what it has
    lost since the newest backup, see backups/shrinkage.py. `room_for`: how many more full backups
    fit, each as large as the newest or else as the database; None without either. `missing_disk`:
    why this is not the folder that took the backups before, empty where it is. `fills_in_days`:
    when it is full at the present growth, None when not in 400 days; `fills`, `before_it_fills`: in
    words, and what helps, when that is near."""

    folder: Path
    full: KindFacts
    irreplaceable: KindFacts
    unverified: dict[str, str]
    free_bytes: int
    room_for: int | None
    missing_disk: str
    of_others: Mapping[str, int] = field(default_factory=dict)
    lost_rows: Mapping[str, Loss] = field(default_factory=dict)
    small_every_minutes: int = 0
    fills_in_days: int | None = None
    fills: str = ""
    before_it_fills: str = ""


def load_backup_facts(
    folder: Path,
    database: Path,
    database_bytes: int,
    now: datetime,
    *,
    database_id: str,
    rows: Mapping[str, int],
    settings: Settings | None = None,
) -> BackupFacts:
    """Return what BACKUP_DIR holds at `now`, which has a zone. `database_id`: see DatabaseFacts;
    the process may have the file open. `rows`: of each table of the database, none when it is not
    there or cannot be read. `settings`: where a forecast is wanted, too."""
    catalogue = load_own_catalogue(folder, database, database_id)
    full, irreplaceable = (
        make_kind_facts(catalogue, kind, now) for kind in ("full", "irreplaceable")
    )

    free = free_bytes(folder)
    needed = full.newest_bytes or database_bytes

    coming = forecast(catalogue, settings, free, database_bytes) if settings else Forecast()
    fills, before_it_fills = describe_forecast(coming, settings, free) if settings else ("", "")

    return BackupFacts(
        folder=folder,
        full=full,
        irreplaceable=irreplaceable,
        unverified={
            backup.path.name: backup.problem for backup in catalogue if not backup.is_verified
        },
        free_bytes=free,
        room_for=free // needed if needed else None,
        missing_disk=find_absent_disk(folder, database),
        of_others=dict(
            Counter(backup.other_database for backup in catalogue if backup.other_database)
        ),
        lost_rows=find_lost_rows(catalogue, rows),
        small_every_minutes=settings.irreplaceable_every_minutes if settings else 0,
        fills_in_days=coming.days,
        fills=fills,
        before_it_fills=before_it_fills,
    )


def find_lost_rows(catalogue: Sequence[Backup], rows: Mapping[str, int]) -> dict[str, Loss]:
    """Return which tables lost rows: of the database as it is now, or of the newest backup, where
    the database cannot be read."""
    newest = find_newest(catalogue)
    if newest is None or newest.manifest is None:
        return {}
    if not rows:
        return dict(newest.manifest.losses) if newest.is_suspicious else {}

    losses = find_losses(load_expected(newest.manifest), rows)
    # A rename is judged by the next backup, which looks at the columns.
    has_new_tables = bool(rows.keys() - newest.manifest.rows.keys())
    return {table: loss for table, loss in losses.items() if table in rows or not has_new_tables}


def make_kind_facts(catalogue: Sequence[Backup], kind: Kind, now: datetime) -> KindFacts:
    """Return count, newest and sizes of the verified backups of one kind."""
    backups = verified(catalogue, kind)
    if not backups:
        return KindFacts(kind=kind)

    newest = backups[0]
    moment = newest.confirmed_at_utc if kind == "irreplaceable" else newest.taken_at_utc
    return KindFacts(
        kind=kind,
        count=len(backups),
        newest=newest.path,
        newest_at_utc=newest.taken_at_utc,
        newest_age=max(now - moment, timedelta(0)),
        newest_bytes=newest.bytes,
        bytes_used=sum(backup.bytes for backup in backups),
    )
