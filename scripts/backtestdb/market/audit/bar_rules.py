"""What a single bar must keep, whatever stands beside it."""

from collections.abc import Iterable

import numpy as np

from backtestdb.market.audit.columns import Bars
from backtestdb.market.audit.rule import Batch, Hits, Known, Rule, flagged, price_text

# The smallest step of a quote below a dollar: Regulation NMS, Rule 612 (17 CFR 242.612).
SMALLEST_PRICE = 0.0001


def find_impossible_bars(batch: Batch) -> Iterable[Hits]:
    for bars in (batch.days, batch.minutes):
        prices = np.stack([bars.open, bars.high, bars.low, bars.close])
        with np.errstate(invalid="ignore"):
            broken = ~np.isfinite(prices).all(axis=0) | (prices <= 0).any(axis=0)
            broken |= ~(bars.volume >= 0)
            broken |= (bars.high < prices[[0, 3]].max(axis=0)) | (
                bars.low > prices[[0, 3]].min(axis=0)
            )
        yield from flagged(bars, broken, describe_bar)


def describe_bar(bars: Bars, i: int) -> str:
    prices = {"open": bars.open, "high": bars.high, "low": bars.low, "close": bars.close}
    named = ", ".join(f"{name} {price_text(column[i])}" for name, column in prices.items())
    return f"{named}, volume {bars.volume[i]:,.0f}"


def find_prices_below_a_tick(batch: Batch) -> Iterable[Hits]:
    """Yield prices below the smallest that is quoted."""
    for bars in (batch.days, batch.minutes):
        with np.errstate(invalid="ignore"):
            broken = (bars.low > 0) & (bars.low < SMALLEST_PRICE)
        for place in np.flatnonzero(broken).tolist():
            # What was quoted is the price of the day, not the adjusted price: later splits are
            # taken back.
            broken[place] = bars.low[place] * later_ratio(batch.known, bars, place) < SMALLEST_PRICE
        yield from flagged(bars, broken, lambda bars, i: f"a low of {bars.low[i]:.8f}")


def later_ratio(known: Known, bars: Bars, place: int) -> float:
    """Return by what the price of a bar was divided for splits that came after it."""
    splits = known.splits.get(bars.tickers[bars.code[place]], ())
    return float(np.prod([ratio for day, ratio in splits if day > bars.day[place]]))


def find_moves_without_volume(batch: Batch) -> Iterable[Hits]:
    """Yield day bars whose price moves without a share traded."""
    # Not 5-minute bars: fractions of a share, which the store rounds to nothing, can make one.
    bars = batch.days
    with np.errstate(invalid="ignore"):
        broken = (bars.volume == 0) & (bars.high > bars.low)

    yield from flagged(
        bars,
        broken,
        lambda bars, i: (
            f"no volume, but prices from {price_text(bars.low[i])} to {price_text(bars.high[i])}"
        ),
    )


RULES = (
    Rule(
        id="impossible-bar",
        level="error",
        checks="a price is missing, no number or not above 0, the high is not the highest or the "
        "low not the lowest of the four, or the volume is negative",
        source="what open, high, low and close mean",
        mend="refetch",
        in_batch=find_impossible_bars,
    ),
    Rule(
        id="price-below-tick",
        level="warning",
        checks="a price, splits taken back, lies below 0.0001 dollars",
        source="Regulation NMS, Rule 612 (17 CFR 242.612)",
        mend="refetch",
        in_batch=find_prices_below_a_tick,
    ),
    Rule(
        id="move-without-volume",
        level="error",
        checks="a day bar has no volume and prices that differ",
        source="the vendor makes a bar from trades; two prices need two trades",
        mend="refetch",
        in_batch=find_moves_without_volume,
    ),
)
