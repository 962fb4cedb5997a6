"""What the vendor was asked and answered: the memory that keeps a run from asking twice.

An answer is final for a session when it was given after that session was over (`asked_at_utc`), and
when nothing in it waits for a second sign (`_unconfirmed`, see evidence). Everything else is
provisional: asked again.
"""

import json
import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import date

from backtestdb.database import transaction
from backtestdb.market.evidence import find_thin_sessions
from backtestdb.market.request_plan import AnsweredSessions, RangeRequest
from backtestdb.market.session_mask import (
    EMPTY,
    SessionMask,
    first_sessions,
    mask_between,
    mask_of,
)
from backtestdb.market.sessions import load_final_times
from backtestdb.market.work_done import clear_done

EVERY_TICKER = 0
METRICS_TASK = "metrics"
SAVE_UNCONFIRMED = (
    "INSERT OR REPLACE INTO _unconfirmed (ticker, timeframe, start_date, end_date, run,"
    " asked_at_utc) VALUES (?, ?, ?, ?, ?, ?)"
)


def load_answered(
    connection: sqlite3.Connection, timeframe: str, sessions: Sequence[date]
) -> AnsweredSessions:
    """Return each ticker's `sessions` with a final answer, and those once empty (`unconfirmed`)."""
    days, final_times = [day.isoformat() for day in sessions], load_final_times(sessions)
    reached = mask_between(days, "", load_frontier(connection, timeframe).isoformat())
    unconfirmed = load_unconfirmed(connection, timeframe, days)
    of_ticker = {
        ticker: mask & reached
        for ticker, mask in load_answered_ranges(connection, timeframe, days, final_times).items()
    }
    closed = mask_of(
        days, (day for (day,) in connection.execute("SELECT session_date FROM _closed_sessions"))
    )
    if timeframe != "1day":
        return AnsweredSessions(of_ticker, closed, unconfirmed)

    of_set = load_answered_sessions(connection, days, final_times)
    of_everyone = of_set.pop(EVERY_TICKER, EMPTY) | closed

    for ticker_set, mask in of_set.items():
        for ticker in load_ticker_set(connection, ticker_set) if mask else ():
            of_ticker[ticker] = of_ticker.get(ticker, EMPTY) | mask

    return AnsweredSessions(of_ticker, of_everyone, unconfirmed)


def load_frontier(connection: sqlite3.Connection, timeframe: str) -> date:
    """Return the newest session of which any answer had a bar."""
    # That a session behind it is empty is never believed: the vendor does not have it yet, or the
    # clock is ahead.
    newest = "SELECT max(last_date) FROM _ranges_asked WHERE timeframe = ?"
    days = [connection.execute(newest, (timeframe,)).fetchone()[0]]
    if timeframe == "1day":
        whole = "SELECT max(session_date) FROM _sessions_asked WHERE received > 0"
        days.append(connection.execute(whole).fetchone()[0])
    return max((date.fromisoformat(day) for day in days if day), default=date.min)


def load_answered_ranges(
    connection: sqlite3.Connection, timeframe: str, days: Sequence[str], final_times: Sequence[str]
) -> dict[str, SessionMask]:
    """Return for each ticker the sessions that were final when an answer about them came."""
    rows = connection.execute(
        "SELECT ticker, start_date, end_date, last_date, asked_at_utc, run FROM _ranges_asked "
        "WHERE timeframe = ?",
        (timeframe,),
    ).fetchall()
    newest_bar: dict[str, str] = defaultdict(str)
    for ticker, _, _, last, _, _ in rows:
        newest_bar[ticker] = max(newest_bar[ticker], last or "")

    of_ticker: dict[str, SessionMask] = defaultdict(SessionMask)
    for ticker, start, end, _, asked_at, run in rows:
        # Older programs took any empty answer for a fact, that of a wrong address too.
        believed_until = end if run else min(end, newest_bar[ticker])
        over = first_sessions(bisect_right(final_times, asked_at))
        of_ticker[ticker] |= mask_between(days, start, believed_until) & over

    return of_ticker


