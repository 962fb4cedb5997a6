"""Rows of daily_metrics, computed from the database's day bars. Knows no HTTP."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from backtestdb.database import save_rows, transaction
from backtestdb.market.metrics import METRIC_COLUMNS, make_metrics
from backtestdb.market.request_log import (
    EVERY_TICKER,
    METRICS_TASK,
    SAVE_UNCONFIRMED,
    count_final,
    load_answered,
    load_ticker_set,
)
from backtestdb.market.session_mask import mask_between
from backtestdb.market.sessions import (
    load_calendar,
    make_new_york_times,
    sessions_back,
    sessions_between,
)
from backtestdb.market.work_done import clear_done, load_done, save_done
from backtestdb.new_york import end_of_day_ms, midnight_ms

BAR_TYPES = {
    "timestamp": "int64",
    **dict.fromkeys(("open", "high", "low", "close"), "float64"),
    "volume": "int64",
}
TICKERS_AT_ONCE = 100
# Bars ahead of the first session that is computed. What an exponential mean still knows of the time
# before falls by 13/14 with each bar: 1e-13 after 400, and a rise and a fall within the newest 100
# give both means a size against which that is nothing. Tickers without them are computed from all
# of their bars.
WINDOW_BARS = 500
LIVELY_BARS = 100
# Nobody halts a stock for four months without its ticker coming back changed; META stood still for
# 89 sessions between the fund and the company.
GAP_MS = 80 * 86_400_000
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class MetricRows:
    """`columns`: those of METRIC_COLUMNS. `gaps`: ticker, first session after, last session before,
    of changes of a company. `looked_from`: ticker and the first date of the bars in which gaps were
    looked for."""

    columns: list[list[Any]]
    gaps: list[tuple[str, str, str]]
    looked_from: list[tuple[str, str]]


def load_day_bars(
    connection: sqlite3.Connection, tickers: Iterable[str], since_ms: int = 0
) -> pd.DataFrame:
    """Return stored day bars: ticker, BAR_TYPES and date, by ticker and time. `since_ms` 0: all of
    them; else those from this time on and the WINDOW_BARS before it."""
    query = (
        f"SELECT {', '.join(BAR_TYPES)} FROM ohlcv_data WHERE ticker = :ticker AND timeframe = "
        "'1day'"
        " AND timestamp >= coalesce((SELECT timestamp FROM ohlcv_data WHERE ticker = :ticker AND"
        " timeframe = '1day' AND timestamp < :since ORDER BY timestamp DESC LIMIT 1 OFFSET "
        ":window), 0)"
        " ORDER BY timestamp"
    )
    names, counts = list(tickers), []
    rows: list[tuple[float, ...]] = []

    for ticker in names:
        before = len(rows)
        rows += connection.execute(
            query, {"ticker": ticker, "since": since_ms, "window": WINDOW_BARS - 1}
        )
        counts.append(len(rows) - before)

    # A frame from tuples would look at the type of each value; columns have one.
    columns = zip(*rows, strict=True) if rows else [()] * len(BAR_TYPES)
    bars = pd.DataFrame(
        {
            name: np.array(column, dtype=kind)
            for (name, kind), column in zip(BAR_TYPES.items(), columns, strict=True)
        }
    )
    bars.insert(0, "ticker", np.repeat(np.array(names, dtype=object), counts))
    bars["date"] = make_dates(bars["timestamp"].to_numpy())

    return bars


def make_dates(stamps_ms: np.ndarray) -> np.ndarray:
    """Return ISO dates in New York; each distinct time is converted once."""
    distinct, place = np.unique(stamps_ms, return_inverse=True)
    texts = make_new_york_times(distinct).strftime("%Y-%m-%d").to_numpy(dtype=object)
    return np.asarray(texts[place])


def save_metrics(
    connection: sqlite3.Connection,
    tickers: Sequence[str],
    start: date,
    end: date = date.max,
    *,
    changed_from: date | None = None,
) -> int:
    """Compute the metrics of the stored bars and store those of the sessions from `start` to `end`;
    return how many. What lies before `start` is the warm-up. The caller's transaction.

    Metrics that are there already are stored again where bars changed at or before them: behind
    `end`, and from `changed_from` on, the first session that was asked for.
    """
    until, since = end, start

    for ticker in tickers:
        newest = "SELECT max(date) FROM daily_metrics WHERE ticker = ?"
        (day,) = connection.execute(newest, (ticker,)).fetchone()
        until = max(until, date.fromisoformat(day)) if day else until
        # Warm-up that comes ahead of rows completes their windows, and months without a bar begin a
        # new company, once it is known that they have none.
        if changed_from:
            oldest = "SELECT min(date) FROM daily_metrics WHERE ticker = ? AND date >= ?"
            (day,) = connection.execute(oldest, (ticker, changed_from.isoformat())).fetchone()
            since = min(since, date.fromisoformat(day)) if day else since

    return save_metric_rows(connection, compute_metric_rows(connection, tickers, since, until))


def compute_metric_rows(
    connection: sqlite3.Connection, tickers: Sequence[str], start: date, end: date = date.max
) -> MetricRows:
    """Return rows of metrics from `start` to `end`, and gaps between bars. Nothing is written."""
    since_ms = midnight_ms(start)
    bars = load_day_bars(connection, tickers, since_ms)

    quiet = find_quiet_tickers(bars, since_ms)
    if quiet:
        whole = load_day_bars(connection, quiet)
        bars = pd.concat([bars[~bars["ticker"].isin(quiet)], whole], ignore_index=True)

    gaps = [gap for gap in find_gaps(bars) if was_asked_between(connection, *gap)]
    metrics = make_metrics(bars, [(ticker, first_after) for ticker, first_after, _ in gaps])
    asked = metrics[(metrics["timestamp"] >= since_ms) & (metrics["date"] <= end.isoformat())]
    first_bars = bars.drop_duplicates("ticker")
    looked_from = list(zip(first_bars["ticker"].tolist(), first_bars["date"].tolist(), strict=True))

    return MetricRows([asked[name].tolist() for name in METRIC_COLUMNS], gaps, looked_from)


def was_asked_between(
    connection: sqlite3.Connection, ticker: str, first_after: str, last_before: str
) -> bool:
    """Return whether the vendor answered about every session between two bars: only then is it
    known that the ticker did not trade, and that the bars before may be those of another company.
    """
    first = date.fromisoformat(last_before) + ONE_DAY
    last = date.fromisoformat(first_after) - ONE_DAY
    sessions = sessions_between(load_calendar(), first, last)
    answered = load_answered(connection, "1day", sessions).of(ticker)
    return mask_between(sessions, first, last) & ~answered == 0


def save_metric_rows(connection: sqlite3.Connection, rows: MetricRows) -> int:
    """Store rows of metrics; return how many. The caller's transaction."""
    updates = ", ".join(f"{name} = excluded.{name}" for name in METRIC_COLUMNS[2:])
    save_rows(
        connection,
        f"INSERT INTO daily_metrics ({', '.join(METRIC_COLUMNS)})",
        f"ON CONFLICT (ticker, date) DO UPDATE SET {updates}",
        rows.columns,
    )
    connection.executemany(
        "DELETE FROM _ticker_gaps WHERE ticker = ? AND last_before >= ?", rows.looked_from
    )
    connection.executemany(
        "INSERT INTO _ticker_gaps (ticker, first_after, last_before) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET last_before = excluded.last_before",
        rows.gaps,
    )

    return len(rows.columns[0])


