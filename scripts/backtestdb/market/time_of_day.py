"""Put `time_of_day` and `day_of_week` of 5-minute bars right, in databases that older scripts
wrote.

Those left it empty, wrote HH:MM, the time in UTC, or a fixed offset that is an hour off half of the
year. The time stamp was right throughout, so everything is derived from it.
"""

import sqlite3

import numpy as np
import pandas as pd

from backtestdb.database import save_rows, transaction
from backtestdb.market.sessions import make_new_york_times, sunday_based_weekday
from backtestdb.schema import SQL_DIR

KINDS = [
    *("right", "no time", "New York, without seconds", "UTC", "UTC-4 all year", "UTC-5 all year"),
    *("another time zone", "no time of day"),
    *("no weekday", "weekday from Monday = 0", "wrong weekday"),
]


def count_kinds(connection: sqlite3.Connection) -> dict[str, int]:
    """Return rows of each kind that `sql/queries/time_of_day_kinds.sql` tells apart, without 0."""
    ensure_right_times(connection)
    found = dict(
        connection.execute((SQL_DIR / "queries" / "time_of_day_kinds.sql").read_text()).fetchall()
    )
    return {kind: found[kind] for kind in KINDS if kind in found}


def fix_time_of_day(connection: sqlite3.Connection) -> int:
    """Correct every 5-minute row that is not right, in one transaction; return how many."""
    ensure_right_times(connection)
    with transaction(connection):
        # An index that changes in every row is quicker made anew than kept up to date.
        (index_sql,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE name = 'idx_ohlcv_time_of_day'"
        ).fetchone() or ("",)
        connection.execute("DROP INDEX IF EXISTS idx_ohlcv_time_of_day")
        changed = connection.execute(
            (SQL_DIR / "repairs" / "fix_time_of_day.sql").read_text()
        ).rowcount
        if index_sql:
            connection.execute(index_sql)

    return changed


def ensure_right_times(connection: sqlite3.Connection) -> None:
    """Create a temporary table with what each distinct time stamp should say."""
    connection.execute("DROP TABLE IF EXISTS temp.right_times")
    connection.execute(
        "CREATE TEMP TABLE right_times (timestamp INTEGER PRIMARY KEY, time_of_day TEXT, "
        "day_of_week INTEGER, utc TEXT, minus_4 TEXT, minus_5 TEXT)"
    )

    # Tickers share their time stamps: it is small, and daylight saving is looked up once for each.
    rows = connection.execute(
        "SELECT DISTINCT timestamp FROM ohlcv_data WHERE timeframe = '5min'"
    ).fetchall()
    stamps = np.array([stamp for (stamp,) in rows], dtype="int64")

    local, utc = make_new_york_times(stamps), pd.DatetimeIndex(stamps.astype("datetime64[ms]"))
    clocks = [local, utc, utc - pd.Timedelta(hours=4), utc - pd.Timedelta(hours=5)]
    texts = [clock.strftime("%H:%M:%S").tolist() for clock in clocks]
    columns = [stamps.tolist(), texts[0], sunday_based_weekday(local).tolist(), *texts[1:]]

    # Nothing but a temporary table is written: no other program has to wait.
    with transaction(connection, "DEFERRED"):
        save_rows(connection, "INSERT INTO temp.right_times", "", columns)
