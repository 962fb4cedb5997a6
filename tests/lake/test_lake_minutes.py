"""Minutes to five minutes: the same bars as the API's, by rules that hold on every day of the
calendar."""

import gzip
from collections import defaultdict
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.lake.flat_files import (
    FlatFiles,
    FlatFilesError,
    NotInSubscriptionError,
    NotThereError,
    parse_minutes,
)
from backtestdb.lake.layout import bucket_of
from backtestdb.lake.minutes import adjust, make_session_bars
from sandbox_process import SandboxOptions, SandboxProcess, fetch_rows

NEW_YORK = ZoneInfo("America/New_York")
HEADER = "ticker,volume,open,close,high,low,window_start,transactions\n"
DAY = date(2026, 11, 20)


def at(clock: str, day: date = DAY) -> int:
    """Nanoseconds UTC of a time in New York."""
    moment = datetime.combine(day, time.fromisoformat(clock), NEW_YORK)
    return int(moment.timestamp()) * 10**9


def make_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    names = ("ticker", "volume", "open", "close", "high", "low", "window_start")
    kinds = [pa.string(), *[pa.float64()] * 5, pa.int64()]
    return pa.table(
        [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)], names=names
    )


def as_tuples(bars: pa.Table) -> set[tuple[Any, ...]]:
    names = ("ticker", "timestamp", "open", "high", "low", "close", "volume")
    rows = bars.select(names).to_pylist()
    return {
        tuple(row[n] if n != "timestamp" else int(row[n].timestamp()) for n in names)
        for row in rows
    }


