"""`make update`: the stored universes up to the last session, late corrections, splits."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from exchange_calendars import ExchangeCalendar

from backtestdb.console import say
from backtestdb.database import transaction
from backtestdb.market.backfill import backfill_together
from backtestdb.market.client import MarketDataError, StoppedRunError
from backtestdb.market.coverage_rows import Range, has_ranges, load_ranges
from backtestdb.market.jobs import Job, Report, Source, make_job
from backtestdb.market.sessions import NEW_YORK, sessions_between
from backtestdb.market.split_store import (
    apply_splits,
    find_first_fetch,
    load_splits_asked,
    new_york_day,
    save_splits_asked,
)
from backtestdb.market.splits import Finding, parse_splits
from backtestdb.market.universes import US_STOCKS, load_members, update_us_stocks

CORRECTED_SESSIONS = 3
# Splits have been listed weeks after they happened.
LISTED_LATE = timedelta(days=45)
LIST_IS_OLD_AFTER = timedelta(days=7)
UPDATES_KEPT = 100
TIMEFRAMES = ("1day", "5min")


@dataclass
class Update:
    """What an update did: a report for each universe and timeframe, what came of splits, and why they could not
    be looked up, or the list of us-stocks, if so."""

    reports: list[tuple[str, str, Report]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    splits_failure: str = ""
    list_failure: str = ""

    @property
    def is_complete(self) -> bool:
        failures = self.splits_failure or self.list_failure
        return not failures and not any(report.has_holes for *_, report in self.reports)


def make_update_jobs(
    connection: sqlite3.Connection, calendar: ExchangeCalendar, end: date
) -> dict[str, list[Job]]:
    """For each timeframe a job for every range of every universe that has bars of it; the newest range goes on to
    `end`, and what lies between two ranges is nobody's. When sessions are new, the last ones before them are asked
    for again."""
    names = [name for (name,) in connection.execute("SELECT name FROM universe ORDER BY id").fetchall()]
    jobs: dict[str, list[Job]] = {timeframe: [] for timeframe in TIMEFRAMES}
    for name in names:
        members = load_members(connection, name)
        for timeframe in TIMEFRAMES:
            ranges = load_ranges(connection, name, timeframe)
            if not ranges and not has_ranges(connection, name):
                ranges = guess_ranges(connection, members, timeframe)
            for start, until in ranges[:-1]:
                jobs[timeframe].append(make_job(calendar, timeframe, members, start, until, universe=name))
            for start, until in ranges[-1:]:
                job = make_job(calendar, timeframe, members, start, max(end, until), universe=name)
                if end > until:
                    earlier = sessions_between(calendar, start, until)
                    job = replace(job, refetch=tuple(earlier[-CORRECTED_SESSIONS:]))
                jobs[timeframe].append(job)
    return jobs


def us_stocks_are_old(connection: sqlite3.Connection, now_utc: datetime) -> bool:
    """Whether us-stocks has bars and its list is a week old: companies that came in since are not in it."""
    row = connection.execute(
        "SELECT updated_at FROM universe WHERE name = ? AND EXISTS (SELECT 1 FROM _coverage WHERE universe = name)",
        (US_STOCKS,),
    ).fetchone()
    if row is None:
        return False
    renewed_at = datetime.fromisoformat(row[0])
    return now_utc - renewed_at.replace(tzinfo=renewed_at.tzinfo or UTC) >= LIST_IS_OLD_AFTER


def renew_us_stocks(connection: sqlite3.Connection, source: Source, types: Sequence[str]) -> str:
    """Fetch the list anew; return why that failed, or an empty text. The bars are updated in either case."""
    (start,) = connection.execute(
        "SELECT min(start_date) FROM _coverage WHERE universe = ?", (US_STOCKS,)
    ).fetchone()
    try:
        change = update_us_stocks(connection, source.client, types, date.fromisoformat(start))
    except StoppedRunError:
        raise
    except MarketDataError as error:
        say(f"{US_STOCKS}: the list was not renewed: {error}")
        return str(error)
    say(f"{US_STOCKS}: {change.total:,} tickers, {len(change.added)} new, {len(change.left)} left")
    return ""


def save_update(connection: sqlite3.Connection, done: Update, now_utc: datetime, end: date) -> None:
    """Record a complete update: the schedule does not start another before the next session is final. One that left
    failures, or that the key's plan kept a session from, is no complete one."""
    if not done.is_complete or any(report.refused_session for *_, report in done.reports):
        return
    with transaction(connection):
        connection.execute(
            "INSERT OR REPLACE INTO _updates VALUES (?, ?)",
            (now_utc.isoformat(timespec="seconds"), end.isoformat()),
        )
        connection.execute(
            "DELETE FROM _updates WHERE started_at_utc NOT IN"
            " (SELECT started_at_utc FROM _updates ORDER BY started_at_utc DESC LIMIT ?)",
            (UPDATES_KEPT,),
        )


def guess_ranges(connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str) -> list[Range]:
    """Where older programs left bars without a record of what they asked for: the newest stored session. Bars of
    less than half of the tickers belong to another universe."""
    query = "SELECT max(timestamp) FROM ohlcv_data WHERE ticker = ? AND timeframe = ?"
    stamps = [connection.execute(query, (ticker, timeframe)).fetchone()[0] for ticker in tickers]
    found = [stamp for stamp in stamps if stamp is not None]
    if 2 * len(found) < len(stamps):
        return []
    day = datetime.fromtimestamp(max(found) / 1000, NEW_YORK).date()
    return [(day, day)]


def update(connection: sqlite3.Connection, source: Source, end: date) -> Update:
    """Bring everything up to `end`. 5-minute bars come first, so that splits find all new bars."""
    done = Update()
    jobs = make_update_jobs(connection, source.calendar, end)
    run_together(connection, source, jobs["5min"], done)
    if jobs["1day"]:
        labels = [job.universe for job in jobs["1day"]]
        reports = backfill_together(
            connection,
            source,
            jobs["1day"],
            f"daily bars of {', '.join(labels)}",
            before_metrics=lambda: look_at_splits(connection, source, done),
        )
        done.reports += list(zip(labels, ["1day"] * len(labels), reports, strict=True))
    elif jobs["5min"]:
        look_at_splits(connection, source, done)
    return done


def run_together(connection: sqlite3.Connection, source: Source, jobs: Sequence[Job], done: Update) -> None:
    if not jobs:
        return
    labels = [job.universe for job in jobs]
    reports = backfill_together(connection, source, jobs, f"5-minute bars of {', '.join(labels)}")
    done.reports += list(zip(labels, ["5min"] * len(labels), reports, strict=True))


def look_at_splits(connection: sqlite3.Connection, source: Source, done: Update) -> None:
    """One request. That it was made is recorded once everything that it brought was dealt with."""
    asked = load_splits_asked(connection)
    first = find_first_fetch(connection)
    if first is None:
        return
    now_utc = source.clock()
    since = max(first, asked - LISTED_LATE) if asked else first
    try:
        rows = source.client.fetch_splits(since).rows
    except StoppedRunError:
        raise
    except MarketDataError as error:
        done.splits_failure = str(error)
        say(f"splits: {error}")
        return
    today = new_york_day(now_utc.isoformat())
    splits = [split for split in parse_splits(rows) if split.execution_date <= today]
    done.findings = apply_splits(connection, splits, now_utc)
    save_splits_asked(connection, now_utc)
