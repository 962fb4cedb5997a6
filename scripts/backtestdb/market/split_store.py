"""Splits and the stored bars: what was fetched when, and the change of the bars with its record."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np

from backtestdb.database import transaction
from backtestdb.market.coverage import FIRST_DAY, session_number
from backtestdb.market.metric_store import save_metrics
from backtestdb.market.request_log import EVERY_TICKER, load_ticker_set
from backtestdb.market.sessions import NEW_YORK
from backtestdb.market.splits import FetchedBars, Finding, Split, judge_splits

TIMEFRAMES = ("1day", "5min")
CHANGE = (
    "UPDATE ohlcv_data SET open = open / ?, high = high / ?, low = low / ?, close = close / ?,"
    " volume = CAST(round(volume * ?) AS INTEGER) WHERE ticker = ? AND timeframe = ? AND timestamp = ?"
)


@dataclass(frozen=True)
class TickerBars:
    """A ticker's stored bars of one timeframe, and their time stamps, by which they are found again."""

    bars: FetchedBars
    timestamps: np.ndarray


def find_first_fetch(connection: sqlite3.Connection) -> date | None:
    """The New York day since which bars are fetched into this database; None when it holds none."""
    rows = connection.execute(
        "SELECT min(asked_at_utc) FROM _ranges_asked UNION ALL SELECT min(asked_at_utc) FROM _sessions_asked"
        " UNION ALL SELECT * FROM (SELECT created_at FROM ohlcv_data ORDER BY id LIMIT 1)"
    ).fetchall()
    return min((new_york_day(text) for (text,) in rows if text), default=None)


