"""Answers about the whole market: what is kept, what is rejected, what is dropped."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from backtestdb.market.bars import BAR_COLUMNS, ParsedBars, parse_bars
from backtestdb.new_york import midnight_ms

NEW_YORK = ZoneInfo("America/New_York")
DAY = date(2026, 3, 9)  # the Monday after the clocks went forward


def stamp(day: date, hour: int) -> int:
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=NEW_YORK).timestamp() * 1000)


def row(ticker: object, **changes: object) -> dict[str, object]:
    bar = {"T": ticker, "o": 10.0, "h": 12.0, "l": 9.0, "c": 11.0, "v": 1.5e6, "t": stamp(DAY, 16)}
    return {**bar, **changes}


def parse_session(rows: list[dict[str, object]], wanted: set[str] | None) -> ParsedBars:
    return parse_bars(rows, "1day", [DAY], wanted=wanted)


@pytest.mark.parametrize("hour", [0, 16])
def test_session_in_either_convention_ends_as_midnight_in_new_york(hour: int) -> None:
    bars = parse_session([row("AAPL", t=stamp(DAY, hour))], None)
    columns = dict(zip(BAR_COLUMNS, bars.columns(), strict=True))
    assert columns["timestamp"] == [stamp(DAY, 0)]
    assert columns["day_of_week"] == [1]
    assert columns["volume"] == [1_500_000]
    assert datetime.fromtimestamp(midnight_ms(DAY) / 1000, UTC).hour == 4


def test_session_counts_add_up_and_other_tickers_are_dropped() -> None:
    rows = [row("AAPL"), row("OTHER"), row("IBM", c=None), row("BAD", h=1.0), row("AAPL", c=11.5)]
    bars = parse_session(rows, {"AAPL", "IBM", "BAD"})
    received, stored, dropped, set_aside = bars.counts
    assert (received, stored, dropped, set_aside) == (5, 1, 1, 3)
    assert bars.tickers.tolist() == ["AAPL"]
    assert bars.prices[3].tolist() == [11.0]
    assert {bar.ticker: bar.reason for bar in bars.rejected} == {
        "IBM": "not a finite number",
        "BAD": "high below open or close",
        "AAPL": "a second bar of the same time",
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"c": "eleven"}, "not a finite number"),
        ({"v": None}, "not a finite number"),
        ({"v": -1}, "volume below 0"),
        ({"o": 0.0, "l": 0.0}, "price not above 0"),
        ({"l": 10.5}, "low above open or close"),
        ({"t": stamp(date(2026, 3, 10), 16)}, "after the last asked session"),
        ({"t": stamp(date(2026, 3, 6), 16)}, "before the first asked session"),
        ({"t": None}, "no readable time"),
        ({"t": 9e18}, "no readable time"),
    ],
)
def test_session_sets_a_bar_aside_that_cannot_be_true(
    changes: dict[str, object], reason: str
) -> None:
    bars = parse_session([row("GOOD"), row("JUNK", **changes)], None)
    assert bars.tickers.tolist() == ["GOOD"]
    assert [bar.reason for bar in bars.rejected] == [reason]


def test_session_keeps_tickers_that_look_like_something_else() -> None:
    names = ["NA", "TRUE", "BRK.B", "KIMpL", "KIMPL", "1E5"]
    bars = parse_session([row(name) for name in names], set(names))
    assert bars.tickers.tolist() == sorted(names)


def test_session_without_rows_is_empty() -> None:
    bars = parse_session([], {"AAPL"})
    assert bars.counts == (0, 0, 0, 0)
    assert bars.columns()[0] == []
