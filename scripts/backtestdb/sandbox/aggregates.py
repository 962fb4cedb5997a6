"""The two endpoints of bars: a ticker's range and the whole market's session."""

from dataclasses import dataclass
from datetime import date
from urllib.parse import quote

import numpy as np

from backtestdb.new_york import date_of, end_of_day_ms, midnight_ms
from backtestdb.sandbox.exchange import (
    Exchange,
    ServedBars,
    find_sessions,
    join,
    load_day_bars,
    load_grouped_bars,
    load_minute_bars,
    make_no_bars,
    take,
)
from backtestdb.sandbox.request import Request, bad_request, parse_day
from backtestdb.sandbox.rows import Row, make_rows
from backtestdb.sandbox.sessions import MINUTE_MS, load_sessions
from backtestdb.sandbox.subscription import Subscription, verify_included, verify_subscription

# A page of `limit` base bars is cut from about as many sessions as fill it, not from the whole
# range: five years of five-minute bars would be made again for each of their 15 pages. A liquid
# ticker has at least 210 base bars in a session, mostly over 390; pages of a thin one may end
# before their limit.
BASE_BARS_A_SESSION = 250


@dataclass(frozen=True, kw_only=True)
class AskedRange:
    """A range as asked: instants in ms UTC, both included, and their dates in New York."""

    ticker: str
    timespan: str
    from_ms: int
    to_ms: int
    limit: int
    descending: bool
    adjusted: bool

    @property
    def first(self) -> date:
        return date_of(self.from_ms)

    @property
    def last(self) -> date:
        return date_of(self.to_ms)


def parse_range(
    request: Request, ticker: str, bar: tuple[str, str], from_text: str, to_text: str
) -> AskedRange:
    """Return what a range request asks for; 400 when it cannot be."""
    if bar not in (("1", "day"), ("5", "minute")):
        raise bad_request(f"the sandbox has 1/day and 5/minute bars, not {'/'.join(bar)}")
    sort = request.params.get("sort", "asc")
    if sort not in ("asc", "desc"):
        raise bad_request(f"sort must be asc or desc, not {sort!r}")

    from_ms, to_ms = parse_instant(from_text, is_end=False), parse_instant(to_text, is_end=True)
    if from_ms > to_ms:
        raise bad_request(f"from ({from_text}) must not be later than to ({to_text})")
    window = 5 * MINUTE_MS
    start = midnight_ms(date_of(from_ms)) if bar[1] == "day" else from_ms - from_ms % window
    limit, adjusted = request.number("limit", 5000, 50_000), request.flag("adjusted", default=True)

    return AskedRange(
        ticker=ticker,
        timespan=bar[1],
        from_ms=start,
        to_ms=to_ms,
        limit=limit,
        descending=sort == "desc",
        adjusted=adjusted,
    )


def parse_instant(text: str, *, is_end: bool) -> int:
    """Return ms UTC of ms UTC, or of a New York date: its midnight, or its last ms."""
    if text.isascii() and text.isdigit() and len(text) <= 14:
        return int(text)
    day = parse_day(text)
    return end_of_day_ms(day) if is_end else midnight_ms(day)


def answer_range(exchange: Exchange, plan: Subscription, request: Request, *parts: str) -> Row:
    """Return bars of one ticker, oldest first unless sort=desc, in pages of `limit` base bars.

    The parts of the path are ticker, multiplier, timespan, from and to.
    """
    ticker, multiplier, timespan, *ends = parts
    asked = parse_range(request, ticker, (multiplier, timespan), *ends)
    verify_included(plan, ticker)
    covered = verify_subscription(plan, exchange.today, asked.first, asked.last)
    served, next_ms = load_page(exchange, asked, covered)
    rows = make_rows(served)
    answer = make_answer(exchange, (asked.first, asked.last), rows, adjusted=asked.adjusted)
    answer |= {"ticker": ticker, "queryCount": int(served.base.sum())}

    if next_ms is not None:
        start, end = (asked.from_ms, next_ms) if asked.descending else (next_ms, asked.to_ms)
        path = f"/v2/aggs/ticker/{quote(ticker)}/range/{multiplier}/{timespan}/{start}/{end}"
        sort = "desc" if asked.descending else "asc"
        cursor = {"limit": str(asked.limit), "sort": sort, "adjusted": str(asked.adjusted).lower()}
        answer["next_url"] = request.next_url(path, cursor)

    return answer


def load_page(
    exchange: Exchange, asked: AskedRange, covered: date
) -> tuple[ServedBars, int | None]:
    """Return the bars of a page, and where the next begins (descending: ends), in ms."""
    load, step = (
        (load_day_bars, 1) if asked.timespan == "day" else (load_minute_bars, BASE_BARS_A_SESSION)
    )
    found = find_sessions(exchange, asked.ticker, covered, asked.last)
    if not found:
        return make_no_bars(), None

    # Those among the sessions of the range that a page can hold.
    sessions, count = np.concatenate([own for _, own in found]), asked.limit // step + 2
    near = sessions[-count:] if asked.descending else sessions[:count]
    parts = [
        load(exchange, index, own[np.isin(own, near)], adjusted=asked.adjusted)
        for index, own in found
    ]
    served = join(parts)
    served = take(served, (served.start_ms >= asked.from_ms) & (served.start_ms <= asked.to_ms))
    if asked.descending:
        served = take(served, slice(None, None, -1))

    fits = max(1, int(np.searchsorted(np.cumsum(served.base), asked.limit, side="right")))
    if fits < len(served.base):
        return take(served, slice(0, fits)), int(served.start_ms[fits])
    if len(near) == len(sessions):
        return served, None

    midnight = load_sessions().midnight_ms
    return served, int(midnight[near[0]]) - 1 if asked.descending else int(midnight[near[-1] + 1])


def answer_grouped(exchange: Exchange, plan: Subscription, request: Request, day_text: str) -> Row:
    """Return the day bars of every ticker that traded on a date; no pages."""
    day, adjusted = parse_day(day_text), request.flag("adjusted", default=True)
    verify_included(plan, None)
    verify_subscription(plan, exchange.today, day, day)
    session = load_sessions().index_range(day, min(day, exchange.today))
    rows: list[Row] = []

    if session:
        indexes, served = load_grouped_bars(exchange, session.start, adjusted=adjusted)
        listings = exchange.universe.listings
        rows = make_rows(served, [listings[index].ticker for index in indexes.tolist()])
        if exchange.junk:
            rows.append({**rows[0], "T": "JUNK\x1b", **dict.fromkeys("ohlc", 9e11)})

    return make_answer(exchange, (day, day), rows, adjusted=adjusted) | {"queryCount": len(rows)}


def make_answer(
    exchange: Exchange, dates: tuple[date, date], rows: list[Row], *, adjusted: bool
) -> Row:
    """Return the frame around the rows; without rows the vendor leaves `results` out."""
    today = exchange.today
    delayed = dates[0] <= today <= dates[1] and len(load_sessions().index_range(today, today)) > 0
    answer: Row = {"adjusted": adjusted, "queryCount": 0, "resultsCount": len(rows)}
    answer["status"] = "DELAYED" if delayed else "OK"
    return answer | {"count": len(rows), "results": rows} if rows else answer
