"""The rows of daily_metrics against the day bars that they are computed from."""

from collections.abc import Callable, Collection, Iterable

import numpy as np
import pandas as pd

from backtestdb.market.audit.columns import Bars, Flags, Floats, Ints, day_text
from backtestdb.market.audit.rule import Batch, Hits, Rule
from backtestdb.market.metrics import BAR_METRICS, METRIC_COLUMNS, make_metrics

COMPARED = METRIC_COLUMNS[2:]  # ticker and date are what rows are found by
# The bar itself is a copy. What is computed may differ in its last digits with the bars ahead of
# it: a relative 1e-9 is promised, and a change of 0 % is a difference of two prices.
COPIED = len(BAR_METRICS) - 2
RELATIVE, ABSOLUTE = 1e-7, 1e-7


def find_unpaired_rows(batch: Batch) -> Iterable[Hits]:
    """Yield day bars since the ticker's first metrics without any, and metrics without a bar."""
    days, metrics = batch.days, batch.metrics
    first = np.full(len(batch.tickers), np.iinfo("int64").max)
    np.minimum.at(first, metrics.code, metrics.day)
    has_none = np.isin(np.arange(len(batch.tickers)), metrics.code, invert=True)

    lacking = ~np.isin(days.key, metrics.key) & (
        (days.day >= first[days.code]) | has_none[days.code]
    )
    without_row = "a day bar without its row of daily_metrics"
    yield hits_of(batch, days.code, days.day, lacking, lambda _: without_row)

    extra = ~np.isin(metrics.key, days.key)
    without_bar = "a row of daily_metrics without its day bar"
    yield hits_of(batch, metrics.code, metrics.day, extra, lambda _: without_bar)


def hits_of(
    batch: Batch, code: Ints, day: Ints, broken: Flags, describe: Callable[[int], str]
) -> Hits:
    """Return hits where `broken` is true; `describe` takes a place."""
    places = np.flatnonzero(broken)
    tickers = [batch.tickers[c] for c in code[places].tolist()]
    return Hits("1day", tickers, day[places], lambda i: describe(int(places[i])))


def find_wrong_values(batch: Batch) -> Iterable[Hits]:
    """Yield rows that differ in a column from what the stored bars give, computed again."""
    days, metrics = batch.days, batch.metrics
    if not len(days) or not len(metrics.code):
        return

    right = make_right_values(days, batch.known.companies)
    place = np.minimum(np.searchsorted(days.key, metrics.key), len(days) - 1)
    paired = days.key[place] == metrics.key
    right = right[place]

    allowed = ABSOLUTE + RELATIVE * np.abs(right)
    allowed[:, :COPIED] = 0
    with np.errstate(invalid="ignore"):
        differs = ~(np.abs(metrics.values - right) <= allowed)
    differs &= ~(np.isnan(metrics.values) & np.isnan(right))

    def describe(row: int) -> str:
        column = int(np.flatnonzero(differs[row])[0])
        stored, computed = value_text(metrics.values[row, column]), value_text(right[row, column])
        return f"{COMPARED[column]} is {stored}, computed from the bars {computed}"

    wrong = paired & differs.any(axis=1)
    yield hits_of(batch, metrics.code, metrics.day, wrong, describe)


def make_right_values(days: Bars, companies: Collection[tuple[str, str]]) -> Floats:
    """Return COMPARED of every day bar, a row each."""
    tickers = set(days.tickers)
    changed = [(ticker, first_date) for ticker, first_date in companies if ticker in tickers]
    texts = {day: day_text(day) for day in np.unique(days.day).tolist()}
    frame = pd.DataFrame(
        {
            "ticker": np.array(days.tickers, dtype=object)[days.code],
            "date": [texts[day] for day in days.day.tolist()],
            "timestamp": days.midnight,
            **{name: getattr(days, name) for name in BAR_METRICS[3:]},
        }
    )

    with np.errstate(all="ignore"):  # an impossible bar is the business of its own rule
        return make_metrics(frame, changed)[list(COMPARED)].to_numpy("float64")


def value_text(value: float) -> str:
    return "NULL" if np.isnan(value) else f"{value:.6g}"


RULES = (
    Rule(
        id="metrics-rows",
        level="error",
        checks="a day bar has no row of daily_metrics, or a row has no day bar",
        source="docs/DATABASE.md, Daily metrics: one row per ticker and session",
        mend="refetch",
        in_batch=find_unpaired_rows,
    ),
    Rule(
        id="metrics-values",
        level="error",
        checks="one of the 27 values differs from what the stored bars give",
        source="docs/DATABASE.md, Daily metrics: the definitions",
        mend="refetch",
        in_batch=find_wrong_values,
    ),
)
