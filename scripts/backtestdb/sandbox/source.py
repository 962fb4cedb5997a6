"""The real prices: public-domain day bars of five tickers, unadjusted, 2000-03-01 to 2013-03-01.

Read from `_data/stocks.csv.gz` of the package bokeh_sampledata by its place, because importing the
package brings modules that are not needed here.
"""

import csv
import gzip
import importlib.util
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np

from backtestdb.sandbox.made_up import Bars, Profiles, make_day_bars, with_details
from backtestdb.sandbox.noise import walk
from backtestdb.sandbox.sessions import Floats, Ints, load_sessions

REAL_TICKERS = ("AAPL", "MSFT", "IBM", "GOOG", "FB")


@dataclass(frozen=True)
class RealPrices:
    """A ticker's rows: open, high, low, close, volume, the first one at session `start`."""

    start: int
    columns: Floats

    @property
    def stop(self) -> int:
        """Return the index of the session after the last real one."""
        return self.start + len(self.columns[0])


def find_source_file() -> Path:
    """Return the path of the source file, without importing the package that brings it."""
    spec = importlib.util.find_spec("bokeh_sampledata")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package bokeh_sampledata is not installed: run `make setup`")
    return Path(spec.origin).parent / "_data" / "stocks.csv.gz"


@cache
def load_real_prices() -> dict[str, RealPrices]:
    """Return rows of five tickers, one for each session from the first to the last."""
    rows: dict[str, list[list[float]]] = {ticker: [] for ticker in REAL_TICKERS}
    first: dict[str, date] = {}

    with gzip.open(find_source_file(), "rt", newline="") as file:
        for ticker, day, *numbers in list(csv.reader(file))[1:]:
            first.setdefault(ticker, date.fromisoformat(day))
            rows[ticker].append([float(number) for number in numbers[:5]])

    sessions = load_sessions()
    return {
        ticker: RealPrices(
            sessions.index_range(first[ticker], first[ticker]).start, np.array(rows[ticker]).T
        )
        for ticker in REAL_TICKERS
    }


def make_real_bars(real: RealPrices, profile: Profiles, sessions: Ints) -> Bars:
    """Return as-traded bars of one real ticker: the source inside its time, made-up ones that join
    it outside.

    Before the source the made-up closes lead to its first open, after it they start at its last
    close."""
    inside = (sessions >= real.start) & (sessions < real.stop)
    at_start, at_end = (walk(profile.keys, np.array([at])) for at in (real.start, real.stop))

    before = np.log(real.columns[0, 0]) - profile.volatility * at_start
    after = np.log(real.columns[3, -1]) - profile.volatility * at_end
    bars = make_day_bars(
        replace(profile, log_price=np.where(sessions < real.start, before, after)), sessions
    )

    rows = real.columns[:, np.clip(sessions - real.start, 0, real.stop - real.start - 1)]
    made_up = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    merged = [np.where(inside, row, column) for row, column in zip(rows, made_up, strict=True)]

    return with_details(profile.keys, sessions, merged[:4], merged[4])
