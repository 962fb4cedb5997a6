"""Day bars whose prices walk at random, for the tests of the metrics."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from backtestdb.new_york import midnight_ms
from market_setup import sessions_of

SESSIONS = sessions_of("2000-03-01", "2013-03-01")


def make_bars(ticker: str, columns: Sequence[Sequence[float]]) -> pd.DataFrame:
    """`columns`: open, high, low, close, volume."""
    days = SESSIONS[: len(columns[0])]
    bars = pd.DataFrame(dict(zip(["open", "high", "low", "close", "volume"], columns, strict=True)))
    bars.insert(0, "ticker", ticker)
    bars.insert(1, "date", [day.isoformat() for day in days])
    bars.insert(2, "timestamp", [midnight_ms(day) for day in days])
    return bars


def make_walk(seed: int, sessions: int, ticker: str = "WALK", step: float = 0.03) -> pd.DataFrame:
    """A random walk with days of no change and days of no volume."""
    dice = np.random.default_rng(seed)
    moves = np.where(dice.random(sessions) < 0.1, 0.0, dice.normal(0, step, sessions))
    close = np.round(50 * np.exp(np.cumsum(moves)), 4)
    opened = np.round(close * (1 + dice.normal(0, step / 3, sessions)), 4)
    high = np.maximum(opened, close) * (1 + np.abs(dice.normal(0, step / 3, sessions)))
    low = np.minimum(opened, close) * (
        1 - np.minimum(np.abs(dice.normal(0, step / 3, sessions)), 0.9)
    )
    volume = np.where(dice.random(sessions) < 0.3, 0, dice.integers(0, 10**9, sessions))
    return make_bars(ticker, [opened, high, low, close, volume])
