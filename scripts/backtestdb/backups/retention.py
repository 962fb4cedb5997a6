"""Which backups have had their time, and how they leave."""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from backtestdb.backups.catalogue import (
    EXPIRED,
    FAILED_DRILL,
    NAME,
    PREFIXES,
    Backup,
    scripts_path_of,
    verified,
)
from backtestdb.backups.manifest import Kind
from backtestdb.backups.shrinkage import find_highest
from backtestdb.config import Settings
from backtestdb.files import fsync_directory, remove_database, remove_tree

SMALL_ONES_ALL_OF = timedelta(hours=48)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How many backups of one kind are kept beside those that `choose_expired` never gives up: all
    of the newest `all_of` of time, the newest `newest`, then the last of each hour, day, week and
    month, so many of each."""

    newest: int = 1
    all_of: timedelta = timedelta(0)
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


def make_retention(settings: Settings, kind: Kind) -> Retention:
    """Given the settings, return how many backups of a kind they keep."""
    if kind == "full":
        return Retention(
            newest=settings.max_backups,
            weekly=settings.keep_full_weekly,
            monthly=settings.keep_full_monthly,
        )

    return Retention(
        all_of=SMALL_ONES_ALL_OF,
        hourly=settings.keep_small_hourly,
        daily=settings.keep_small_daily,
        weekly=settings.keep_small_weekly,
        monthly=settings.keep_small_monthly,
    )


def choose_expired(
    backups: Sequence[Backup], kind: Kind, retention: Retention, zone: tzinfo | None = None
) -> list[Backup]:
    """Given everything in the folder, newest first, return the expired backups of one kind. Days
    are those of `zone`, None for the system's. A backup of another database is none of ours."""
    if retention.newest < 1:
        raise ValueError(f"newest={retention.newest}: the newest verified backup always stays")
    ours = verified(backups, kind)

    # Whatever the numbers say: the newest, each that alone holds the most rows of a table, and the
    # newest without a loss.
    kept = {backup.path for backup in ours[: retention.newest]} | find_highest(backups)
    kept |= {backup.path for backup in [backup for backup in ours if not backup.is_suspicious][:1]}

    kept |= {
        backup.path
        for backup in ours
        if backup.taken_at_utc >= ours[0].taken_at_utc - retention.all_of
    }

    # The newest backup of a period (an hour, a day …) stands for it, and counts only when no rule
    # before it keeps that one already, as borg does it: so 60 days begin where the hours end.
    for count, period_of in (
        (retention.hourly, hour_of),
        (retention.daily, day_of),
        (retention.weekly, week_of),
        (retention.monthly, month_of),
    ):
        periods = [(period_of(one.taken_at_utc.astimezone(zone)), one.path) for one in ours]
        kept |= choose_last_of_periods(periods, count, kept)

    return [backup for backup in ours if backup.path not in kept]


def choose_last_of_periods(
    backups: Iterable[tuple[object, Path]], count: int, kept: Set[Path]
) -> set[Path]:
    """Given the period and the path of each backup, newest first, return the newest of each of
    the newest `count` periods whose newest is not kept already."""
    chosen: set[Path] = set()
    last: object = None

    for period, path in backups:
        if period == last or len(chosen) == count:
            continue
        last = period
        if path not in kept:
            chosen.add(path)
    return chosen


def hour_of(moment: datetime) -> object:
    """Return the hour in UTC: in autumn a local hour comes twice."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H")


def day_of(moment: datetime) -> object:
    return moment.date()


def week_of(moment: datetime) -> object:
    return moment.isocalendar()[:2]


def month_of(moment: datetime) -> object:
    return (moment.year, moment.month)


def choose_to_give_way(
    backups: Sequence[Backup], missing_bytes: int, min_backups: int
) -> list[Backup]:
    """Return the oldest full backups that together have `missing_bytes`, down to `min_backups`;
    none when that is not enough. Those that `choose_expired` never gives up stay."""
    expendable = choose_expired(backups, "full", Retention(newest=max(min_backups, 1)))[::-1]

    freed_bytes = 0
    for number, backup in enumerate(expendable, 1):
        freed_bytes += backup.bytes
        if freed_bytes >= missing_bytes:
            return expendable[:number]
    return []


def remove_backup(backup: Backup, on_step: Callable[[str], None] = lambda _name: None) -> None:
    """Remove a backup. First it stops being one, in one step; a run that is killed after that
    leaves a mark for `finish_removals`."""
    expired = backup.manifest_path.with_suffix(EXPIRED)
    backup.manifest_path.rename(expired)
    fsync_directory(expired.parent)
    on_step("expired")
    finish_removal(expired, on_step)


def finish_removal(expired: Path, on_step: Callable[[str], None] = lambda _name: None) -> None:
    """Remove what belongs to a backup that is none any more."""
    database = expired.with_suffix(".db")
    # With a manifest beside it, the user adopted the database since.
    if database.with_suffix(".json").exists():
        expired.unlink()
        return

    remove_database(database)
    database.with_suffix(FAILED_DRILL).unlink(missing_ok=True)
    on_step("expired database removed")
    if database.name.startswith(PREFIXES["full"]):
        remove_tree(scripts_path_of(database))
    expired.unlink()


def finish_removals(backup_dir: Path) -> None:
    """Finish what a killed run had begun to remove."""
    for expired in sorted(backup_dir.glob(f"*{EXPIRED}")):
        if NAME.fullmatch(expired.stem + ".db"):
            finish_removal(expired)