def load_answered_sessions(
    connection: sqlite3.Connection, days: Sequence[str], final_times: Sequence[str]
) -> dict[int, SessionMask]:
    """Return the same for answers about the whole market, by ticker set."""
    rows = connection.execute(
        "SELECT session_date, ticker_set, received, asked_at_utc, is_confirmed FROM "
        "_sessions_asked ORDER BY 1, 2"
    ).fetchall()
    thin = set(find_thin_sessions([row[2] for row in rows]))
    final_at = dict(zip(days, final_times, strict=True))
    of_set: dict[int, SessionMask] = defaultdict(SessionMask)

    for place, (day, ticker_set, _, asked_at, is_confirmed) in enumerate(rows):
        if day in final_at and asked_at >= final_at[day] and (is_confirmed or place not in thin):
            of_set[ticker_set] |= mask_between(days, day, day)

    return of_set


def count_final(sessions: Sequence[date], asked_at_utc: str) -> int:
    """Return how many of `sessions`, from the first on, were over when an answer came."""
    return bisect_right(load_final_times(sessions), asked_at_utc)


def load_unconfirmed(
    connection: sqlite3.Connection, timeframe: str, days: Sequence[str]
) -> dict[str, SessionMask]:
    """Return for each ticker those of `days` that were answered once without a bar."""
    rows = connection.execute(
        "SELECT ticker, start_date, end_date FROM _unconfirmed WHERE timeframe = ?", (timeframe,)
    )
    of_ticker: dict[str, SessionMask] = defaultdict(SessionMask)
    for ticker, start, end in rows:
        of_ticker[ticker] |= mask_between(days, start, end)
    return of_ticker


def load_doubted(
    connection: sqlite3.Connection, request: RangeRequest, days: Sequence[str], run: str
) -> SessionMask:
    """Return those of `days` for which another run's answer had no bar of the ticker."""
    rows = connection.execute(
        "SELECT start_date, end_date FROM _unconfirmed WHERE ticker = ? AND timeframe = ? AND run "
        "<> ?",
        (request.ticker, request.timeframe, run),
    )

    mask = EMPTY
    for start, end in rows:
        mask |= mask_between(days, start, end)
    return mask


def save_unconfirmed(
    connection: sqlite3.Connection,
    request: RangeRequest,
    days: Sequence[str],
    doubtful: SessionMask,
    run: str,
    asked_at_utc: str,
) -> None:
    """Given the sessions of an answer (`days`), keep which of them wait for a second one, in the
    place of what was kept of them before. The caller's transaction."""
    if not days:
        return

    doubtful &= first_sessions(len(days))
    forget_unconfirmed(connection, request.ticker, request.timeframe, days[0], days[-1])
    connection.executemany(
        SAVE_UNCONFIRMED,
        [
            (request.ticker, request.timeframe, days[first], days[last], run, asked_at_utc)
            for first, last in doubtful.runs()
        ],
    )


def forget_unconfirmed(
    connection: sqlite3.Connection, ticker: str, timeframe: str, start: str, end: str
) -> None:
    """Let `start` to `end` wait for no second answer any more; what lies around them stays."""
    touched = connection.execute(
        "SELECT start_date, end_date, run, asked_at_utc FROM _unconfirmed"
        " WHERE ticker = ? AND timeframe = ? AND start_date <= ? AND end_date >= ?",
        (ticker, timeframe, end, start),
    ).fetchall()

    for first, last, run, asked_at in touched:
        connection.execute(
            "DELETE FROM _unconfirmed WHERE ticker = ? AND timeframe = ? AND start_date = ?",
            (ticker, timeframe, first),
        )

        # What is left of it on either side.
        before = (first, (date.fromisoformat(start) - date.resolution).isoformat())
        behind = ((date.fromisoformat(end) + date.resolution).isoformat(), last)

        for left, right in (before, behind):
            if left <= right:
                connection.execute(
                    SAVE_UNCONFIRMED,
                    (ticker, timeframe, left, right, run, asked_at),
                )


