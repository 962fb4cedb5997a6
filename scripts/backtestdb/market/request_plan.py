"""Which requests jobs need: pure functions of what is asked, what was asked before, and the
calendar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import ceil

from backtestdb.market.client import BARS_LIMIT
from backtestdb.market.fewest_requests import choose_requests
from backtestdb.market.quota import WINDOW_SECONDS
from backtestdb.market.session_mask import EMPTY, SessionMask, mask_between
from backtestdb.market.sessions import MINUTES_PER_SESSION

BARS_PER_SESSION = {"1day": 1, "5min": 192}
# Bytes in the file, indexes included, measured on the sandbox's market: a day bar 163 and its row
# of metrics 367 (2.4 million of each), a five-minute bar 190. While a first fill is staged, a
# bar takes another 45.
BYTES_PER_BAR = {"1day": 530, "5min": 190}
BYTES_SET_ASIDE = 45


@dataclass(frozen=True)
class RangeRequest:
    """One question to the vendor: a ticker's bars from session `start` to `end`, both included."""

    ticker: str
    timeframe: str
    start: date
    end: date


@dataclass(frozen=True)
class SessionRequest:
    """One question to the vendor: the day bars of the whole market, kept for `kept` tickers."""

    session_date: date
    kept: int


Request = RangeRequest | SessionRequest


@dataclass(frozen=True)
class AnsweredSessions:
    """What was finally answered before: for each ticker, and for every one. `unconfirmed`: sessions
    of a ticker that one answer had no bar of, without a second sign; they are asked for again."""

    of_ticker: Mapping[str, SessionMask] = field(default_factory=dict)
    of_everyone: SessionMask = EMPTY
    unconfirmed: Mapping[str, SessionMask] = field(default_factory=dict)

    def of(self, ticker: str) -> SessionMask:
        """Return what needs no further answer about a ticker."""
        answered = self.of_ticker.get(ticker, EMPTY) | self.of_everyone
        return answered & ~self.unconfirmed.get(ticker, EMPTY)


@dataclass(frozen=True)
class Demand:
    """Sessions of tickers that a job asks for. `warm_up`: welcome where they cost no
    request of their own. `refetch`: asked for once more although they were answered."""

    tickers: Sequence[str]
    sessions: SessionMask
    warm_up: SessionMask = EMPTY
    refetch: SessionMask = EMPTY


@dataclass(frozen=True)
class Cost:
    """What a job will cost. `rows` is what full sessions would bring, an upper bound."""

    requests: int
    rows: int
    bytes: int


def plan_requests(
    demands: Sequence[Demand],
    timeframe: str,
    sessions: Sequence[date],
    asked: AnsweredSessions,
    beyond: SessionMask,
    not_grouped: SessionMask = EMPTY,
) -> list[Request]:
    """Return the fewest requests that bring what was never asked for, the newest sessions first.

    `beyond`: sessions that the key's plan does not cover; they are not asked for. Only day bars can
    be asked for by session, for all tickers at once, and not those of `not_grouped`."""
    missing: dict[str, SessionMask] = {}
    warm_up: dict[str, SessionMask] = {}

    for demand in demands:
        for ticker in demand.tickers:
            waiting = demand.warm_up & asked.unconfirmed.get(ticker, EMPTY)
            lacking = (demand.sessions & ~asked.of(ticker) | demand.refetch | waiting) & ~beyond
            missing[ticker] = missing.get(ticker, EMPTY) | lacking
            warm_up[ticker] = warm_up.get(ticker, EMPTY) | demand.warm_up

    alone, whole = list(missing), EMPTY
    if timeframe == "1day":
        alone = [ticker for ticker, lacking in missing.items() if lacking & not_grouped]
        others = {
            ticker: lacking for ticker, lacking in missing.items() if not lacking & not_grouped
        }
        chosen, whole = choose_requests(others)
        alone += chosen

    ranges: list[Request] = []
    for ticker in alone:
        needed = missing[ticker] & ~whole
        # An answer about one ticker costs the same whatever its length: from the first missing
        # session to the last, and back over the warm-up that was not asked for yet.
        if needed:
            before = warm_up[ticker] & ~asked.of(ticker) & ~beyond & needed.before()
            wanted = needed | before
            first, last = sessions[wanted.first()], sessions[wanted.last()]
            ranges.append(RangeRequest(ticker, timeframe, first, last))

    return ranges + [SessionRequest(day, len(missing)) for day in reversed(whole.days(sessions))]


def make_cost(requests: Sequence[Request], sessions: Sequence[date]) -> Cost:
    """Return the cost of requests; `limit` counts minutes, so long minute ranges have several
    pages."""
    pages = rows = size = 0
    for request in requests:
        if isinstance(request, SessionRequest):
            timeframe, count, base_bars = "1day", request.kept, 1
        else:
            timeframe = request.timeframe
            count = mask_between(sessions, request.start, request.end).bit_count()
            base_bars = count * (MINUTES_PER_SESSION if timeframe == "5min" else 1)
        pages += max(1, ceil(base_bars / BARS_LIMIT))
        rows += count * BARS_PER_SESSION[timeframe]
        size += count * BARS_PER_SESSION[timeframe] * BYTES_PER_BAR[timeframe]
        size += count * BYTES_SET_ASIDE if isinstance(request, SessionRequest) else 0

    return Cost(pages, rows, size)


def duration_seconds(requests: int, requests_per_minute: int) -> float:
    """Return how long the quota makes a job last: a window's worth goes out at once, the next one a
    window later, and so on. 0 without a quota."""
    if not requests_per_minute or requests <= requests_per_minute:
        return 0.0
    return (requests - 1) // requests_per_minute * WINDOW_SECONDS
