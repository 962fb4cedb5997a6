"""Rows of ohlcv_data and of the rejected bars: written here, in the transaction of the caller."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import pandas as pd

from backtestdb.database import save_rows
from backtestdb.market.bars import BAR_COLUMNS


def save_bars(connection: sqlite3.Connection, good: pd.DataFrame) -> None:
    """Store bars; one that is there already takes the new values. The caller's transaction."""
    save_bar_columns(connection, [good[name].tolist() for name in BAR_COLUMNS])


def save_bar_columns(connection: sqlite3.Connection, columns: Sequence[list[Any]]) -> None:
    """Like `save_bars`, from lists in the order of BAR_COLUMNS."""
    updates = ", ".join(
        f"{name} = excluded.{name}" for name in BAR_COLUMNS if name not in {"ticker", "timeframe"}
    )
    save_rows(
        connection,
        f"INSERT INTO ohlcv_data ({', '.join(BAR_COLUMNS)})",
        f"ON CONFLICT (ticker, timestamp, timeframe) DO UPDATE SET {updates}",
        columns,
    )


def save_rejected(connection: sqlite3.Connection, rejected: pd.DataFrame, set_aside_at_utc: str) -> None:
    """Record what was set aside, each bar once for each reason. The caller's transaction."""
    columns = [rejected[name].tolist() for name in rejected.columns]
    save_rows(
        connection,
        f"INSERT INTO _bars_set_aside ({', '.join(rejected.columns)}, set_aside_at_utc)",
        "ON CONFLICT DO NOTHING",
        [*columns, [set_aside_at_utc] * len(rejected)],
    )
