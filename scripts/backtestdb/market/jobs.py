"""What a backfill is asked for, where it gets it from, and what it reports."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from uuid import uuid4

from exchange_calendars import ExchangeCalendar

from backtestdb.errors import UsageError
from backtestdb.market.client import MarketData
from backtestdb.market.coverage import Coverage
from backtestdb.market.metrics import WARM_UP_SESSIONS
from backtestdb.market.plan_limits import GROUPED, load_limits
from backtestdb.market.request_log import load_answered
from backtestdb.market.request_plan import (
    AnsweredSessions,
    Cost,
    Demand,
    Request,
    make_cost,
    plan_requests,
)
from backtestdb.market.session_mask import EMPTY, SessionMask, mask_between, mask_of
from backtestdb.market.sessions import load_calendar, sessions_back, sessions_between
from backtestdb.market.splits import SplitLook
from backtestdb.market.staging import Staging, load_staged_dates, staged_for


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where bars come from: the vendor, the calendar, how many requests at once, what ends every
    wait, the clock that dates the records, and the name of this run in them (two answers agree when
    they are of two runs)."""

    client: MarketData
    calendar: ExchangeCalendar
    concurrency: int
    stopping: threading.Event
    clock: Callable[[], datetime]
    run: str = field(default_factory=lambda: uuid4().hex[:12])

    def now_utc(self) -> datetime:
        """Return this machine's time, put right by the vendor's where the two are apart."""
        return self.clock() - self.client.clock_is_ahead_by

    def now_text(self) -> str:
        return self.now_utc().isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Job:
    """`sessions`: what was asked for. `fetched_sessions`: those and the warm-up before them, which
    is fetched where it costs no request of its own. `refetch`: sessions to ask for once more, for
    late corrections or because the user says so, of `refetch_tickers` (None: of all)."""

    timeframe: str
    tickers: list[str]
    sessions: list[date]
    fetched_sessions: list[date]
    universe: str = ""
    refetch: tuple[date, ...] = ()
    refetch_tickers: tuple[str, ...] | None = None


@dataclass(kw_only=True)
class RunTotals:
    """What the requests of a run brought, for all of its jobs together: the `requests` that were
    sent, the `bars` that were stored, those of other tickers that were `dropped`, those `clamped`
    by at most a tick, and what was `set_aside`. `failures`: ticker or session, and why its request
    brought nothing. `empty_sessions`: sessions of which the vendor has no bar of any ticker.
    `splits`: the look at the end of the run. `stopped`: notes about members without a bar in the
    newest sessions."""

    requests: int = 0
    bars: int = 0
    dropped: int = 0
    clamped: int = 0
    set_aside: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    empty_sessions: list[date] = field(default_factory=list)
    seconds: float = 0.0
    splits: SplitLook = field(default_factory=SplitLook)
    stopped: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Report:
    """What is there of a job at the end of its `run`, whose totals it shares with the jobs that ran
    together with it. `gaps`: sentences about tickers that did not trade for months in between.
    `history_starts`, `refused_session`, `refused_tickers`: what the key's plan does not cover."""

    run: RunTotals
    coverage: Coverage = field(default_factory=Coverage)
    gaps: list[str] = field(default_factory=list)
    history_starts: date | None = None
    refused_session: date | None = None
    refused_tickers: list[str] = field(default_factory=list)

    @property
    def has_holes(self) -> bool:
        """Return whether anything that was asked for is missing and was not said to be nothing."""
        coverage = self.coverage
        is_lacking = coverage.failed > 0 or coverage.beyond_plan > 0 or coverage.early > 0
        return is_lacking or self.run.splits.has_holes


