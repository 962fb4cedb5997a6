"""What the tests of the market rooms begin with: settings that point at a sandbox, an empty
database."""

import sqlite3
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from exchange_calendars import ExchangeCalendar

from backtestdb.config import Settings, load_settings
from backtestdb.database import connect
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.schema import ensure_schema
from sandbox_process import KEY

CALENDAR: ExchangeCalendar = load_calendar()


def make_market_settings(folder: Path, url: str, key: str = KEY, **values: object) -> Settings:
    """Settings for a client of `url`, without a quota unless told; the quota's file lies in
    `folder`."""
    environment = {
        "POLYGON_API_KEY": key,
        "POLYGON_BASE_URL": url,
        "POLYGON_REQUESTS_PER_MINUTE": "0",
        "POLYGON_CONCURRENCY": "4",
        "XDG_STATE_HOME": str(folder),
        "DATABASE_PATH": str(folder / "test.db"),
        **{name: str(value) for name, value in values.items()},
    }
    return load_settings(environment, folder / "no.env")


def open_new_database(path: Path) -> sqlite3.Connection:
    """A new database with the whole schema, open."""
    connection = connect(path, create=True)
    ensure_schema(connection)
    return connection


def sessions_of(start: str, end: str) -> list[date]:
    return sessions_between(CALENDAR, date.fromisoformat(start), date.fromisoformat(end))


def add_bars(
    connection: sqlite3.Connection, ticker: str, timeframe: str, timestamps_ms: Sequence[int]
) -> None:
    connection.executemany(
        "INSERT INTO ohlcv_data (ticker, timestamp, open, high, low, close, volume, timeframe)"
        " VALUES (?, ?, 10, 10, 10, 10, 100, ?)",
        [(ticker, timestamp, timeframe) for timestamp in timestamps_ms],
    )
