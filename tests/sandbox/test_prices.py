"""The sandbox's prices: the real ones are the source's, the made-up ones agree with each other
everywhere."""

import csv
import gzip
import importlib.util
import json
from collections.abc import Iterator
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sandbox_process import SandboxOptions, SandboxProcess, running_sandbox

NEW_YORK = ZoneInfo("America/New_York")
SPLITS = {"AAPL": ("2000-06-21", "2005-02-28"), "MSFT": ("2003-02-18",)}
Row = dict[str, Any]


SANDBOX = SandboxOptions("--tickers", "400")


@pytest.fixture
def later(sandbox: SandboxProcess) -> Iterator[SandboxProcess]:
    """The same server on a day behind the source, with whatever splits the test makes."""
    sandbox.set_today("2026-11-20")
    yield sandbox
    sandbox.set_splits()
    sandbox.set_today("2013-03-01")


def load_source() -> dict[str, dict[str, list[float]]]:
    """Open, high, low, close and volume by ticker and date, from the public-domain file."""
    spec = importlib.util.find_spec("bokeh_sampledata")
    assert spec is not None
    assert spec.origin is not None
    rows: dict[str, dict[str, list[float]]] = {}
    with gzip.open(Path(spec.origin).parent / "_data" / "stocks.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            numbers = [float(row[name]) for name in ("Open", "High", "Low", "Close", "Volume")]
            rows.setdefault(row["Ticker"], {})[row["Date"]] = numbers
    return rows


def fetch_days(
    sandbox: SandboxProcess, ticker: str, first: str, last: str, **params: Any
) -> list[Row]:
    path = f"/v2/aggs/ticker/{ticker}/range/1/day/{first}/{last}"
    rows: list[Row] = sandbox.get(path, limit=50_000, **params).json().get("results", [])
    return rows


def fetch_minutes(
    sandbox: SandboxProcess, ticker: str, first: str, last: str, **params: Any
) -> list[Row]:
    path = f"/v2/aggs/ticker/{ticker}/range/5/minute/{first}/{last}"
    rows: list[Row] = sandbox.get(path, limit=50_000, **params).json().get("results", [])
    return rows


def fetch_grouped(sandbox: SandboxProcess, day: str, **params: Any) -> dict[str, Row]:
    answer = sandbox.get(f"/v2/aggs/grouped/locale/us/market/stocks/{day}", **params).json()
    return {row["T"]: row for row in answer.get("results", [])}


def local(row: Row) -> datetime:
    """When a bar starts, in New York."""
    return datetime.fromtimestamp(row["t"] / 1000, NEW_YORK)


def values(row: Row) -> list[float]:
    return [row[name] for name in ("o", "h", "l", "c", "v")]


def is_regular(row: Row, close: str = "16:00") -> bool:
    return "09:30" <= f"{local(row):%H:%M}" < close


@pytest.mark.parametrize("ticker", ["AAPL", "MSFT", "IBM", "GOOG", "FB"])
def test_real_prices_unadjusted_equal_the_source(sandbox: SandboxProcess, ticker: str) -> None:
    rows = fetch_days(sandbox, ticker, "2000-03-01", "2013-03-01", adjusted="false")
    assert {f"{local(row):%Y-%m-%d}": values(row) for row in rows} == load_source()[ticker]
    assert all(f"{local(row):%H:%M:%S}" == "00:00:00" for row in rows)


@pytest.mark.parametrize("ticker", ["AAPL", "MSFT", "IBM", "GOOG", "FB"])
def test_real_prices_adjusted_are_divided_by_later_splits(
    sandbox: SandboxProcess, ticker: str
) -> None:
    expected = {}
    for day, (*prices, volume) in load_source()[ticker].items():
        factor = 2.0 ** sum(day < split for split in SPLITS.get(ticker, ()))
        expected[day] = [*(price / factor for price in prices), volume * factor]
    rows = fetch_days(sandbox, ticker, "2000-03-01", "2013-03-01")
    assert {f"{local(row):%Y-%m-%d}": values(row) for row in rows} == expected


def test_real_prices_are_adjusted_only_by_splits_up_to_today(sandbox: SandboxProcess) -> None:
    source = load_source()["AAPL"]
    for today, factor in (("2005-02-25", 1.0), ("2005-02-28", 2.0)):
        sandbox.set_today(today)
        (row,) = fetch_days(sandbox, "AAPL", "2005-02-25", "2005-02-25")
        assert row["c"] == source["2005-02-25"][3] / factor
    sandbox.set_today("2013-03-01")


def test_real_prices_go_on_from_the_source_in_both_directions(later: SandboxProcess) -> None:
    source = load_source()
    for ticker in ("AAPL", "MSFT", "IBM"):
        after = fetch_days(later, ticker, "2013-03-04", "2013-03-04")[0]
        assert after["o"] == pytest.approx(source[ticker]["2013-03-01"][3], rel=0.05)
        before = fetch_days(later, ticker, "2000-02-29", "2000-02-29", adjusted="false")[0]
        assert before["c"] == pytest.approx(source[ticker]["2000-03-01"][0], rel=0.05)
    assert fetch_days(later, "GOOG", "2000-01-01", "2004-08-18") == []
    assert len(fetch_days(later, "FB", "2013-03-04", "2013-03-08")) == 5


def test_hurricane_sandy_closed_the_exchange_for_two_days(sandbox: SandboxProcess) -> None:
    for ticker in ("AAPL", "NVDA"):
        days = [
            f"{local(row):%m-%d}" for row in fetch_days(sandbox, ticker, "2012-10-26", "2012-10-31")
        ]
        assert days == ["10-26", "10-31"]
        assert fetch_minutes(sandbox, ticker, "2012-10-29", "2012-10-30") == []


@pytest.mark.parametrize(
    ("day", "close", "count"),
    [("2012-11-23", "13:00", 42), ("2012-11-05", "16:00", 78), ("2012-11-02", "16:00", 78)],
)
@pytest.mark.parametrize("ticker", ["AAPL", "NVDA", "ZM"])
def test_minute_bars_fill_regular_hours_on_half_days_and_around_daylight_saving(
    sandbox: SandboxProcess, ticker: str, day: str, close: str, count: int
) -> None:
    rows = fetch_minutes(sandbox, ticker, day, day)
    regular = [row for row in rows if is_regular(row, close)]
    minutes = [local(row).hour * 60 + local(row).minute for row in regular]
    assert minutes == list(range(570, 570 + 5 * count, 5))
    outside = [row for row in rows if not is_regular(row, close)]
    latest = "17:00" if count == 42 else "20:00"
    assert 10 < len(outside) < 114
    assert all("04:00" <= f"{local(row):%H:%M}" < latest for row in outside)


@pytest.mark.parametrize("ticker", ["AAPL", "NVDA", "TRUE", "KIMpL"])
def test_minute_bars_agree_with_the_day(sandbox: SandboxProcess, ticker: str) -> None:
    days = {
        local(row).date(): row for row in fetch_days(sandbox, ticker, "2012-10-15", "2012-12-14")
    }
    minutes: dict[date, list[Row]] = {}
    for row in fetch_minutes(sandbox, ticker, "2012-10-15", "2012-12-14"):
        minutes.setdefault(local(row).date(), []).append(row)
    assert minutes.keys() == days.keys()
    for day, rows in minutes.items():
        regular = [
            row
            for row in rows
            if is_regular(row, "13:00" if day == date(2012, 11, 23) else "16:00")
        ]
        opened, high, low, closed, volume = values(days[day])
        assert (regular[0]["o"], regular[-1]["c"]) == (opened, closed)
        assert (max(row["h"] for row in regular), min(row["l"] for row in regular)) == (high, low)
        assert sum(row["v"] for row in rows) == pytest.approx(volume, rel=0.05)


@pytest.mark.parametrize("day", ["2004-01-02", "2012-11-23", "2013-03-01"])
@pytest.mark.parametrize("adjusted", ["true", "false"])
def test_grouped_bars_are_the_range_bars_at_four_o_clock(
    sandbox: SandboxProcess, day: str, adjusted: str
) -> None:
    grouped = fetch_grouped(sandbox, day, adjusted=adjusted)
    assert len(grouped) > 400
    assert {f"{local(row):%Y-%m-%d %H:%M:%S}" for row in grouped.values()} == {f"{day} 16:00:00"}
    for ticker in [*sorted(grouped)[::7], "AAPL", "MSFT"]:
        rows = fetch_days(
            sandbox, ticker, f"{day[:4]}-01-01", f"{day[:4]}-12-31", adjusted=adjusted
        )
        (row,) = [row for row in rows if f"{local(row):%Y-%m-%d}" == day]
        expected = {name: value for name, value in grouped[ticker].items() if name not in "Tt"}
        assert {name: value for name, value in row.items() if name != "t"} == expected


def test_bars_are_plausible(sandbox: SandboxProcess) -> None:
    for ticker in ("NVDA", "NA", "BRK.B", "KIMpL", "MOG.A"):
        for rows in (
            fetch_days(sandbox, ticker, "2000-01-01", "2013-03-01"),
            fetch_minutes(sandbox, ticker, "2012-10-01", "2012-12-31"),
        ):
            assert len({row["t"] for row in rows}) == len(rows) > 100
            for row in rows:
                assert (
                    0 < row["l"] <= min(row["o"], row["c"]) <= max(row["o"], row["c"]) <= row["h"]
                )
                assert row["v"] > 0
            steps = [after["c"] / before["c"] for before, after in pairwise(rows)]
            assert 0.8 < min(steps) < 1 < max(steps) < 1.25


def test_thin_tickers_miss_some_sessions(sandbox: SandboxProcess) -> None:
    liquid = fetch_days(sandbox, "NVDA", "2012-01-01", "2012-12-31")
    thin = fetch_days(sandbox, "KIMpL", "2012-01-01", "2012-12-31")
    assert len(liquid) == 250
    assert 200 < len(thin) < 250


def test_rows_have_the_vendors_oddities(sandbox: SandboxProcess) -> None:
    path = "/v2/aggs/grouped/locale/us/market/stocks/2012-11-05"
    text = sandbox.get(path).text
    rows = json.loads(text)["results"]
    assert any(not float(row["v"]).is_integer() for row in rows)
    assert (
        0
        < sum("vw" not in row for row in rows)
        == sum("n" not in row for row in rows)
        < len(rows) / 10
    )
    assert "e+0" in text
    assert all(isinstance(row["v"], float) for row in rows)


def test_made_up_split_moves_prices_on_its_day_and_history_once_it_is_past(
    later: SandboxProcess,
) -> None:
    first, last = "2026-11-12", "2026-11-20"
    plain = {f"{local(row):%d}": row for row in fetch_days(later, "NVDA", first, last)}
    later.set_today("2026-11-16")
    later.set_splits(
        {"ticker": "NVDA", "execution_date": "2026-11-17", "split_from": 1, "split_to": 4}
    )
    assert fetch_days(later, "NVDA", first, last) == [plain[day] for day in ("12", "13", "16")]
    later.set_today("2026-11-20")
    for row in fetch_days(later, "NVDA", first, last):
        *prices, volume = values(plain[f"{local(row):%d}"])
        assert values(row) == [*(price / 4 for price in prices), volume * 4]
    raw = {
        f"{local(row):%d}": row for row in fetch_days(later, "NVDA", first, last, adjusted="false")
    }
    assert raw["16"]["c"] == plain["16"]["c"]
    assert raw["16"]["c"] / raw["17"]["o"] == pytest.approx(4, rel=0.05)
    assert fetch_grouped(later, "2026-11-13")["NVDA"]["c"] == plain["13"]["c"] / 4
    minutes = [
        row for row in fetch_minutes(later, "NVDA", "2026-11-13", "2026-11-13") if is_regular(row)
    ]
    assert minutes[-1]["c"] == plain["13"]["c"] / 4


def test_split_that_never_happens_moves_no_prices(later: SandboxProcess) -> None:
    plain = fetch_days(later, "NVDA", "2026-11-12", "2026-11-20")
    later.set_splits(
        {
            "ticker": "NVDA",
            "execution_date": "2026-11-17",
            "split_from": 1,
            "split_to": 4,
            "moves_prices": False,
        }
    )
    assert fetch_days(later, "NVDA", "2026-11-12", "2026-11-20") == plain


def test_prices_are_the_same_in_every_process_zone_order_and_size() -> None:
    paths = [
        "/v2/aggs/ticker/NVDA/range/1/day/2012-01-01/2012-12-31",
        "/v2/aggs/ticker/ZAAB/range/1/day/2012-06-01/2012-06-30",
        "/v2/aggs/ticker/META/range/1/day/2021-01-01/2022-12-31",
        "/v2/aggs/ticker/AAPL/range/5/minute/2012-11-01/2012-11-09?limit=50000",
        "/v2/aggs/ticker/KIMpL/range/5/minute/2012-03-09/2012-03-12",
        "/v3/reference/tickers/ZAAB",
    ]

    def collect(tickers: str, asked: list[str], **env: str) -> dict[str, Any]:
        with running_sandbox("--tickers", tickers, today="2026-11-20", env=env) as running:
            bodies = {path: running.get(path).json() for path in asked}
            grouped = fetch_grouped(running, "2022-06-10")
        for body in bodies.values():
            del body["request_id"]
        return {**bodies, "grouped": {t: row for t, row in grouped.items() if t < "Q"}}

    one = collect("100", paths, PYTHONHASHSEED="1", TZ="Asia/Tokyo")
    other = collect("500", paths[::-1], PYTHONHASHSEED="2", TZ="America/Los_Angeles")
    assert one == other
    assert all(one[path].get("results") for path in paths)
