"""What the market data itself shows at a glance: small tables that the runs leave, and a sample of
twenty tickers.

Plain Python on at most 500 bars a ticker, so that `make status` needs no other package and stays
quick.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from math import isclose
from statistics import fmean

from backtestdb.database import table_names
from backtestdb.new_york import NEW_YORK, date_of

SAMPLED_TICKERS = 20
# What an exponential mean still knows of the bars before these is less than the tolerance.
WINDOW_BARS = 500
RSI_WINDOW = 14
RELATIVE, ABSOLUTE = 1e-6, 1e-6
BAR_COLUMNS = ("open", "high", "low", "close", "volume")

Values = dict[str, float | None]


@dataclass(frozen=True)
class MarketFacts:
    """By ticker: `splits_due`: why its bars are to be asked for again; `differing`: what its newest
    row of metrics says and what its bars give; `older_times`: a 5-minute bar whose time is not New
    York's HH:MM:SS; `stopped`: of members without a bar in the newest sessions, the last bar and
    who may have taken their place."""

    splits_due: dict[str, str] = field(default_factory=dict)
    differing: dict[str, str] = field(default_factory=dict)
    older_times: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)


def load_market_facts(connection: sqlite3.Connection, now: datetime) -> MarketFacts:
    """Return what a sample of the stored bars and metrics shows."""
    tables = set(table_names(connection))
    if not {"universe_stocks", "ohlcv_data", "daily_metrics"} <= tables:
        return MarketFacts()

    # The sample moves on with the day, so that every ticker has its turn.
    sample = choose_sample(connection, now.toordinal())
    found = {ticker: find_difference(connection, ticker, tables) for ticker in sample}
    times = {ticker: find_older_time(connection, ticker) for ticker in sample}

    return MarketFacts(
        splits_due=load_texts(connection, tables, "_splits_due", "ticker, reason"),
        differing={ticker: text for ticker, text in found.items() if text},
        older_times={ticker: text for ticker, text in times.items() if text},
        stopped=load_texts(connection, tables, "_stopped_tickers", "ticker, note"),
    )


def load_texts(
    connection: sqlite3.Connection, tables: set[str], table: str, columns: str
) -> dict[str, str]:
    if table not in tables:
        return {}
    return dict(connection.execute(f"SELECT {columns} FROM {table} ORDER BY ticker").fetchall())


def choose_sample(connection: sqlite3.Connection, turn: int) -> list[str]:
    """Return active members, evenly spaced; others with each turn."""
    rows = connection.execute(
        "SELECT DISTINCT ticker FROM universe_stocks WHERE is_active ORDER BY ticker"
    )
    tickers = [ticker for (ticker,) in rows]
    step = max(1, len(tickers) // SAMPLED_TICKERS)
    return tickers[turn % step :: step][:SAMPLED_TICKERS]


def find_difference(connection: sqlite3.Connection, ticker: str, tables: set[str]) -> str:
    """Return the first of a ticker's newest metrics that its day bars do not give; else empty."""
    cursor = connection.execute(
        "SELECT * FROM daily_metrics WHERE ticker = ? ORDER BY date DESC LIMIT 1", (ticker,)
    )
    row = cursor.fetchone()
    if row is None:
        return ""

    stored = dict(zip((column[0] for column in cursor.description), row, strict=True))
    bars = load_newest_bars(connection, ticker, stored["timestamp"], tables)
    if not bars or bars[-1][0] != stored["timestamp"]:
        return f"{stored['date']}: there is no such day bar"

    expected = make_newest_metrics([dict(zip(BAR_COLUMNS, bar[1:], strict=True)) for bar in bars])
    for name, value in expected.items():
        if not agrees(stored[name], value):
            return f"{stored['date']}: {name} is {show(stored[name])}, the bars give {show(value)}"

    return ""


def load_newest_bars(
    connection: sqlite3.Connection, ticker: str, until_ms: int, tables: set[str]
) -> list[tuple[float, ...]]:
    """Return oldest first, no further back than the company has the ticker."""
    rows = connection.execute(
        "SELECT timestamp, open, high, low, close, volume FROM ohlcv_data WHERE ticker = ? "
        "AND timeframe = '1day' AND timestamp <= ? ORDER BY timestamp DESC LIMIT ?",
        (ticker, until_ms, WINDOW_BARS),
    ).fetchall()
    first_after = None

    if "_ticker_gaps" in tables:
        query = "SELECT max(first_after) FROM _ticker_gaps WHERE ticker = ?"
        (first_after,) = connection.execute(query, (ticker,)).fetchone()

    return [
        row
        for row in reversed(rows)
        if not first_after or date_of(row[0]).isoformat() >= first_after
    ]


