"""The 27 columns of a daily_metrics row, for many tickers at once. Pure: bars in, metrics out.

Definitions: docs/DATABASE.md, "Daily metrics". A value whose window is not full is NaN. The
arithmetic runs on matrices with a column for each ticker and a row for its first, second, third …
stored session, so that the row before is always the ticker's previous stored session, whatever
sessions others have.
"""

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

BAR_METRICS = ["ticker", "date", "timestamp", "open", "high", "low", "close", "volume"]
COMPUTED_METRICS = [
    "change_percent",
    "change_from_open",
    "volume_ratio",
    "volume_20d_avg",
    "high_low_range_percent",
    "close_to_high_percent",
    "close_to_low_percent",
    "sma_20",
    "sma_50",
    "sma_200",
    "price_to_sma20_percent",
    "price_to_sma50_percent",
    "price_to_sma200_percent",
    "rsi_14",
    "consecutive_up_days",
    "consecutive_down_days",
    "change_5d_percent",
    "change_10d_percent",
    "change_20d_percent",
]
METRIC_COLUMNS = BAR_METRICS + COMPUTED_METRICS
WARM_UP_SESSIONS = 200
RSI_WINDOW = 14


def make_metrics(bars: pd.DataFrame, companies: Collection[tuple[str, str]] = ()) -> pd.DataFrame:
    """Given ticker, date, timestamp, open, high, low, close, volume of any number of tickers, in
    order of ticker and time, return METRIC_COLUMNS with the same rows in the same order.

    `companies`: ticker and date of the first bar of another company that took the ticker over: no
    value looks back beyond it, as none does beyond a first listing.
    """
    names = bars["ticker"]
    for ticker, first_date in companies:
        is_later = (bars["ticker"] == ticker) & (bars["date"] >= first_date)
        names = names.mask(is_later, names + "\n")  # no ticker's name has a new line in it

    # A matrix of tickers × their bars: a window never reaches into another ticker.
    codes, tickers = pd.factorize(names)
    positions = bars.groupby(codes).cumcount().to_numpy()

    def pack(column: str) -> pd.DataFrame:
        matrix = np.full((positions.max(initial=-1) + 1, len(tickers)), np.nan)
        matrix[positions, codes] = bars[column]
        return pd.DataFrame(matrix)

    over_time = make_metrics_over_time(pack("close"), pack("volume"))
    computed: dict[str, pd.Series | np.ndarray] = {**make_metrics_of_the_day(bars)}
    computed |= {name: matrix.to_numpy()[positions, codes] for name, matrix in over_time.items()}

    columns = {
        name: bars[name] if name in BAR_METRICS else computed[name] for name in METRIC_COLUMNS
    }
    return pd.DataFrame(columns, index=bars.index, copy=False)


def make_metrics_of_the_day(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """Return what a bar tells by itself, in percent."""
    return {
        "change_from_open": 100 * (bars["close"] / bars["open"] - 1),
        "high_low_range_percent": 100 * (bars["high"] - bars["low"]) / bars["open"],
        "close_to_high_percent": 100 * (bars["high"] - bars["close"]) / bars["high"],
        "close_to_low_percent": 100 * (bars["close"] - bars["low"]) / bars["low"],
    }


def make_metrics_over_time(close: pd.DataFrame, volume: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Given `close` and `volume` (sessions × tickers, each ticker packed to the top), return the
    metrics that need earlier sessions."""
    metrics = {"change_percent": make_change_percent(close, 1)}
    for sessions in (5, 10, 20):
        metrics[f"change_{sessions}d_percent"] = make_change_percent(close, sessions)

    for window in (20, 50, 200):
        average = close.rolling(window, min_periods=window).mean()
        metrics[f"sma_{window}"] = average
        metrics[f"price_to_sma{window}_percent"] = 100 * (close / average - 1)

    # The session itself is left out of its average, so that a spike does not dilute itself.
    before = volume.rolling(20, min_periods=20).mean().shift(1)
    metrics["volume_20d_avg"] = before
    metrics["volume_ratio"] = volume / before.where(before > 0)
    metrics["rsi_14"] = make_rsi(close)
    metrics["consecutive_up_days"] = count_run(close, np.greater)
    metrics["consecutive_down_days"] = count_run(close, np.less)

    return metrics


def make_change_percent(close: pd.DataFrame, sessions: int) -> pd.DataFrame:
    return 100 * (close / close.shift(sessions) - 1)


def make_rsi(close: pd.DataFrame) -> pd.DataFrame:
    """Return Wilder's RSI as `ta.momentum.RSIIndicator(close, window=14, fillna=False)` has it."""
    change = np.diff(close.to_numpy(), axis=0, prepend=np.nan)
    rises, falls = np.where(change > 0, change, 0.0), np.where(change < 0, -change, 0.0)
    # `ta` seeds the mean with the first change, TA-Lib and charting sites with the mean of the
    # first 14: up to 5.7 points apart at session 20 of GOOG's history, below 0.1 from 54 on.
    mean_rise, mean_fall = np.split(make_exponential_means(np.hstack([rises, falls])), 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rsi = 100 - 100 / (1 + mean_rise / mean_fall)
    rsi[mean_fall == 0] = 100.0
    rsi[: RSI_WINDOW - 1] = np.nan
    return pd.DataFrame(rsi)


def make_exponential_means(values: np.ndarray) -> np.ndarray:
    """Return Wilder's mean of columns: a session moves it 1/14 of the way to its value."""
    means = values.copy()
    for i in range(1, len(values)):
        means[i] = means[i - 1] + (values[i] - means[i - 1]) / RSI_WINDOW
    return means


def count_run(
    close: pd.DataFrame, compare: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> pd.DataFrame:
    """Count the run of rising (falling) closes that ends at each session; 0 outside of one."""
    values = close.to_numpy()
    goes_on = np.zeros_like(values)
    goes_on[1:] = compare(values[1:], values[:-1])
    runs = goes_on.copy()
    for i in range(1, len(values)):
        runs[i] = (runs[i - 1] + 1) * goes_on[i]
    return pd.DataFrame(runs)
