"""When BACKUP_DIR is full: the backups of the days to come, by the sizes of those there are."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from backtestdb.backups.catalogue import Backup, verified
from backtestdb.backups.identity import load_own_catalogue
from backtestdb.backups.retention import Retention, make_retention
from backtestdb.config import Settings
from backtestdb.console import count_of, format_bytes
from backtestdb.files import free_bytes

HORIZON_DAYS = 400
WARN_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What a day adds. `next_bytes`: of the next full backup. `daily_bytes`: by how much each is
    larger than the one of the day before. `small_bytes`: all small backups of one day, which are
    kept one by one for `small_days` more before older ones make room."""

    next_bytes: int
    daily_bytes: float = 0.0
    small_bytes: int = 0
    small_days: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """`days`: after how many of them a full backup finds no room, None when not within
    HORIZON_DAYS. `kept`: how many full backups there are then. `fitting`: the largest MAX_BACKUPS
    with which WARN_DAYS pass, 0 when none does."""

    days: int | None = None
    kept: int = 0
    fitting: int = 0
    growth: Growth = field(default_factory=lambda: Growth(next_bytes=0))

    @property
    def is_near(self) -> bool:
        return self.days is not None and self.days <= WARN_DAYS


def forecast(
    catalogue: Sequence[Backup], settings: Settings, free: int, database_bytes: int
) -> Forecast:
    """Given everything in the folder (newest first), the room that is left and the size of the
    database, return when the folder is full at the present growth."""
    growth = measure_growth(catalogue, settings, database_bytes)
    if not growth.next_bytes:
        return Forecast(growth=growth)
    full = [
        (backup.taken_at_utc.toordinal(), backup.bytes) for backup in verified(catalogue, "full")
    ]
    retention = make_retention(settings, "full")
    found = count_days(full, growth, retention, free)
    if not found.is_near:
        return found

    fitting = (
        fewer
        for fewer in range(settings.max_backups - 1, 0, -1)
        if not count_days(full, growth, replace(retention, newest=fewer), free).is_near
    )

    return replace(found, fitting=next(fitting, 0))


def count_days(
    full: Sequence[tuple[int, int]], growth: Growth, retention: Retention, free: float
) -> Forecast:
    """Return when a full backup finds no room. `full`: day (proleptic ordinal) and bytes of the
    backups that are kept now, newest first."""
    kept = list(full)
    today = kept[0][0] if kept else 1

    for day in range(1, HORIZON_DAYS + 1):
        new_bytes = int(growth.next_bytes + growth.daily_bytes * day)
        free -= growth.small_bytes if day <= growth.small_days else 0
        # A new one needs its room before an old one leaves.
        if free < new_bytes:
            return Forecast(day, len(kept), growth=growth)
        kept.insert(0, (today + day, new_bytes))
        staying = keep(kept, retention)
        free += sum(size for _, size in kept) - sum(size for _, size in staying) - new_bytes
        kept = staying

    return Forecast(None, len(kept), growth=growth)


def keep(full: Sequence[tuple[int, int]], retention: Retention) -> list[tuple[int, int]]:
    """Return what `choose_expired` leaves, without what it never gives up: the newest, then the
    last of each week and of each month beyond."""
    kept = list(full[: retention.newest])
    rest = list(full[retention.newest :])

    for count, days in ((retention.weekly, 7), (retention.monthly, 30)):
        seen: set[int] = set()
        chosen: list[tuple[int, int]] = []
        for one in rest:
            if len(chosen) < count and one[0] // days not in seen:
                seen.add(one[0] // days)
                chosen.append(one)
        rest = [one for one in rest if one not in chosen]
        kept += chosen

    return kept


def measure_growth(catalogue: Sequence[Backup], settings: Settings, database_bytes: int) -> Growth:
    """Return what a day adds, by the sizes of the backups that are there."""
    full, small = (verified(catalogue, kind) for kind in ("full", "irreplaceable"))
    daily = 0.0
    if len(full) > 1:
        days = (full[0].taken_at_utc - full[-1].taken_at_utc) / timedelta(days=1)
        daily = max((full[0].bytes - full[-1].bytes) / days, 0.0) if days >= 1 else 0.0
    if not small:
        return Growth(next_bytes=full[0].bytes if full else database_bytes, daily_bytes=daily)

    # The hourly ones are kept for KEEP_SMALL_HOURLY hours; beyond those one a day stays.
    newest = small[0].taken_at_utc
    of_a_day = sum(one.bytes for one in small if newest - one.taken_at_utc < timedelta(days=1))
    age_days = (newest - small[-1].taken_at_utc) / timedelta(days=1)
    return Growth(
        next_bytes=full[0].bytes if full else database_bytes,
        daily_bytes=daily,
        small_bytes=of_a_day,
        small_days=max(settings.keep_small_hourly / 24 - age_days, 0.0),
    )


def warn_of_full_disk(settings: Settings) -> str:
    """Return for an installation what `describe_forecast` says, in one line, with what helps."""
    database = settings.database_path
    size = database.stat().st_size if database.is_file() else 0
    free = free_bytes(settings.backup_dir)
    catalogue = load_own_catalogue(settings.backup_dir, database)
    what, next_step = describe_forecast(forecast(catalogue, settings, free, size), settings, free)
    return f"warning: {what}; next: {next_step}" if what else ""


def describe_forecast(found: Forecast, settings: Settings, free: int) -> tuple[str, str]:
    """Return what is said and what helps; empty if WARN_DAYS do not fill the folder."""
    if found.days is None or not found.is_near:
        return "", ""

    when = "now" if found.days <= 1 else f"in {found.days} days"
    what = (
        f"{settings.backup_dir} is full {when}: {format_bytes(free)} are free, "
        f"{count_of(found.kept, 'full backup')} of {format_bytes(found.growth.next_bytes)} fit, "
        f"MAX_BACKUPS is {settings.max_backups}"
    )
    fewer = f", or set MAX_BACKUPS={found.fitting} in .env" if found.fitting else ""
    return what, f"free space on this disk{fewer}"