def agrees(stored: float | None, expected: float | None) -> bool:
    if stored is None or expected is None:
        return stored is None and expected is None
    return isclose(stored, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def show(value: float | None) -> str:
    return "empty" if value is None else f"{value:g}"


def make_newest_metrics(bars: Sequence[Mapping[str, float]]) -> Values:
    """Return the 24 numbers of the newest bar's row from their definitions (docs/DATABASE.md), one
    at a time; None where a window is not full."""
    bar, closes = bars[-1], [bar["close"] for bar in bars]
    close, last = closes[-1], len(bars) - 1
    values: Values = {name: bar[name] for name in BAR_COLUMNS}
    values["change_percent"] = percent_above(close, closes[-2]) if last >= 1 else None
    values["change_from_open"] = percent_above(close, bar["open"])
    values["high_low_range_percent"] = 100 * (bar["high"] - bar["low"]) / bar["open"]
    values["close_to_high_percent"] = 100 * (bar["high"] - close) / bar["high"]
    values["close_to_low_percent"] = 100 * (close - bar["low"]) / bar["low"]

    for sessions in (5, 10, 20):
        change = percent_above(close, closes[-1 - sessions]) if last >= sessions else None
        values[f"change_{sessions}d_percent"] = change

    for window in (20, 50, 200):
        average = fmean(closes[-window:]) if last + 1 >= window else None
        values[f"sma_{window}"] = average
        values[f"price_to_sma{window}_percent"] = percent_above(close, average) if average else None

    volume = fmean(each["volume"] for each in bars[-21:-1]) if last >= 20 else None
    values["volume_20d_avg"] = volume
    values["volume_ratio"] = bar["volume"] / volume if volume else None
    values["consecutive_up_days"] = count_run(closes, 1)
    values["consecutive_down_days"] = count_run(closes, -1)
    # The RSI is left out where a window may know too little of the time before it.
    if len(bars) < WINDOW_BARS or is_lively(closes):
        values["rsi_14"] = make_rsi(closes)

    return values


def percent_above(value: float, base: float) -> float:
    return 100 * (value / base - 1)


def count_run(closes: Sequence[float], direction: int) -> int:
    run = 0
    while run + 1 < len(closes) and (closes[-run - 1] - closes[-run - 2]) * direction > 0:
        run += 1
    return run


def is_lively(closes: Sequence[float]) -> bool:
    """Return whether 100 bars hold a rise and a fall: else means of 500 may be nearly nothing."""
    newest = closes[-100:]
    changes = [after - before for before, after in pairwise(newest)]
    return any(change > 0 for change in changes) and any(change < 0 for change in changes)


def make_rsi(closes: Sequence[float]) -> float | None:
    rise = fall = 0.0
    for before, after in pairwise(closes):
        rise += (max(after - before, 0.0) - rise) / RSI_WINDOW
        fall += (max(before - after, 0.0) - fall) / RSI_WINDOW
    if len(closes) < RSI_WINDOW:
        return None
    return 100.0 if fall == 0 else 100 - 100 / (1 + rise / fall)


def find_older_time(connection: sqlite3.Connection, ticker: str) -> str:
    """Return the newest 5-minute bar if its clock or weekday is not New York's; else empty."""
    row = connection.execute(
        "SELECT timestamp, time_of_day, day_of_week FROM ohlcv_data "
        "WHERE ticker = ? AND timeframe = '5min' ORDER BY timestamp DESC LIMIT 1",
        (ticker,),
    ).fetchone()
    if row is None:
        return ""

    local = datetime.fromtimestamp(row[0] / 1000, NEW_YORK)
    expected = f"{local:%H:%M:%S}"
    if (row[1], row[2]) == (expected, local.isoweekday() % 7):
        return ""

    return f"{local:%Y-%m-%d %H:%M:%S} says {row[1] or 'nothing'!r}, weekday {row[2]}"
