"""A market without a defect, of any size, made in seconds: day bars, their metrics, 5-minute bars,
records.

Prices are random walks with fat tails (Student's t with four degrees of freedom, no night beyond a
quarter), in the shape in which the backfills store them. Nothing here asks the code under test:
only `make_metrics` is the project's.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from backtestdb.database import connect, transaction
from backtestdb.market.first_fill import deferred_indexes
from backtestdb.market.metrics import METRIC_COLUMNS, make_metrics
from backtestdb.schema import ensure_schema
from market_setup import CALENDAR, sessions_of

START, END = "2021-11-22", "2026-11-19"  # 1,254 sessions
# 20:15 New York is past: the session of END is final.
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ASKED_AT = "2026-11-20T02:00:00+00:00"
UNIVERSE = "audited"
TICKERS_AT_ONCE = 100
MINUTE_MS = 60_000
BAR_NAMES = (
    *("ticker", "timestamp", "open", "high", "low", "close", "volume"),
    *("timeframe", "time_of_day", "day_of_week"),
)


def ticker_name(number: int) -> str:
    return f"T{number:04d}"


def make_market(
    path: Path,
    tickers: int,
    *,
    start: str = START,
    end: str = END,
    minute_tickers: int = 0,
    minute_sessions: int = 0,
    seed: int = 1,
) -> list[date]:
    """Write the database; return its sessions."""
    sessions = sessions_of(start, end)
    names = [ticker_name(number) for number in range(tickers)]
    with closing(connect(path, create=True)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        ensure_schema(connection)
        save_universe_rows(connection, names, sessions)
        rows = tickers * len(sessions)
        with (
            deferred_indexes(connection, "ohlcv_data", rows),
            deferred_indexes(connection, "daily_metrics", rows),
        ):
            for first in range(0, tickers, TICKERS_AT_ONCE):
                part = names[first : first + TICKERS_AT_ONCE]
                bars = make_day_bars(part, sessions, seed + first)
                with transaction(connection):
                    save_day_bars(connection, bars)
                    save_metric_rows(connection, bars)
                    if first < minute_tickers and minute_sessions:
                        some = bars[bars["ticker"].isin(part[: minute_tickers - first])]
                        save_minute_bars(connection, some, sessions[-minute_sessions:], seed)
    return sessions


def save_universe_rows(
    connection: sqlite3.Connection, names: Sequence[str], sessions: Sequence[date]
) -> None:
    first, last = sessions[0].isoformat(), sessions[-1].isoformat()
    with transaction(connection):
        connection.execute(
            "INSERT INTO universe (id, name, total_stocks, updated_at) VALUES (1, ?, ?, ?)",
            (UNIVERSE, len(names), ASKED_AT),
        )
        connection.executemany(
            "INSERT INTO universe_stocks (universe_id, ticker) VALUES (1, ?)",
            [(name,) for name in names],
        )
        connection.executemany(
            "INSERT INTO _ranges_asked (ticker, timeframe, start_date, end_date, first_date, "
            "last_date, bars, asked_at_utc) VALUES (?, '1day', ?, ?, ?, ?, ?, ?)",
            [(name, first, last, first, last, len(sessions), ASKED_AT) for name in names],
        )


def make_day_bars(names: Sequence[str], sessions: Sequence[date], seed: int) -> pd.DataFrame:
    """ticker, date, timestamp, open, high, low, close, volume; by ticker and time."""
    dice = np.random.default_rng(seed)
    shape = (len(names), len(sessions))
    volatility = dice.uniform(0.008, 0.03, (len(names), 1))
    steps = np.clip(dice.standard_t(4, shape) * volatility / 2**0.5, -0.22, 0.22)
    start = np.log(dice.uniform(8, 400, (len(names), 1)))
    # A pull towards the start keeps five years of a walk between a dollar and the ten thousands.
    heights = np.zeros(shape)
    height = np.zeros(len(names))
    for i in range(shape[1]):
        height = 0.998 * height + steps[:, i]
        heights[:, i] = height
    close = np.round(np.exp(start + heights), 4)
    before = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    opened = np.round(before * (1 + 0.3 * volatility * dice.standard_normal(shape)), 4)
    reach = volatility * np.abs(dice.standard_normal((2, *shape))) / 2
    high = np.round(np.maximum(opened, close) * (1 + reach[0]), 4)
    low = np.round(np.minimum(opened, close) * (1 - np.minimum(reach[1], 0.5)), 4)
    crowd = dice.uniform(10.5, 15, (len(names), 1)) + 0.35 * dice.standard_normal(shape)
    midnights = pd.DatetimeIndex(sessions).tz_localize("America/New_York").as_unit("ms").asi8
    return pd.DataFrame(
        {
            "ticker": np.repeat(np.array(names, dtype=object), len(sessions)),
            "date": np.tile(
                np.array([day.isoformat() for day in sessions], dtype=object), len(names)
            ),
            "timestamp": np.tile(midnights, len(names)),
            "open": opened.ravel(),
            "high": high.ravel(),
            "low": low.ravel(),
            "close": close.ravel(),
            "volume": np.exp(crowd).ravel().astype("int64"),
        }
    )


def save_day_bars(connection: sqlite3.Connection, bars: pd.DataFrame) -> None:
    weekdays = ((pd.DatetimeIndex(bars["date"]).day_of_week + 1) % 7).tolist()
    columns = [bars[name].tolist() for name in BAR_NAMES[:7]]
    count = len(bars)
    save_bar_rows(
        connection, zip(*columns, ["1day"] * count, [None] * count, weekdays, strict=True)
    )


def save_bar_rows(connection: sqlite3.Connection, rows: Iterator[tuple[object, ...]]) -> None:
    marks = ", ".join("?" * len(BAR_NAMES))
    connection.executemany(
        f"INSERT INTO ohlcv_data ({', '.join(BAR_NAMES)}) VALUES ({marks})", rows
    )


def save_metric_rows(connection: sqlite3.Connection, bars: pd.DataFrame) -> None:
    metrics = make_metrics(bars)
    columns = [
        metrics[name].astype(object).where(metrics[name].notna(), None).tolist() for name in metrics
    ]
    marks = ", ".join("?" * len(METRIC_COLUMNS))
    connection.executemany(
        f"INSERT INTO daily_metrics ({', '.join(METRIC_COLUMNS)}) VALUES ({marks})",
        zip(*columns, strict=True),
    )


def save_minute_bars(
    connection: sqlite3.Connection, day_bars: pd.DataFrame, sessions: Sequence[date], seed: int
) -> None:
    """Seventy-eight bars a session (42 on a half day), a few before and after it, in agreement with
    the day bar."""
    dice = np.random.default_rng(seed + 1)
    wanted = {day.isoformat() for day in sessions}
    schedule = CALENDAR.schedule
    for bar in day_bars[day_bars["date"].isin(wanted)].itertuples(index=False):
        opens, closes = (schedule.loc[bar.date, name] for name in ("open", "close"))
        regular = int((closes - opens).total_seconds()) // 300
        rows = make_minute_rows(dice, bar, int(opens.timestamp() * 1000), regular)
        save_bar_rows(connection, iter(rows))
    with_records = [
        (name, min(wanted), max(wanted), min(wanted), max(wanted), len(group), ASKED_AT)
        for name, group in day_bars.groupby("ticker")
    ]
    connection.executemany(
        "INSERT INTO _ranges_asked (ticker, timeframe, start_date, end_date, first_date, "
        "last_date, bars, asked_at_utc) SELECT ?1, '5min', ?2, ?3, ?4, ?5, count(*), ?7 "
        "FROM ohlcv_data WHERE ticker = ?1 AND timeframe = '5min' AND ?6 > 0",
        with_records,
    )


def make_minute_rows(
    dice: np.random.Generator, bar: object, open_ms: int, regular: int
) -> list[tuple[object, ...]]:
    low, high, first, last = (getattr(bar, name) for name in ("low", "high", "open", "close"))
    edges = np.clip(
        np.linspace(first, last, regular + 1) + (high - low) * dice.normal(0, 0.1, regular + 1),
        low,
        high,
    )
    edges[0], edges[-1] = first, last
    opened, closed = np.round(edges[:-1], 4), np.round(edges[1:], 4)
    reach = (high - low) * 0.05 * dice.random((2, regular))
    highs = np.minimum(np.maximum(opened, closed) + reach[0], high)
    lows = np.maximum(np.minimum(opened, closed) - reach[1], low)
    highs[int(dice.integers(regular))], lows[int(dice.integers(regular))] = high, low
    shares = dice.dirichlet(np.full(regular + 2, 20.0)) * bar.volume
    slots = [
        (-3, first, first, first, first),
        *((n, opened[n], highs[n], lows[n], closed[n]) for n in range(regular)),
    ]
    slots.append((regular + 1, last, last, last, last))
    rows: list[tuple[object, ...]] = []
    for (slot, *prices), volume in zip(slots, shares, strict=True):
        stamp = open_ms + slot * 5 * MINUTE_MS
        local = pd.Timestamp(stamp, unit="ms", tz="UTC").tz_convert("America/New_York")
        values = [round(float(price), 4) for price in prices]
        rows.append(
            (
                *(bar.ticker, stamp, *values, max(int(volume), 1)),
                *("5min", f"{local:%H:%M:%S}", (local.day_of_week + 1) % 7),
            )
        )
    return rows


if __name__ == "__main__":
    import sys

    make_market(
        Path(sys.argv[1]), int(sys.argv[2]), minute_tickers=int(sys.argv[3]), minute_sessions=21
    )
