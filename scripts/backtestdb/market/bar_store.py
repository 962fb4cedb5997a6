"""Answers into the database: each in one transaction with its record, or set aside first when there are many."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import pandas as pd

from backtestdb.console import progress
from backtestdb.database import transaction
from backtestdb.market.bar_rows import save_bar_columns, save_bars, save_rejected
from backtestdb.market.bars import check_bars
from backtestdb.market.fetch import RangeAnswer
from backtestdb.market.first_fill import (
    TASK,
    Staging,
    count_staged_bars,
    create_staging,
    database_path,
    deferred_indexes,
    is_loaded,
    load_staging,
    open_staging,
    remove_staging,
    stage_session,
    staging_path,
)
from backtestdb.market.grouped import SessionBars, make_bar_columns
from backtestdb.market.jobs import Job, Report, Source, all_tickers
from backtestdb.market.metric_store import save_metrics
from backtestdb.market.request_log import (
    EVERY_TICKER,
    ensure_ticker_set,
    save_range_answer,
    save_session_answer,
)
from backtestdb.market.request_plan import Request, SessionRequest
from backtestdb.market.work_done import clear_done, load_done


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
    store.staging = open_staging(staging_path(database_path(connection)))
    if store.staging is None:
        clear_done(connection, TASK)
    elif store.staging.ticker_set != ticker_set or load_done(connection, TASK):
        load_what_was_staged(store)
    elif is_loaded(connection, store.staging):
        drop_staging(store)
    return store


def prepare_staging(store: BarStore, planned: Sequence[Request], staged_from_bars: int) -> None:
    """Decide whether the sessions of a run are set aside first."""
    coming = sum(request.kept for request in planned if isinstance(request, SessionRequest))
    if store.staging is None and coming >= staged_from_bars:
        path = staging_path(database_path(store.connection))
        store.staging = create_staging(path, store.ticker_set)


def save_result(store: BarStore, result: RangeAnswer | SessionBars) -> None:
    """One answer, all or nothing."""
    if isinstance(result, RangeAnswer):
        rejected = save_range(store, result)
    else:
        store.report.bars += len(result.tickers)
        store.report.dropped += result.dropped
        rejected = result.rejected
        if store.staging is not None:
            stage_session(store.staging, result, store.source.now_text())
        else:
            save_session(store, result)
    names = (rejected["ticker"] + ": " + rejected["reason"]).tolist()
    for name in names:
        store.report.set_aside[name] = store.report.set_aside.get(name, 0) + 1


def save_range(store: BarStore, result: RangeAnswer) -> pd.DataFrame:
    """One ticker's answer: good bars, bars set aside, metrics, the record of the request. Return what was set
    aside."""
    request, connection = result.request, store.connection
    bars = check_bars(
        result.answer.rows,
        request.timeframe,
        store.source.calendar,
        request.start,
        request.end,
        ticker=request.ticker,
    )
    now_text = store.source.now_text()
    with transaction(connection):
        save_bars(connection, bars.good)
        save_rejected(connection, bars.rejected, now_text)
        save_range_answer(connection, request, bars.good["session_date"].tolist(), now_text)
        if request.timeframe == "1day":
            start = max(store.metrics_from[request.ticker], request.start)
            save_metrics(connection, [request.ticker], start, request.end)
    store.report.bars += len(bars.good)
    return bars.rejected


def save_session(store: BarStore, bars: SessionBars) -> None:
    """A session of the whole market: its bars, those set aside, and the record, which also says that the
    metrics are still to follow."""
    now_text = store.source.now_text()
    with transaction(store.connection):
        save_bar_columns(store.connection, make_bar_columns(bars))
        save_rejected(store.connection, bars.rejected, now_text)
        save_session_answer(
            store.connection, bars.session_date.isoformat(), store.ticker_set, bars.counts, now_text
        )


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
        load_staging(store.connection, staging, advance)
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
