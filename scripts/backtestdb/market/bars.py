"""Bars as they arrive: turned into columns, and each held against one table of rules.

Given the vendor's rows of either endpoint, `parse_bars` returns what can be true and what cannot.
Knows no HTTP and no database.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtestdb.market.sessions import make_midnights_ms, make_new_york_times, sunday_based_weekday

BAR_COLUMNS = [
    *("ticker", "timestamp", "open", "high", "low", "close", "volume"),
    *("timeframe", "time_of_day", "day_of_week"),
]
PRICE_LETTERS = "ohlc"
# All stocks of New York together trade some 2e10 shares a day; beyond 9e18 a volume is no integer
# of SQLite.
HIGHEST_VOLUME = 1e12
# The dearest share ever traded in New York (Berkshire Hathaway A) stays below a million dollars.
# Adjusted for reverse splits, prices above ten million are real (UVXY 242,695,146:
# polygon-io/issues 30 and 46), and so are rows of junk at 9e11. What tells them apart are the bars
# beside them: no price becomes a hundredfold in one step.
BELIEVED_PRICE = 1e7
LARGEST_STEP = 100.0
# A printed tick of a dollar and more, and of less (Rule 612 of Regulation NMS). Sums of rounded
# numbers miss a high or low by so much; the bar is not lost for it.
TICK, SMALL_TICK = 0.01, 0.0001
FIVE_MINUTES_MS = 300_000
LAST_STAMP_MS = 4e12  # in the year 2096
NUMBER_TYPES = (int, float)  # exactly: a bool is neither, nor is a number in quotes
# Printed ASCII without blanks; control characters have been seen.
TICKER_NAME = re.compile(r"[!-~]{1,20}")
UNLIKE_NEIGHBOURS = f"price above {BELIEVED_PRICE:.0f}, unlike the bars beside it"


class RejectedBar(NamedTuple):
    """A bar that cannot be true, with the rule that it breaks; `bar`: JSON as it came."""

    ticker: str
    timeframe: str
    timestamp: int
    session_date: str
    reason: str
    bar: str


@dataclass(frozen=True, kw_only=True)
class ParsedBars:
    """The bars of an answer that can be true, in order of ticker and time, each time of a ticker
    once.

    `prices`: open, high, low, close as rows. `session_dates`: ISO text. `time_of_day`: HH:MM:SS in
    New York, None for day bars. `received` rows are these bars, those of `rejected`, and `dropped`
    ones of tickers that were not wanted. `clamped`: bars whose high or low was moved by at most a
    tick to reach its open or close.
    """

    timeframe: str
    tickers: np.ndarray
    timestamps: np.ndarray
    prices: np.ndarray
    volume: np.ndarray
    session_dates: np.ndarray
    time_of_day: np.ndarray
    day_of_week: np.ndarray
    rejected: list[RejectedBar]
    received: int
    dropped: int
    clamped: int

    def __len__(self) -> int:
        return len(self.tickers)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Return how many rows were received, stored, dropped, rejected."""
        return self.received, len(self), self.dropped, len(self.rejected)

    def columns(self) -> list[list[Any]]:
        """Return BAR_COLUMNS, as rows of ohlcv_data want them."""
        return [
            self.tickers.tolist(),
            self.timestamps.tolist(),
            *(row.tolist() for row in self.prices),
            self.volume.tolist(),
            [self.timeframe] * len(self),
            self.time_of_day.tolist(),
            self.day_of_week.tolist(),
        ]


