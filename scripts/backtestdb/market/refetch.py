"""What is stored of a ticker, asked for again and replaced: after a split, or as the user wants."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from exchange_calendars import ExchangeCalendar

from backtestdb.market.bar_store import save_range
from backtestdb.market.coverage import load_stored_mask
from backtestdb.market.fetch import RangeAnswer
from backtestdb.market.jobs import Source
from backtestdb.market.request_log import load_answered
from backtestdb.market.request_plan import Cost, RangeRequest, make_cost
from backtestdb.market.session_mask import mask_between
from backtestdb.market.sessions import sessions_between
from backtestdb.new_york import NEW_YORK
from backtestdb.timeframes import TIMEFRAMES

FIRST_DAY = date(1990, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Refetched:
    """What became of a stored range: `bars` in the answer, stored bars `removed` because it does
    not have them, and `not_answered`: sessions with stored bars that stay as they were, because the
    key's plan does not reach back to them, or because an answer without them waits for a second
    one."""

    request: RangeRequest
    bars: int
    removed: int
    not_answered: int


def find_stored_ranges(
    connection: sqlite3.Connection, calendar: ExchangeCalendar, ticker: str, until: date
) -> list[RangeRequest]:
    """Return the ranges of a ticker in which bars are stored, of both timeframes, up to `until`.
    Sessions in between that were asked for and had no bar belong to a range; a hole that was never
    asked for ends it."""
    sessions = sessions_between(calendar, FIRST_DAY, until)
    requests = []

    for timeframe in TIMEFRAMES:
        stored = load_stored_mask(connection, ticker, timeframe, sessions)
        if not stored:
            continue
        known = stored | load_answered(connection, timeframe, sessions).of(ticker)
        for first, last in known.runs():
            inside = stored & mask_between(sessions, sessions[first], sessions[last])
            if inside:
                start, end = sessions[inside.first()], sessions[inside.last()]
                requests.append(RangeRequest(ticker, timeframe, start, end))

    return requests


def plan_refetch(
    connection: sqlite3.Connection, calendar: ExchangeCalendar, tickers: Sequence[str]
) -> Cost:
    """Return what asking again for all that is stored of `tickers` costs."""
    until = calendar.last_session.date()
    ranges = [
        request
        for ticker in tickers
        for request in find_stored_ranges(connection, calendar, ticker, until)
    ]
    return make_cost(ranges, sessions_between(calendar, FIRST_DAY, until))


def refetch_ticker(connection: sqlite3.Connection, source: Source, ticker: str) -> list[Refetched]:
    """Ask again for all that is stored of a ticker, in one request for each range and timeframe
    (few in all), and replace rows, metrics and the record of each in one transaction. Equal to a
    fresh download of the same ranges.

    Raise MarketDataError when a request brings nothing: what was replaced before it is whole. Then,
    and while anything is `not_answered`, the ticker has still to be asked for again."""
    until = source.now_utc().astimezone(NEW_YORK).date()
    requests = find_stored_ranges(connection, source.calendar, ticker, until)
    return list(refetch_ranges(connection, source, requests))


def refetch_ranges(
    connection: sqlite3.Connection, source: Source, requests: Iterable[RangeRequest]
) -> Iterable[Refetched]:
    """Yield ranges that were fetched again, one after the other; see `refetch_ticker`."""
    for request in requests:
        answer = source.client.fetch_bars(
            request.ticker, request.timeframe, request.start, request.end
        )
        saved = save_range(
            connection,
            source.calendar,
            RangeAnswer(request, answer),
            asked_at_utc=source.now_text(),
            run=source.run,
            metrics_from=find_first_metrics(connection, request),
        )
        yield Refetched(
            request=request,
            bars=saved.bars,
            removed=saved.removed,
            not_answered=saved.doubtful + saved.kept,
        )


def find_first_metrics(connection: sqlite3.Connection, request: RangeRequest) -> date:
    """Return the first session of a range that has metrics: the warm-up has none."""
    (first,) = connection.execute(
        "SELECT min(date) FROM daily_metrics WHERE ticker = ? AND date BETWEEN ? AND ?",
        (request.ticker, request.start.isoformat(), request.end.isoformat()),
    ).fetchone()
    return date.fromisoformat(first) if first else request.start