@st.composite
def sessions(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    minutes = st.tuples(st.sampled_from(["A", "NA", "TRUE", "b"]), st.integers(240, 1199))
    rows = []
    for ticker, minute in draw(st.sets(minutes, max_size=40)):
        prices = draw(st.lists(st.floats(0.01, 1000), min_size=4, max_size=4))
        low, opened, closed, high = *sorted(prices)[:1], *prices[1:3], max(prices)
        rows.append(
            (
                ticker,
                draw(st.floats(0, 1e6)),
                max(opened, low),
                max(closed, low),
                high,
                low,
                at("00:00") + minute * 60 * 10**9,
            )
        )
    return rows


@given(sessions())
def test_five_minutes_are_first_highest_lowest_last_and_sum(rows: list[tuple[Any, ...]]) -> None:
    made = make_session_bars(make_table(rows), DAY)
    groups: dict[tuple[str, int], list[tuple[Any, ...]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row[6]):
        groups[row[0], row[6] // (300 * 10**9) * 300].append(row)
    expected = {
        (
            *(
                ticker,
                second,
                group[0][2],
                max(row[4] for row in group),
                min(row[5] for row in group),
            ),
            *(group[-1][3], round(float(np.sum([row[1] for row in group])))),
        )
        for (ticker, second), group in groups.items()
    }
    assert as_tuples(made.bars) == expected
    assert made.rejected == {} and made.received == len(rows)
    tickers = made.bars["ticker"].to_pylist()
    assert [bucket_of(t) for t in tickers] == sorted(bucket_of(t) for t in tickers)
    assert made.bucket_ends[-1] == len(tickers)
    ends = [0, *made.bucket_ends.tolist()]
    assert all(bucket_of(t) == b for b in range(32) for t in tickers[ends[b] : ends[b + 1]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({2: float("nan")}, "not a finite number"),
        ({5: 0.0}, "price not above 0"),
        ({4: 9e11}, "price above 10000000"),
        ({1: -1.0}, "volume below 0"),
        ({4: 9.0}, "high below open or close"),
        ({5: 11.0}, "low above open or close"),
        ({0: ""}, "a broken ticker name"),
        ({6: at("03:59")}, "outside of 04:00-20:00 of the session"),
        ({6: at("20:00")}, "outside of 04:00-20:00 of the session"),
        ({6: at("10:00", date(2026, 11, 21))}, "outside of 04:00-20:00 of the session"),
        ({6: at("10:00") + 1}, "not on a minute"),
        ({6: at("09:30")}, "a second bar of the same minute"),
    ],
)
def test_minute_that_cannot_be_true_is_rejected_and_the_others_make_the_bar(
    change: dict[int, Any], reason: str
) -> None:
    good = ("A", 100.0, 10.0, 10.5, 11.0, 9.5, at("09:30"))
    bad = tuple(
        change.get(i, value)
        for i, value in enumerate(("A", 5.0, 10.0, 10.5, 11.0, 9.5, at("09:31")))
    )
    made = make_session_bars(make_table([good, bad]), DAY)
    assert {why: count for why, (count, _) in made.rejected.items()} == {reason: 1}
    assert as_tuples(made.bars) == {("A", at("09:30") // 10**9, 10.0, 11.0, 9.5, 10.5, 100)}
    assert made.lost == []


def test_ticker_of_which_every_minute_is_rejected_is_named() -> None:
    made = make_session_bars(make_table([("JUNK", 1.0, 9e11, 9e11, 9e11, 9e11, at("10:00"))]), DAY)
    assert (made.lost, len(made.bars)) == (["JUNK"], 0)


@given(
    st.lists(st.tuples(st.floats(0.01, 1e4), st.integers(0, 10**7)), min_size=1, max_size=8),
    st.data(),
)
def test_adjusting_step_by_step_is_equal_to_adjusting_at_once(
    prices: list[tuple[float, int]], data: st.DataObject
) -> None:
    rows = [
        ("A", float(volume), p, p, p, p, at("10:00") + i * 300 * 10**9)
        for i, (p, volume) in enumerate(prices)
    ]
    bars = make_session_bars(make_table(rows), DAY).bars
    ratios = np.array([data.draw(st.sampled_from([1, 2, 0.05, 1.5])) for _ in prices], dtype=float)
    more = np.array([data.draw(st.sampled_from([1, 4, 1 / 1046])) for _ in prices], dtype=float)
    assert adjust(adjust(bars, ratios), ratios * more).equals(adjust(bars, ratios * more))
    assert adjust(adjust(bars, ratios), np.ones(len(prices))).equals(bars)


def test_tickers_that_csv_readers_break_stay_text() -> None:
    text = HEADER + "NA,5,1,1,1,1,0,1\nTRUE,5,1,1,1,1,0,1\nnull,5,1,1,1,1,0,1\n"
    assert parse_minutes(gzip.compress(text.encode()), DAY)["ticker"].to_pylist() == [
        "NA",
        "TRUE",
        "null",
    ]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress((HEADER + "A,5,1,1,1,1,0,1\n" * 5000).encode())[:-20],
        gzip.compress(b"ticker,volume\nA,5\n"),
        b"<html>",
        gzip.compress((HEADER + "A,five,1,1,1,1,0,1\n").encode()),
    ],
    ids=["cut", "other columns", "no gzip", "no number"],
)
def test_damaged_file_is_told_and_not_taken_for_a_short_one(content: bytes) -> None:
    with pytest.raises(FlatFilesError, match="2026-11-20 is damaged"):
        parse_minutes(content, DAY)


SANDBOX = SandboxOptions("--tickers", "80", today="2026-11-30")


def make_files(sandbox: SandboxProcess, secret: str = "") -> FlatFiles:
    keys = {"AWS_ACCESS_KEY_ID": sandbox.key, "AWS_SECRET_ACCESS_KEY": secret or sandbox.key}
    return FlatFiles(
        "flatfiles", {"AWS_ENDPOINT_URL": sandbox.url, "AWS_REGION": "us-east-1", **keys}
    )


@pytest.mark.parametrize(
    "day", ["2026-11-20", "2026-11-27", "2026-03-06", "2026-03-09", "2026-10-30", "2026-11-02"]
)
def test_bars_of_a_flat_file_are_those_of_the_api(sandbox: SandboxProcess, day: str) -> None:
    """A plain session, a half day, and the sessions before and after both changes of the clocks."""
    made = make_session_bars(
        make_files(sandbox).fetch_minutes(date.fromisoformat(day)), date.fromisoformat(day)
    )
    bars = as_tuples(made.bars)
    for ticker in ("AAPL", "NA", "BRK.B", "KIMpL"):
        rows = fetch_rows(
            sandbox,
            f"/v2/aggs/ticker/{ticker}/range/5/minute/{day}/{day}",
            adjusted="false",
            limit=50000,
        )
        expected = {
            (ticker, row["t"] // 1000, row["o"], row["h"], row["l"], row["c"], round(row["v"]))
            for row in rows
        }
        assert expected and {bar for bar in bars if bar[0] == ticker} == expected


def test_missing_file_wrong_key_and_a_plan_without_it_are_told_apart(
    sandbox: SandboxProcess,
) -> None:
    with pytest.raises(NotThereError):
        make_files(sandbox).fetch_minutes(date(2026, 11, 30))
    with pytest.raises(FlatFilesError, match="do not accept the keys") as caught:
        make_files(sandbox, "wrong").fetch_minutes(DAY)
    assert "FLATFILES_SECRET" in caught.value.next_step
    sandbox.set_settings(history_years=1)
    try:
        with pytest.raises(NotInSubscriptionError):
            make_files(sandbox).fetch_minutes(date(2024, 11, 20))
    finally:
        sandbox.set_settings(history_years=0)
