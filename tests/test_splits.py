"""Splits: what the bars say about them, and the three real ones applied to bars that were stored before."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.database import connect
from backtestdb.market.split_store import apply_splits
from backtestdb.market.splits import FetchedBars, Split, judge_splits, parse_splits
from contents import query_all
from market_runs import make_database, make_source, run_backfill, run_update
from sandbox_process import SandboxProcess, running_sandbox

MONDAY = date(2026, 3, 2)
SOURCE_BEGINS_MS, SOURCE_ENDS_MS = 951886800000, 1362114000000  # 2000-03-01 and 2013-03-01
DAY_BARS = (
    "SELECT timestamp, open, high, low, close, volume FROM ohlcv_data WHERE ticker = ? AND timeframe = ?"
)
METRICS = "SELECT * FROM daily_metrics WHERE ticker = ? ORDER BY date"


def make_bars(closes: list[float], opens: list[float], fetched: list[int]) -> FetchedBars:
    """A bar a day from MONDAY on; `fetched`: days after MONDAY."""
    first = MONDAY.toordinal()
    return FetchedBars(
        np.arange(first, first + len(closes)), np.array(fetched) + first, np.array(opens), np.array(closes)
    )


def make_split(day: int, ratio: float) -> Split:
    return Split(date.fromordinal(MONDAY.toordinal() + day), "A", 1, ratio)


def test_splits_listed_twice_or_without_sense_are_dropped() -> None:
    row = {"ticker": "A", "execution_date": "2026-03-02", "split_from": 1, "split_to": 2}
    rows = [
        row,
        row,
        {**row, "split_to": 1},
        {**row, "split_to": 0},
        {"ticker": "B"},
        {**row, "ticker": "NA"},
    ]
    assert parse_splits(rows) == [Split(MONDAY, "A", 1, 2), Split(MONDAY, "NA", 1, 2)]


@pytest.mark.parametrize(("ratio", "state"), [(2.0, "applied"), (0.5, "unconfirmed"), (1.02, "unconfirmed")])
def test_split_counts_only_when_the_prices_jump_by_it(ratio: float, state: str) -> None:
    bars = make_bars([100.0, 101.0, 50.0], [100.0, 100.0, 50.4], fetched=[1, 1, 2])
    (finding,) = judge_splits([make_split(2, ratio)], bars)
    assert finding.state == state
    assert finding.seen_ratio == pytest.approx(101 / 50.4)


def test_split_of_bars_fetched_after_it_changes_nothing() -> None:
    bars = make_bars([50.0, 50.5, 50.0], [50.0, 50.0, 50.4], fetched=[2, 2, 2])
    assert judge_splits([make_split(2, 2.0)], bars) == []


def test_split_shows_where_the_raw_bars_end_after_corrections_fetched_the_newest_again() -> None:
    bars = make_bars([100.0, 100.0, 50.0, 50.0], [100.0, 100.0, 50.0, 50.0], fetched=[1, 1, 5, 5])
    (finding,) = judge_splits([make_split(3, 2.0)], bars)
    assert finding.state == "applied"
    assert bars.is_raw(finding.split).tolist() == [True, True, False, False]


def test_split_without_a_bar_after_it_waits() -> None:
    bars = make_bars([100.0, 100.0], [100.0, 100.0], fetched=[1, 1])
    assert [finding.state for finding in judge_splits([make_split(2, 2.0)], bars)] == ["waiting"]


def test_splits_that_end_at_one_boundary_are_told_apart_from_a_false_one() -> None:
    bars = make_bars([600.0, 50.0], [600.0, 50.0], fetched=[0, 9])
    splits = [make_split(1, 3.0), make_split(1, 4.0), make_split(1, 7.0)]
    states = {finding.split.ratio: finding.state for finding in judge_splits(splits, bars)}
    assert states == {3.0: "applied", 4.0: "applied", 7.0: "unconfirmed"}


@given(
    st.sampled_from([1.5, 2.0, 3.0, 4.0, 10.0, 20.0, 0.1, 0.05, 0.5]),
    st.floats(-0.15, 0.15),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_split_that_happened_is_confirmed_whatever_the_night_and_the_corrections(
    ratio: float, overnight: float, executed: int, corrected: int
) -> None:
    prices = [100.0] * executed + [100.0 / ratio * (1 + overnight)] * (11 - executed)
    fetched = [executed - 1] * executed + [executed] * (11 - executed)
    for place in range(max(executed - corrected, 1), executed):
        prices[place], fetched[place] = prices[place] / ratio, executed
    (finding,) = judge_splits([make_split(executed, ratio)], make_bars(prices, prices, fetched))
    assert finding.state == "applied"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with running_sandbox(today="2000-06-20") as running:
        yield running


def relative_difference(one: object, other: object) -> float:
    if one is None or other is None or isinstance(one, str):
        return 0.0 if one == other else 1.0
    return abs(float(one) - float(other)) / max(abs(float(one)), abs(float(other)), 1e-9)  # type: ignore[arg-type]


def verify_equal(one: list[tuple], other: list[tuple], tolerance: float = 1e-9) -> None:
    assert len(one) == len(other)
    for row, expected in zip(one, other, strict=True):
        for value, wanted in zip(row, expected, strict=True):
            assert relative_difference(value, wanted) < tolerance, (row, expected)


REAL_SPLITS = [
    ("AAPL", "2000-06-21", "2000-04-03"),  # 20 sessions into the source: before, volumes are made up
    ("MSFT", "2003-02-18", "2002-06-03"),
    ("AAPL", "2005-02-28", "2004-06-01"),
]


@pytest.mark.parametrize(("ticker", "executed", "start"), REAL_SPLITS)
def test_real_split_applied_to_stored_bars_equals_a_download_made_afterwards(
    tmp_path: Path, sandbox: SandboxProcess, ticker: str, executed: str, start: str
) -> None:
    before, after = shift(executed, -1), shift(executed, 2)
    sandbox.set_today(before)
    stored = make_database(tmp_path / "stored", mine=[ticker, "IBM"])
    source = make_source(tmp_path / "stored", sandbox.url, before)
    run_backfill(source, stored, start, before, "mine")
    run_backfill(source, stored, shift(executed, -8), before, "mine", timeframe="5min")
    raw = query_all(stored, DAY_BARS, ticker, "1day")

    sandbox.set_today(after)
    sandbox.clear_log()
    done = run_update(make_source(tmp_path / "stored", sandbox.url, after), stored, after)
    assert [finding.state for finding in done.findings] == ["applied"]
    assert count_price_requests(sandbox) == 4  # two tickers, day and 5-minute bars; none for the split
    verify_fresh(tmp_path, sandbox, ticker, start, executed, after, stored)
    assert query_all(stored, DAY_BARS, ticker, "1day")[0] != raw[0]

    again = run_update(make_source(tmp_path / "stored", sandbox.url, after), stored, after)
    assert again.findings == []
    verify_fresh(tmp_path, sandbox, ticker, start, executed, after, stored)


def shift(day: str, days: int) -> str:
    """A day before (after) `day`, weekends skipped over."""
    moved = date.fromordinal(date.fromisoformat(day).toordinal() + days)
    step = 1 if days > 0 else -1
    while moved.weekday() > 4:
        moved = date.fromordinal(moved.toordinal() + step)
    return moved.isoformat()


def count_price_requests(sandbox: SandboxProcess) -> int:
    return len([entry for entry in sandbox.fetch_log() if "/aggs/" in entry["path"]])


def verify_fresh(
    folder: Path,
    sandbox: SandboxProcess,
    ticker: str,
    start: str,
    executed: str,
    until: str,
    stored: Path,
) -> None:
    """Against a database that is downloaded now, with the day bars before `start` that came as its warm-up."""
    fresh_folder = folder / f"fresh{len(list(folder.iterdir()))}"
    fresh = make_database(fresh_folder, mine=[ticker, "IBM"])
    source = make_source(fresh_folder, sandbox.url, until)
    run_backfill(source, fresh, start, until, "mine")
    run_backfill(source, fresh, shift(executed, -8), until, "mine", timeframe="5min")
    verify_prices(*(query_all(path, DAY_BARS, ticker, "1day") for path in (stored, fresh)))
    five_minutes = [query_all(path, DAY_BARS, ticker, "5min") for path in (stored, fresh)]
    verify_equal(*([row[:5] for row in rows] for rows in five_minutes))
    strip = [row[1:-1] for row in query_all(stored, METRICS, ticker)]
    verify_equal(strip, [row[1:-1] for row in query_all(fresh, METRICS, ticker)])


def verify_prices(one: list[tuple], other: list[tuple]) -> None:
    """Volumes are whole numbers: one that had a fraction of a share was rounded before it was doubled."""
    verify_equal([row[:5] for row in one], [row[:5] for row in other])
    for row, expected in zip(one, other, strict=True):
        assert abs(row[5] - expected[5]) <= (0 if SOURCE_BEGINS_MS <= row[0] <= SOURCE_ENDS_MS else 1)


def test_split_that_never_happened_is_reported_and_not_applied(tmp_path: Path) -> None:
    with running_sandbox(today="2026-11-17") as sandbox:
        split = {"ticker": "IBM", "execution_date": "2026-11-18", "split_from": 1, "split_to": 4}
        sandbox.set_splits({**split, "moves_prices": False, "copies": 2})
        database = make_database(tmp_path, mine=["IBM"])
        run_backfill(
            make_source(tmp_path, sandbox.url, "2026-11-17"), database, "2026-09-01", "2026-11-17", "mine"
        )
        before = query_all(database, DAY_BARS, "IBM", "1day")
        sandbox.set_today("2026-11-19")
        done = run_update(make_source(tmp_path, sandbox.url, "2026-11-19"), database, "2026-11-19")
    assert [finding.state for finding in done.findings] == ["unconfirmed"]
    assert query_all(database, DAY_BARS, "IBM", "1day")[: len(before)] == before
    assert query_all(database, "SELECT state, day_bars FROM _splits") == [("unconfirmed", 0)]


@pytest.mark.parametrize(("listed_days_late", "is_new_endpoint_there"), [(0, True), (9, False)])
def test_split_of_the_market_listed_late_or_by_the_old_endpoint_is_applied_once(
    tmp_path: Path, listed_days_late: int, is_new_endpoint_there: bool
) -> None:
    split = {"ticker": "ORCL", "execution_date": "2026-11-05", "split_from": 1, "split_to": 3}
    days = ["2026-11-05", "2026-11-06", "2026-11-10", "2026-11-13", "2026-11-17"]
    with running_sandbox(today="2026-11-04") as sandbox:
        listed_from = shift("2026-11-05", listed_days_late) if listed_days_late else "2026-11-05"
        sandbox.set_splits({**split, "listed_from": listed_from, "copies": 2})
        if not is_new_endpoint_there:
            sandbox.set_faults({"match": "^/stocks/v1/splits", "kind": "refusal", "status": 404})
        market = [f"T{number}" for number in range(60)]
        database = make_database(tmp_path / "stored", everyone=["ORCL", "IBM", *market])
        source = make_source(tmp_path / "stored", sandbox.url, "2026-11-04")
        run_backfill(source, database, "2026-10-19", "2026-11-04", "everyone")
        states = []
        for day in days:
            sandbox.set_today(day)
            source = make_source(tmp_path / "stored", sandbox.url, day)
            states += [finding.state for finding in run_update(source, database, day).findings]
        assert states == ["applied"]
        fresh = make_database(tmp_path / "fresh", everyone=["ORCL", "IBM", *market])
        source = make_source(tmp_path / "fresh", sandbox.url, days[-1])
        run_backfill(source, fresh, "2026-10-19", days[-1], "everyone")
    verify_prices(*(query_all(path, DAY_BARS, "ORCL", "1day") for path in (database, fresh)))


def test_split_killed_between_any_two_statements_is_applied_exactly_once(tmp_path: Path) -> None:
    """kill -9 before the first statement, before the second one, and so on to the last; then the whole again."""
    split = Split(date(2005, 2, 28), "AAPL", 1, 2)
    now = datetime(2005, 3, 1, 23, tzinfo=UTC)
    with running_sandbox(today="2005-02-25") as sandbox:
        source_database = make_database(tmp_path / "source", mine=["AAPL"])
        source = make_source(tmp_path / "source", sandbox.url, "2005-02-25")
        run_backfill(source, source_database, "2005-02-14", "2005-02-25", "mine")
        with closing(connect(source_database)) as connection:
            connection.execute("DELETE FROM ohlcv_data WHERE timestamp < 1107000000000")
        sandbox.set_today("2005-03-01")
        source = make_source(tmp_path / "source", sandbox.url, "2005-03-01")
        run_backfill(source, source_database, "2005-02-28", "2005-03-01", "mine")
    with closing(connect(source_database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    content = source_database.read_bytes()
    (tmp_path / "whole").mkdir()
    whole = tmp_path / "whole" / "backtesting.db"
    whole.write_bytes(content)
    statements = count_statements(whole, split, now)
    expected = read_all(whole)
    assert statements > 25
    for number in range(1, statements + 1):
        killed = tmp_path / "killed.db"
        killed.write_bytes(content)
        kill_at_statement(killed, split, now, number)
        with closing(connect(killed)) as connection:
            apply_splits(connection, [split], now)
        assert read_all(killed) == expected, f"killed before statement {number}"
        killed.unlink()


def read_all(database: Path) -> list[list[tuple]]:
    queries = [DAY_BARS.replace("ticker = ? AND timeframe = ?", "1"), "SELECT * FROM _splits"]
    queries.append("SELECT ticker, date, close, sma_20, rsi_14, volume FROM daily_metrics ORDER BY 1, 2")
    return [query_all(database, query) for query in queries]


def count_statements(database: Path, split: Split, now: datetime) -> int:
    count = 0

    def see(_: str) -> None:
        nonlocal count
        count += 1

    with closing(connect(database)) as connection:
        connection.set_trace_callback(see)
        assert [finding.state for finding in apply_splits(connection, [split], now)] == ["applied"]
        connection.set_trace_callback(None)
    return count


def kill_at_statement(database: Path, split: Split, now: datetime, number: int) -> None:
    """In a process of its own, which kills itself."""
    child = os.fork()
    if child == 0:
        left = number

        def see(_: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        connection = connect(database)
        connection.set_trace_callback(see)
        apply_splits(connection, [split], now)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