def find_quiet_tickers(bars: pd.DataFrame, since_ms: int) -> list[str]:
    """Return tickers with a full window before `since_ms` that rose or fell never within the newest
    LIVELY_BARS."""
    before = bars[bars["timestamp"] < since_ms]
    quiet = []
    for ticker, closes in before.groupby("ticker", sort=False)["close"]:
        changes = np.diff(closes.to_numpy()[-LIVELY_BARS:])
        if len(closes) >= WINDOW_BARS and not ((changes > 0).any() and (changes < 0).any()):
            quiet.append(str(ticker))
    return quiet


def find_gaps(bars: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return times of months without a bar: ticker, first session after, last session before."""
    stamps, tickers = bars["timestamp"].to_numpy("int64"), bars["ticker"].to_numpy()
    places = np.flatnonzero((np.diff(stamps) > GAP_MS) & (tickers[1:] == tickers[:-1]))
    dates = bars["date"].to_numpy()
    return [(tickers[place], dates[place + 1], dates[place]) for place in places.tolist()]


def tickers_without_metrics(
    connection: sqlite3.Connection, tickers: Sequence[str], start: date, end: date
) -> list[str]:
    """Return tickers with a day bar between `start` and `end` that has no row in daily_metrics."""
    bars = (
        "SELECT count(*) FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' AND timestamp "
        "BETWEEN ? AND ?"
    )
    rows = "SELECT count(*) FROM daily_metrics WHERE ticker = ? AND date BETWEEN ? AND ?"
    first_ms, last_ms = midnight_ms(start), end_of_day_ms(end)

    return [
        ticker
        for ticker in tickers
        if connection.execute(rows, (ticker, start.isoformat(), end.isoformat())).fetchone()
        < connection.execute(bars, (ticker, first_ms, last_ms)).fetchone()
    ]


def save_missing_metrics(
    connection: sqlite3.Connection, tickers: Sequence[str], start: date, end: date
) -> None:
    """Compute metrics of bars that an earlier job fetched as warm-up or for another universe."""
    lacking = tickers_without_metrics(connection, tickers, start, end)
    for first in range(0, len(lacking), TICKERS_AT_ONCE):
        with transaction(connection):
            save_metrics(connection, lacking[first : first + TICKERS_AT_ONCE], start, end)


def compute_metrics_again(
    connection: sqlite3.Connection, tickers: Sequence[str], advance: Callable[[int], None]
) -> int:
    """Compute all metrics of tickers anew from their stored bars, from where each ticker's begin
    (from its first bar where it has none), and remove those without a bar; return how many rows
    there are. Some tickers a transaction."""
    rows = 0
    for first in range(0, len(tickers), TICKERS_AT_ONCE):
        part = tickers[first : first + TICKERS_AT_ONCE]
        starts: dict[str, list[str]] = {}

        for ticker in part:
            query = "SELECT coalesce(min(date), '1970-01-01') FROM daily_metrics WHERE ticker = ?"
            starts.setdefault(connection.execute(query, (ticker,)).fetchone()[0], []).append(ticker)

        with transaction(connection):
            for start, group in starts.items():
                rows += save_metrics(connection, group, date.fromisoformat(start))
            connection.executemany(
                "DELETE FROM daily_metrics WHERE ticker = ?1 AND timestamp NOT IN (SELECT "
                "timestamp FROM ohlcv_data"
                " WHERE ticker = ?1 AND timeframe = '1day')",
                [(ticker,) for ticker in part],
            )

        advance(len(part))
    return rows


def find_due_metrics(connection: sqlite3.Connection) -> tuple[list[str], date | None, int]:
    """Return tickers whose metrics do not follow their bars yet after sessions of the whole market
    were stored, the first of those sessions, and about how many rows they are."""
    rows = connection.execute(
        "SELECT ticker_set, min(session_date), sum(stored) FROM _sessions_asked WHERE metrics_due "
        "= 1"
        " GROUP BY ticker_set"
    ).fetchall()
    if not rows:
        return [], None, 0

    tickers: set[str] = set()
    for ticker_set, _, _ in rows:
        tickers.update(
            load_ticker_set(connection, ticker_set)
            if ticker_set != EVERY_TICKER
            else [t for (t,) in connection.execute("SELECT DISTINCT ticker FROM ohlcv_data")]
        )

    first = min(date.fromisoformat(day) for _, day, _ in rows)
    return sorted(tickers), first, sum(count for _, _, count in rows)


def save_due_metrics(
    connection: sqlite3.Connection,
    tickers: Sequence[str],
    start: date,
    advance: Callable[[int], None],
) -> None:
    """Compute what `find_due_metrics` found, by tickers; killed, it goes on where it was."""
    done = load_done(connection, METRICS_TASK)
    advance(done)
    parts = [
        tickers[first : first + TICKERS_AT_ONCE]
        for first in range(done, len(tickers), TICKERS_AT_ONCE)
    ]

    for part in parts:
        # Before the transaction, whose lock other writers wait for.
        rows = compute_metric_rows(connection, part, start)
        with transaction(connection):
            save_metric_rows(connection, rows)
            done += len(part)
            save_done(connection, METRICS_TASK, done)
        advance(len(part))

    with transaction(connection):
        # Here, and not when the bars were stored: a run that was killed in between goes on as if it
        # had not been, and does not take its own first answer for one to be asked again.
        doubt_absent(connection)
        connection.execute("UPDATE _sessions_asked SET metrics_due = 0 WHERE metrics_due = 1")
        clear_done(connection, METRICS_TASK)


def doubt_absent(connection: sqlite3.Connection) -> None:
    """Let tickers that traded the session before, and that the newest session of the whole market
    lacks, wait for a second answer. The caller's transaction, metrics computed."""
    newest = connection.execute(
        "SELECT max(session_date) FROM _sessions_asked WHERE received > 0"
    ).fetchone()[0]
    if newest is None:
        return
    session_date = date.fromisoformat(newest)
    before = sessions_back(load_calendar(), session_date, 1).isoformat()

    # Only where both sessions came since metrics were last computed: a first fill brings the newest
    # first, and `bar_store.find_lacking` had nothing to compare it with.
    answers = connection.execute(
        "SELECT ticker_set, run, asked_at_utc FROM _sessions_asked WHERE session_date = ?1"
        " AND metrics_due AND NOT is_confirmed AND EXISTS"
        " (SELECT 1 FROM _sessions_asked WHERE session_date = ?2 AND metrics_due)",
        (newest, before),
    ).fetchall()
    absent = connection.execute(
        "SELECT ticker FROM daily_metrics WHERE date = ?"
        " EXCEPT SELECT ticker FROM daily_metrics WHERE date = ?",
        (before, newest),
    ).fetchall()

    for ticker_set, run, asked_at_utc in answers:
        if not count_final([session_date], asked_at_utc):
            continue
        asked = None if ticker_set == EVERY_TICKER else set(load_ticker_set(connection, ticker_set))
        connection.executemany(
            SAVE_UNCONFIRMED,
            [
                (ticker, "1day", newest, newest, run, asked_at_utc)
                for (ticker,) in absent
                if asked is None or ticker in asked
            ],
        )
