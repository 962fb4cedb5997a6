"""What the day bars of a ticker must keep one after the other."""

from collections.abc import Iterable
from itertools import pairwise
from math import log

import numpy as np

from backtestdb.market.audit.columns import Bars, Flags, Floats, Ints
from backtestdb.market.audit.rule import Batch, Hits, Rule, flagged, hits_at, logs, price_text

# Sessions in a row with the same four prices. A bar with a range does not come three times; one
# without (a quiet preferred share at its price, a hundred shares a day) may, so it takes five, and
# the same volume.
STALE_SESSIONS, STALE_FLAT_SESSIONS = 3, 5
# A spike doubles or halves the price, is twelve times the ticker's usual move, and is gone at the
# next opening.
SPIKE, SPIKE_MOVES, GONE = log(2), 12.0, 0.25
# Below 6:5 a night's news explains the price as well as a split does.
SMALLEST_SPLIT = log(1.2)
# A jump alone must be one of these ratios, because no list has it: those that companies choose.
USUAL_RATIOS = (1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)
RATIO_TOLERANCE = 0.04
# What is traded in dollars does not change by a split. After news that halve a price it is ten
# times as much.
DOLLARS_TOLERANCE = log(2.5)
WINDOW = 5
DAYS_APART_AT_MOST = 10  # a bar further away says nothing about the night of a split


def find_stale_runs(batch: Batch) -> Iterable[Hits]:
    """Yield runs of sessions with the same four prices; of flat ones, which a quiet ticker has,
    only with the same volume."""
    bars = batch.days
    same = bars.follows & same_as_before(bars.open, bars.high, bars.low, bars.close)
    same_volume = same & same_as_before(bars.volume)
    with np.errstate(invalid="ignore"):
        moving = bars.high > bars.low

    broken = long_runs(same & moving, STALE_SESSIONS) | long_runs(
        same_volume & ~moving, STALE_FLAT_SESSIONS
    )
    yield from flagged(
        bars,
        broken,
        lambda bars, i: (
            f"the same four prices as the sessions beside it, close {price_text(bars.close[i])}"
        ),
    )


def same_as_before(*columns: Floats) -> Flags:
    same = np.ones(len(columns[0]), dtype=bool)
    for column in columns:
        same[1:] &= column[1:] == column[:-1]
    same[:1] = False
    return same


def long_runs(goes_on: Flags, length: int) -> Flags:
    """Return members of runs of `length` or more; `goes_on` is false at the first of each."""
    starts = np.flatnonzero(~goes_on)
    lengths = np.diff(np.append(starts, len(goes_on)))
    return (
        np.repeat(lengths >= length, lengths) if len(starts) else np.zeros(len(goes_on), dtype=bool)
    )


def find_spikes(batch: Batch) -> Iterable[Hits]:
    """Yield prices that are far from both their neighbours, while those are near each other."""
    bars = batch.days
    inner = bars.follows & np.append(bars.follows[1:], [False])[: len(bars)]
    close, opened, usual = logs(bars.close), logs(bars.open), usual_moves(bars)
    before, after = shifted(close, 1), shifted(opened, -1)
    limit = np.maximum(SPIKE, SPIKE_MOVES * usual)
    with np.errstate(invalid="ignore"):
        back = np.abs(after - before) < GONE * limit
        broken = inner & back & (farthest(bars, before, after) > limit)
    yield from flagged(bars, broken, describe_spike)


def farthest(bars: Bars, before: Floats, after: Floats) -> Floats:
    """Return how far a bar's high or low is from the prices beside it, in logarithms."""
    up = logs(bars.high) - np.maximum(before, after)
    down = np.minimum(before, after) - logs(bars.low)
    return np.maximum(up, down)


def describe_spike(bars: Bars, i: int) -> str:
    return (
        f"prices from {price_text(bars.low[i])} to {price_text(bars.high[i])} between a close of"
        f" {price_text(bars.close[i - 1])} and an opening at {price_text(bars.open[i + 1])}"
    )


def shifted(values: Floats, by: int) -> Floats:
    """Return the value `by` places before (after, when negative); NaN beyond the ends."""
    moved = np.full_like(values, np.nan)
    if by > 0:
        moved[by:] = values[:-by]
    else:
        moved[:by] = values[-by:]
    return moved


def usual_moves(bars: Bars) -> Floats:
    """Return for each bar its ticker's median move, without sign, from close to close."""
    moves = np.abs(logs(bars.close) - shifted(logs(bars.close), 1))
    moves[~bars.follows] = np.nan
    return of_ticker(bars, [median(moves[part]) for part in ticker_slices(bars)])


def ticker_slices(bars: Bars) -> list[slice]:
    edges = np.searchsorted(bars.code, np.arange(len(bars.tickers) + 1)).tolist()
    return [slice(first, stop) for first, stop in pairwise(edges)]


def of_ticker(bars: Bars, values: list[float]) -> Floats:
    return np.array(values, dtype="float64")[bars.code] if len(bars) else np.zeros(0)


