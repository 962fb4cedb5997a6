"""Answers into the database: each in one transaction with its record, or staged first when there
are many.

Values come in, counts go out: this module knows no vendor, no job and no report.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from exchange_calendars import ExchangeCalendar

from backtestdb.console import progress
from backtestdb.database import transaction
from backtestdb.market.bar_rows import reject_unlike_stored, save_bars, save_rejected
from backtestdb.market.bars import FIVE_MINUTES_MS, ParsedBars, RejectedBar, parse_bars
from backtestdb.market.evidence import Weighed, weigh_range
from backtestdb.market.fetch import RangeAnswer, SessionAnswer
from backtestdb.market.first_fill import deferred_indexes, load_staging
from backtestdb.market.metric_store import save_metrics
from backtestdb.market.request_log import (
    EVERY_TICKER,
    count_final,
    ensure_ticker_set,
    load_doubted,
    save_range_answer,
    save_session_answer,
    save_unconfirmed,
    weigh_session,
)
from backtestdb.market.request_plan import RangeRequest, Request, SessionRequest
from backtestdb.market.session_mask import SessionMask, first_sessions, mask_of
from backtestdb.market.sessions import (
    load_calendar,
    make_new_york_times,
    sessions_back,
    sessions_between,
)
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
from backtestdb.new_york import end_of_day_ms, midnight_ms


@dataclass(frozen=True, kw_only=True)
class SavedBars:
    """What came of one answer: `bars` stored, those of other tickers `dropped`, those `clamped` by
    at most a tick, `rejected`: "ticker: reason" and how many, `removed`: stored bars that it lacks,
    `doubtful`: sessions that wait for a second answer, `kept`: sessions before its first bar whose
    stored bars stayed."""

    bars: int = 0
    dropped: int = 0
    clamped: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    removed: int = 0
    doubtful: int = 0
    kept: int = 0


@dataclass(kw_only=True)
class BarStore:
    """Where the answers of one run go. `metrics_from`: for each ticker the first session whose
    metrics are wanted. `staging` is there while sessions are staged."""

    connection: sqlite3.Connection
    calendar: ExchangeCalendar
    run: str
    ticker_set: int
    metrics_from: Mapping[str, date]
    staging: Staging | None = None


def make_bar_store(
    connection: sqlite3.Connection,
    calendar: ExchangeCalendar,
    run: str,
    metrics_from: Mapping[str, date],
    *,
    timeframe: str,
    keep_every_ticker: bool,
) -> BarStore:
    """Given the tickers of a run with the first session whose metrics are wanted. What an earlier
    run staged is taken up when it was for the same tickers, and loaded first when not."""
    store = BarStore(
        connection=connection,
        calendar=calendar,
        run=run,
        ticker_set=EVERY_TICKER,
        metrics_from=metrics_from,
    )
    if timeframe != "1day":
        return store

    if not keep_every_ticker:
        store.ticker_set = ensure_ticker_set(connection, metrics_from)
    store.staging = staging = open_staging(connection)
    is_of_others = staging is not None and staging.ticker_set != store.ticker_set
    if staging and (is_of_others or load_done(connection, LOADING_TASK)):
        load_what_was_staged(store)

    return store


def prepare_staging(
    store: BarStore, planned: Sequence[Request], staged_from_bars: int, begun_at_utc: str
) -> None:
    """Decide whether the sessions of a run are staged first."""
    coming = sum(request.kept for request in planned if isinstance(request, SessionRequest))
    if store.staging is None and coming >= staged_from_bars:
        store.staging = create_staging(store.connection, store.ticker_set, begun_at_utc)


def save_result(
    store: BarStore, result: RangeAnswer | SessionAnswer, asked_at_utc: str
) -> SavedBars:
    """Store one answer, all or nothing."""
    if isinstance(result, RangeAnswer):
        metrics_from = store.metrics_from.get(result.request.ticker, result.request.start)
        return save_range(
            store.connection,
            store.calendar,
            result,
            asked_at_utc=asked_at_utc,
            run=store.run,
            metrics_from=metrics_from,
        )

    bars = result.bars
    if store.staging is not None:
        stage_session(store.staging, result.session_date, bars, asked_at_utc)
    else:
        bars = save_session(store, result, asked_at_utc)

    return SavedBars(
        bars=len(bars),
        dropped=bars.dropped,
        clamped=bars.clamped,
        rejected=count_reasons(bars.rejected),
    )


def count_reasons(rejected: Sequence[RejectedBar]) -> Mapping[str, int]:
    return Counter(f"{bar.ticker}: {bar.reason}" for bar in rejected)


def save_range(
    connection: sqlite3.Connection,
    calendar: ExchangeCalendar,
    result: RangeAnswer,
    *,
    asked_at_utc: str,
    run: str,
    metrics_from: date,
) -> SavedBars:
    """Put one ticker's answer in the place of what is stored of its sessions: good bars, rejected
    ones, the record, the metrics from `metrics_from` on. What the answer does not have stays until
    a second one agrees, and what lies before its first bar stays (see evidence)."""
    request = result.request
    sessions = sessions_between(calendar, request.start, request.end)
    bars = parse_bars(result.answer.rows, request.timeframe, sessions, ticker=request.ticker)
    bars = reject_unlike_stored(connection, bars)
    days = [day.isoformat() for day in sessions]

    with transaction(connection):
        stored = load_stored_days(connection, request)
        weighed = weigh_answer(connection, request, days, bars, stored, run)
        removed = remove_replaced(connection, request, days, bars, stored, weighed)
        save_bars(connection, bars, asked_at_utc)
        replace_rejected(connection, request, bars.rejected, asked_at_utc)
        save_range_answer(connection, request, bars.session_dates.tolist(), asked_at_utc, run)

        # An answer that came before a session was over is no sign that there will be no bar of it.
        over = days[: count_final(sessions, asked_at_utc)]
        save_unconfirmed(connection, request, over, weighed.doubtful, run, asked_at_utc)
        if request.timeframe == "1day":
            start = max(metrics_from, request.start)
            save_metrics(
                connection, [request.ticker], start, request.end, changed_from=request.start
            )

    return SavedBars(
        bars=len(bars),
        dropped=0,
        clamped=bars.clamped,
        rejected=count_reasons(bars.rejected),
        removed=removed,
        doubtful=weighed.doubtful.bit_count(),
        kept=weighed.kept.bit_count(),
    )


def load_stored_days(connection: sqlite3.Connection, request: RangeRequest) -> dict[int, str]:
    """Return the stored time stamps of what is asked for, with each one's day in New York."""
    stamps = [
        stamp
        for (stamp,) in connection.execute(
            "SELECT timestamp FROM ohlcv_data "
            "WHERE ticker = ? AND timeframe = ? AND timestamp BETWEEN ? AND ?",
            (
                request.ticker,
                request.timeframe,
                midnight_ms(request.start),
                end_of_day_ms(request.end),
            ),
        )
    ]
    if not stamps:
        return {}

    days = make_new_york_times(np.array(stamps, dtype="int64")).strftime("%Y-%m-%d")
    return dict(zip(stamps, days, strict=True))


