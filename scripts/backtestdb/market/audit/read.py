"""The audit's reading of the database: rows into columns, records and lists into values."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from exchange_calendars import ExchangeCalendar

from backtestdb.database import column_names, table_names
from backtestdb.market.audit.columns import Bars, Metrics, day_number, make_bars, make_floats
from backtestdb.market.audit.metric_rules import COMPARED
from backtestdb.market.audit.rule import Batch, Known, Market, RangeRecord, Universe
from backtestdb.new_york import NEW_YORK

BAR_COLUMNS = "timestamp, open, high, low, close, volume, day_of_week, time_of_day"
ROWS_AT_ONCE = 60_000  # half a second and 80 MB: as long as a writer may have to wait
EVERY_TICKER = 0  # the number that stands for all tickers in _sessions_asked


@dataclass(frozen=True)
class Stored:
    """How many rows a ticker has."""

    ticker: str
    day_bars: int
    minute_bars: int
    metrics: int

    @property
    def rows(self) -> int:
        return self.day_bars + self.minute_bars + self.metrics


def count_stored(connection: sqlite3.Connection) -> list[Stored]:
    """Return tickers with bars, metrics or a record of bars, in order; from the indexes alone."""
    bars: dict[tuple[str, str], int] = {}
    query = "SELECT ticker, timeframe, count(*) FROM ohlcv_data GROUP BY ticker, timeframe"
    for ticker, timeframe, count in connection.execute(query):
        bars[ticker, timeframe] = count

    metrics = dict(connection.execute("SELECT ticker, count(*) FROM daily_metrics GROUP BY ticker"))
    tickers = sorted(
        {ticker for ticker, _ in bars} | set(metrics) | load_recorded_tickers(connection)
    )
    return [
        Stored(
            ticker,
            bars.get((ticker, "1day"), 0),
            bars.get((ticker, "5min"), 0),
            metrics.get(ticker, 0),
        )
        for ticker in tickers
    ]


def load_recorded_tickers(connection: sqlite3.Connection) -> set[str]:
    if "_ranges_asked" not in table_names(connection):
        return set()
    rows = connection.execute("SELECT DISTINCT ticker FROM _ranges_asked WHERE bars > 0")
    return {ticker for (ticker,) in rows}


def make_parts(stored: Sequence[Stored]) -> Iterator[list[Stored]]:
    """Yield consecutive tickers with at most ROWS_AT_ONCE rows together; one ticker at least."""
    part: list[Stored] = []
    rows = 0
    for each in stored:
        if part and rows + each.rows > ROWS_AT_ONCE:
            yield part
            part, rows = [], 0
        part.append(each)
        rows += each.rows

    if part:
        yield part


def load_batch(connection: sqlite3.Connection, known: Known, part: Sequence[Stored]) -> Batch:
    tickers = [each.ticker for each in part]
    return Batch(
        known=known,
        tickers=tickers,
        days=load_bars(connection, "1day", tickers),
        minutes=load_bars(connection, "5min", tickers),
        metrics=load_metrics(connection, tickers),
        records=load_range_records(connection, tickers),
    )


def load_bars(connection: sqlite3.Connection, timeframe: str, tickers: Sequence[str]) -> Bars:
    """Return the stored bars of a timeframe, ticker after ticker, each in order of time."""
    query = (
        f"SELECT {BAR_COLUMNS} FROM ohlcv_data WHERE ticker = ? AND timeframe = ? "
        "ORDER BY timestamp"
    )
    answers = [connection.execute(query, (ticker, timeframe)).fetchall() for ticker in tickers]
    return make_bars(timeframe, tickers, [len(rows) for rows in answers], list(chain(*answers)))


def load_metrics(connection: sqlite3.Connection, tickers: Sequence[str]) -> Metrics:
    """Return the stored rows of metrics, ticker after ticker, each in order of date."""
    query = f"SELECT date, {', '.join(COMPARED)} FROM daily_metrics WHERE ticker = ? ORDER BY date"
    answers = [connection.execute(query, (ticker,)).fetchall() for ticker in tickers]
    columns = list(zip(*chain(*answers), strict=True)) or [()] * (1 + len(COMPARED))
    numbers = {text: day_number(text) for text in set(columns[0])}
    return Metrics(
        code=np.repeat(np.arange(len(tickers)), [len(rows) for rows in answers]),
        day=np.array([numbers[text] for text in columns[0]], dtype="int64"),
        values=np.stack([make_floats(column) for column in columns[1:]], axis=1),
    )


def load_range_records(connection: sqlite3.Connection, tickers: Sequence[str]) -> list[RangeRecord]:
    """Return what was recorded of answers about ranges of these tickers; none without the table."""
    if "_ranges_asked" not in table_names(connection):
        return []

    query = (
        "SELECT ticker, timeframe, start_date, end_date, bars, asked_at_utc FROM _ranges_asked "
        "WHERE ticker = ?"
    )
    return [
        RangeRecord(
            ticker=name,
            timeframe=timeframe,
            first=day_number(first),
            last=day_number(last),
            bars=bars,
            asked_at_utc=asked_at,
        )
        for ticker in tickers
        for name, timeframe, first, last, bars, asked_at in connection.execute(query, (ticker,))
    ]


def load_known(
    connection: sqlite3.Connection,
    calendar: ExchangeCalendar,
    now_utc: datetime,
    watchlist: Sequence[str] = (),
) -> Known:
    """Return the calendar as numbers, and what our own tables, if they are there, say."""
    schedule = calendar.schedule
    local = [
        pd.DatetimeIndex(schedule[name].array).tz_convert(NEW_YORK) for name in ("open", "close")
    ]
    open_minute, close_minute = ((each.hour * 60 + each.minute).to_numpy("int64") for each in local)

    splits: dict[str, list[tuple[int, float]]] = {}
    # Databases of older programs have no column for what the vendor took back.
    has_column = "withdrawn_at_utc" in column_names(connection, "_splits")
    withdrawn_at = "withdrawn_at_utc" if has_column else "NULL"
    columns = f"ticker, execution_date, split_from, split_to, {withdrawn_at}"
    for ticker, day, old, new, withdrawn in load_rows(connection, "_splits", columns):
        if not withdrawn:
            splits.setdefault(ticker, []).append((day_number(day), new / old))
    closed = [
        day_number(day) for (day,) in load_rows(connection, "_closed_sessions", "session_date")
    ]

    return Known(
        session_days=calendar.sessions.as_unit("s").asi8 // 86_400,
        full_bars=(close_minute - open_minute) // 5,
        close_minute=close_minute,
        splits=splits,
        today=day_number(now_utc.astimezone(NEW_YORK).date().isoformat()),
        closed=np.array(closed, dtype="int64"),
        companies=load_rows(connection, "_ticker_gaps", "ticker, first_after"),
        watchlist=watchlist,
    )


def load_rows(connection: sqlite3.Connection, table: str, columns: str) -> list[tuple[Any, ...]]:
    """Return some columns of a small table; no row where there is no such table."""
    if table not in table_names(connection):
        return []
    return connection.execute(f"SELECT {columns} FROM {table}").fetchall()


def make_market(connection: sqlite3.Connection, known: Known) -> Market:
    """Return what the records and lists say; the bars are added batch by batch."""
    tables = set(table_names(connection))
    empty = np.zeros(len(known.session_days), dtype="int64")
    market = Market(known=known, traded=empty, alive=empty.copy())

    if "universe" in tables and "universe_stocks" in tables:
        market.universes = load_universes(connection)
        market.orphan_members = connection.execute(
            "SELECT universe_id, count(*) FROM universe_stocks "
            "WHERE universe_id NOT IN (SELECT id FROM universe) GROUP BY universe_id"
        ).fetchall()

    if {"_ranges_asked", "_sessions_asked", "_ticker_sets"} <= tables:
        add_answers(connection, market)
    return market


def load_universes(connection: sqlite3.Connection) -> list[Universe]:
    """Return the universes with their active tickers and what they say of themselves."""
    rows = connection.execute(
        "SELECT id, name, total_stocks, updated_at FROM universe ORDER BY id"
    ).fetchall()
    active = "SELECT ticker FROM universe_stocks WHERE universe_id = ? AND is_active = 1"

    return [
        Universe(
            name,
            said,
            frozenset(ticker for (ticker,) in connection.execute(active, (number,))),
            parse_day(updated_at),
        )
        for number, name, said, updated_at in rows
    ]


def parse_day(text: str | None) -> date | None:
    try:
        return datetime.fromisoformat(text or "").date()
    except ValueError:
        return None


def add_answers(connection: sqlite3.Connection, market: Market) -> None:
    """Add how far tickers were asked for, which at all, and how many bars came."""
    until: dict[str, int] = {}
    for ticker, day in connection.execute(
        "SELECT ticker, max(end_date) FROM _ranges_asked WHERE timeframe = '1day' GROUP BY ticker"
    ):
        until[ticker] = place_at_most(market.known, day_number(day))

    sets = connection.execute(
        "SELECT ticker_set, max(session_date) FROM _sessions_asked GROUP BY ticker_set"
    ).fetchall()
    for ticker_set, day in sets:
        place = place_at_most(market.known, day_number(day))
        if ticker_set == EVERY_TICKER:
            market.everyone_asked_until = place
            continue
        found = connection.execute(
            "SELECT tickers FROM _ticker_sets WHERE id = ?", (ticker_set,)
        ).fetchone()
        for ticker in json.loads(found[0]) if found else ():
            until[ticker] = max(place, until.get(ticker, -1))

    market.asked_until = until
    market.answered = [
        (day_number(day), stored)
        for day, stored in connection.execute(
            "SELECT session_date, max(stored) FROM _sessions_asked GROUP BY session_date"
        )
    ]

    if all(ticker_set != EVERY_TICKER for ticker_set, _ in sets):
        members = connection.execute(
            "SELECT ticker FROM universe_stocks UNION SELECT ticker FROM _ranges_asked"
        )
        market.known_tickers = frozenset({ticker for (ticker,) in members} | set(until))


def place_at_most(known: Known, day: int) -> int:
    """Return the place of the last session that is not after a day."""
    return int(np.searchsorted(known.session_days, day, "right")) - 1
