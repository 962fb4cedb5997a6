"""What is in a database, in a form that two of them can be compared in."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

MARKET = {
    "ohlcv_data": "ticker, timeframe, timestamp, open, high, low, close, volume, time_of_day, "
    "day_of_week",
    "daily_metrics": "*",
    "universe": "name, description, total_stocks",
    "universe_stocks": "universe_id, ticker, is_active",
    "_sessions_asked": "session_date, ticker_set, received, stored, dropped, set_aside, "
    "metrics_due",
    "_bars_set_aside": "ticker, timeframe, timestamp, reason, bar",
}


def query_all(database: Path, sql: str, *values: object) -> list[tuple]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql, values).fetchall()


def digest_market(database: Path) -> dict[str, str]:
    """A digest of each market table, without ids and the times at which rows were written. What was
    asked is left out: a run that was killed asks once more about what came empty."""
    digests = {}
    with closing(sqlite3.connect(database)) as connection:
        for table, columns in MARKET.items():
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            compared = ", ".join(name for name in names if name not in {"id", "created_at"})
            listed = compared if columns == "*" else columns
            rows = sorted(map(repr, connection.execute(f"SELECT {listed} FROM {table}")))
            digests[table] = (
                f"{len(rows)} rows {hashlib.sha256(''.join(rows).encode()).hexdigest()[:16]}"
            )
    return digests


def read_tables(database: Path, tables: list[str]) -> dict[str, list[tuple]]:
    """All rows with their types."""
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        return {
            table: connection.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables
        }


def find_damage(database: Path) -> str:
    """What SQLite's full check says; "ok" for a sound database."""
    with closing(sqlite3.connect(database)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
