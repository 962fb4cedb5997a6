"""What needs the user, and the command that helps: a pure function of the facts."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta

from backtestdb.backups.backup_dir import CONNECT_DISK
from backtestdb.backups.shrinkage import describe_losses
from backtestdb.console import format_bytes, format_duration
from backtestdb.health.backup_facts import BackupFacts
from backtestdb.health.coverage_facts import UniverseCoverage
from backtestdb.health.database_facts import DatabaseFacts
from backtestdb.health.drill_facts import DrillFacts
from backtestdb.health.facts import Facts
from backtestdb.health.lake import judge_lake
from backtestdb.health.problem import Problem
from backtestdb.new_york import NEW_YORK
from backtestdb.newer_sqlite import NEWER_PYTHON, TOO_NEW
from backtestdb.offsite.facts import find_offsite_problems
from backtestdb.scheduling.due import STALE_AFTER
from backtestdb.scheduling.updates import SATURDAY, last_update_moment
from backtestdb.timeframes import LABELS

ROOM_FOR_AT_LEAST = 3
STALE_SESSIONS, HOLIDAYS_IN_BETWEEN = 3, 1
REFILL = {"1day": "make backfill-daily", "5min": "make backfill-intraday"}


def judge(facts: Facts) -> list[Problem]:
    """Return the problems, the most urgent first; none when all is well."""
    return [
        *judge_database(facts.database, facts.backups),
        *judge_backups(facts.backups, facts.database),
        *judge_drills(facts.drills),
        *(
            Problem(one.name, one.what, one.next_step)
            for one in find_offsite_problems(facts.offsite)
        ),
        *judge_coverage(facts),
        *judge_market(facts),
        *(place for place in facts.lake_places if place.level == "wrong"),
        *judge_lake(facts.lake),
        *judge_schedule(facts),
    ]


def judge_database(database: DatabaseFacts, backups: BackupFacts) -> Iterator[Problem]:
    """Yield what is wrong with the file at DATABASE_PATH, and the way back."""
    way_back = (
        "make restore-from-backup"
        if backups.full.count or backups.irreplaceable.count
        else "make restore"
    )

    path, origin = database.path, database.origin
    if database.state == "missing":
        what = f"there is no database at {path} (DATABASE_PATH, from {origin})"
        yield Problem("no_database", what, way_back)
    elif database.state == "no_disk":
        what = (
            f"the database {path} (DATABASE_PATH, from {origin}) is {database.detail}, and "
            "nothing is there"
        )
        yield Problem("no_database_disk", what, "connect that disk, or change DATABASE_PATH")
    elif database.state == "too_new":
        yield Problem(
            "too_new_database", f"the database {path}: {TOO_NEW} ({database.detail})", NEWER_PYTHON
        )
    elif database.state == "empty":
        yield Problem("empty_database", f"the database {path} has no rows", way_back)
    elif database.state == "damaged":
        what = f"the database {path} is damaged: {database.detail}"
        yield Problem("damaged_database", what, way_back)
    elif database.state == "interrupted":
        what = (
            f"a program was killed in the middle of a transaction on {path}: the next one "
            "takes that back"
        )
        yield Problem("interrupted_transaction", what, "make backup")
    elif database.state == "unreadable":
        what = f"the database {path} cannot be read: {database.detail}"
        yield Problem("unreadable_database", what, "make doctor")


def judge_backups(backups: BackupFacts, database: DatabaseFacts) -> Iterator[Problem]:
    """Yield lost rows, backups that are missing or old, and what is wrong with their folder."""
    age = backups.full.newest_age
    if backups.lost_rows:
        way_back = "make restore-from-backup; or, when it was meant, make backup ARGS=--accept-loss"
        yield Problem(
            "rows_lost", f"rows were lost: {describe_losses(backups.lost_rows)}", way_back
        )

    if backups.missing_disk:
        what = f"the disk of BACKUP_DIR {backups.folder} is not there: {backups.missing_disk}"
        yield Problem("no_backup_disk", what, CONNECT_DISK)
        return

    if database.state == "present" and age is None:
        yield Problem(
            "no_backup", f"there is no verified full backup in {backups.folder}", "make backup"
        )
    elif database.state == "present" and age is not None and age > STALE_AFTER:
        what = (
            f"the newest verified full backup is {format_duration(age.total_seconds())} old, "
            "more than 26 h"
        )
        yield Problem("stale_backup", what, "make backup")

    small_age = backups.irreplaceable.newest_age
    if small_age is not None and small_age > STALE_AFTER and backups.small_every_minutes:
        what = (
            f"the newest small backup is {format_duration(small_age.total_seconds())} old, more "
            "than 26 h"
        )
        yield Problem("stale_small_backup", what, "make backup-irreplaceable")

    if backups.room_for is not None and backups.room_for < ROOM_FOR_AT_LEAST:
        yield make_space_problem(backups, backups.full.newest_bytes or database.bytes)
    elif backups.fills:
        yield Problem("disk_fills", backups.fills, backups.before_it_fills)


def make_space_problem(backups: BackupFacts, each_bytes: int) -> Problem:
    """Return how much room is missing for ROOM_FOR_AT_LEAST more backups."""
    missing = ROOM_FOR_AT_LEAST * each_bytes - backups.free_bytes
    what = (
        f"{format_bytes(backups.free_bytes)} are free in {backups.folder}: room for "
        f"{backups.room_for} backups of {format_bytes(each_bytes)}"
    )
    fewer = (
        f", or keep fewer: MAX_BACKUPS below {backups.full.count} in .env, then make backup"
        if backups.full.count > 1 and backups.room_for
        else ""
    )

    return Problem("little_space", what, f"free {format_bytes(missing)} on this disk{fewer}")


def judge_coverage(facts: Facts) -> Iterator[Problem]:
    """Yield universes with holes, without bars, or with bars that are old."""
    if facts.database.state != "present":
        return
    if not facts.universes:
        yield Problem(
            "no_universe", "the database has no universe and no market data", "make restore"
        )

    for coverage in facts.universes:
        if coverage.has_holes:
            yield Problem("holes", describe_holes(coverage), make_refill(coverage))
        elif coverage.timeframe == "1day" and not coverage.first and coverage.tickers:
            what = f"{coverage.universe}: no bars of its {coverage.tickers} tickers are stored"
            yield Problem("no_bars", what, make_refill(coverage))
        else:
            yield from judge_age(coverage, facts.checked_at)


def judge_age(coverage: UniverseCoverage, now: datetime) -> Iterator[Problem]:
    """Yield bars after whose newest more than STALE_SESSIONS became final."""
    if not coverage.last:
        return

    # Weekdays, since status needs no calendar; HOLIDAYS_IN_BETWEEN of them may have been none.
    missing = weekdays_after(
        date.fromisoformat(coverage.last), last_update_moment(now, 0).astimezone(NEW_YORK).date()
    )
    if missing > STALE_SESSIONS + HOLIDAYS_IN_BETWEEN:
        label = f"{coverage.universe}, {LABELS[coverage.timeframe]}"
        what = f"{label}: the newest are of {coverage.last}, {missing} weekdays behind"
        yield Problem("stale_bars", what, "make update")


def weekdays_after(day: date, last: date) -> int:
    days = (day + timedelta(n) for n in range(1, (last - day).days + 1))
    return sum(each.weekday() < SATURDAY for each in days)


def judge_market(facts: Facts) -> Iterator[Problem]:
    """Yield what the stored bars and metrics show, whatever the records say."""
    market = facts.market
    if market.splits_due:
        what = "the vendor's splits changed after bars were stored: " + name_first(
            market.splits_due
        )
        yield Problem("splits_due", what, "make update")

    if market.older_times:
        what = "5-minute bars of an older program: " + name_first(market.older_times)
        yield Problem(
            "older_times",
            what,
            "make fix-time-of-day, then make backfill-daily ARGS=--metrics-again",
        )

    if market.differing:
        what = "daily metrics differ from their bars: " + name_first(market.differing)
        yield Problem("metrics_differ", what, "make backfill-daily ARGS=--metrics-again")


def name_first(texts: Mapping[str, str]) -> str:
    """Return the first of `texts` with its ticker, and how many more there are."""
    ticker, text = next(iter(texts.items()))
    more = f" (and {len(texts) - 1} more tickers)" if len(texts) > 1 else ""
    return f"{ticker}: {text}{more}"


def describe_holes(coverage: UniverseCoverage) -> str:
    """Return a sentence about what could not be fetched, or not counted."""
    label = f"{coverage.universe}, {LABELS[coverage.timeframe]}"
    if coverage.failed:
        return (
            f"{label}: {coverage.failed:,} of {coverage.expected:,} sessions of tickers could "
            "not be fetched"
        )

    if coverage.is_stale:
        return (
            f"{label}: a backfill was interrupted, or the universe changed, since the sessions "
            "were counted"
        )

    return (
        f"{label}: {coverage.unanswered:,} of {coverage.tickers:,} tickers could not be fetched yet"
    )


def make_refill(coverage: UniverseCoverage) -> str:
    """Return the backfill of the same sessions: it asks only for what is missing. Of several
    ranges, the update does."""
    if coverage.has_several_ranges:
        return "make update"
    start, end = coverage.start or coverage.first, coverage.end or coverage.last
    dates = f" --start {start} --end {end}" if start else ""
    return f'{REFILL[coverage.timeframe]} ARGS="--universe {coverage.universe}{dates}"'


def judge_drills(drills: Sequence[DrillFacts]) -> Iterator[Problem]:
    """Yield what is wrong with the drills. `drills`: the newest first."""
    if drills and not drills[0].passed:
        what = (
            f"the last drill, of {drills[0].at_utc.astimezone():%Y-%m-%d %H:%M}, failed: "
            f"{drills[0].detail}"
        )
        yield Problem("drill_failed", what, drills[0].next_step)


def judge_schedule(facts: Facts) -> Iterator[Problem]:
    """Yield why the schedule of the backups does not run, or fails."""
    schedule = facts.schedule
    if not schedule.installed:
        yield Problem(
            "no_schedule", "no schedule for the backups is installed", "make schedule-install"
        )
    elif not schedule.loaded:
        what = f"the schedule ({schedule.kind}) is installed and does not run"
        again = "make sidecar-up" if schedule.kind == "container" else "make schedule-install"
        yield Problem("schedule_not_loaded", what, again)
    elif schedule.sees_other_file:
        what = (
            f"the schedule ({schedule.kind}) does not see the file at DATABASE_PATH: its "
            "folder was replaced"
        )
        yield Problem("other_file", what, "make sidecar-up")
    elif schedule.failed:
        what = f"the last run of the schedule ({schedule.kind}) failed: {schedule.last_result}"
        # Its program moved, or went away with a Python: another backup by hand would change
        # nothing.
        again = "make schedule-install" if schedule.could_not_start else "make backup"
        yield Problem("schedule_failed", what, again)

    if schedule.loaded and not schedule.runs_without_login:
        what = f"the schedule ({schedule.kind}) runs only while you are logged in"
        yield Problem("only_while_logged_in", what, "loginctl enable-linger")