def parse_bars(
    rows: Sequence[Mapping[str, Any]],
    timeframe: str,
    sessions: Sequence[date],
    *,
    ticker: str | None = None,
    wanted: Collection[str] | None = None,
) -> ParsedBars:
    """Given the vendor's rows about `sessions` (those that were asked for, in order), return their
    bars.

    `ticker`: whose they are; None for rows about the whole market, which carry theirs in `T`.
    `wanted`: whose bars to keep of those, None for all. Day bars get the session's midnight
    in New York as their time, whichever endpoint they came from, and volumes are rounded to whole
    shares, of which the vendor counts fractions.
    """
    kept = [row for row in rows if wanted is None or row.get("T") in wanted]
    if ticker is None:
        tickers = np.array([str(row.get("T") or "") for row in kept], dtype=object)
    else:
        tickers = np.full(len(kept), ticker, dtype=object)

    prices = np.array([make_numbers(kept, letter) for letter in PRICE_LETTERS])
    volume = make_numbers(kept, "v")
    clamped = clamp_within_a_tick(prices)

    stamps = make_numbers(kept, "t")
    is_readable = (stamps >= 0) & (stamps < LAST_STAMP_MS)
    stamps = np.where(is_readable, stamps, 0.0).astype("int64")
    times = make_times(stamps, timeframe) | {"is_readable": is_readable}
    stamps = times["stamp"]

    reasons = find_broken_rules(tickers, prices, volume, times, sessions)
    order = np.array(sorted(range(len(kept)), key=lambda i: (tickers[i], stamps[i])), dtype="int64")

    # The second bar of a time is rejected, so the order decides, not the place in the answer.
    good = order[reasons[order] == ""]
    is_second = (tickers[good][1:] == tickers[good][:-1]) & (stamps[good][1:] == stamps[good][:-1])
    reasons[good[1:][is_second]] = "a second bar of the same time"
    good = order[reasons[order] == ""]

    bars = ParsedBars(
        timeframe=timeframe,
        tickers=tickers[good],
        timestamps=stamps[good],
        prices=prices[:, good],
        volume=np.rint(volume[good]).astype("int64"),
        session_dates=times["date"][good],
        time_of_day=times["clock"][good],
        day_of_week=times["weekday"][good],
        rejected=[
            RejectedBar(
                str(tickers[place]),
                timeframe,
                int(stamps[place]),
                str(times["date"][place]),
                str(reasons[place]),
                json.dumps(kept[place], sort_keys=True),
            )
            for place in order[reasons[order] != ""].tolist()
        ],
        received=len(rows),
        dropped=len(rows) - len(kept),
        clamped=int(clamped[good].sum()),
    )

    return reject_unlike_neighbours(bars)


def make_numbers(rows: Sequence[Mapping[str, Any]], letter: str) -> np.ndarray:
    """Return one letter of each row as a float; what is missing or no number becomes NaN."""
    values = [row.get(letter) for row in rows]
    return np.array(
        [value if type(value) in NUMBER_TYPES else np.nan for value in values], dtype="float64"
    )


def make_times(stamps_ms: np.ndarray, timeframe: str) -> dict[str, np.ndarray]:
    """Return what each time stamp means in New York: `day` (naive datetime64), `date` (ISO text),
    `stamp` (of a day bar the midnight, ms UTC), `clock` (HH:MM:SS, None for day bars), `weekday` (0
    = Sunday), and `is_off_grid`: no place for a 5-minute bar. All bars of a session mostly share a
    time stamp, so each distinct stamp is converted once."""
    distinct, place = np.unique(stamps_ms, return_inverse=True)
    local = make_new_york_times(distinct)
    days = local.normalize()
    is_day = timeframe == "1day"
    hours = local.hour.to_numpy()
    is_off_grid = (hours < 4) | (hours >= 20) | (distinct % FIVE_MINUTES_MS != 0)
    clock = (
        np.full(len(distinct), None)
        if is_day
        else np.array(local.strftime("%H:%M:%S"), dtype=object)
    )
    columns = {
        "day": days.to_numpy(),
        "date": np.array(days.strftime("%Y-%m-%d"), dtype=object),
        "stamp": make_midnights_ms(days) if is_day else distinct,
        "clock": clock,
        "weekday": sunday_based_weekday(days),
        "is_off_grid": np.full(len(distinct), False) if is_day else is_off_grid,
    }

    return {name: column[place] for name, column in columns.items()}


def clamp_within_a_tick(prices: np.ndarray) -> np.ndarray:
    """Move a high that lies at most a tick below open or close up to it, and a low down, in place;
    return which bars that concerns."""
    opened, high, low, close = prices
    top, bottom = np.fmax(opened, close), np.fmin(opened, close)
    # A difference of floats may exceed it by a breath.
    tick = np.where(top >= 1, TICK, SMALL_TICK) * (1 + 1e-6)

    is_low_high = (high < top) & (top - high <= tick) & (low <= bottom + tick)
    is_high_low = (low > bottom) & (low - bottom <= tick) & (high >= top - tick)

    high[is_low_high] = top[is_low_high]
    low[is_high_low] = bottom[is_high_low]
    return np.asarray(is_low_high | is_high_low)


