"""Made-up day bars: plausible, repeatable, the same whichever endpoint serves them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from backtestdb.sandbox.noise import Keys, centred, uniform, walk
from backtestdb.sandbox.sessions import Floats, Ints

# Streams 0-6 belong to the walk.
GAP, UP, DOWN, CROWD, FRACTION, TRADES, SILENT = range(10, 17)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Columns of equal length: prices in dollars, volume in shares, number of trades."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    vwap: Floats
    trades: Ints

    def at(self, where: npt.NDArray[np.bool_] | Ints | slice) -> "Bars":
        """Return the bars at some places."""
        return Bars(**{name: column[where] for name, column in vars(self).items()})


def join_bars(parts: Sequence[Bars]) -> Bars:
    """Return the bars of all parts, one part behind the other."""
    return Bars(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Bars)}
    )


@dataclass(frozen=True)
class Profiles:
    """What a price series is made from; one entry a company."""

    keys: Keys
    log_price: Floats
    volatility: Floats
    log_volume: Floats


def make_day_bars(profiles: Profiles, sessions: Ints) -> Bars:
    """Return bars of companies in a session, or of a company in sessions (broadcast)."""
    keys, sigma = profiles.keys, profiles.volatility
    opened = np.exp(
        profiles.log_price + sigma * (walk(keys, sessions) + 0.3 * centred(keys, sessions + 1, GAP))
    )
    closed = np.exp(profiles.log_price + sigma * walk(keys, sessions + 1))
    opened, closed = np.maximum(opened, 0.05), np.maximum(closed, 0.05)
    high = np.maximum(opened, closed) * (1 + sigma * uniform(keys, sessions, UP))
    low = np.minimum(opened, closed) * (1 - sigma * uniform(keys, sessions, DOWN))
    volume = make_volume(profiles, sessions)
    prices = [np.round(price, 4) for price in (opened, high, low, closed)]

    return with_details(keys, sessions, prices, volume)


def make_volume(profiles: Profiles, sessions: Ints) -> Floats:
    """Return shares traded: whole numbers, and on one day in eight a fraction of a share."""
    crowd = np.exp(profiles.log_volume + 0.35 * centred(profiles.keys, sessions, CROWD))
    fraction = uniform(profiles.keys, sessions, FRACTION)
    return np.rint(crowd) + 1 + np.where(fraction < 0.125, np.round(fraction * 8, 6), 0)


def with_details(keys: Keys, counters: Ints, prices: Sequence[Floats], volume: Floats) -> Bars:
    """Return bars from four prices, with a mean price and a number of trades that fit."""
    opened, high, low, closed = prices
    share_per_trade = 40 + 80 * uniform(keys, counters, TRADES)

    return Bars(
        open=opened,
        high=high,
        low=low,
        close=closed,
        volume=volume,
        vwap=np.clip(np.round((opened + high + low + closed) / 4, 4), low, high),
        trades=(volume / share_per_trade).astype(np.int64) + 1,
    )
