"""A session's summary from its 5-minute bars. Pure: bars in, one row a ticker and session out.

Regular hours are 09:30 to the session's own close (13:00 on a half day), from the calendar of the
exchange.
"""

import numpy as np
import pandas as pd
import pyarrow as pa

from backtestdb.lake.layout import SCHEMAS
from backtestdb.lake.read_sqlite import as_stamps_ms
from backtestdb.market.sessions import load_calendar

OPENING_RANGE_MS = 30 * 60_000
HOUR_MS = 60 * 60_000


def load_hours(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Given sessions as datetime64[D], return each regular open and close, ms UTC."""
    schedule = load_calendar().schedule
    found = schedule.index.get_indexer(pd.DatetimeIndex(days))
    opens, closes = (
        schedule[name].dt.as_unit("ms").astype("int64").to_numpy()[found]
        for name in ("open", "close")
    )
    return opens, closes


def make_aggregates(bars: pa.Table) -> pa.Table:
    """Given 5-minute bars of whole tickers, by ticker and time, return session_aggregates. A value
    that has no bar to come from (no bar in regular hours, no session before) is NULL."""
    frame = pd.DataFrame(
        {
            name: bars[name].to_numpy()
            for name in ("ticker", "open", "high", "low", "close", "volume")
        }
    )
    days = bars["session_date"].to_numpy()
    distinct, place = np.unique(days, return_inverse=True)
    opens, closes = load_hours(distinct)
    stamps, opened, closed = as_stamps_ms(bars), opens[place], closes[place]
    frame["session_date"] = days
    keys = ["ticker", "session_date"]

    regular = (stamps >= opened) & (stamps < closed)
    frame["volume_outside"] = np.where(regular, 0, frame["volume"])
    whole = frame.groupby(keys, sort=False).agg(
        bars=("close", "size"), extended_volume=("volume_outside", "sum")
    )

    frame["first_hour"] = np.where(stamps < opened + HOUR_MS, frame["volume"], 0)
    frame["last_hour"] = np.where(stamps >= closed - HOUR_MS, frame["volume"], 0)
    frame["worth"] = (frame["high"] + frame["low"] + frame["close"]) / 3 * frame["volume"]
    inside = frame[regular].groupby(keys, sort=False)
    hours = inside.agg(
        open=("open", "first"),
        high=("high", "max"),
        low=("low", "min"),
        close=("close", "last"),
        volume=("volume", "sum"),
        first_hour_volume=("first_hour", "sum"),
        last_hour_volume=("last_hour", "sum"),
        worth=("worth", "sum"),
    )

    opening = frame[regular & (stamps < opened + OPENING_RANGE_MS)].groupby(keys, sort=False)
    first = opening.agg(opening_range_high=("high", "max"), opening_range_low=("low", "min"))

    rows = whole.join(hours).join(first).reset_index()
    rows["vwap"] = (rows["worth"] / rows["volume"].where(rows["volume"] > 0)).astype("float64")

    # The session before: the newest one of the ticker that has a regular close.
    before = rows.groupby("ticker", sort=False)["close"].transform(
        lambda closes: closes.ffill().shift(1)
    )
    rows["gap_percent"] = 100 * (rows["open"] / before - 1)

    schema = SCHEMAS["session_aggregates"]
    columns = [
        pa.array(
            rows[field.name].to_numpy("datetime64[D]" if field.name == "session_date" else None)
        )
        if field.name in keys
        else pa.array(rows[field.name].to_numpy("float64"), from_pandas=True).cast(field.type)
        for field in schema
    ]
    return pa.table(columns, names=schema.names).cast(schema)