def weigh_session(
    connection: sqlite3.Connection,
    session_date: str,
    lacking: Collection[str],
    run: str,
    asked_at_utc: str,
    changed: Collection[str] = (),
) -> list[str]:
    """Given the tickers of which an answer about the whole market has no bar that can be true
    (`lacking`), although one is stored or came, return those of which another run was told the
    same: believed. `changed`: tickers for which it is not the same. The others wait for a second
    answer. The caller's transaction, the answer given when the session was over."""
    waiting = dict(
        connection.execute(
            "SELECT ticker, run FROM _unconfirmed WHERE timeframe = '1day' AND start_date <= ? "
            "AND end_date >= ?",
            (session_date, session_date),
        ).fetchall()
    )
    # No other ticker waits any longer: the rest of the market is the second sign.
    for ticker in waiting:
        forget_unconfirmed(connection, ticker, "1day", session_date, session_date)

    believed = [
        ticker for ticker in lacking if waiting.get(ticker, run) != run and ticker not in changed
    ]
    connection.executemany(
        SAVE_UNCONFIRMED,
        [
            (ticker, "1day", session_date, session_date, run, asked_at_utc)
            for ticker in lacking
            if ticker not in believed
        ],
    )

    return believed


def load_ticker_set(connection: sqlite3.Connection, ticker_set: int) -> list[str]:
    (text,) = connection.execute(
        "SELECT tickers FROM _ticker_sets WHERE id = ?", (ticker_set,)
    ).fetchone()
    tickers: list[str] = json.loads(text)
    return tickers


def ensure_ticker_set(connection: sqlite3.Connection, tickers: Iterable[str]) -> int:
    """Return the number of this set of tickers; it gets one when it is new."""
    text = json.dumps(sorted(set(tickers)), ensure_ascii=False, separators=(",", ":"))
    with transaction(connection):
        connection.execute(
            "INSERT INTO _ticker_sets (tickers) VALUES (?) ON CONFLICT DO NOTHING", (text,)
        )
    found = connection.execute("SELECT id FROM _ticker_sets WHERE tickers = ?", (text,)).fetchone()
    return int(found[0])


def save_range_answer(
    connection: sqlite3.Connection,
    request: RangeRequest,
    session_dates: Sequence[str],
    asked_at_utc: str,
    run: str,
) -> None:
    """Record an answer, an empty one too; `session_dates`: of each stored bar, in order; `run`: the
    run that asked. The caller's transaction."""
    first, last = (session_dates[0], session_dates[-1]) if session_dates else (None, None)

    connection.execute(
        "INSERT OR REPLACE INTO _ranges_asked (ticker, timeframe, start_date, end_date, first_date,"
        " last_date, bars, asked_at_utc, run) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            request.ticker,
            request.timeframe,
            request.start.isoformat(),
            request.end.isoformat(),
            first,
            last,
            len(session_dates),
            asked_at_utc,
            run,
        ),
    )


def save_session_answer(
    connection: sqlite3.Connection,
    session_date: str,
    ticker_set: int,
    counts: Sequence[int],
    asked_at_utc: str,
    run: str,
) -> None:
    """Record a session of the whole market. `counts`: received, stored, dropped, set aside; as many
    received as another run was told confirm both. The caller's transaction."""
    same_before = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM _sessions_asked WHERE session_date = ? AND ticker_set = ? "
        "AND received = ?"
        " AND run <> ?)",
        (session_date, ticker_set, counts[0], run),
    ).fetchone()[0]

    connection.execute(
        "INSERT OR REPLACE INTO _sessions_asked (session_date, ticker_set, received, stored,"
        " dropped, set_aside, metrics_due, asked_at_utc, run, is_confirmed)"
        " VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?)",
        (session_date, ticker_set, *counts, asked_at_utc, run, same_before),
    )
    clear_done(connection, METRICS_TASK)