def weigh_answer(
    connection: sqlite3.Connection,
    request: RangeRequest,
    days: Sequence[str],
    bars: ParsedBars,
    stored: Mapping[int, str],
    run: str,
) -> Weighed:
    """Return what of an answer about one ticker is believed (see evidence)."""
    rejected = mask_of(days, {bar.session_date for bar in bars.rejected})
    unsure_mask = rejected | mask_of(days, find_cut_session(request, days, bars))

    # "No bar" and "bars that cannot be true" are not the same answer given twice.
    same_kind = ~(rejected ^ load_rejected_sessions(connection, request, days))

    return weigh_range(
        every=first_sessions(len(days)),
        good=mask_of(days, set(bars.session_dates.tolist())) & ~unsure_mask,
        rejected=unsure_mask,
        stored=mask_of(days, set(stored.values())),
        doubted_before=load_doubted(connection, request, days, run) & same_kind,
    )


def load_rejected_sessions(
    connection: sqlite3.Connection, request: RangeRequest, days: Sequence[str]
) -> SessionMask:
    """Return those of `days` for which an earlier answer had bars that cannot be true."""
    rows = connection.execute(
        "SELECT DISTINCT session_date FROM _bars_set_aside WHERE ticker = ? AND timeframe = ?",
        (request.ticker, request.timeframe),
    )
    return mask_of(days, (day for (day,) in rows))


