"""What is drawn of the market data: stored sessions per month of each universe, and bars per day.

Counted with look-ups in the index (ticker, timeframe, timestamp), one for each ticker and month or
session.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from backtestdb.health.coverage_facts import UniverseCoverage
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.new_york import midnight_ms

DAYS_SHOWN = 60
INTRADAY_MONTHS = 13
BARS_OF_SPAN = (
    "ohlcv_data WHERE ticker = t.ticker AND timeframe = ? AND timestamp >= first_ms AND "
    "timestamp < stop_ms"
)
COUNT_BARS = f"SELECT count(*) FROM {BARS_OF_SPAN}"
ANY_BAR = f"SELECT EXISTS (SELECT 1 FROM {BARS_OF_SPAN})"
SUM_OF_SPANS = """
WITH spans (place, first_ms, stop_ms) AS (VALUES {values}), tickers (ticker) AS (VALUES {tickers})
SELECT place, sum(({counted})) FROM tickers t CROSS JOIN spans GROUP BY place
"""
MEMBERS = (
    "SELECT ticker FROM universe_stocks JOIN universe u ON u.id = universe_id WHERE u.name "
    "= ? AND is_active"
)
EVERYONE = "SELECT DISTINCT ticker FROM universe_stocks WHERE is_active"
Span = tuple[str, date, date]
Item = TypeVar("Item")
# With a rollback journal nobody can commit while a statement reads, so each one is short: 200 spans
# of 10 tickers are 2,000 look-ups, some milliseconds.
SPANS_AT_ONCE, TICKERS_AT_ONCE = 200, 10


@dataclass(frozen=True)
class Month:
    """Sessions of tickers in a month YYYY-MM, as far as the universe was asked for in it."""

    month: str
    expected: int
    stored: int

    @property
    def percent(self) -> float:
        return 100 * self.stored / self.expected if self.expected else 0.0


@dataclass(frozen=True)
class Day:
    """Stored bars of all universes' tickers in one session."""

    session_date: str
    bars: int


def load_months(connection: sqlite3.Connection, coverage: UniverseCoverage) -> list[Month]:
    """In order; none where nothing is stored. Of 5-minute bars a session counts that has any, of
    the newest 13 months."""
    sessions = sessions_of(coverage)
    by_month = Counter(day.isoformat()[:7] for day in sessions)
    if coverage.timeframe == "1day":
        spans = [make_month_span(sessions, month) for month in by_month]
        stored = count_in_spans(
            connection, COUNT_BARS, MEMBERS, spans, coverage.timeframe, coverage.universe
        )
    else:
        recent = set(sorted(by_month)[-INTRADAY_MONTHS:])
        by_month = Counter({month: count for month, count in by_month.items() if month in recent})
        spans = [make_day_span(day) for day in sessions if day.isoformat()[:7] in recent]
        stored = Counter()
        found = count_in_spans(
            connection, ANY_BAR, MEMBERS, spans, coverage.timeframe, coverage.universe
        )
        for day_text, count in found.items():
            stored[day_text[:7]] += count
    return [
        Month(month, count * coverage.tickers, stored[month])
        for month, count in sorted(by_month.items())
    ]


def sessions_of(coverage: UniverseCoverage) -> list[date]:
    first, last = coverage.start or coverage.first, coverage.end or coverage.last
    if not first or not last:
        return []
    return sessions_between(load_calendar(), date.fromisoformat(first), date.fromisoformat(last))


def load_days(connection: sqlite3.Connection, timeframe: str, last: str) -> list[Day]:
    """Return the newest 60 sessions up to `last` (a date, empty where nothing is stored), in
    order."""
    if not last:
        return []
    end = date.fromisoformat(last)
    sessions = sessions_between(
        load_calendar(), date.fromordinal(end.toordinal() - 2 * DAYS_SHOWN), end
    )
    spans = [make_day_span(day) for day in sessions[-DAYS_SHOWN:]]
    counts = count_in_spans(connection, COUNT_BARS, EVERYONE, spans, timeframe)
    return [Day(place, counts[place]) for place, *_ in spans]


def count_in_spans(
    connection: sqlite3.Connection,
    counted: str,
    tickers: str,
    spans: Sequence[Span],
    timeframe: str,
    *values: str,
) -> Counter[str]:
    """Return bars (or sessions with bars) of all `tickers` in each span."""
    members = [ticker for (ticker,) in connection.execute(tickers, values)]
    counts: Counter[str] = Counter()
    for some_spans in in_parts(spans, SPANS_AT_ONCE):
        bound = [
            value
            for place, start, stop in some_spans
            for value in (place, midnight_ms(start), midnight_ms(stop))
        ]
        for some in in_parts(members, TICKERS_AT_ONCE):
            sql = SUM_OF_SPANS.format(
                counted=counted,
                values=", ".join(["(?, ?, ?)"] * len(some_spans)),
                tickers=", ".join(["(?)"] * len(some)),
            )
            counts.update(dict(connection.execute(sql, [*bound, *some, timeframe]).fetchall()))
    return counts


def in_parts(values: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]


def make_month_span(sessions: Sequence[date], month: str) -> Span:
    """From the first asked session of a month to the last: the warm-up before them was not asked
    for."""
    asked = [day for day in sessions if day.isoformat()[:7] == month]
    return month, asked[0], date.fromordinal(asked[-1].toordinal() + 1)


def make_day_span(day: date) -> Span:
    return day.isoformat(), day, date.fromordinal(day.toordinal() + 1)
