"""Copies off the machine as people and programs read them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date

from backtestdb.config import Settings
from backtestdb.console import format_bytes, print_table
from backtestdb.offsite.check import CheckResult
from backtestdb.offsite.compare import TableChange
from backtestdb.offsite.record import CopyName

SHEET = """
RECOVERY SHEET: write this down and keep it away from this machine

  OFFSITE={offsite}
  OFFSITE_ENDPOINT={endpoint}
  OFFSITE_PASSPHRASE= … the one in your .env; it is not printed here
  and a key that may read the bucket (OFFSITE_KEY_ID, OFFSITE_SECRET)

On a new machine: git clone the project, put these lines into .env, then
  make restore-from-backup FROM=offsite
Without the project: age and zstd open every object, docs/DATABASE.md shows how.
Passphrase and key together open everything; without the passphrase nothing can be read.
"""


def make_recovery_sheet(settings: Settings) -> str:
    return SHEET.format(offsite=settings.offsite, endpoint=settings.offsite_endpoint)


def show_copies(where: str, names: Sequence[CopyName], as_json: bool) -> None:
    """Print full and small copies one by one, newest first; minutes as one line a day."""
    if as_json:
        print(json.dumps([describe(name) for name in sort_newest_first(names)], indent=1))
        return

    if not names:
        print(f"copies at {where}: none yet")
        return

    rows = [
        (f"{name.taken_at_utc.astimezone():%Y-%m-%d %H:%M:%S}", name.copy_class, name.writer)
        for name in sort_newest_first(names)
        if name.copy_class != "minute"
    ]
    if rows:
        print_table(f"copies at {where}", ("taken", "class", "writer"), rows)

    days = group_minutes(names)
    if days:
        minutes = [
            (f"{day}", len(found), f"{min(found):%H:%M:%S}", f"{max(found):%H:%M:%S}")
            for day, found in days
        ]
        print_table("minutes between them", ("day", "copies", "first", "last"), minutes)

    print(
        'any of these times: make restore-from-backup FROM=offsite BACKUP="2026-11-24 14:05" '
        "ARGS=--beside"
    )


def sort_newest_first(names: Sequence[CopyName]) -> list[CopyName]:
    return sorted(names, key=lambda name: (name.taken_at_utc, str(name)), reverse=True)


def group_minutes(names: Sequence[CopyName]) -> list[tuple[date, list]]:  # type: ignore[type-arg]
    """Return local days, newest first, each with the local times of its minutes."""
    days: dict[date, list] = {}  # type: ignore[type-arg]
    for name in names:
        if name.copy_class == "minute":
            local = name.taken_at_utc.astimezone()
            days.setdefault(local.date(), []).append(local)
    return sorted(days.items(), reverse=True)


def describe(name: CopyName) -> dict[str, object]:
    return {
        "name": str(name),
        "class": name.copy_class,
        "taken_at_utc": name.taken_at_utc.isoformat().replace("+00:00", "Z"),
        "writer": name.writer,
        "number": name.number,
    }


def show_check(where: str, result: CheckResult, as_json: bool) -> None:
    """Print how much was read and every problem."""
    if as_json:
        print(json.dumps(asdict(result), indent=1))
        return
    print(
        f"{where}: {result.copies} copies, {result.share} read"
        f" ({result.objects_read} objects, {format_bytes(result.bytes_read)}):"
        f" {'all well' if not result.problems else f'{len(result.problems)} problems'}"
    )

    for problem in result.problems:
        print(f"  {problem}")
    if result.problems:
        print(
            "next: nothing; the living process sends a new base in the place of a damaged one by "
            "itself"
        )


def describe_presence(change: TableChange) -> str:
    if change.there == (True, True):
        return ""
    return "the table is new" if change.there[1] else "the table is gone"
