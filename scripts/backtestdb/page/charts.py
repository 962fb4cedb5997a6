"""Candles and bars as paths of an SVG that is stretched to the width of the page. Pure functions:
text beside the drawing (prices, dates) is placed by the template, in percent."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from backtestdb.new_york import NEW_YORK, date_of
from backtestdb.page.ticker import BAR_MS, Bar, CountedSession, MinuteSession
from backtestdb.page.tickers import ListedSplit

WIDTH, HEIGHT = 1000.0, 300.0
VOLUME_HEIGHT = 60.0  # the lowest part of HEIGHT, below the prices
BODY_SHARE = 0.7  # of a candle's place
HOUR_MS = 3_600_000
NICE_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Label:
    """Text beside a drawing; `percent` from its top or its left. `is_minor`: left out where there
    is little room."""

    percent: float
    text: str
    is_minor: bool = False


@dataclass(frozen=True)
class Scale:
    """Prices from `low` to `high` as heights of an SVG, `top` to `bottom`."""

    low: float
    high: float
    top: float
    bottom: float

    def y(self, price: float) -> float:
        span = self.high - self.low or 1.0
        return round(self.bottom - (price - self.low) / span * (self.bottom - self.top), 2)


def make_day_candles(
    bars: Sequence[Bar], sessions: Sequence[date], splits: Sequence[ListedSplit]
) -> dict[str, Any]:
    """Given day bars (not empty, in order) of `sessions`, return a drawing with each session as
    wide as the others, and a line where a split took effect. A session without a bar is a gap."""
    step = WIDTH / len(sessions)
    dates = [date_of(bar.timestamp) for bar in bars]
    places = [(bisect_left(sessions, day) + 0.5) * step for day in dates]
    texts = [day.isoformat() for day in sessions]

    return {
        **draw_candles(bars, places, step),
        "points": [[f"{day}", *prices_of(bar)] for day, bar in zip(dates, bars, strict=True)],
        "labels": make_month_labels(texts),
        "splits": [
            Label(
                round(100 * bisect_left(texts, split.session_date) / len(texts), 2),
                f"{split.text} split on {split.session_date}",
            )
            for split in reversed(splits)
            if texts[0] < split.session_date <= texts[-1]
        ],
    }


def make_minute_candles(session: MinuteSession) -> dict[str, Any]:
    """Given 5-minute bars (not empty), return a drawing of them by their time; `hours`: the regular
    trading hours, left and right in units of the drawing."""
    first = min(session.bars[0].timestamp, session.opens_ms or session.bars[0].timestamp)
    last = max(session.bars[-1].timestamp + BAR_MS, session.closes_ms or 0)
    step = WIDTH * BAR_MS / (last - first)
    places = [(bar.timestamp - first) / (last - first) * WIDTH + step / 2 for bar in session.bars]

    hours = None
    if session.opens_ms and session.closes_ms:
        hours = [
            round((edge - first) / (last - first) * WIDTH, 2)
            for edge in (session.opens_ms, session.closes_ms)
        ]

    return {
        **draw_candles(session.bars, places, step),
        "points": [[format_time(bar.timestamp), *prices_of(bar)] for bar in session.bars],
        "labels": make_hour_labels(first, last),
        "hours": hours,
        "splits": [],
    }


def draw_candles(bars: Sequence[Bar], places: Sequence[float], step: float) -> dict[str, Any]:
    """Return paths: `wicks`, `rising` and `falling` bodies, `volumes`. `places`: the middle of each
    candle, in units of the drawing."""
    prices = make_scale(min(bar.low for bar in bars), max(bar.high for bar in bars))
    most = max(bar.volume for bar in bars) or 1

    wicks: list[str] = []
    volumes: list[str] = []
    bodies: dict[bool, list[str]] = {True: [], False: []}

    half = step * BODY_SHARE / 2
    for bar, middle in zip(bars, places, strict=True):
        left, right = round(middle - half, 2), round(middle + half, 2)
        wicks.append(f"M{middle:.2f} {prices.y(bar.high)}V{prices.y(bar.low)}")
        body = f"M{left} {prices.y(bar.open)}H{right}V{prices.y(bar.close)}H{left}Z"
        bodies[bar.close >= bar.open].append(body)
        top = round(HEIGHT - (VOLUME_HEIGHT - 8) * bar.volume / most, 2)
        volumes.append(f"M{left} {HEIGHT:g}V{top}H{right}V{HEIGHT:g}Z")

    return {
        "wicks": "".join(wicks),
        "rising": "".join(bodies[True]),
        "falling": "".join(bodies[False]),
        "volumes": "".join(volumes),
        "places": [round(place / WIDTH * 100, 2) for place in places],
        "grid": [prices.y(price) for price in choose_ticks(prices.low, prices.high)],
        "prices": [
            Label(round(prices.y(price) / HEIGHT * 100, 2), format_price(price))
            for price in choose_ticks(prices.low, prices.high)
        ],
    }


def make_scale(low: float, high: float) -> Scale:
    """Return a scale with a little air above and below; one price alone gets air too."""
    air = (high - low) * 0.04 or abs(high) * 0.01 or 1.0
    return Scale(low - air, high + air, 0.0, HEIGHT - VOLUME_HEIGHT)


def choose_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round prices between two, about as many as asked for."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in NICE_STEPS if nice * power >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 10) for number in range(first, math.floor(high / step) + 1)]


def make_month_labels(dates: Sequence[str]) -> list[Label]:
    """Return a name at the first session of each month; every second one may be left out."""
    firsts = [
        number for number in range(1, len(dates)) if dates[number][:7] != dates[number - 1][:7]
    ]
    names = [datetime.fromisoformat(dates[number]) for number in firsts]

    return [
        Label(
            round(100 * number / len(dates), 2),
            f"{name:%b %Y}" if name.month == 1 else f"{name:%b}",
            is_minor=place % 2 == 1,
        )
        for place, (number, name) in enumerate(zip(firsts, names, strict=True))
    ]


def make_hour_labels(first_ms: int, last_ms: int) -> list[Label]:
    """Return a name at each full hour of New York; every second one may be left out."""
    hours = range(-(-first_ms // HOUR_MS) * HOUR_MS, last_ms, HOUR_MS)
    return [
        Label(
            round(100 * (hour - first_ms) / (last_ms - first_ms), 2),
            format_time(hour),
            is_minor=place % 2 == 1,
        )
        for place, hour in enumerate(hours)
    ]


def make_session_bars(counted: Sequence[CountedSession]) -> dict[str, Any]:
    """Return bars of each session against what it has when none lacks. `short`: the sessions that
    lack some, the newest first."""
    most = max([78, *(each.bars for each in counted)])
    step = WIDTH / max(len(counted), 1)

    bars = []
    for number, each in enumerate(counted):
        left, width = round(number * step + step * 0.15, 2), round(step * 0.7, 2)
        height = round(100 * each.bars / most, 2)
        line = round(100 - 100 * each.expected / most, 2)
        bars.append(
            {
                "x": left,
                "y": round(100 - height, 2),
                "width": width,
                "height": height,
                "line": f"M{round(number * step, 2)} {line}h{round(step, 2)}",
                "is_short": each.bars < each.expected,
            }
        )

    return {
        "bars": bars,
        "rows": list(reversed(counted)),
        "short": [each for each in reversed(counted) if each.bars < each.expected],
        "first": counted[0].session_date,
        "last": counted[-1].session_date,
    }


def prices_of(bar: Bar) -> list[str]:
    """Return open, high, low, close and volume as they are read."""
    return [*(format_price(p) for p in (bar.open, bar.high, bar.low, bar.close)), f"{bar.volume:,}"]


def format_price(price: float) -> str:
    """Return a price with two digits behind the point; four below one dollar."""
    return f"{price:,.4f}" if abs(price) < 1 else f"{price:,.2f}"


def format_time(timestamp_ms: int) -> str:
    """Given milliseconds UTC, return HH:MM in New York."""
    return f"{datetime.fromtimestamp(timestamp_ms / 1000, NEW_YORK):%H:%M}"
