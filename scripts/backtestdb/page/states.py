"""Sessions of the tickers of a universe: stored, failed, beyond the plan, as bits.

Everything is looked up by the key (ticker, timeframe, timestamp), one ticker a statement: with a
rollback journal no program can commit while a statement reads."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from backtestdb.health.coverage_facts import UniverseCoverage
from backtestdb.health.holes import has_records, load_asked
from backtestdb.market.coverage import (
    FIRST_DAY,
    SESSION_SHIFT_MS,
    Answers,
    load_answers,
    load_stored_mask,
)
from backtestdb.market.session_mask import mask_between
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.market.universes import load_tickers
from backtestdb.new_york import date_of, end_of_day_ms, midnight_ms

# So many sessions without a bar in a month, between bars of the same ticker, are worth a mark:
# a few are ordinary for what trades little.
GAP_SESSIONS = 5
SPAN = """
SELECT count(*), min(timestamp), max(timestamp) FROM ohlcv_data
WHERE ticker = ? AND timeframe = ? AND timestamp BETWEEN ? AND ?
"""
# From each session with a bar to the next one: a look-up for a session instead of a row for a bar.
SESSIONS_WITH_BARS = """
WITH RECURSIVE found (bar_ms) AS (
    SELECT min(timestamp) FROM ohlcv_data
    WHERE ticker = :ticker AND timeframe = :timeframe AND timestamp BETWEEN :first AND :last
    UNION ALL
    SELECT (
        SELECT min(timestamp) FROM ohlcv_data
        WHERE ticker = :ticker AND timeframe = :timeframe AND timestamp BETWEEN
            ((bar_ms - :shift) / 86400000 + 1) * 86400000 + :shift AND :last)
    FROM found WHERE bar_ms IS NOT NULL)
