"""Rows of daily_metrics: day bars are read from the database, metrics written to it. Knows no HTTP."""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import date

import pandas as pd

from backtestdb.market.bars import save_rows
from backtestdb.market.metrics import METRIC_COLUMNS, make_metrics
from backtestdb.market.sessions import end_of_day_ms, make_new_york_times, midnight_ms

BAR_NAMES = ["ticker", "timestamp", "open", "high", "low", "close", "volume"]
TICKERS_AT_ONCE = 200


def load_day_bars(connection: sqlite3.Connection, tickers: Iterable[str], end: date) -> pd.DataFrame:
    """All stored day bars of the tickers up to `end`: BAR_NAMES and date, by ticker and time."""
    query = (
        f"SELECT {', '.join(BAR_NAMES)} FROM ohlcv_data"
        " WHERE ticker = ? AND timeframe = '1day' AND timestamp <= ? ORDER BY timestamp"
    )
    rows: list[tuple[object, ...]] = []
    for ticker in tickers:
        rows += connection.execute(query, (ticker, end_of_day_ms(end)))
    bars = pd.DataFrame(rows, columns=BAR_NAMES)
    bars["date"] = make_new_york_times(bars["timestamp"].to_numpy("int64")).strftime("%Y-%m-%d")
    return bars


def save_metrics(connection: sqlite3.Connection, tickers: Sequence[str], start: date, end: date) -> int:
    """Compute the metrics of the stored bars and store those of the sessions from `start` to `end`; return
    how many. What lies before `start` is the warm-up. The caller's transaction."""
    bars = load_day_bars(connection, tickers, end)
    if bars.empty:
        return 0
    metrics = make_metrics(bars)
    asked = metrics[metrics["date"] >= start.isoformat()]
    updates = ", ".join(f"{name} = excluded.{name}" for name in METRIC_COLUMNS[2:])
    save_rows(
        connection,
        f"INSERT INTO daily_metrics ({', '.join(METRIC_COLUMNS)})",
        f"ON CONFLICT (ticker, date) DO UPDATE SET {updates}",
        [asked[name].tolist() for name in METRIC_COLUMNS],
    )
    return len(asked)


def tickers_without_metrics(
    connection: sqlite3.Connection, tickers: Sequence[str], start: date, end: date
) -> list[str]:
    """Tickers with a day bar between `start` and `end` that has no row in daily_metrics."""
    bars = connection.execute(
        "SELECT ticker, count(*) FROM ohlcv_data WHERE timeframe = '1day' AND timestamp BETWEEN ? AND ?"
        " GROUP BY ticker",
        (midnight_ms(start), end_of_day_ms(end)),
    ).fetchall()
    rows = connection.execute(
        "SELECT ticker, count(*) FROM daily_metrics WHERE date BETWEEN ? AND ? GROUP BY ticker",
        (start.isoformat(), end.isoformat()),
    ).fetchall()
    counted, members = dict(rows), set(tickers)
    return [ticker for ticker, count in bars if ticker in members and counted.get(ticker, 0) < count]
