"""Bars as the JSON rows of the vendor, with its oddities."""

from typing import Any

import numpy as np
import orjson

from backtestdb.sandbox.exchange import ServedBars
from backtestdb.sandbox.sessions import Floats

Row = dict[str, Any]


def make_rows(served: ServedBars, tickers: list[str] | None = None) -> list[Row]:
    """Return a dictionary for each bar, beginning with the ticker T where tickers are given."""
    bars = served.bars
    arrays = (
        bars.volume,
        bars.vwap,
        bars.open,
        bars.close,
        bars.high,
        bars.low,
        served.start_ms,
        bars.trades,
    )
    columns = [array.tolist() for array in arrays]
    rows: list[Row]

    if tickers is None:
        rows = [
            {"v": v, "vw": vw, "o": o, "c": c, "h": h, "l": low, "t": t, "n": n}
            for v, vw, o, c, h, low, t, n in zip(*columns, strict=True)
        ]
    else:
        rows = [
            {"T": ticker, "v": v, "vw": vw, "o": o, "c": c, "h": h, "l": low, "t": t, "n": n}
            for ticker, v, vw, o, c, h, low, t, n in zip(tickers, *columns, strict=True)
        ]

    put_oddities(rows, served.quirk)
    return rows


def put_oddities(rows: list[Row], quirk: Floats) -> None:
    """Make rows as odd as the vendor's: one bar in 50 lacks vw and n, one in 60 has a volume like
    1.5e+06, few are otc."""
    for place in np.nonzero(quirk < 1 / 50)[0].tolist():
        del rows[place]["vw"], rows[place]["n"]
    for place in np.nonzero((quirk > 0.5) & (quirk < 0.505))[0].tolist():
        rows[place]["otc"] = True
    for place in np.nonzero(quirk > 1 - 1 / 60)[0].tolist():
        written = np.format_float_scientific(rows[place]["v"], trim="0")
        rows[place]["v"] = orjson.Fragment(written)
