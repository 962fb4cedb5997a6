"""Count the coverage of a universe in sessions of tickers: expected = stored + known empty +
rejected + beyond the plan + failed."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from backtestdb.market.plan_limits import load_limits
from backtestdb.market.request_log import load_answered, load_frontier
from backtestdb.market.request_plan import AnsweredSessions
from backtestdb.market.session_mask import EMPTY, SessionMask, first_sessions, mask_between, mask_of
from backtestdb.new_york import end_of_day_ms, midnight_ms

COUNTS = ("expected", "stored", "known_empty", "set_aside", "beyond_plan", "failed")

# Bars lie between 04:00 and 20:00 in New York, 08:00 to 01:00 UTC: five hours earlier, each has the
# UTC date of its session, in summer and in winter. A day bar (midnight, 04:00 or 05:00 UTC) needs
# four.
SESSION_SHIFT_MS = {"1day": 4 * 3_600_000, "5min": 5 * 3_600_000}
DAY_MS = 86_400_000
FIRST_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Counts of (ticker, session). `failed` are those that were never answered, by ticker in
    `failed_of`, unless the key's plan does not cover them; `silent` are tickers of which the vendor
    has nothing in the whole range: renamed, delisted or unknown. `provisional` are stored or known
    empty by an answer that came too early, or that no second one confirmed yet; they are asked for
    again. `early` ones are stored, and no answer about them was given after the session was
    final."""

    expected: int = 0
    stored: int = 0
    known_empty: int = 0
    set_aside: int = 0
    beyond_plan: int = 0
    failed: int = 0
    failed_of: dict[str, int] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    provisional: int = 0
    early: int = 0


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is known of some sessions besides their bars: `asked`, finally answered; `plan_lacks`,
    those before which the key's history starts; `reached`, up to the newest session of which any
    answer had a bar."""

    every: SessionMask
    asked: AnsweredSessions
    refused: frozenset[str]
    plan_lacks: SessionMask
    reached: SessionMask

    def open_of(self, ticker: str) -> SessionMask:
        """Return the sessions of a ticker without a final answer."""
        return self.every & ~self.asked.of(ticker)

    def judge(self, ticker: str, lacking: SessionMask) -> tuple[SessionMask, SessionMask]:
        """Given a ticker's sessions with neither a final answer nor a bar, return those that failed
        and those beyond the plan."""
        # One answer without a bar, where others have one, is likely the truth: a ticker that was
        # renamed or delisted.
        lacking &= ~(self.asked.unconfirmed.get(ticker, EMPTY) & self.reached)

        beyond = lacking if ticker in self.refused else lacking & self.plan_lacks
        return lacking & ~beyond, beyond


def load_answers(
    connection: sqlite3.Connection, timeframe: str, sessions: Sequence[date]
) -> Answers:
    """Given sessions in order, not empty, return what the records say of them."""
    known = load_limits(connection)
    return Answers(
        every=first_sessions(len(sessions)),
        asked=load_answered(connection, timeframe, sessions),
        refused=known.refused_of(timeframe),
        plan_lacks=known.of(timeframe).mask(sessions),
        reached=mask_between(sessions, date.min, load_frontier(connection, timeframe)),
    )


def load_coverage(
    connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str, sessions: Sequence[date]
) -> Coverage:
    """Return how much of `sessions` (not empty, in order) is there for each ticker."""
    answers = load_answers(connection, timeframe, sessions)
    unconfirmed = answers.asked.unconfirmed
    stored = beyond_plan = provisional = early = 0
    failed_of, silent = {}, []

    for ticker in tickers:
        count = count_stored_sessions(connection, ticker, timeframe, sessions)
        lacking = unanswered = answers.open_of(ticker)
        if lacking and count:
            there = load_stored_mask(connection, ticker, timeframe, sessions)
            early += (lacking & there & ~unconfirmed.get(ticker, EMPTY)).bit_count()
            lacking &= ~there

        failed, beyond = answers.judge(ticker, lacking)
        provisional += (unanswered & ~failed & ~beyond).bit_count()
        beyond_plan += beyond.bit_count()
        if failed:
            failed_of[ticker] = failed.bit_count()
        elif not count and not beyond:
            silent.append(ticker)

        stored += count

    expected, failed_count = len(tickers) * len(sessions), sum(failed_of.values())
    set_aside = count_rejected(connection, tickers, timeframe, sessions)
    known_empty = expected - stored - set_aside - beyond_plan - failed_count

    return Coverage(
        expected=expected,
        stored=stored,
        known_empty=known_empty,
        set_aside=set_aside,
        beyond_plan=beyond_plan,
        failed=failed_count,
        failed_of=failed_of,
        silent=silent,
        provisional=provisional,
        early=early,
    )


def add_coverages(coverages: Sequence[Coverage]) -> Coverage:
    """Return those of several ranges, as one."""
    total = Coverage()
    for coverage in coverages:
        counts = {
            name: getattr(total, name) + getattr(coverage, name)
            for name in (*COUNTS, "provisional", "early")
        }
        failed_of = {
            ticker: total.failed_of.get(ticker, 0) + coverage.failed_of.get(ticker, 0)
            for ticker in {**total.failed_of, **coverage.failed_of}
        }
        total = Coverage(**counts, failed_of=failed_of)

    return total


def count_stored_sessions(
    connection: sqlite3.Connection, ticker: str, timeframe: str, sessions: Sequence[date]
) -> int:
    """Count sessions with at least one bar; a day bar is a session."""
    counted = "*" if timeframe == "1day" else f"DISTINCT {session_number(timeframe)}"
    rows = select_stored(connection, f"count({counted})", ticker, timeframe, sessions)
    return int(rows.fetchone()[0])


def load_stored_mask(
    connection: sqlite3.Connection, ticker: str, timeframe: str, sessions: Sequence[date]
) -> SessionMask:
    """Return the ones of `sessions` with at least one bar, as bits."""
    numbers = f"DISTINCT {session_number(timeframe)}"
    rows = select_stored(connection, numbers, ticker, timeframe, sessions)
    return mask_of(sessions, (date.fromordinal(FIRST_DAY + number) for (number,) in rows))


def select_stored(
    connection: sqlite3.Connection, what: str, ticker: str, timeframe: str, sessions: Sequence[date]
) -> sqlite3.Cursor:
    """Load `what`, in SQL, from a ticker's bars from the first of `sessions` to the last."""
    return connection.execute(
        f"SELECT {what} FROM ohlcv_data "
        "WHERE ticker = ? AND timeframe = ? AND timestamp BETWEEN ? AND ?",
        (ticker, timeframe, midnight_ms(sessions[0]), end_of_day_ms(sessions[-1])),
    )


