"""Which requests a job needs: pure functions of what is asked, what was asked before, and the calendar."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil

from backtestdb.market.api import BARS_LIMIT
from backtestdb.market.sessions import MINUTES_PER_SESSION

Range = tuple[date, date]
BARS_PER_SESSION = {"1day": 1, "5min": 192}
# Bytes in the file for a bar, indexes included (measured: 107 and 131), and for a row of metrics (335).
BYTES_PER_BAR = {"1day": 440, "5min": 135}


@dataclass(frozen=True)
class RangeRequest:
    """One question to the vendor: a ticker's bars of the sessions from `start` to `end`, both included."""

    ticker: str
    timeframe: str
    start: date
    end: date


@dataclass(frozen=True)
class Plan:
    """What a job will cost. `rows` is what full sessions would bring, an upper bound."""

    requests: int
    rows: int
    bytes: int


def plan_ranges(
    tickers: Iterable[str],
    timeframe: str,
    sessions: Sequence[date],
    asked: Mapping[str, Sequence[Range]],
) -> list[RangeRequest]:
    """The fewest requests that bring the sessions of each ticker that nobody asked for yet: one, from the
    first missing session to the last, because an answer costs the same whatever its length."""
    planned = []
    for ticker in tickers:
        missing = missing_sessions(sessions, asked.get(ticker, ()))
        if missing:
            planned.append(RangeRequest(ticker, timeframe, missing[0], missing[-1]))
    return planned


def missing_sessions(sessions: Sequence[date], asked: Sequence[Range]) -> list[date]:
    return [day for day in sessions if not any(first <= day <= last for first, last in asked)]


def make_plan(requests: Sequence[RangeRequest], sessions: Sequence[date]) -> Plan:
    """The cost of per-ticker requests; `limit` counts minutes, so long minute ranges have several pages."""
    pages = rows = size = 0
    for request in requests:
        count = sum(1 for day in sessions if request.start <= day <= request.end)
        base_bars = count * (MINUTES_PER_SESSION if request.timeframe == "5min" else 1)
        pages += max(1, ceil(base_bars / BARS_LIMIT))
        rows += count * BARS_PER_SESSION[request.timeframe]
        size += count * BARS_PER_SESSION[request.timeframe] * BYTES_PER_BAR[request.timeframe]
    return Plan(pages, rows, size)


def duration_seconds(requests: int, requests_per_minute: int) -> float:
    """How long the quota makes a job last: the first minute's worth goes out at once. 0 without a quota."""
    if not requests_per_minute or requests <= requests_per_minute:
        return 0.0
    return (requests - requests_per_minute) * 60 / requests_per_minute
