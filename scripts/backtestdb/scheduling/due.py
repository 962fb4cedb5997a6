"""What is due, and whether all is well: pure functions of the clock, the settings and the times of
backups.

Nothing is remembered between two questions but the backups themselves, so a machine that slept, was
off or had its clock changed needs no special case: every scheduler gets the same answer, and after
any kill.

Times are what the clock said when a backup was made. Local days and hours are those of `zone`; None
is the zone of the system.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

from backtestdb.backups.manifest import Kind

# The day on which clocks go back has 25 hours; a working schedule is never further behind than
# this.
LATEST_AFTER = timedelta(hours=25, minutes=30)
STALE_AFTER = timedelta(hours=26)
STUCK_AFTER = timedelta(minutes=5)
RETRY_FIRST, RETRY_LAST = timedelta(minutes=5), timedelta(hours=1)


@dataclass(frozen=True)
class BackupTimes:
    """When the verified backups were made, by kind; in any order, each with its zone."""

    full: tuple[datetime, ...] = ()
    irreplaceable: tuple[datetime, ...] = ()


def what_is_due(
    now: datetime,
    taken: BackupTimes,
    *,
    backup_time: time,
    every_minutes: int,
    zone: tzinfo | None = None,
) -> list[Kind]:
    """Return the kinds of backup to make now, the full one first. `every_minutes`: 0 turns the
    small ones off."""
    due: list[Kind] = []
    if full_is_due(now, taken.full, backup_time, zone):
        due.append("full")
    if every_minutes and irreplaceable_is_due(now, taken.irreplaceable, every_minutes):
        due.append("irreplaceable")
    return due


def full_is_due(
    now: datetime, taken: Iterable[datetime], backup_time: time, zone: tzinfo | None
) -> bool:
    """Tell whether a full backup is due. One per local day: a backup counts for the day on which it
    was made, whatever the hour.

    - The last day that has reached `backup_time` must have one, or a later day. Wall-clock hours
      are compared, so an hour that is skipped or comes twice makes no difference.
    - A backup that was caught up just after midnight would leave nearly two days until a late
      `backup_time` comes again: LATEST_AFTER bounds that.
    - Days ahead of today are the work of a clock that has been set back since, and count when they
      come.
    """
    local = now.astimezone(zone)
    today = local.date()
    earlier = [moment for moment in taken if moment.astimezone(zone).date() <= today]
    if not earlier:
        return True

    newest = max(earlier)
    newest_day = newest.astimezone(zone).date()
    return newest_day < last_backup_day(local, backup_time) or (
        newest_day < today and now - newest >= LATEST_AFTER
    )


def last_backup_day(local: datetime, backup_time: time) -> date:
    return local.date() if local.time() >= backup_time else local.date() - timedelta(days=1)


def irreplaceable_is_due(now: datetime, taken: Iterable[datetime], every_minutes: int) -> bool:
    """Tell whether a small backup is due, by whole minutes: asked once a minute, it would otherwise
    come a minute later each time."""
    newest = newest_until(now, taken)
    if newest is None:
        return True
    return whole_minutes(now) - whole_minutes(newest) >= every_minutes


def whole_minutes(moment: datetime) -> int:
    return int(moment.timestamp() // 60)


def newest_until(now: datetime, taken: Iterable[datetime]) -> datetime | None:
    """Return the newest that does not lie ahead: after a clock was set back, those ahead tell
    nothing."""
    return max((moment for moment in taken if moment <= now), default=None)


def retry_at(failed_at: datetime, failures: int) -> datetime:
    """Return when to try again after so many failures in a row: 5, 10, 20, 40 minutes, then every
    hour."""
    return failed_at + min(RETRY_FIRST * (1 << min(failures - 1, 10)), RETRY_LAST)


def find_stale(now: datetime, taken_full: Iterable[datetime]) -> str:
    """Return why the newest full backup is too old, or an empty text."""
    newest = newest_until(now, taken_full)
    if newest is None:
        return "there is no verified full backup"

    hours = (now - newest) / timedelta(hours=1)
    if now - newest > STALE_AFTER:
        return (
            f"the newest verified full backup is {hours:.1f} h old, more than "
            f"{STALE_AFTER // timedelta(hours=1)}"
        )
    return ""


def find_stuck(now: datetime, ticked_at: datetime | None) -> str:
    """Return why the loop seems to hang, or an empty text. It leaves a sign of life every
    minute."""
    if ticked_at is None:
        return "the loop has left no sign of life"
    if now - ticked_at > STUCK_AFTER:
        return (
            f"the loop's last sign of life is {(now - ticked_at) / timedelta(minutes=1):.0f} "
            "minutes old"
        )
    return ""


def wake_minutes(backup_time: time, every_minutes: int) -> list[int]:
    """Return the minutes of each hour at which a scheduler without memory (launchd, systemd, cron)
    has to ask.

    Hourly at least, so that what failed is tried again; `backup_time` is always among them. Every 5
    minutes at most: an interval that is no divisor of an hour is then met to within 5 minutes.
    """
    step = next(step for step in (60, 30, 20, 15, 10, 5) if not every_minutes % step or step == 5)
    return sorted((backup_time.minute + start) % 60 for start in range(0, 60, step))
