"""Fetch what jobs lack, store it, compute the metrics, and report what is there."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import date

from backtestdb.console import progress, say
from backtestdb.market.bar_store import (
    BarStore,
    SavedBars,
    close_staging,
    load_what_was_staged,
    make_bar_store,
    prepare_staging,
    save_result,
)
from backtestdb.market.client import MarketDataError
from backtestdb.market.closures import find_unseen_sessions, is_session_empty, save_closures
from backtestdb.market.coverage import Coverage, add_coverages, load_coverage, load_gap_notes
from backtestdb.market.coverage_rows import load_ranges, save_coverage, start_counting
from backtestdb.market.fetch import EmptySessionError, Requester, fetch_all
from backtestdb.market.first_fill import deferred_indexes
from backtestdb.market.jobs import (
    Job,
    Report,
    RunTotals,
    Source,
    all_sessions,
    all_tickers,
    plan_jobs,
)
from backtestdb.market.metric_store import find_due_metrics, save_due_metrics, save_missing_metrics
from backtestdb.market.plan_limits import (
    GROUPED,
    KnownLimits,
    PlanLimits,
    choose_witness,
    find_silent_cut,
    load_limits,
    recheck_limits,
    save_learnt,
)
from backtestdb.market.request_log import load_frontier
from backtestdb.market.request_plan import RangeRequest, Request, SessionRequest
from backtestdb.market.sessions import sessions_back, sessions_between
from backtestdb.market.stopped import record_stopped

# From this many bars on, setting sessions aside and loading them by ticker is the quicker way.
STAGED_FROM_BARS = 500_000


def backfill(connection: sqlite3.Connection, source: Source, job: Job, label: str) -> Report:
    """Run a job to its end. A request that brings nothing is named in the report and does not stop
    the rest; StoppedRunError and a vendor that is down are raised."""
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
    """Run jobs of one timeframe with the requests that they need together; return a report for
    each.

    `keep_every_ticker`: store the whole market's bars, not only those of the jobs' tickers.
    `before_metrics` is called between the bars and their metrics.
    """
    started, sent_before = time.monotonic(), source.client.requests_sent
    timeframe, tickers = jobs[0].timeframe, all_tickers(jobs)

    # Before the first request: of a run that is killed, the range is known and not its count.
    for job in jobs:
        if job.universe:
            asked = job.sessions[0], job.sessions[-1]
            start_counting(
                connection, source.calendar, job.universe, timeframe, asked, source.now_text()
            )

    store = make_bar_store(
        connection,
        source.calendar,
        source.run,
        find_metrics_starts(jobs),
        timeframe=timeframe,
        keep_every_ticker=keep_every_ticker,
    )
    total = RunTotals()

    try:
        limits = recheck_limits(
            connection,
            source.client,
            source.calendar,
            source.now_utc(),
            tickers,
            timeframe,
            lambda day: needs_day_before(
                day, plan_jobs(connection, source.calendar, jobs, store.staging)
            ),
        )
        wanted = None if keep_every_ticker else frozenset(tickers)
        requester = make_requester(connection, source, jobs, limits, wanted)
        fetch_and_store(connection, source, jobs, store, requester, label, staged_from_bars, total)
        add_saved(total, load_what_was_staged(store))
    finally:
        close_staging(store)

    find_silent_cut(
        connection, source.client, source.calendar, source.now_utc(), tickers, timeframe
    )
    before_metrics()

    if timeframe == "1day":
        compute_metrics(connection, jobs)
        record_closures(connection, source, jobs, total)
        total.stopped = record_stopped(connection, source, jobs, total.failures)

    total.requests = source.client.requests_sent - sent_before
    total.seconds = time.monotonic() - started
    return [finish_report(connection, source, job, total) for job in jobs]


def make_requester(
    connection: sqlite3.Connection,
    source: Source,
    jobs: Sequence[Job],
    limits: KnownLimits,
    wanted: frozenset[str] | None,
) -> Requester:
    """Return what sends the requests of these jobs, with a witness for refusals and one session
    before the first."""
    sessions = all_sessions(source.calendar, jobs)
    one_older = sessions_back(source.calendar, sessions[0], 1)
    witness = choose_witness(connection, all_tickers(jobs), limits.refused_of(jobs[0].timeframe))
    return Requester(
        source.client, [one_older, *sessions], limits, [witness, *all_tickers(jobs)], wanted
    )


def fetch_and_store(
    connection: sqlite3.Connection,
    source: Source,
    jobs: Sequence[Job],
    store: BarStore,
    requester: Requester,
    label: str,
    staged_from_bars: int,
    total: RunTotals,
) -> None:
    """Send all requests of the jobs and store the answers."""
    was_grouped = not requester.limits.of(GROUPED).is_refused
    planned = plan_jobs(connection, source.calendar, jobs, store.staging)
    prepare_staging(store, planned, staged_from_bars, source.now_text())
    fetch_planned(connection, source, planned, store, requester, label, total)

    # The plan turned out not to have the endpoint: what is left is asked for one by one.
    if was_grouped and requester.limits.of(GROUPED).is_refused:
        say(
            "the key's plan does not have the endpoint for the whole market: asking ticker by "
            "ticker"
        )
        add_saved(total, load_what_was_staged(store))
        planned = plan_jobs(connection, source.calendar, jobs, store.staging)
        fetch_planned(connection, source, planned, store, requester, label, total)


def fetch_planned(
    connection: sqlite3.Connection,
    source: Source,
    planned: Sequence[Request],
    store: BarStore,
    requester: Requester,
    label: str,
    total: RunTotals,
) -> None:
    """Send some requests; store each answer, and what it tells of the plan, as it comes."""
    limits = requester.limits

    with progress(label, len(planned)) as advance:
        for request, result in fetch_all(
            planned, requester.fetch, source.concurrency, source.stopping
        ):
            if requester.limits is not limits:
                save_learnt(connection, limits, requester.limits, source.now_utc())
                limits = requester.limits

            if isinstance(result, MarketDataError):
                total.failures[name_request(request)] = str(result)
                if isinstance(result, EmptySessionError) and isinstance(request, SessionRequest):
                    total.empty_sessions.append(request.session_date)
            elif result is not None:
                add_saved(total, save_result(store, result, source.now_text()))

            advance(1)


def find_metrics_starts(jobs: Sequence[Job]) -> dict[str, date]:
    """Return for each ticker the first session that any job asks for."""
    starts: dict[str, date] = {}
    for job in jobs:
        for ticker in job.tickers:
            starts[ticker] = min(job.sessions[0], starts.get(ticker, date.max))
    return starts


def add_saved(total: RunTotals, saved: SavedBars) -> None:
    total.bars += saved.bars
    total.dropped += saved.dropped
    total.clamped += saved.clamped
    for what, count in saved.rejected.items():
        total.set_aside[what] = total.set_aside.get(what, 0) + count


def needs_day_before(day: date, planned: Sequence[Request]) -> bool:
    """Return whether one of the requests asks for bars before `day`."""
    firsts = (
        request.start if isinstance(request, RangeRequest) else request.session_date
        for request in planned
    )
    return any(first < day for first in firsts)


def name_request(request: Request) -> str:
    return (
        request.ticker if isinstance(request, RangeRequest) else f"session {request.session_date}"
    )


def compute_metrics(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    """Compute the metrics that follow sessions of the whole market, then those of bars that came
    for another purpose."""
    tickers, first, rows = find_due_metrics(connection)
    if first is not None:
        with (
            progress("metrics", len(tickers)) as advance,
            deferred_indexes(connection, "daily_metrics", rows),
        ):
            save_due_metrics(connection, tickers, first, advance)

    for job in jobs:
        save_missing_metrics(connection, job.tickers, job.sessions[0], job.sessions[-1])


def record_closures(
    connection: sqlite3.Connection, source: Source, jobs: Sequence[Job], total: RunTotals
) -> None:
    """Record sessions of which no ticker has a bar while a later session has some."""
    tickers, frontier = all_tickers(jobs), load_frontier(connection, "1day")
    witness = choose_witness(connection, tickers, frozenset())
    closed = [
        day
        for day in total.empty_sessions
        if day < frontier and is_session_empty(source.client, source.calendar, witness, day)
    ]
    for job in jobs:
        closed += find_unseen_sessions(connection, job.tickers, job.sessions)

    # A closure is said once, and the session never asked for again.
    for day in sorted(set(closed)):
        total.failures.pop(f"session {day}", None)
        say(f"nothing traded on {day}, which the calendar takes for a session: recorded as closed")

    save_closures(connection, closed, source.now_text())


def finish_report(
    connection: sqlite3.Connection, source: Source, job: Job, total: RunTotals
) -> Report:
    """Return the report of one job, whose coverage is counted and kept."""
    limits = load_limits(connection)
    own = limits.of(job.timeframe)
    coverage = load_coverage(connection, job.tickers, job.timeframe, job.sessions)
    if job.universe:
        keep_coverage(connection, source, job, coverage)

    gaps = load_gap_notes(connection, job.tickers, job.sessions) if job.timeframe == "1day" else []
    return Report(
        run=total,
        coverage=coverage,
        gaps=gaps,
        history_starts=wall_within(own, job),
        refused_session=own.refused_session if own.refused_session in job.sessions else None,
        refused_tickers=sorted(limits.refused_of(job.timeframe) & set(job.tickers)),
    )


def wall_within(limits: PlanLimits, job: Job) -> date | None:
    covered = limits.history_starts
    return covered if covered and covered > job.fetched_sessions[0] else None


def keep_coverage(
    connection: sqlite3.Connection, source: Source, job: Job, coverage: Coverage
) -> None:
    """Keep the coverage of all ranges that are asked for of this universe by now. `coverage`: of
    the job's sessions."""
    parts = []
    for start, end in load_ranges(connection, job.universe, job.timeframe):
        sessions = sessions_between(source.calendar, start, end)
        if sessions == job.sessions:
            parts.append(coverage)
        elif sessions:
            parts.append(load_coverage(connection, job.tickers, job.timeframe, sessions))

    counted = add_coverages(parts)
    save_coverage(
        connection, job.universe, job.timeframe, len(job.tickers), counted, source.now_text()
    )
