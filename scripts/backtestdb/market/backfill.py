"""Fetch what jobs lack, store it, compute the metrics, and report what is there."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

from backtestdb.console import progress
from backtestdb.market.bar_store import (
    close_staging,
    load_what_was_staged,
    make_bar_store,
    prepare_staging,
    save_result,
)
from backtestdb.market.client import MarketDataError
from backtestdb.market.coverage import Coverage, load_coverage, load_gap_notes, load_range, save_coverage
from backtestdb.market.fetch import Requester, fetch_all
from backtestdb.market.first_fill import deferred_indexes
from backtestdb.market.jobs import (
    Job,
    Report,
    Source,
    all_sessions,
    all_tickers,
    plan_jobs,
)
from backtestdb.market.metric_store import find_due_metrics, save_due_metrics, save_missing_metrics
from backtestdb.market.plan_limits import (
    PlanLimits,
    find_silent_cut,
    load_limits,
    recheck_limits,
    save_limits,
)
from backtestdb.market.request_plan import RangeRequest, Request
from backtestdb.market.sessions import sessions_between

# From this many bars on, setting sessions aside and loading them by ticker is the quicker way.
STAGED_FROM_BARS = 500_000


def backfill(connection: sqlite3.Connection, source: Source, job: Job, label: str) -> Report:
    """Run a job to its end. A request that brings nothing is named in the report and does not stop the rest;
    KeyRefusedError, ForeignHostError and a vendor that is down are raised."""
    return backfill_together(connection, source, [job], label)[0]


def backfill_together(
    connection: sqlite3.Connection,
    source: Source,
    jobs: Sequence[Job],
    label: str,
    *,
    keep_every_ticker: bool = False,
    staged_from_bars: int = STAGED_FROM_BARS,
    before_metrics: Callable[[], None] = lambda: None,
) -> list[Report]:
    """Run jobs of one timeframe with the requests that they need together; return a report for each.

    `keep_every_ticker`: store the whole market's bars, not only those of the jobs' tickers. `before_metrics` is
    called between the bars and their metrics.
    """
    started, sent_before = time.monotonic(), source.client.requests_sent
    store = make_bar_store(connection, source, jobs, keep_every_ticker=keep_every_ticker)
    try:
        limits = recheck_limits(
            connection,
            source.client,
            source.clock(),
            jobs[0].tickers[0],
            lambda day: needs_day_before(day, plan_jobs(connection, source.calendar, jobs, store.staging)),
        )
        planned = plan_jobs(connection, source.calendar, jobs, store.staging)
        prepare_staging(store, planned, staged_from_bars)
        wanted = None if keep_every_ticker else frozenset(all_tickers(jobs))
        requester = Requester(source.client, all_sessions(source.calendar, jobs), limits, wanted)
        with progress(label, len(planned)) as advance:
            for request, result in fetch_all(planned, requester.fetch, source.concurrency, source.stopping):
                if requester.limits is not limits:
                    limits = requester.limits
                    save_limits(connection, limits, source.clock())
                if isinstance(result, MarketDataError):
                    store.report.failures[name_request(request)] = str(result)
                elif result is not None:
                    save_result(store, result)
                advance(1)
        load_what_was_staged(store)
    finally:
        close_staging(store)
    tickers, timeframe = all_tickers(jobs), jobs[0].timeframe
    find_silent_cut(connection, source.client, source.clock(), tickers, timeframe, limits)
    before_metrics()
    if jobs[0].timeframe == "1day":
        compute_metrics(connection, jobs)
    store.report.requests = source.client.requests_sent - sent_before
    store.report.seconds = time.monotonic() - started
    counted = [store.report, *[Report(failures=store.report.failures)] * (len(jobs) - 1)]
    return [finish_report(connection, source, job, report) for job, report in zip(jobs, counted, strict=True)]


def needs_day_before(day: date, planned: Sequence[Request]) -> bool:
    """Whether one of the requests asks for bars before `day`."""
    firsts = (
        request.start if isinstance(request, RangeRequest) else request.session_date for request in planned
    )
    return any(first < day for first in firsts)


def name_request(request: Request) -> str:
    return request.ticker if isinstance(request, RangeRequest) else f"session {request.session_date}"


def compute_metrics(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    """Those that follow sessions of the whole market, then those of bars that came for another purpose."""
    tickers, first, rows = find_due_metrics(connection)
    if first is not None:
        with (
            progress("metrics", len(tickers)) as advance,
            deferred_indexes(connection, "daily_metrics", rows),
        ):
            save_due_metrics(connection, tickers, first, advance)
    for job in jobs:
        save_missing_metrics(connection, job.tickers, job.sessions[0], job.sessions[-1])


def finish_report(connection: sqlite3.Connection, source: Source, job: Job, report: Report) -> Report:
    """The report of one job, whose coverage is counted and kept."""
    limits = load_limits(connection)
    coverage = load_coverage(connection, job.tickers, job.timeframe, job.sessions)
    if job.universe:
        keep_coverage(connection, source, job, coverage)
    gaps = load_gap_notes(connection, job.tickers, job.sessions) if job.timeframe == "1day" else []
    return replace(
        report,
        coverage=coverage,
        gaps=gaps,
        history_starts=wall_within(limits, job),
        refused_session=limits.refused_session if limits.refused_session in job.sessions else None,
    )


def wall_within(limits: PlanLimits, job: Job) -> date | None:
    covered = limits.history_starts
    return covered if covered and covered > job.fetched_sessions[0] else None


def keep_coverage(connection: sqlite3.Connection, source: Source, job: Job, coverage: Coverage) -> None:
    """Of the range that is asked for of this universe by now: a job that touches the earlier range extends it,
    any other one begins anew. `coverage`: of the job's sessions."""
    earlier = load_range(connection, job.universe, job.timeframe)
    start, end = job.sessions[0], job.sessions[-1]
    if earlier and start <= earlier[1] and end >= earlier[0]:
        start, end = min(start, earlier[0]), max(end, earlier[1])
    sessions = sessions_between(source.calendar, start, end)
    if sessions != job.sessions:
        coverage = load_coverage(connection, job.tickers, job.timeframe, sessions)
    save_coverage(
        connection, job.universe, job.timeframe, sessions, len(job.tickers), coverage, source.now_text()
    )
