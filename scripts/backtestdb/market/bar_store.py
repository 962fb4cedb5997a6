"""Answers into the database: each in one transaction with its record, or set aside first when there are many."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from backtestdb.console import progress
from backtestdb.database import transaction
from backtestdb.market.bar_rows import reject_unlike_stored, save_bars, save_rejected
from backtestdb.market.bars import ParsedBars, RejectedBar, parse_bars
from backtestdb.market.fetch import RangeAnswer, SessionAnswer
from backtestdb.market.first_fill import deferred_indexes, load_staging
from backtestdb.market.jobs import Job, Report, Source, all_tickers
from backtestdb.market.metric_store import save_metrics
from backtestdb.market.request_log import (
    EVERY_TICKER,
    ensure_ticker_set,
    save_range_answer,
    save_session_answer,
)
from backtestdb.market.request_plan import Request, SessionRequest
from backtestdb.market.sessions import sessions_between
from backtestdb.market.staging import (
    LOADING_TASK,
    Staging,
    count_staged_bars,
    create_staging,
    database_path,
    open_staging,
    remove_staging,
    stage_session,
)
from backtestdb.market.work_done import load_done


@dataclass
class BarStore:
    """Where the answers of one run go. `metrics_from`: for each ticker the first session whose metrics are
    wanted. `staging` is there while sessions are set aside."""

    connection: sqlite3.Connection
    source: Source
    report: Report
    ticker_set: int
    metrics_from: dict[str, date] = field(default_factory=dict)
    staging: Staging | None = None


def make_bar_store(
    connection: sqlite3.Connection, source: Source, jobs: Sequence[Job], *, keep_every_ticker: bool
) -> BarStore:
    """What an earlier run set aside is taken up when it was for the same tickers, and loaded first when not."""
    if jobs[0].timeframe != "1day":
        return BarStore(connection, source, Report(), EVERY_TICKER)
    metrics_from: dict[str, date] = {}
    for job in jobs:
        for ticker in job.tickers:
            metrics_from[ticker] = min(job.sessions[0], metrics_from.get(ticker, date.max))
    ticker_set = EVERY_TICKER if keep_every_ticker else ensure_ticker_set(connection, all_tickers(jobs))
    store = BarStore(connection, source, Report(), ticker_set, metrics_from)
    store.staging = open_staging(connection)
    if store.staging and (store.staging.ticker_set != ticker_set or load_done(connection, LOADING_TASK)):
        load_what_was_staged(store)
    return store


def prepare_staging(store: BarStore, planned: Sequence[Request], staged_from_bars: int) -> None:
    """Decide whether the sessions of a run are set aside first."""
    coming = sum(request.kept for request in planned if isinstance(request, SessionRequest))
    if store.staging is None and coming >= staged_from_bars:
        store.staging = create_staging(store.connection, store.ticker_set, store.source.now_text())


def save_result(store: BarStore, result: RangeAnswer | SessionAnswer) -> None:
    """One answer, all or nothing."""
    if isinstance(result, RangeAnswer):
        bars = save_range(store, result)
    elif store.staging is not None:
        bars = result.bars
        stage_session(store.staging, result.session_date, bars, store.source.now_text())
    else:
        bars = save_session(store, result)

    store.report.bars += len(bars)
    store.report.dropped += bars.dropped
    store.report.clamped += bars.clamped
    count_rejected(store.report, bars.rejected)


def count_rejected(report: Report, rejected: Sequence[RejectedBar]) -> None:
    for bar in rejected:
        name = f"{bar.ticker}: {bar.reason}"
        report.set_aside[name] = report.set_aside.get(name, 0) + 1


def save_range(store: BarStore, result: RangeAnswer) -> ParsedBars:
    """One ticker's answer: good bars, rejected ones, metrics, and the record of the request."""
    request, connection = result.request, store.connection
    sessions = sessions_between(store.source.calendar, request.start, request.end)
    bars = parse_bars(result.answer.rows, request.timeframe, sessions, ticker=request.ticker)
    bars = reject_unlike_stored(connection, bars)
    now_text = store.source.now_text()
    with transaction(connection):
        save_bars(connection, bars, now_text)
        save_rejected(connection, bars.rejected, now_text)
        save_range_answer(connection, request, bars.session_dates.tolist(), now_text)
        if request.timeframe == "1day":
            start = max(store.metrics_from[request.ticker], request.start)
            save_metrics(connection, [request.ticker], start, request.end, changed_from=request.start)
    return bars


def save_session(store: BarStore, answer: SessionAnswer) -> ParsedBars:
    """A session of the whole market: its bars, the rejected ones, and the record, which also says that the
    metrics are still to follow."""
    bars = reject_unlike_stored(store.connection, answer.bars)
    now_text = store.source.now_text()
    with transaction(store.connection):
        save_bars(store.connection, bars, now_text)
        save_rejected(store.connection, bars.rejected, now_text)
        session_date = answer.session_date.isoformat()
        save_session_answer(store.connection, session_date, store.ticker_set, bars.counts, now_text)
    return bars


def load_what_was_staged(store: BarStore) -> None:
    """The end of a first fill. Nothing happens when no session was set aside."""
    staging = store.staging
    if staging is None:
        return
    rows = count_staged_bars(staging)
    with (
        progress("storing by ticker", len(staging.numbers)) as advance,
        deferred_indexes(store.connection, "ohlcv_data", rows),
    ):
        rejected = load_staging(store.connection, staging, advance)
    count_rejected(store.report, rejected)
    drop_staging(store)


def drop_staging(store: BarStore) -> None:
    if store.staging is not None:
        store.staging.connection.close()
    store.staging = None
    remove_staging(database_path(store.connection))


def close_staging(store: BarStore) -> None:
    """Leave what was set aside for the next run."""
    if store.staging is not None:
        store.staging.connection.close()
