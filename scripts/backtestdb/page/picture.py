"""What is drawn of the market data: the state of each session of each universe, and bars per
session. Counting takes seconds in a large database; the page keeps it until the bars change."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TypeVar

from backtestdb.health.coverage_facts import UniverseCoverage
from backtestdb.health.holes import Holes, has_records
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.new_york import midnight_ms
from backtestdb.page.states import States, load_states
from backtestdb.timeframes import TIMEFRAMES

DAYS_SHOWN = 60
COUNT_IN_SPANS = """
WITH spans (place, first_ms, stop_ms) AS (VALUES {values}), tickers (ticker) AS (VALUES {tickers})
SELECT place, sum((
    SELECT count(*) FROM ohlcv_data
    WHERE ticker = t.ticker AND timeframe = ? AND timestamp >= first_ms AND timestamp < stop_ms))
FROM tickers t CROSS JOIN spans GROUP BY place
"""
MEMBERS = "SELECT DISTINCT ticker FROM universe_stocks WHERE is_active"
Span = tuple[str, date, date]
Item = TypeVar("Item")
# In one statement: 200 spans of 10 tickers are 2,000 look-ups, some milliseconds.
SPANS_AT_ONCE, TICKERS_AT_ONCE = 200, 10


@dataclass(frozen=True)
class Day:
    """Stored bars of all universes' tickers in one session."""

    session_date: str
    bars: int


@dataclass(frozen=True)
class Picture:
    """The drawn part of the market data. `states`: one for each universe and timeframe; `days`: by
    timeframe."""

    states: list[States] = field(default_factory=list)
    days: dict[str, list[Day]] = field(default_factory=dict)

    def holes_of(self, ticker: str) -> dict[str, int]:
        """Return timeframe -> sessions that were asked for and not answered, of the universe that
        lacks the most of the ticker."""
        holes: dict[str, int] = {}
        for states in self.states:
            if ticker in states.stored:
                holes[states.timeframe] = max(
                    holes.get(states.timeframe, 0), states.holes_of(ticker)
                )
        return holes

    def tickers_with_holes(self) -> set[str]:
        return {ticker for states in self.states for ticker in states.failed}


def name_holes(picture: Picture) -> list[Holes]:
    """Return what status counts by itself: the tickers with sessions that were asked for and not
    answered, and those of which the vendor has nothing."""
    return [
        Holes(
            states.universe,
            states.timeframe,
            {ticker: states.holes_of(ticker) for ticker in states.failed},
            sorted(
                ticker
                for ticker, stored in states.stored.items()
                if not (stored or ticker in states.failed or ticker in states.beyond)
            ),
        )
        for states in picture.states
        if states.is_judged
    ]


def mark_market_data(connection: sqlite3.Connection) -> object:
    """Return another value once a bar or a member was added, or a backfill counted: look-ups at the
    ends of the tables."""
    marks = connection.execute(
        "SELECT (SELECT max(id) FROM ohlcv_data), (SELECT min(id) FROM ohlcv_data),"
        " (SELECT total(is_active) FROM universe_stocks)"
    ).fetchone()
    if not has_records(connection):
        return marks
    counted = "SELECT universe, timeframe, state, counted_at_utc FROM _coverage ORDER BY 1, 2"
    return marks, connection.execute(counted).fetchall()


def draw_picture(connection: sqlite3.Connection, universes: Sequence[UniverseCoverage]) -> Picture:
    """Given what status knows of each universe and timeframe, return all that is drawn of them."""
    states = [load_states(connection, coverage) for coverage in universes]
    for each in states:
        each.months  # noqa: B018  counted here, where no answer waits for it
    days = {}
    for timeframe in TIMEFRAMES:
        last = max((c.last for c in universes if c.timeframe == timeframe), default="")
        days[timeframe] = load_days(connection, timeframe, last)
    return Picture(states, days)


def load_days(connection: sqlite3.Connection, timeframe: str, last: str) -> list[Day]:
    """Return the newest 60 sessions up to `last` (a date, empty where nothing is stored), in
    order."""
    if not last:
        return []
    end = date.fromisoformat(last)
    sessions = sessions_between(load_calendar(), end - timedelta(days=2 * DAYS_SHOWN), end)
    spans = [(day.isoformat(), day, day + timedelta(days=1)) for day in sessions[-DAYS_SHOWN:]]
    counts = count_in_spans(connection, spans, timeframe)
    return [Day(place, counts[place]) for place, *_ in spans]


def count_in_spans(
    connection: sqlite3.Connection, spans: Sequence[Span], timeframe: str
) -> Counter[str]:
    """Return the bars of all universes' tickers in each span."""
    members = [ticker for (ticker,) in connection.execute(MEMBERS)]
    counts: Counter[str] = Counter()

    for some_spans in in_parts(spans, SPANS_AT_ONCE):
        bound = [
            value
            for place, start, stop in some_spans
            for value in (place, midnight_ms(start), midnight_ms(stop))
        ]
        for some in in_parts(members, TICKERS_AT_ONCE):
            sql = COUNT_IN_SPANS.format(
                values=", ".join(["(?, ?, ?)"] * len(some_spans)),
                tickers=", ".join(["(?)"] * len(some)),
            )
            counts.update(dict(connection.execute(sql, [*bound, *some, timeframe]).fetchall()))

    return counts


def in_parts(values: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]