def find_cut_session(request: RangeRequest, days: Sequence[str], bars: ParsedBars) -> set[str]:
    """Return the last session of 5-minute bars, where it may go on behind the answer's last one:
    nothing came of the sessions after it, or nothing of its last regular five minutes."""
    if request.timeframe != "5min" or not len(bars):
        return set()
    last_day = str(bars.session_dates[-1])
    is_whole = last_day == days[-1] and int(bars.timestamps[-1]) >= last_regular_bar_ms(last_day)
    return set() if is_whole else {last_day}


def last_regular_bar_ms(day: str) -> int:
    """Return when the last five minutes of regular trading of a session begin, ms UTC (15:55 New
    York, half days 12:55)."""
    close = load_calendar().session_close(day)
    return int(close.timestamp() * 1000) - FIVE_MINUTES_MS


def remove_replaced(
    connection: sqlite3.Connection,
    request: RangeRequest,
    days: Sequence[str],
    bars: ParsedBars,
    stored: Mapping[int, str],
    weighed: Weighed,
) -> int:
    """Remove stored bars that a believed answer lacks, and their metrics; return how many."""
    replaced = {day for place, day in enumerate(days) if weighed.replaced >> place & 1}
    coming = set(bars.timestamps.tolist())
    gone = [
        (stamp, day) for stamp, day in stored.items() if stamp not in coming and day in replaced
    ]
    connection.executemany(
        "DELETE FROM ohlcv_data WHERE ticker = ? AND timestamp = ? AND timeframe = ?",
        [(request.ticker, stamp, request.timeframe) for stamp, _ in gone],
    )

    if request.timeframe == "1day":
        connection.executemany(
            "DELETE FROM daily_metrics WHERE ticker = ? AND date = ?",
            [(request.ticker, day) for _, day in gone],
        )

    return len(gone)


def replace_rejected(
    connection: sqlite3.Connection,
    request: RangeRequest,
    rejected: Sequence[RejectedBar],
    asked_at_utc: str,
) -> None:
    """Put an answer's rejected bars in the place of earlier ones: a bar may have been mended."""
    connection.execute(
        "DELETE FROM _bars_set_aside "
        "WHERE ticker = ? AND timeframe = ? AND session_date BETWEEN ? AND ?",
        (request.ticker, request.timeframe, request.start.isoformat(), request.end.isoformat()),
    )
    save_rejected(connection, rejected, asked_at_utc)


def save_session(store: BarStore, answer: SessionAnswer, asked_at_utc: str) -> ParsedBars:
    """Put a session of the whole market in the place of what is stored of it: its bars, the
    rejected ones, and the record."""
    connection, session_date = store.connection, answer.session_date.isoformat()
    bars = reject_unlike_stored(connection, answer.bars)

    with transaction(connection):
        is_final = count_final([answer.session_date], asked_at_utc) == 1
        if is_final:
            lacking = find_lacking(store, answer, bars)
            changed = forget_unlike(connection, session_date, lacking, bars)
            for ticker in weigh_session(
                connection, session_date, lacking, store.run, asked_at_utc, changed
            ):
                remove_day_bar(connection, ticker, answer.session_date)

        save_bars(connection, bars, asked_at_utc)
        forget_rejected(connection, session_date, bars)
        save_rejected(connection, bars.rejected, asked_at_utc)

        # The record also says that the metrics are still to follow.
        save_session_answer(
            connection, session_date, store.ticker_set, bars.counts, asked_at_utc, store.run
        )

    return bars


