"""`make update`: the stored universes up to the last session, late corrections, splits."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from exchange_calendars import ExchangeCalendar

from backtestdb.market.backfill import backfill_together
from backtestdb.market.coverage_rows import Range, has_ranges, load_ranges
from backtestdb.market.jobs import Job, Report, Source, make_job
from backtestdb.market.sessions import sessions_between
from backtestdb.market.split_look import look_at_splits
from backtestdb.market.splits import SplitLook
from backtestdb.market.universes import load_members
from backtestdb.new_york import date_of
from backtestdb.timeframes import LABELS, TIMEFRAMES

CORRECTED_SESSIONS = 3


@dataclass
class Update:
    """What an update did: a report for each universe and timeframe, and what came of the look at
    the splits. `list_failure`: why the list of us-stocks was not renewed, if so."""

    reports: list[tuple[str, str, Report]] = field(default_factory=list)
    splits: SplitLook = field(default_factory=SplitLook)
    list_failure: str = ""


def make_update_jobs(
    connection: sqlite3.Connection, calendar: ExchangeCalendar, end: date
) -> dict[str, list[Job]]:
    """Return for each timeframe a job for every range of every universe that has bars of it; the
    newest range goes on to `end`, and what lies between two ranges is left alone. When sessions are
    new, the last ones before them are asked for again."""
    names = connection.execute("SELECT name FROM universe ORDER BY id").fetchall()
    jobs: dict[str, list[Job]] = {timeframe: [] for timeframe in TIMEFRAMES}

    for (name,) in names:
        members = load_members(connection, name)
        for timeframe in TIMEFRAMES:
            ranges = load_ranges(connection, name, timeframe)
            if not ranges and not has_ranges(connection, name):
                ranges = guess_ranges(connection, members, timeframe)
            for start, until in ranges:
                is_newest = (start, until) == ranges[-1]
                last = max(end, until) if is_newest else until
                job = make_job(calendar, timeframe, members, start, last, universe=name)
                if last > until:
                    earlier = sessions_between(calendar, start, until)
                    job = replace(job, refetch=tuple(earlier[-CORRECTED_SESSIONS:]))
                jobs[timeframe].append(job)

    return jobs


def guess_ranges(
    connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str
) -> list[Range]:
    """Return where older programs left bars without a record of what they asked for: the newest
    stored session."""
    query = "SELECT max(timestamp) FROM ohlcv_data WHERE ticker = ? AND timeframe = ?"
    stamps = [connection.execute(query, (ticker, timeframe)).fetchone()[0] for ticker in tickers]
    found = [stamp for stamp in stamps if stamp is not None]
    # Bars of less than half of the tickers belong to another universe.
    if 2 * len(found) < len(stamps):
        return []
    day = date_of(max(found))
    return [(day, day)]


def update(
    connection: sqlite3.Connection,
    source: Source,
    end: date,
    jobs: dict[str, list[Job]] | None = None,
) -> Update:
    """Bring everything up to `end`; `jobs`: what that is, where the caller knows."""
    done = Update()
    jobs = jobs or make_update_jobs(connection, source.calendar, end)

    def look() -> None:
        done.splits = look_at_splits(connection, source)

    # First, so that the look at the splits finds all new bars.
    done.reports += run_together(connection, source, jobs["5min"])
    done.reports += run_together(connection, source, jobs["1day"], before_metrics=look)
    if jobs["5min"] and not jobs["1day"]:
        look()

    for _, _, report in done.reports[-1:]:
        report.run.splits = done.splits
    return done


def run_together(
    connection: sqlite3.Connection,
    source: Source,
    jobs: Sequence[Job],
    before_metrics: Callable[[], None] = lambda: None,
) -> list[tuple[str, str, Report]]:
    """Return universe, timeframe and report of jobs of one timeframe; nothing without jobs."""
    if not jobs:
        return []
    label = f"{LABELS[jobs[0].timeframe]} of {', '.join(job.universe for job in jobs)}"
    reports = backfill_together(connection, source, jobs, label, before_metrics=before_metrics)
    return [(job.universe, job.timeframe, each) for job, each in zip(jobs, reports, strict=True)]
