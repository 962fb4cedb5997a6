"""The 27 columns once more, one number at a time, written from their definitions and from nothing
else.

Slow on purpose: each value looks back over its own window, so that no running sum can go wrong.
"""

from collections.abc import Mapping, Sequence
from math import fsum

Row = dict[str, float | None]


def mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def percent_above(value: float, base: float) -> float:
    return 100 * (value - base) / base


def make_naive_metrics(bars: Sequence[Mapping[str, float]]) -> list[Row]:
    """`bars`: open, high, low, close, volume of one ticker's sessions in order; None where nothing
    is due."""
    closes = [bar["close"] for bar in bars]
    volumes = [bar["volume"] for bar in bars]
    strengths = make_naive_rsi(closes)
    return [
        make_naive_row(bar, i, closes, volumes) | {"rsi_14": strengths[i]}
        for i, bar in enumerate(bars)
    ]


def make_naive_row(
    bar: Mapping[str, float], i: int, closes: Sequence[float], volumes: Sequence[float]
) -> Row:
    row: Row = {
        "change_from_open": percent_above(bar["close"], bar["open"]),
        "high_low_range_percent": 100 * (bar["high"] - bar["low"]) / bar["open"],
        "close_to_high_percent": 100 * (bar["high"] - bar["close"]) / bar["high"],
        "close_to_low_percent": 100 * (bar["close"] - bar["low"]) / bar["low"],
        "change_percent": percent_above(closes[i], closes[i - 1]) if i >= 1 else None,
        "consecutive_up_days": count_naive_run(closes[: i + 1], 1),
        "consecutive_down_days": count_naive_run(closes[: i + 1], -1),
    }
    for n in (5, 10, 20):
        row[f"change_{n}d_percent"] = percent_above(closes[i], closes[i - n]) if i >= n else None
    for n in (20, 50, 200):
        average = mean(closes[i - n + 1 : i + 1]) if i >= n - 1 else None
        row[f"sma_{n}"] = average
        row[f"price_to_sma{n}_percent"] = percent_above(closes[i], average) if average else None
    before = mean(volumes[i - 20 : i]) if i >= 20 else None
    row["volume_20d_avg"] = before
    row["volume_ratio"] = volumes[i] / before if before else None
    return row


def count_naive_run(closes: Sequence[float], direction: int) -> int:
    """How many changes at the end go up (1) or down (-1)."""
    run = 0
    while run + 1 < len(closes) and (closes[-run - 1] - closes[-run - 2]) * direction > 0:
        run += 1
    return run


def make_naive_rsi(closes: Sequence[float]) -> list[float | None]:
    """Wilder's mean of rises and falls, begun with a change of nothing at session 0, shown from
    session 13."""
    rise = fall = 0.0
    strengths: list[float | None] = []
    for i in range(len(closes)):
        change = closes[i] - closes[i - 1] if i else 0.0
        rise = (13 * rise + max(change, 0.0)) / 14
        fall = (13 * fall + max(-change, 0.0)) / 14
        strengths.append(None if i < 13 else 100.0 if fall == 0 else 100 - 100 / (1 + rise / fall))
    return strengths
