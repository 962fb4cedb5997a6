"""Backups over real time: a lane for the full ones and one for the small ones, gaps as wide as they
were."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from backtestdb.backups.catalogue import Backup
from backtestdb.backups.manifest import Kind
from backtestdb.console import format_bytes
from backtestdb.health.report import format_age

WIDTH, HEIGHT = 1000.0, 60.0
SHOWN = timedelta(days=35)
LEAST_SHOWN = timedelta(days=1)
MARK_WIDTH = 4.0
TICKS = 5
KINDS: dict[Kind, str] = {"full": "full", "irreplaceable": "small"}
LISTED = 8


def make_backup_lanes(catalogue: Sequence[Backup], now: datetime) -> dict[str, Any] | None:
    """Given the files of the backup folder, return the last 35 days of them as far as there are
    any, None without a file. Height by size, each kind by its own largest."""
    if not catalogue:
        return None
    by_time = sorted(catalogue, key=lambda backup: backup.taken_at_utc)
    oldest_shown = next(
        (backup.taken_at_utc for backup in by_time if now - backup.taken_at_utc <= SHOWN), now
    )
    start = min(oldest_shown, now - LEAST_SHOWN)

    lanes = [
        make_lane(label, [b for b in by_time if b.kind == kind], start, now)
        for kind, label in KINDS.items()
    ]

    return {
        "lanes": lanes,
        "ticks": make_ticks(start, now),
        "older": sum(backup.taken_at_utc < start for backup in by_time),
        "oldest": format_moment(by_time[0].taken_at_utc)[:10],
        "rows": [describe_row(backup) for backup in reversed(by_time)],
        "listed": LISTED,
    }


def make_lane(
    label: str, backups: Sequence[Backup], start: datetime, now: datetime
) -> dict[str, Any]:
    """Given the backups of one kind in order of time, return marks of an SVG of WIDTH × HEIGHT from
    `start` to `now`, and what they show in words."""
    shown = [backup for backup in backups if backup.taken_at_utc >= start]
    largest = max((backup.bytes for backup in shown), default=0) or 1

    marks = []
    for backup in shown:
        height = max(HEIGHT * 0.9 * backup.bytes / largest, 6)
        x, until = (
            (moment - start) / (now - start) * WIDTH
            for moment in (backup.taken_at_utc, covered_until(backup))
        )
        marks.append(
            {
                "x": round(min(max(x - MARK_WIDTH / 2, 0), WIDTH - MARK_WIDTH), 2),
                "y": round(HEIGHT - height, 2),
                "width": MARK_WIDTH,
                "height": round(height, 2),
                "covered": round(max(min(until, WIDTH) - x, 0), 2),
                "is_verified": backup.is_verified,
            }
        )

    return {
        "label": label,
        "marks": marks,
        "summary": describe_lane(label, [b for b in shown if b.is_verified], now),
    }


def describe_lane(label: str, verified: Sequence[Backup], now: datetime) -> str:
    """Return in words what a lane shows: how many backups count, the newest, the longest gap."""
    if not verified:
        return f"{label}: none that counts"
    newest = f"{label}: {len(verified)}, newest {format_moment(verified[-1].taken_at_utc)}"
    ends = [covered_until(backup) for backup in verified]
    beginnings = [*(backup.taken_at_utc for backup in verified[1:]), now]
    pairs = list(zip(ends, beginnings, strict=True))
    begin, end = max(pairs, key=lambda pair: pair[1] - pair[0])
    until = "now" if end == now else format_moment(end)
    return f"{newest}; longest gap {format_age(end - begin)}, {format_moment(begin)} to {until}"


def covered_until(backup: Backup) -> datetime:
    """Return when the database was last known to hold what the backup holds: a small one is not
    made anew while nothing changes."""
    return max(backup.taken_at_utc, backup.confirmed_at_utc)


def make_ticks(start: datetime, now: datetime) -> list[tuple[float, str]]:
    """Return places in percent from the left, and a date for each; of less than three days with the
    hour."""
    form = "%m-%d %H:%M" if now - start < timedelta(days=3) else "%m-%d"
    return [
        (
            100 * number / (TICKS - 1),
            f"{(start + (now - start) * number / (TICKS - 1)).astimezone():{form}}",
        )
        for number in range(TICKS)
    ]


def describe_row(backup: Backup) -> dict[str, Any]:
    return {
        "name": backup.path.name,
        "taken_at": format_moment(backup.taken_at_utc),
        "size": format_bytes(backup.bytes),
        "is_verified": backup.is_verified,
        "problem": backup.problem,
        "rows": f"{sum(backup.manifest.rows.values()):,}" if backup.manifest else "–",
    }


def format_moment(moment: datetime) -> str:
    """Return local time, as the names of the backups have it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