def session_number(timeframe: str) -> str:
    """Return SQL for the days from 1970 to the session of a bar."""
    return f"(timestamp - {SESSION_SHIFT_MS[timeframe]}) / {DAY_MS}"


def count_rejected(
    connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str, sessions: Sequence[date]
) -> int:
    """Count sessions of tickers of which a bar was rejected and none is stored."""
    rows = connection.execute(
        "SELECT DISTINCT ticker, session_date FROM _bars_set_aside"
        " WHERE timeframe = ? AND session_date BETWEEN ? AND ?",
        (timeframe, sessions[0].isoformat(), sessions[-1].isoformat()),
    ).fetchall()

    members, asked_for = set(tickers), set(sessions)
    return sum(
        1
        for ticker, text in rows
        if ticker in members
        and (day := date.fromisoformat(text)) in asked_for
        and not count_stored_sessions(connection, ticker, timeframe, [day])
    )


def load_gap_notes(
    connection: sqlite3.Connection, tickers: Sequence[str], sessions: Sequence[date]
) -> list[str]:
    """Return sentences about tickers asked for that did not trade for months between bars."""
    members, asked = set(tickers), load_answered(connection, "1day", sessions)
    rows = connection.execute(
        "SELECT ticker, last_before, first_after FROM _ticker_gaps "
        "WHERE last_before >= ? AND first_after <= ? ORDER BY first_after, ticker",
        (sessions[0].isoformat(), sessions[-1].isoformat()),
    ).fetchall()
    notes = []

    for ticker, before, after in rows:
        between = mask_between(sessions, date.fromisoformat(before), date.fromisoformat(after))
        if (
            ticker in members
            and not between & ~asked.of(ticker)
            and is_empty_between(connection, ticker, before, after)
        ):
            notes.append(
                f"{ticker}: no bar between {before} and {after}; the prices before may be those of "
                "another company, and the metrics begin anew"
            )

    return notes


def is_empty_between(connection: sqlite3.Connection, ticker: str, before: str, after: str) -> bool:
    """Return whether a ticker has no day bar between two sessions."""
    query = (
        "SELECT 1 FROM ohlcv_data "
        "WHERE ticker = ? AND timeframe = '1day' AND timestamp > ? AND timestamp < ? LIMIT 1"
    )
    first_ms = end_of_day_ms(date.fromisoformat(before))
    last_ms = midnight_ms(date.fromisoformat(after))
    return connection.execute(query, (ticker, first_ms, last_ms)).fetchone() is None