def find_lacking(store: BarStore, answer: SessionAnswer, bars: ParsedBars) -> list[str]:
    """Return the tickers of a run of which an answer has no bar that can be true, although one is
    stored or came, or they traded the session before: the answer may be cut, or be early for them.
    """
    coming = set(bars.tickers.tolist())
    named = load_traded(store, answer.session_date) | {bar.ticker for bar in bars.rejected}
    named |= load_traded(store, sessions_back(store.calendar, answer.session_date, 1))
    kept = named if store.ticker_set == EVERY_TICKER else named & set(store.metrics_from)
    return sorted(kept - coming)


def load_traded(store: BarStore, session_date: date) -> set[str]:
    """Return tickers of a run with a day bar of a session whose metrics are computed."""
    query = "SELECT ticker FROM daily_metrics WHERE date = ?"
    traded = {ticker for (ticker,) in store.connection.execute(query, (session_date.isoformat(),))}
    return traded if store.ticker_set == EVERY_TICKER else traded & set(store.metrics_from)


def forget_unlike(
    connection: sqlite3.Connection, session_date: str, lacking: Sequence[str], bars: ParsedBars
) -> set[str]:
    """Return those of `lacking` about which an answer before said another thing: "no bar" and "bars
    that cannot be true" are not the same answer given twice. Of those that have none any more, what
    was rejected is removed."""
    before = load_rejected_tickers(connection, session_date)
    changed = (before ^ {bar.ticker for bar in bars.rejected}) & set(lacking)
    remove_rejected(connection, session_date, changed & before)
    return changed


def remove_day_bar(connection: sqlite3.Connection, ticker: str, session_date: date) -> None:
    connection.execute(
        "DELETE FROM ohlcv_data WHERE ticker = ? AND timestamp = ? AND timeframe = '1day'",
        (ticker, midnight_ms(session_date)),
    )
    day = session_date.isoformat()
    connection.execute("DELETE FROM daily_metrics WHERE ticker = ? AND date = ?", (ticker, day))


def forget_rejected(connection: sqlite3.Connection, session_date: str, bars: ParsedBars) -> None:
    """Remove bars that were rejected before, of the tickers that have a good one now."""
    rejected = load_rejected_tickers(connection, session_date)
    remove_rejected(connection, session_date, rejected & set(bars.tickers.tolist()))


def load_rejected_tickers(connection: sqlite3.Connection, session_date: str) -> set[str]:
    """Return the tickers of which a day bar of this session was rejected."""
    query = "SELECT ticker FROM _bars_set_aside WHERE timeframe = '1day' AND session_date = ?"
    return {ticker for (ticker,) in connection.execute(query, (session_date,))}


def remove_rejected(connection: sqlite3.Connection, session_date: str, tickers: set[str]) -> None:
    connection.executemany(
        "DELETE FROM _bars_set_aside WHERE ticker = ? AND timeframe = '1day' AND session_date = ?",
        [(ticker, session_date) for ticker in sorted(tickers)],
    )


def load_what_was_staged(store: BarStore) -> SavedBars:
    """End a first fill; return what is rejected only beside the bars of other sessions. Nothing
    happens when no session was staged."""
    staging = store.staging
    if staging is None:
        return SavedBars()

    rows = count_staged_bars(staging)
    with (
        progress("storing by ticker", len(staging.numbers)) as advance,
        deferred_indexes(store.connection, "ohlcv_data", rows),
    ):
        rejected = load_staging(store.connection, staging, store.run, advance)

    close_staging(store)
    store.staging = None
    remove_staging(database_path(store.connection))
    return SavedBars(rejected=count_reasons(rejected))


def close_staging(store: BarStore) -> None:
    """Leave what was staged for the next run."""
    if store.staging is not None:
        store.staging.connection.close()
