"""Rows of ohlcv_data and of the rejected bars: written here, in the transaction of the caller."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from backtestdb.database import save_rows
from backtestdb.market.bars import (
    BAR_COLUMNS,
    LARGEST_STEP,
    ParsedBars,
    RejectedBar,
    find_lone_high_prices,
    reject_places,
)


def save_bars(
    connection: sqlite3.Connection, bars: ParsedBars, fetched_at_utc: str | Sequence[str]
) -> None:
    """Store bars with the time at which they came (of all, or of each); a bar that is there already
    takes the new values, the time too. The caller's transaction."""
    if isinstance(fetched_at_utc, str):
        created_at = [make_sqlite_time(fetched_at_utc)] * len(bars)
    else:
        created_at = [make_sqlite_time(text) for text in fetched_at_utc]
    save_bar_columns(connection, [*bars.columns(), created_at])


def make_sqlite_time(utc_text: str) -> str:
    """Given ISO text with its zone, return it as CURRENT_TIMESTAMP writes it, which other programs
    put into the same column."""
    return datetime.fromisoformat(utc_text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def save_bar_columns(connection: sqlite3.Connection, columns: Sequence[list[Any]]) -> None:
    """Store bars like `save_bars`, from lists in the order of BAR_COLUMNS and created_at."""
    names = [*BAR_COLUMNS, "created_at"]
    updates = ", ".join(
        f"{name} = excluded.{name}" for name in names if name not in {"ticker", "timeframe"}
    )

    save_rows(
        connection,
        f"INSERT INTO ohlcv_data ({', '.join(names)})",
        f"ON CONFLICT (ticker, timestamp, timeframe) DO UPDATE SET {updates}",
        columns,
    )


def save_rejected(
    connection: sqlite3.Connection, rejected: Sequence[RejectedBar], set_aside_at_utc: str
) -> None:
    """Record bars that cannot be true, each once for each reason. The caller's transaction."""
    names = [*RejectedBar._fields, "set_aside_at_utc"]
    connection.executemany(
        f"INSERT INTO _bars_set_aside ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        " ON CONFLICT DO NOTHING",
        [(*bar, set_aside_at_utc) for bar in rejected],
    )


def reject_unlike_stored(connection: sqlite3.Connection, bars: ParsedBars) -> ParsedBars:
    """Hold the bars that stand alone above what is believed at once against the stored bar of their
    ticker that is nearest in time; those that are unlike it, or have none, are rejected."""
    unlike = []
    for place in find_lone_high_prices(bars):
        row = connection.execute(
            "SELECT high, low FROM ohlcv_data WHERE ticker = ?1 AND timeframe = ?2 "
            "AND timestamp <> ?3 ORDER BY abs(timestamp - ?3) LIMIT 1",
            (bars.tickers[place], bars.timeframe, int(bars.timestamps[place])),
        ).fetchone()
        prices = bars.prices[:, place]
        # Without a stored bar: the next run asks again, and has the sessions before beside it.
        if row is None or max(prices.max() / row[1], row[0] / prices.min()) >= LARGEST_STEP:
            unlike.append(place)

    return reject_places(bars, unlike)
