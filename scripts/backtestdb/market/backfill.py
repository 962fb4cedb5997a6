"""Fetch what a job lacks, store each answer in one transaction with its record, report what is there."""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from exchange_calendars import ExchangeCalendar

from backtestdb.console import progress
from backtestdb.database import transaction
from backtestdb.errors import UsageError
from backtestdb.market.api import Answer, MarketData, MarketDataError, NotListedError
from backtestdb.market.asked import load_asked, save_asked
from backtestdb.market.bars import check_bars, save_aside, save_bars
from backtestdb.market.coverage import Coverage, load_coverage
from backtestdb.market.fetching import fetch_all
from backtestdb.market.metric_rows import TICKERS_AT_ONCE, save_metrics, tickers_without_metrics
from backtestdb.market.metrics import WARM_UP_SESSIONS
from backtestdb.market.plan import RangeRequest, plan_ranges
from backtestdb.market.sessions import sessions_back, sessions_between


@dataclass(frozen=True)
class Source:
    """Where bars come from: the vendor, the calendar, how many requests at once, what ends every wait, and
    the clock that dates the records."""

    client: MarketData
    calendar: ExchangeCalendar
    concurrency: int
    stopping: threading.Event
    clock: Callable[[], datetime]


@dataclass(frozen=True)
class Job:
    """`sessions`: what was asked for. `fetched_sessions`: those and the warm-up before them."""

    timeframe: str
    tickers: list[str]
    sessions: list[date]
    fetched_sessions: list[date]


@dataclass
class Report:
    """What a backfill did, in sessions of tickers. `failures`: ticker and why its request brought nothing."""

    coverage: Coverage
    requests: int = 0
    bars: int = 0
    set_aside: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    covered_from: date | None = None
    seconds: float = 0.0

    @property
    def has_holes(self) -> bool:
        return self.coverage.failed > 0


def make_job(
    calendar: ExchangeCalendar, timeframe: str, tickers: Sequence[str], start: date, end: date
) -> Job:
    """Raise UsageError when no session lies between `start` and `end`. Day bars get a warm-up ahead of them,
    so that SMA 200 and RSI exist from the first asked session on."""
    sessions = sessions_between(calendar, start, end)
    if not sessions:
        raise UsageError(f"no session between {start} and {end}", next_step="check --start and --end")
    warm_up = WARM_UP_SESSIONS if timeframe == "1day" else 0
    first = sessions_back(calendar, start, warm_up)
    return Job(timeframe, list(tickers), sessions, sessions_between(calendar, first, end))


def plan_job(connection: sqlite3.Connection, job: Job) -> list[RangeRequest]:
    """The requests that the job still needs."""
    asked = load_asked(connection, job.timeframe)
    return plan_ranges(job.tickers, job.timeframe, job.fetched_sessions, asked)


def backfill(connection: sqlite3.Connection, source: Source, job: Job, label: str) -> Report:
    """Run a job to its end. A request that brings nothing is named in the report and does not stop the rest;
    KeyRefusedError, ForeignHostError and a vendor that is down are raised."""
    started, sent_before = time.monotonic(), source.client.requests_sent
    planned = plan_job(connection, job)
    report = Report(Coverage(0, 0, 0, 0, 0, {}, []))

    def fetch(request: RangeRequest) -> Answer:
        try:
            return source.client.fetch_bars(request.ticker, request.timeframe, request.start, request.end)
        except NotListedError:
            return Answer([])

    with progress(label, len(planned)) as advance:
        for request, result in fetch_all(planned, fetch, source.concurrency, source.stopping):
            if isinstance(result, MarketDataError):
                report.failures[request.ticker] = str(result)
            else:
                save_answer(connection, source, job, request, result, report)
            advance(1)
    report.requests = source.client.requests_sent - sent_before
    if job.timeframe == "1day":
        save_missing_metrics(connection, job)
    report.covered_from = find_plan_wall(connection, job)
    report.coverage = load_coverage(connection, job.tickers, job.timeframe, job.sessions)
    report.seconds = time.monotonic() - started
    return report


def save_answer(
    connection: sqlite3.Connection,
    source: Source,
    job: Job,
    request: RangeRequest,
    answer: Answer,
    report: Report,
) -> None:
    """One ticker's answer, all or nothing: good bars, bars set aside, metrics, the record of the request."""
    bars = check_bars(
        answer.rows, request.timeframe, source.calendar, request.start, request.end, ticker=request.ticker
    )
    now_utc = source.clock().isoformat(timespec="seconds")
    with transaction(connection):
        save_bars(connection, bars.good)
        save_aside(connection, bars.aside, now_utc)
        save_asked(connection, request, bars.good["session_date"].tolist(), now_utc)
        if request.timeframe == "1day":
            save_metrics(connection, [request.ticker], job.sessions[0], job.sessions[-1])
    report.bars += len(bars.good)
    for reason, count in bars.aside["reason"].value_counts().items():
        report.set_aside[f"{request.ticker}: {reason}"] = int(count)


def find_plan_wall(connection: sqlite3.Connection, job: Job) -> date | None:
    """The first session of any ticker when it is later than asked: plans cut silently what lies before."""
    rows = connection.execute(
        "SELECT ticker, min(first_date) FROM _ranges_asked WHERE timeframe = ? GROUP BY ticker",
        (job.timeframe,),
    ).fetchall()
    members = set(job.tickers)
    first = min((date.fromisoformat(day) for ticker, day in rows if day and ticker in members), default=None)
    return first if first and first > job.fetched_sessions[0] else None


def save_missing_metrics(connection: sqlite3.Connection, job: Job) -> None:
    """Bars that an earlier job fetched as its warm-up, or for another universe, have no metrics yet."""
    start, end = job.sessions[0], job.sessions[-1]
    tickers = tickers_without_metrics(connection, job.tickers, start, end)
    for first in range(0, len(tickers), TICKERS_AT_ONCE):
        with transaction(connection):
            save_metrics(connection, tickers[first : first + TICKERS_AT_ONCE], start, end)
