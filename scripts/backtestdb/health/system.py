"""The machine: SQLite's version, time zones, the clock, and who has the database open."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from backtestdb.backups.catalogue import Backup, load_catalogue, verified
from backtestdb.config import PROJECT_DIR
from backtestdb.health.problem import Problem, note, ok, wrong
from backtestdb.holders import name_holders

REINSTALL = f"rm -f {quote(str(PROJECT_DIR / '.venv'))}/ready-* && make setup"
CLOCK_TOLERANCE = timedelta(minutes=2)
SUMMER, WINTER = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


def check_sqlite(version: tuple[int, int, int], *, is_wal: bool) -> Problem:
    """Judge the version of SQLite."""
    text = ".".join(map(str, version))
    # Two writers can damage a WAL database with 3.7.0 to 3.51.2; mended in 3.51.3, 3.50.7 and
    # 3.44.6.
    if not has_wal_bug(version):
        return ok("SQLite", text)

    what = f"SQLite {text} has a rare fault that can damage a WAL database under two writers"
    if not is_wal:
        return ok(
            "SQLite",
            f"{text}; the database is not in WAL mode, which this version has a rare fault in",
        )
    return note("SQLite", what, "use a Python with SQLite 3.51.3 or newer, or 3.50.7 or 3.44.6")


def has_wal_bug(version: tuple[int, int, int]) -> bool:
    mended = (version[:2] == (3, 50) and version >= (3, 50, 7)) or (
        version[:2] == (3, 44) and version >= (3, 44, 6)
    )
    return (3, 7, 0) <= version <= (3, 51, 2) and not mended


def check_time_zones() -> Problem:
    """Judge the rules of New York."""
    try:
        new_york = ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        return wrong("time zones", "the rules of America/New_York are missing", REINSTALL)

    # Sessions are days there: with wrong rules every 5-minute bar would be an hour off.
    offsets = [moment.astimezone(new_york).utcoffset() for moment in (WINTER, SUMMER)]
    if offsets != [timedelta(hours=-5), timedelta(hours=-4)]:
        what = f"the rules of America/New_York are wrong: {offsets}"
        return wrong("time zones", what, REINSTALL)

    return ok(
        "time zones", f"New York is known; local time is {datetime.now().astimezone():%Z (UTC%z)}"
    )


def check_clock(now: datetime, backup_dir: Path, vendor_now: datetime | None) -> Problem:
    """Judge this machine's clock against the vendor's where it was asked, else against the newest
    backup."""
    if vendor_now and abs(now - vendor_now) > CLOCK_TOLERANCE:
        what = f"the clock says {now:%Y-%m-%d %H:%M} UTC, the vendor's {vendor_now:%Y-%m-%d %H:%M}"
        return wrong("clock", what, "set the clock, best by network time")

    newest = max(
        (backup.manifest.clock_utc for backup in load_verified(backup_dir) if backup.manifest),
        default=now,
    )
    # Time does not go back.
    if newest > now + CLOCK_TOLERANCE:
        what = (
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, and a backup was made at "
            f"{newest:%Y-%m-%d %H:%M}"
        )
        return wrong("clock", what, "set the clock, best by network time")

    compared = "as the vendor's" if vendor_now else "not behind the newest backup"
    return ok("clock", f"{now:%Y-%m-%d %H:%M} UTC, {compared}")


def load_verified(backup_dir: Path) -> list[Backup]:
    catalogue = load_catalogue(backup_dir)
    return verified(catalogue, "full") + verified(catalogue, "irreplaceable")


def check_users(database: Path) -> Problem:
    """Name other processes that have the database open, as far as this user may see them."""
    if not database.exists():
        return ok("in use", "no database, no program has it open")
    users = name_holders(database)
    if users is None:
        return note("in use", "this system does not tell who has the database open")
    return ok(
        "in use",
        f"open in {', '.join(users)}" if users else "no other program of yours has it open",
    )