def new_york_day(utc_text: str) -> date:
    moment = datetime.fromisoformat(utc_text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(NEW_YORK).date()


def load_ticker_bars(
    connection: sqlite3.Connection, ticker: str, timeframe: str, sets_of_ticker: Sequence[int]
) -> TickerBars:
    """The bars with the day of their last fetch: the newest record that covers them, or the time of their row
    where an older program wrote them without one. `sets_of_ticker`: the ticker sets that it is a member of."""
    rows = connection.execute(
        f"SELECT timestamp, {session_number(timeframe)}, open, close, created_at FROM ohlcv_data"
        " WHERE ticker = ? AND timeframe = ? ORDER BY timestamp",
        (ticker, timeframe),
    ).fetchall()
    session = np.array([row[1] for row in rows], dtype="int64") + FIRST_DAY
    fetched = np.zeros(len(rows), dtype="int64")
    for start, end, asked_at in load_records(connection, ticker, timeframe, sets_of_ticker):
        covered = (session >= date.fromisoformat(start).toordinal()) & (
            session <= date.fromisoformat(end).toordinal()
        )
        fetched[covered] = np.maximum(fetched[covered], new_york_day(asked_at).toordinal())
    for place in np.flatnonzero(fetched == 0).tolist():
        fetched[place] = new_york_day(rows[place][4]).toordinal()
    opens, closes = (np.array([row[column] for row in rows], dtype="float64") for column in (2, 3))
    return TickerBars(
        FetchedBars(session, fetched, opens, closes), np.array([row[0] for row in rows], dtype="int64")
    )


def load_records(
    connection: sqlite3.Connection, ticker: str, timeframe: str, sets_of_ticker: Sequence[int]
) -> list[tuple[str, str, str]]:
    """First session, last session and time of each answer about a ticker."""
    records = connection.execute(
        "SELECT start_date, end_date, asked_at_utc FROM _ranges_asked WHERE ticker = ? AND timeframe = ?",
        (ticker, timeframe),
    ).fetchall()
    for ticker_set in sets_of_ticker if timeframe == "1day" else ():
        records += connection.execute(
            "SELECT session_date, session_date, asked_at_utc FROM _sessions_asked WHERE ticker_set = ?",
            (ticker_set,),
        )
    return records


def load_ticker_sets(connection: sqlite3.Connection) -> dict[int, frozenset[str]]:
    sets = connection.execute("SELECT DISTINCT ticker_set FROM _sessions_asked").fetchall()
    return {
        number: frozenset(load_ticker_set(connection, number)) if number != EVERY_TICKER else frozenset()
        for (number,) in sets
    }


def apply_splits(connection: sqlite3.Connection, splits: Sequence[Split], now_utc: datetime) -> list[Finding]:
    """Deal with the vendor's splits: confirmed ones change the stored bars from before them, once. Return what was
    found for each split that has such bars."""
    sets = load_ticker_sets(connection)
    stored = "SELECT 1 FROM ohlcv_data WHERE ticker = ? LIMIT 1"
    findings = []
    for ticker in sorted({split.ticker for split in splits}):
        if connection.execute(stored, (ticker,)).fetchone():
            mine = [split for split in splits if split.ticker == ticker]
            members = [
                number for number, tickers in sets.items() if number == EVERY_TICKER or ticker in tickers
            ]
            findings += apply_to_ticker(connection, ticker, mine, members, now_utc)
    return findings


def apply_to_ticker(
    connection: sqlite3.Connection,
    ticker: str,
    splits: Sequence[Split],
    sets_of_ticker: Sequence[int],
    now_utc: datetime,
) -> list[Finding]:
    """One transaction: the bars of both timeframes, their metrics, and the record that keeps it from happening
    twice. The day bars decide; 5-minute bars do where no day bar is older than the split."""
    with transaction(connection):
        applied = connection.execute(
            "SELECT execution_date, split_from, split_to FROM _splits WHERE ticker = ? AND state = 'applied'",
            (ticker,),
        ).fetchall()
        pending = [
            split
            for split in splits
            if (split.execution_date.isoformat(), split.split_from, split.split_to) not in applied
        ]
        if not pending:
            return []
        stored = {
            timeframe: load_ticker_bars(connection, ticker, timeframe, sets_of_ticker)
            for timeframe in TIMEFRAMES
        }
        findings: dict[Split, Finding] = {}
        for timeframe in reversed(TIMEFRAMES):
            findings |= {finding.split: finding for finding in judge_splits(pending, stored[timeframe].bars)}
        confirmed = [finding for finding in findings.values() if finding.state == "applied"]
        for finding in findings.values():
            counts = (
                [
                    change_bars(connection, finding.split, timeframe, stored[timeframe])
                    for timeframe in TIMEFRAMES
                ]
                if finding.state == "applied"
                else [0, 0]
            )
            if finding.state != "waiting":
                save_finding(connection, finding, counts, now_utc)
        if confirmed:
            follow_with_metrics(connection, ticker)
    return sorted(findings.values(), key=lambda finding: finding.split)


def change_bars(connection: sqlite3.Connection, split: Split, timeframe: str, stored: TickerBars) -> int:
    """Divide the prices of the raw bars and multiply their volume; return how many they were."""
    stamps = stored.timestamps[stored.bars.is_raw(split)].tolist()
    ratio = split.ratio
    connection.executemany(
        CHANGE, [(ratio, ratio, ratio, ratio, ratio, split.ticker, timeframe, stamp) for stamp in stamps]
    )
    return len(stamps)


def save_finding(
    connection: sqlite3.Connection, finding: Finding, counts: Sequence[int], now_utc: datetime
) -> None:
    split = finding.split
    connection.execute(
        "INSERT OR REPLACE INTO _splits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            split.ticker,
            split.execution_date.isoformat(),
            split.split_from,
            split.split_to,
            finding.state,
            finding.seen_ratio,
            *counts,
            now_utc.isoformat(timespec="seconds"),
        ),
    )


def follow_with_metrics(connection: sqlite3.Connection, ticker: str) -> None:
    (first,) = connection.execute(
        "SELECT min(date) FROM daily_metrics WHERE ticker = ?", (ticker,)
    ).fetchone()
    if first:
        save_metrics(connection, [ticker], date.fromisoformat(first))


def load_splits_asked(connection: sqlite3.Connection) -> date | None:
    """The New York day of the last complete look at the vendor's splits."""
    row = connection.execute("SELECT asked_at_utc FROM _splits_asked").fetchone()
    return new_york_day(row[0]) if row else None


def save_splits_asked(connection: sqlite3.Connection, now_utc: datetime) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO _splits_asked VALUES (1, ?)", (now_utc.isoformat(timespec="seconds"),)
    )