def find_broken_rules(
    tickers: np.ndarray,
    prices: np.ndarray,
    volume: np.ndarray,
    times: Mapping[str, np.ndarray],
    sessions: Sequence[date],
) -> np.ndarray:
    """Return for each bar the first rule that it breaks; empty text when it breaks none."""
    asked = pd.DatetimeIndex(list(sessions)).to_numpy()
    days = times["day"]
    rules = find_broken_numbers(prices, volume) | {
        "no ticker": tickers == "",
        "a broken ticker name": ~find_ticker_names(tickers),
        "no readable time": ~times["is_readable"],
        "after the last asked session": days > asked[-1],
        "before the first asked session": days < asked[0],
        "no session on this day": ~np.isin(days, asked),
        "outside of 04:00-20:00 or not on five minutes": times["is_off_grid"],
    }

    return np.asarray(np.select(list(rules.values()), list(rules), default=""), dtype=object)


def find_broken_numbers(prices: np.ndarray, volume: np.ndarray) -> dict[str, np.ndarray]:
    """Given `prices` (rows: open, high, low, close), return the bars that break each rule."""
    opened, high, low, close = prices
    return {
        "not a finite number": ~np.isfinite(prices).all(axis=0) | ~np.isfinite(volume),
        "price not above 0": (prices <= 0).any(axis=0),
        "volume below 0": volume < 0,
        f"volume above {HIGHEST_VOLUME:.0f}": volume > HIGHEST_VOLUME,
        "high below open or close": high < np.maximum(opened, close),
        "low above open or close": low > np.minimum(opened, close),
    }


def find_ticker_names(tickers: np.ndarray) -> np.ndarray:
    """Return which of `tickers` can be names, each looked at once: an answer may repeat it."""
    names = {ticker: TICKER_NAME.fullmatch(ticker) is not None for ticker in set(tickers.tolist())}
    return np.array([names[ticker] for ticker in tickers.tolist()], dtype=bool)


def reject_unlike_neighbours(bars: ParsedBars) -> ParsedBars:
    """Reject bars above BELIEVED_PRICE that are unlike their ticker's others; return the rest."""
    top, bottom = bars.prices.max(axis=0, initial=0), bars.prices.min(axis=0, initial=np.inf)
    unlike: list[int] = []

    for ticker in sorted(set(bars.tickers[top > BELIEVED_PRICE].tolist())):
        places = np.flatnonzero(bars.tickers == ticker)

        # Stretches within which no price is LARGEST_STEP times the one before.
        high, low = top[places], bottom[places]
        steps = np.maximum(high[1:] / low[:-1], high[:-1] / low[1:])
        stretches = np.split(places, np.flatnonzero(steps >= LARGEST_STEP) + 1)

        # Those that come down to BELIEVED_PRICE are believed; where none does, the longest one is.
        believed = [
            stretch
            for stretch in stretches
            if bottom[stretch].min() <= BELIEVED_PRICE
            and (top[stretch] < LARGEST_STEP * bottom[stretch]).all()
        ]
        kept = np.concatenate(believed or [max(stretches, key=len)])
        unlike += [place for place in places.tolist() if place not in kept]

    return reject_places(bars, unlike)


def find_lone_high_prices(bars: ParsedBars) -> list[int]:
    """Return places of bars above BELIEVED_PRICE that are alone of their ticker in an answer."""
    high = np.flatnonzero(bars.prices.max(axis=0, initial=0) > BELIEVED_PRICE).tolist()
    return [place for place in high if (bars.tickers == bars.tickers[place]).sum() == 1]


def reject_places(bars: ParsedBars, places: Sequence[int]) -> ParsedBars:
    """Reject the bars at `places` as unlike the bars beside them; return the rest."""
    if not places:
        return bars

    keep = ~np.isin(np.arange(len(bars)), places)
    return replace(
        bars,
        tickers=bars.tickers[keep],
        timestamps=bars.timestamps[keep],
        prices=bars.prices[:, keep],
        volume=bars.volume[keep],
        session_dates=bars.session_dates[keep],
        time_of_day=bars.time_of_day[keep],
        day_of_week=bars.day_of_week[keep],
        rejected=[*bars.rejected, *(make_rejected(bars, place) for place in places)],
    )


def make_rejected(bars: ParsedBars, place: int) -> RejectedBar:
    """Return a bar as RejectedBar, in the vendor's letters."""
    values = [*bars.prices[:, place].tolist(), float(bars.volume[place])]
    stamp = int(bars.timestamps[place])

    return RejectedBar(
        str(bars.tickers[place]),
        bars.timeframe,
        stamp,
        str(bars.session_dates[place]),
        UNLIKE_NEIGHBOURS,
        json.dumps(
            {**dict(zip("ohlcv", values, strict=True), t=stamp), "T": str(bars.tickers[place])}
        ),
    )
