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
    columns = {
        **({} if tickers is None else {"T": tickers}),
        **{"v": bars.volume.tolist(), "vw": bars.vwap.tolist()},
        **{"o": bars.open.tolist(), "c": bars.close.tolist()},
        **{"h": bars.high.tolist(), "l": bars.low.tolist()},
        **{"t": served.start_ms.tolist(), "n": bars.trades.tolist()},
    }
    rows: list[Row] = [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
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
