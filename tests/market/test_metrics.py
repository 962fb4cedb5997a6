"""The 27 columns of daily_metrics against an independent computation and against `ta`."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ta
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from backtestdb.database import transaction
from backtestdb.market.metric_store import save_metrics, tickers_without_metrics
from backtestdb.market.metrics import BAR_METRICS, COMPUTED_METRICS, METRIC_COLUMNS, make_metrics
from backtestdb.sandbox.source import REAL_TICKERS, load_real_prices
from market_setup import open_new_database
from naive_metrics import make_naive_metrics
from walking_bars import SESSIONS, make_bars, make_walk

FIRST_WITH_A_VALUE = {
    "change_percent": 1,
    "change_from_open": 0,
    "volume_20d_avg": 20,
    "volume_ratio": 20,
    "high_low_range_percent": 0,
    "close_to_high_percent": 0,
    "close_to_low_percent": 0,
    "sma_20": 19,
    "sma_50": 49,
    "sma_200": 199,
    "price_to_sma20_percent": 19,
    "price_to_sma50_percent": 49,
    "price_to_sma200_percent": 199,
    "rsi_14": 13,
    "consecutive_up_days": 0,
    "consecutive_down_days": 0,
    "change_5d_percent": 5,
    "change_10d_percent": 10,
    "change_20d_percent": 20,
}


def verify_against_naive(bars: pd.DataFrame) -> None:
    metrics = make_metrics(bars)
    naive = pd.DataFrame(make_naive_metrics(bars.to_dict("records")), dtype="float64")
    assert sorted(naive.columns) == sorted(COMPUTED_METRICS)
    for name in COMPUTED_METRICS:
        np.testing.assert_allclose(
            metrics[name].to_numpy("float64"),
            naive[name].to_numpy(),
            rtol=1e-9,
            atol=1e-9,
            err_msg=name,
        )


def test_columns_are_the_27_in_the_order_of_the_table() -> None:
    assert len(METRIC_COLUMNS) == 27
    assert list(make_metrics(make_walk(1, 30)).columns) == METRIC_COLUMNS
    assert set(FIRST_WITH_A_VALUE) == set(COMPUTED_METRICS)


@pytest.mark.parametrize("ticker", REAL_TICKERS)
def test_metrics_of_real_prices_equal_an_independent_computation(ticker: str) -> None:
    real = load_real_prices()[ticker].columns
    assert real.shape[1] > 190
    verify_against_naive(make_bars(ticker, real))


@pytest.mark.parametrize("ticker", REAL_TICKERS)
def test_rsi_and_moving_averages_of_real_prices_equal_those_of_ta(ticker: str) -> None:
    bars = make_bars(ticker, load_real_prices()[ticker].columns)
    metrics, close = make_metrics(bars), bars["close"]
    expected = {"rsi_14": ta.momentum.RSIIndicator(close, window=14, fillna=False).rsi()}
    for window in (20, 50, 200):
        expected[f"sma_{window}"] = ta.trend.SMAIndicator(
            close, window, fillna=False
        ).sma_indicator()
    for name, values in expected.items():
        np.testing.assert_allclose(metrics[name], values, rtol=1e-12, err_msg=name)


@given(
    seed=st.integers(0, 2**32),
    sessions=st.integers(1, 260),
    step=st.sampled_from([0.001, 0.03, 0.3]),
)
@profile(max_examples=30)
def test_metrics_of_a_random_walk_equal_an_independent_computation(
    seed: int, sessions: int, step: float
) -> None:
    bars = make_walk(seed, sessions, step=step)
    verify_against_naive(bars)
    expected = ta.momentum.RSIIndicator(bars["close"], window=14, fillna=False).rsi()
    np.testing.assert_allclose(make_metrics(bars)["rsi_14"], expected, rtol=1e-12)


@given(lengths=st.lists(st.integers(1, 230), min_size=1, max_size=5), seed=st.integers(0, 2**32))
@profile(max_examples=20)
def test_tickers_of_different_lengths_at_once_equal_one_at_a_time(
    lengths: list[int], seed: int
) -> None:
    walks = [make_walk(seed + n, length, f"T{n}") for n, length in enumerate(lengths)]
    together = make_metrics(pd.concat(walks, ignore_index=True))
    alone = pd.concat([make_metrics(walk) for walk in walks], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone, check_exact=False, rtol=1e-12)


def test_metrics_of_another_company_look_back_no_further_than_its_first_bar() -> None:
    walk, other = make_walk(4, 300, "META"), make_walk(5, 260, "IBM")
    first_date = walk["date"][120]
    metrics = make_metrics(pd.concat([walk, other], ignore_index=True), [("META", first_date)])
    companies = [walk[:120], walk[120:], other]
    expected = pd.concat([make_metrics(each.reset_index(drop=True)) for each in companies])
    pd.testing.assert_frame_equal(metrics, expected.reset_index(drop=True))


def test_bars_of_several_tickers_may_be_interleaved_by_session() -> None:
    walks = pd.concat([make_walk(n, 60, f"T{n}") for n in range(3)]).reset_index(drop=True)
    mixed = walks.sort_values(["timestamp", "ticker"], kind="stable")
    metrics = make_metrics(mixed.reset_index(drop=True)).sort_values(["ticker", "timestamp"])
    pd.testing.assert_frame_equal(metrics.reset_index(drop=True), make_metrics(walks))


@pytest.mark.parametrize("column", COMPUTED_METRICS)
def test_first_session_with_a_value_is_that_of_the_table(column: str) -> None:
    values = make_metrics(make_walk(7, 230).assign(volume=1000))[column]
    assert values.isna().sum() == FIRST_WITH_A_VALUE[column]
    assert values[FIRST_WITH_A_VALUE[column] :].notna().all()


def test_bar_itself_comes_through_unchanged() -> None:
    bars = make_walk(3, 40)
    pd.testing.assert_frame_equal(make_metrics(bars)[BAR_METRICS], bars[BAR_METRICS])


def test_average_volume_of_nothing_gives_no_ratio() -> None:
    bars = make_walk(5, 60).assign(volume=[10**9 + 1] * 15 + [0] * 30 + [7] * 15)
    metrics = make_metrics(bars)
    assert metrics["volume_20d_avg"][35:46].tolist() == [0.0] * 11
    assert metrics["volume_ratio"][35:46].isna().all()
    assert metrics["volume_ratio"][46] == 20


def test_flat_prices_have_no_change_no_run_and_the_rsi_of_ta() -> None:
    bars = make_bars("FLAT", [[10.0] * 230] * 4 + [[100] * 230])
    metrics = make_metrics(bars)
    last = metrics.iloc[-1]
    assert [
        last[name] for name in ("change_percent", "change_20d_percent", "price_to_sma200_percent")
    ] == [0, 0, 0]
    assert [last[name] for name in ("sma_20", "sma_50", "sma_200", "volume_ratio")] == [
        10,
        10,
        10,
        1,
    ]
    assert metrics[["consecutive_up_days", "consecutive_down_days"]].to_numpy().sum() == 0
    expected = ta.momentum.RSIIndicator(bars["close"], window=14, fillna=False).rsi()
    np.testing.assert_array_equal(metrics["rsi_14"], expected)


def test_runs_of_rising_and_falling_closes_are_counted_from_their_beginning() -> None:
    close = [10.0, 11, 12, 12, 13, 12, 11, 10, 11]
    metrics = make_metrics(make_bars("RUN", [close] * 4 + [[1] * 9]))
    assert metrics["consecutive_up_days"].tolist() == [0, 1, 2, 0, 1, 0, 0, 0, 1]
    assert metrics["consecutive_down_days"].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 0]


def test_no_bars_are_no_metrics() -> None:
    assert list(make_metrics(make_walk(1, 1).iloc[:0]).columns) == METRIC_COLUMNS


def test_saved_metrics_hold_the_asked_range_with_null_where_no_window_is_full(
    tmp_path: Path,
) -> None:
    bars = {ticker: make_walk(seed, 120, ticker) for seed, ticker in enumerate(["NA", "TRUE"])}
    insert = (
        "INSERT INTO ohlcv_data (ticker, timestamp, open, high, low, close, volume, timeframe)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, '1day')"
    )
    start, end = SESSIONS[60], SESSIONS[99]
    with closing(open_new_database(tmp_path / "m.db")) as connection:
        for frame in bars.values():
            rows = frame.drop(columns="date").to_numpy(dtype=object).tolist()
            with transaction(connection):
                connection.executemany(insert, [[*row[:6], int(row[6])] for row in rows])
        assert tickers_without_metrics(connection, ["NA", "TRUE"], start, end) == ["NA", "TRUE"]
        for _ in range(2):
            with transaction(connection):
                assert save_metrics(connection, ["NA", "TRUE", "NONE"], start, end) == 80
        assert tickers_without_metrics(connection, ["NA", "TRUE"], start, end) == []
        query = f"SELECT {', '.join(METRIC_COLUMNS)} FROM daily_metrics ORDER BY ticker, date"
        stored = connection.execute(query).fetchall()
        kinds = connection.execute(
            "SELECT DISTINCT typeof(sma_200), typeof(consecutive_up_days), typeof(volume) "
            "FROM daily_metrics"
        ).fetchall()
    assert kinds == [("null", "integer", "integer")]
    expected = pd.concat([make_metrics(frame.iloc[:100]).iloc[60:] for frame in bars.values()])
    pd.testing.assert_frame_equal(
        pd.DataFrame(stored, columns=METRIC_COLUMNS).astype(
            dict.fromkeys(COMPUTED_METRICS, "float64")
        ),
        expected.reset_index(drop=True),
        check_dtype=False,
        check_exact=False,
        rtol=1e-12,
    )
