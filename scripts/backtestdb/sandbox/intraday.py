"""Made-up five-minute bars that add up to a given day bar.

A day has 66 slots before the opening (04:00-09:30 New York), 78 regular ones (42 on a half day) and
48 after the close. All arrays are sessions × slots.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backtestdb.sandbox.made_up import Bars, with_details
from backtestdb.sandbox.noise import Keys, centred, uniform
from backtestdb.sandbox.sessions import MINUTE_MS, Floats, Ints

BEFORE, REGULAR, AFTER = 66, 78, 48
STEP, UP, DOWN, TOP, BOTTOM, SHARE, QUIET, DRIFT, SPREAD, TRADED, MINUTES = range(30, 41)
Prices = tuple[Floats, Floats, Floats, Floats]


@dataclass(frozen=True)
class MinuteBars:
    """Bars by time: which row of the day bars, its start in ms UTC, its base minutes."""

    row: Ints
    start_ms: Ints
    base_minutes: Ints
    bars: Bars


def make_minute_bars(
    key: Keys, sessions: Ints, open_ms: Ints, regular_bars: Ints, day: Bars, *, thin: bool
) -> MinuteBars:
    """Given day bars, return the five-minute bars of their sessions: of one company (one key), or
    of as many as there are rows (a column of keys).

    The first regular open and the last regular close are the day's, the highest and the lowest
    regular price too. A thin ticker has fewer regular bars; outside regular hours every ticker
    lacks some."""
    slots = np.arange(BEFORE + REGULAR + AFTER)
    counters = sessions[:, None] * 256 + slots
    regular = regular_bars[:, None]

    prices, kept = make_regular(
        key, counters[:, BEFORE : BEFORE + REGULAR], regular, day, thin=thin
    )
    edge = make_extended(key, counters, day)
    merged = [
        np.where(is_regular(slots), np.pad(p, ((0, 0), (BEFORE, AFTER))), e)
        for p, e in zip(prices, edge, strict=True)
    ]

    traded = uniform(key, counters, TRADED) < (0.1 if thin else 0.4)
    traded[:, BEFORE : BEFORE + REGULAR] = kept
    volume = make_volume(key, counters, traded, day.volume[:, None])

    start = open_ms[:, None] + (slots - BEFORE) * (5 * MINUTE_MS)
    start -= np.where(slots >= BEFORE + REGULAR, (REGULAR - regular) * (5 * MINUTE_MS), 0)
    minutes = np.where(
        is_regular(slots) & (not thin),
        5,
        1 + (5 * uniform(key, counters, MINUTES)).astype(np.int64),
    )

    columns = [column[traded] for column in merged]
    keys = np.broadcast_to(key.reshape(-1, 1), traded.shape)[traded]

    return MinuteBars(
        row=np.nonzero(traded)[0],
        start_ms=start[traded],
        base_minutes=minutes[traded],
        bars=with_details(keys, counters[traded], columns, volume[traded]),
    )


def is_regular(slots: Ints) -> npt.NDArray[np.bool_]:
    """Return which slots lie in regular hours."""
    return (slots >= BEFORE) & (slots < BEFORE + REGULAR)


def make_regular(
    key: Keys, counters: Ints, regular: Ints, day: Bars, *, thin: bool
) -> tuple[Prices, npt.NDArray[np.bool_]]:
    """Return open, high, low and close of the regular slots, and which slots have a bar."""
    high, low = day.high[:, None], day.low[:, None]
    slot = np.arange(REGULAR)
    top, bottom = (
        (uniform(key, counters[:, :1], stream) * regular).astype(np.int64) == slot
        for stream in (TOP, BOTTOM)
    )

    edges = make_path(key, counters, regular, day)
    opened, closed = edges[:, :-1], edges[:, 1:]
    reach = 0.08 * (high - low)
    highs = np.maximum(opened, closed) + reach * uniform(key, counters, UP)
    lows = np.minimum(opened, closed) - reach * uniform(key, counters, DOWN)

    highs = np.where(top, high, np.minimum(np.round(highs, 4), high))
    lows = np.where(bottom, low, np.maximum(np.round(lows, 4), low))
    highs = np.maximum(highs, np.maximum(opened, closed))
    lows = np.minimum(lows, np.minimum(opened, closed))

    kept = slot < regular

    if thin:
        must = top | bottom | (slot == 0) | (slot == regular - 1)
        kept &= must | (uniform(key, counters, QUIET) < 0.3)

    return (opened, highs, lows, closed), kept


def make_path(key: Keys, counters: Ints, regular: Ints, day: Bars) -> Floats:
    """Return prices at the edges of the regular slots: a walk from the day's open to its close."""
    first, high, low, last = (p[:, None] for p in (day.open, day.high, day.low, day.close))
    edge = np.arange(REGULAR + 1)
    walked = np.cumsum(centred(key, counters, STEP), axis=1)
    walked = np.concatenate([np.zeros((len(walked), 1)), walked], axis=1)

    done = np.minimum(edge / regular, 1.0)
    pinned = walked - done * np.take_along_axis(walked, regular, axis=1)
    path = first + (last - first) * done + pinned * (high - low) * 0.08
    path = np.clip(np.round(path, 4), low, high)

    path[:, :1] = first
    return np.where(edge >= regular, last, path)


def make_extended(key: Keys, counters: Ints, day: Bars) -> Prices:
    """Return prices outside regular hours: within 1 % of the day's open or, after it, close."""
    before = np.arange(counters.shape[1]) < BEFORE
    anchor = np.where(before, day.open[:, None], day.close[:, None])
    opened = np.round(anchor * (1 + 0.006 * (uniform(key, counters, DRIFT) - 0.5)), 4)
    closed = np.round(anchor * (1 + 0.006 * (uniform(key, counters, STEP) - 0.5)), 4)
    spread = 0.002 * uniform(key, counters, SPREAD)
    high = np.round(np.maximum(opened, closed) * (1 + spread), 4)
    return opened, high, np.round(np.minimum(opened, closed) * (1 - spread), 4), closed


def make_volume(
    key: Keys, counters: Ints, traded: npt.NDArray[np.bool_], day_volume: Floats
) -> Floats:
    """Return whole shares, about the day's in sum; most at the open and the close, 2 % outside
    regular hours."""
    slot = np.arange(counters.shape[1])
    place = (slot - BEFORE) / REGULAR
    busy = np.where(is_regular(slot), 0.5 + 6 * (place - 0.5) ** 2, 0.03)
    weight = np.where(traded, busy * (0.5 + uniform(key, counters, SHARE)), 0.0)
    share = weight / weight.sum(axis=1, keepdims=True)
    volume: Floats = np.maximum(np.rint(day_volume * share), 1.0)
    return volume