SELECT (bar_ms - :shift) / 86400000 FROM found WHERE bar_ms IS NOT NULL
"""


@dataclass(frozen=True, kw_only=True)
class States:
    """Of one universe and timeframe. The bits are those of `sessions`; a ticker without one is left
    out of `failed` and `beyond`. `is_judged`: the records say what was asked for; without them
    every session between the first and the last bar of the universe counts, and one without a bar
    has failed."""

    universe: str
    timeframe: str
    sessions: Sequence[date]
    stored: Mapping[str, int]
    failed: Mapping[str, int]
    beyond: Mapping[str, int]
    is_judged: bool

    @cached_property
    def month_masks(self) -> dict[str, int]:
        """Return YYYY-MM -> its sessions, in order."""
        masks: dict[str, int] = {}
        for place, day in enumerate(self.sessions):
            month = day.isoformat()[:7]
            masks[month] = masks.get(month, 0) | 1 << place
        return masks

    @cached_property
    def months(self) -> list["Month"]:
        """Return the counts of each month, in order."""
        return [count_month(self, month) for month in self.month_masks]

    def holes_of(self, ticker: str) -> int:
        """Return how many sessions of a ticker were asked for and not answered."""
        return self.failed.get(ticker, 0).bit_count()


@dataclass(frozen=True, kw_only=True)
class TickerMonth:
    """Sessions of a ticker in a month. `known_empty`: answered, without a bar that can be true.
    `is_gap`: GAP_SESSIONS or more of them lie between bars of the ticker."""

    ticker: str
    sessions: int
    stored: int
    failed: int
    beyond_plan: int
    is_gap: bool

    @property
    def known_empty(self) -> int:
        return self.sessions - self.stored - self.failed - self.beyond_plan


@dataclass(frozen=True, kw_only=True)
class Month:
    """The same of all tickers together. `gaps`: how many tickers have one."""

    month: str
    expected: int
    stored: int
    failed: int
    beyond_plan: int
    gaps: int

    @property
    def known_empty(self) -> int:
        return self.expected - self.stored - self.failed - self.beyond_plan

    @property
    def percent(self) -> float | None:
        """Return how much is stored or known empty, of what the key may ask for; None where it may
        ask for nothing."""
        askable = self.expected - self.beyond_plan
        return 100 * (askable - self.failed) / askable if askable else None


def find_in_month(states: States, month: str) -> list[TickerMonth]:
    """Return the tickers that lack a session of a month, the most first. Empty for a month that was
    not asked for."""
    mask = states.month_masks.get(month, 0)
    found = [
        row for ticker in states.stored if (row := look_at_month(states, ticker, mask)) is not None
    ]
    return sorted(found, key=lambda row: (-row.failed, not row.is_gap, row.stored, row.ticker))


def look_at_month(states: States, ticker: str, mask: int) -> TickerMonth | None:
    """Return what a ticker has of the sessions of a mask, None when each of them has a bar."""
    stored = states.stored[ticker]
    if not mask & ~stored:
        return None

    failed, beyond = states.failed.get(ticker, 0), states.beyond.get(ticker, 0)
    life = (1 << stored.bit_length()) - (stored & -stored)  # from the first bar to the last
    gap = life & mask & ~stored & ~failed & ~beyond

    return TickerMonth(
        ticker=ticker,
        sessions=mask.bit_count(),
        stored=(mask & stored).bit_count(),
        failed=(mask & failed).bit_count(),
        beyond_plan=(mask & beyond).bit_count(),
        is_gap=gap.bit_count() >= GAP_SESSIONS,
    )


def count_month(states: States, month: str) -> Month:
    """Return the sessions of all tickers in a month that was asked for."""
    expected = states.month_masks[month].bit_count() * len(states.stored)
    rows = find_in_month(states, month)
    lacking = sum(row.sessions - row.stored for row in rows)
    return Month(
        month=month,
        expected=expected,
        stored=expected - lacking,
        failed=sum(row.failed for row in rows),
        beyond_plan=sum(row.beyond_plan for row in rows),
        gaps=sum(row.is_gap for row in rows),
    )


def load_states(connection: sqlite3.Connection, coverage: UniverseCoverage) -> States:
    """Given what status knows of a universe and timeframe, return the state of every session that
    was asked for of it; of every one between its first and last bar where nothing was recorded."""
    ranges = load_ranges_asked(connection, coverage)
    sessions = [
        day for first, last in ranges for day in sessions_between(load_calendar(), first, last)
    ]

    is_judged = coverage.expected is not None and has_records(connection)
    answers = (
        load_answers(connection, coverage.timeframe, sessions) if is_judged and sessions else None
    )

    stored, failed, beyond = {}, {}, {}
    tickers = sorted(load_tickers(connection, coverage.universe))
    lookups = BarLookups(connection, coverage.timeframe, sessions) if sessions else None
    for ticker in tickers:
        mask = lookups.of(ticker) if lookups else 0
        failed[ticker], beyond[ticker] = judge(answers, ticker, mask, len(sessions))
        stored[ticker] = mask

    return States(
        universe=coverage.universe,
        timeframe=coverage.timeframe,
        sessions=sessions,
        stored=stored,
        failed={ticker: mask for ticker, mask in failed.items() if mask},
        beyond={ticker: mask for ticker, mask in beyond.items() if mask},
        is_judged=is_judged,
    )


def load_ranges_asked(
    connection: sqlite3.Connection, coverage: UniverseCoverage
) -> list[tuple[date, date]]:
    """Return first and last session of each range that was asked for, oldest first; from the first
    to the last bar where nothing was recorded."""
    if coverage.expected is not None:
        for universe, timeframe, ranges in load_asked(connection):
            if (universe, timeframe) == (coverage.universe, coverage.timeframe):
                return ranges
    if not coverage.first:
        return []
    return [(date.fromisoformat(coverage.first), date.fromisoformat(coverage.last))]


def judge(answers: Answers | None, ticker: str, stored: int, count: int) -> tuple[int, int]:
    """Given the stored ones of `count` sessions, return those that failed and those beyond the
    plan."""
    if answers is None:
        return (1 << count) - 1 & ~stored, 0
    return answers.judge(ticker, answers.open_of(ticker) & ~stored)


class BarLookups:
    """Which of some sessions (in order, not empty) have a bar, a look-up or two for each ticker."""

    def __init__(
        self, connection: sqlite3.Connection, timeframe: str, sessions: Sequence[date]
    ) -> None:
        self.connection, self.timeframe, self.sessions = connection, timeframe, sessions
        self.first_ms, self.last_ms = midnight_ms(sessions[0]), end_of_day_ms(sessions[-1])
        self.bits = {day: 1 << place for place, day in enumerate(sessions)}

    def of(self, ticker: str) -> int:
        """Return the sessions of a ticker with at least one bar, as bits."""
        return self.of_days(ticker) if self.timeframe == "1day" else self.of_minutes(ticker)

    def of_days(self, ticker: str) -> int:
        """Return the same for day bars: one look-up, or all bars of a ticker that lacks some."""
        values = (ticker, self.timeframe, self.first_ms, self.last_ms)
        count, first, last = self.connection.execute(SPAN, values).fetchone()
        if not count:
            return 0

        # As many bars as sessions from the first one to the last: then each has its own.
        mask = mask_between(self.sessions, date_of(first), date_of(last))
        if mask.bit_count() == count:
            return mask
        return load_stored_mask(self.connection, ticker, self.timeframe, self.sessions)

    def of_minutes(self, ticker: str) -> int:
        """Return the same for 5-minute bars: a look-up for each session that has one."""
        values = {
            "ticker": ticker,
            "timeframe": self.timeframe,
            "first": self.first_ms,
            "last": self.last_ms,
            "shift": SESSION_SHIFT_MS[self.timeframe],
        }
        rows = self.connection.execute(SESSIONS_WITH_BARS, values).fetchall()
        days = (date.fromordinal(FIRST_DAY + number) for (number,) in rows)
        return sum(self.bits.get(day, 0) for day in days)
