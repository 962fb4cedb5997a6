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
    storing = BarStore(connection, source, Report(), ticker_set, metrics_from)
    storing.staging = open_staging(staging_path(database_path(connection)))
    if storing.staging is None:
        clear_done(connection, TASK)
    elif storing.staging.ticker_set != ticker_set or load_done(connection, TASK):
        load_what_was_staged(storing)
    elif is_loaded(connection, storing.staging):
        drop_staging(storing)
    return storing


def prepare_staging(storing: BarStore, planned: Sequence[Request], staged_from_bars: int) -> None:
    """Decide whether the sessions of a run are set aside first."""
    coming = sum(request.kept for request in planned if isinstance(request, SessionRequest))
    if storing.staging is None and coming >= staged_from_bars:
        path = staging_path(database_path(storing.connection))
        storing.staging = create_staging(path, storing.ticker_set)


def save_result(storing: BarStore, result: RangeAnswer | SessionBars) -> None:
    """One answer, all or nothing."""
    if isinstance(result, RangeAnswer):
        aside = save_range(storing, result)
    else:
        storing.report.bars += len(result.tickers)
        storing.report.dropped += result.dropped
        aside = result.aside
        if storing.staging is not None:
            stage_session(storing.staging, result, storing.source.now_text())
        else:
            save_session(storing, result)
    names = (aside["ticker"] + ": " + aside["reason"]).tolist()
    for name in names:
        storing.report.set_aside[name] = storing.report.set_aside.get(name, 0) + 1


def save_range(storing: BarStore, result: RangeAnswer) -> pd.DataFrame:
    """One ticker's answer: good bars, bars set aside, metrics, the record of the request. Return what was set
    aside."""
    request, connection = result.request, storing.connection
    bars = check_bars(
        result.answer.rows,
        request.timeframe,
        storing.source.calendar,
        request.start,
        request.end,
        ticker=request.ticker,
    )
    now_text = storing.source.now_text()
    with transaction(connection):
        save_bars(connection, bars.good)
        save_rejected(connection, bars.aside, now_text)
        save_range_answer(connection, request, bars.good["session_date"].tolist(), now_text)
        if request.timeframe == "1day":
            start = max(storing.metrics_from[request.ticker], request.start)
            save_metrics(connection, [request.ticker], start, request.end)
    storing.report.bars += len(bars.good)
    return bars.aside


def save_session(storing: BarStore, bars: SessionBars) -> None:
    """A session of the whole market: its bars, those set aside, and the record, which also says that the
    metrics are still to follow."""
    now_text = storing.source.now_text()
    with transaction(storing.connection):
        save_bar_columns(storing.connection, make_bar_columns(bars))
        save_rejected(storing.connection, bars.aside, now_text)
        save_session_answer(
            storing.connection, bars.session_date.isoformat(), storing.ticker_set, bars.counts, now_text
        )


def load_what_was_staged(storing: BarStore) -> None:
    """The end of a first fill. Nothing happens when no session was set aside."""
    staging = storing.staging
    if staging is None:
        return
    rows = count_staged_bars(staging)
    with (
        progress("storing by ticker", len(staging.numbers)) as advance,
        deferred_indexes(storing.connection, "ohlcv_data", rows),
    ):
        load_staging(storing.connection, staging, advance)
    drop_staging(storing)


def drop_staging(storing: BarStore) -> None:
    if storing.staging is not None:
        storing.staging.connection.close()
    storing.staging = None
    remove_staging(database_path(storing.connection))


def close_staging(storing: BarStore) -> None:
    """Leave what was set aside for the next run."""
    if storing.staging is not None:
        storing.staging.connection.close()