def make_job(
    calendar: ExchangeCalendar,
    timeframe: str,
    tickers: Sequence[str],
    start: date,
    end: date,
    *,
    universe: str = "",
    refetch: int = 0,
) -> Job:
    """Return the job. `refetch`: how many of the sessions before `end` are asked for once more.
    Raise UsageError when no session lies between `start` and `end`."""
    sessions = sessions_between(calendar, start, end)
    if not sessions:
        raise UsageError(
            f"no session between {start} and {end}", next_step="check --start and --end"
        )

    # With the warm-up SMA 200 and RSI exist from the first asked session on.
    warm_up = WARM_UP_SESSIONS if timeframe == "1day" else 0
    first = sessions_back(calendar, start, warm_up)
    fetched = sessions_between(calendar, first, end)
    return Job(
        timeframe=timeframe,
        tickers=list(tickers),
        sessions=sessions,
        fetched_sessions=fetched,
        universe=universe,
        refetch=tuple(sessions[-1 - refetch : -1]),
    )


def cost_jobs(
    connection: sqlite3.Connection, calendar: ExchangeCalendar, jobs: Sequence[Job]
) -> Cost:
    """Return what the requests would cost that jobs which run together need."""
    return make_cost(plan_jobs(connection, calendar, jobs), all_sessions(calendar, jobs))


def all_sessions(calendar: ExchangeCalendar, jobs: Sequence[Job]) -> list[date]:
    """Return the calendar from the earliest to the latest session of the jobs, in order."""
    first = min(job.fetched_sessions[0] for job in jobs)
    return sessions_between(calendar, first, max(job.sessions[-1] for job in jobs))


def all_tickers(jobs: Sequence[Job]) -> list[str]:
    """Return each ticker once, in order of appearance."""
    return list(dict.fromkeys(ticker for job in jobs for ticker in job.tickers))


def plan_jobs(
    connection: sqlite3.Connection,
    calendar: ExchangeCalendar,
    jobs: Sequence[Job],
    staging: Staging | None = None,
) -> list[Request]:
    """Return the requests that jobs of one timeframe still need, together. `staging`: what a killed
    run staged, where this process has it open already."""
    timeframe, sessions = jobs[0].timeframe, all_sessions(calendar, jobs)
    asked = load_answered(connection, timeframe, sessions)
    staged = EMPTY

    if timeframe == "1day":
        tickers = all_tickers(jobs)
        waiting = (
            staged_for(connection, staging, tickers)
            if staging
            else load_staged_dates(connection, tickers)
        )
        staged = mask_of(sessions, waiting)
        asked = add_staged(asked, tickers, staged)

    demands = [
        Demand(
            job.tickers,
            sessions=mask_between(sessions, job.sessions[0], job.sessions[-1]),
            warm_up=mask_between(sessions, job.fetched_sessions[0], job.sessions[0]),
        )
        for job in jobs
    ]
    demands += [
        Demand(
            job.tickers if job.refetch_tickers is None else job.refetch_tickers,
            sessions=EMPTY,
            # What waits to be loaded came after the correction that would ask for it.
            refetch=mask_of(sessions, job.refetch) & ~staged,
        )
        for job in jobs
        if job.refetch
    ]

    known = load_limits(connection)
    entitled = [
        replace(demand, tickers=[t for t in demand.tickers if t not in known.refused_of(timeframe)])
        for demand in demands
    ]
    beyond, not_grouped = known.of(timeframe).mask(sessions), known.of(GROUPED).mask(sessions)

    return plan_requests(entitled, timeframe, sessions, asked, beyond, not_grouped)


def add_staged(
    asked: AnsweredSessions, tickers: Sequence[str], staged: SessionMask
) -> AnsweredSessions:
    """Return what was asked, and what a killed run staged for these tickers: as good as stored."""
    if not staged:
        return asked
    of_ticker = {ticker: asked.of_ticker.get(ticker, EMPTY) | staged for ticker in tickers}
    return replace(asked, of_ticker=of_ticker)


def plan_job(connection: sqlite3.Connection, job: Job) -> list[Request]:
    """Return the requests that the job still needs."""
    return plan_jobs(connection, load_calendar(), [job])