def median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def overnight_ratios(bars: Bars) -> Floats:
    """Return the logarithm of the close before to the opening of each bar: of how many shares one
    seems to have become. NaN where there is no bar right before."""
    ratios = shifted(logs(bars.close), 1) - logs(bars.open)
    apart = np.diff(bars.day, prepend=bars.day[:1])
    ratios[~bars.follows | (apart > DAYS_APART_AT_MOST)] = np.nan
    return ratios


def find_splits_not_applied(batch: Batch) -> Iterable[Hits]:
    """Yield nights in which a listed split still shows in the prices."""
    bars, splits = batch.days, batch.known.splits
    found: list[tuple[int, float]] = []

    if any(ticker in splits for ticker in bars.tickers):
        ratios = overnight_ratios(bars)
        for ticker, part in zip(bars.tickers, ticker_slices(bars), strict=True):
            for day, ratio in splits.get(ticker, ()):
                place = part.start + int(np.searchsorted(bars.day[part], day))
                if place < part.stop and shows_split(ratios[place], ratio):
                    found.append((place, ratio))

    if found:
        places = np.array([place for place, _ in found])
        ratio_at = dict(found)
        yield hits_at(
            bars,
            places,
            lambda i: (
                f"a split of {ratio_at[i]:g} is listed, and the price still jumps by "
                f"{jump(bars, i):.3f}"
            ),
        )


def shows_split(seen: float, ratio: float) -> bool:
    """Return whether a split explains a night far better than none does. `seen`: a logarithm."""
    expected = log(ratio)
    return abs(expected) >= SMALLEST_SPLIT and abs(seen - expected) < abs(expected) / 3


def jump(bars: Bars, i: int) -> float:
    return float(bars.close[i - 1] / bars.open[i])


def find_split_like_jumps(batch: Batch) -> Iterable[Hits]:
    """Yield nights like a split that is not listed."""
    bars = batch.days
    ratios = overnight_ratios(bars)

    # Far beyond the ticker's moves, and the day itself is calm.
    with np.errstate(invalid="ignore"):
        calm = np.abs(logs(bars.close) - logs(bars.open)) < np.abs(ratios) / 4
        broken = calm & (np.abs(ratios) > np.maximum(log(1.4), SPIKE_MOVES * usual_moves(bars)))

    # The ratio is a usual one, the price stays there, and as many dollars are traded as before.
    for place in np.flatnonzero(broken).tolist():
        broken[place] = (
            is_usual_ratio(ratios[place])
            and not is_listed(batch, place)
            and moves_volume_as_a_split(bars, place, float(ratios[place]))
        )

    yield from flagged(
        bars,
        broken,
        lambda bars, i: f"the price jumps by {jump(bars, i):.3f} overnight, and no split is listed",
    )


def is_usual_ratio(seen: float) -> bool:
    return any(abs(abs(seen) - log(ratio)) < RATIO_TOLERANCE for ratio in USUAL_RATIOS)


def is_listed(batch: Batch, place: int) -> bool:
    bars = batch.days
    splits = batch.known.splits.get(bars.tickers[bars.code[place]], ())
    return any(bars.day[place - 1] < day <= bars.day[place] for day, _ in splits)


def moves_volume_as_a_split(bars: Bars, place: int, ratio: float) -> bool:
    """Return whether the sessions beside the jump fit a split: dollars traded alike, prices on both
    sides where the jump left them."""
    before, after = neighbours(bars, place)
    dollars = logs(bars.volume * bars.close)
    change = median(dollars[after]) - median(dollars[before])
    level = median(logs(bars.close)[before]) - median(logs(bars.close)[after])
    return abs(change) < DOLLARS_TOLERANCE and abs(level - ratio) < abs(ratio) / 3


def neighbours(bars: Bars, place: int) -> tuple[Ints, Ints]:
    """Return up to WINDOW bars of the same ticker before a place, and as many from it on."""
    around = np.arange(max(place - WINDOW, 0), min(place + WINDOW, len(bars)))
    around = around[bars.code[around] == bars.code[place]]
    return around[around < place], around[around >= place]


RULES = (
    Rule(
        id="stale-run",
        level="error",
        checks="the same open, high, low and close come in three sessions in a row (five, with the "
        "same volume, where all four are one price)",
        source="a feed that stands still repeats its last bar",
        mend="refetch",
        in_batch=find_stale_runs,
    ),
    Rule(
        id="spike",
        level="warning",
        checks="a price doubles or halves against the close before and the opening after, which "
        "agree, and by twelve times the ticker's usual move",
        source="a wrong print lasts one bar; news last longer than a night",
        mend="refetch",
        in_batch=find_spikes,
    ),
    Rule(
        id="split-not-applied",
        level="error",
        checks="a split is listed and the prices before it are still those of the day",
        source="the vendor's prices are adjusted for every split (parameter adjusted)",
        mend="refetch",
        in_batch=find_splits_not_applied,
    ),
    Rule(
        id="split-like-jump",
        level="warning",
        checks="the price jumps overnight by the ratio of a usual split, stays there, the dollars "
        "traded stay the same, and no split is listed",
        source="the vendor lists splits late, up to months",
        mend="refetch",
        in_batch=find_split_like_jumps,
    ),
)
