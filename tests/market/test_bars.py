"""Bars as they arrive: which are stored, which are rejected and why, and the time that each
gets."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.database import transaction
from backtestdb.market.bar_rows import save_bars, save_rejected
from backtestdb.market.bars import BAR_COLUMNS, ParsedBars, parse_bars
from market_setup import CALENDAR, open_new_database, sessions_of

NEW_YORK = ZoneInfo("America/New_York")
START, END = date(2012, 10, 22), date(2012, 11, 30)


def new_york_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp() * 1000)


def make_bar(when: str = "2012-11-05T00:00", **changes: Any) -> dict[str, Any]:
    bar = {"t": new_york_ms(when), "o": 10.0, "h": 12.0, "l": 9.0, "c": 11.0, "v": 1000.0}
    return {**bar, **changes}


def parse(
    *rows: dict[str, Any], timeframe: str = "1day", ticker: str | None = "MSFT"
) -> ParsedBars:
    return parse_bars(rows, timeframe, sessions_of(str(START), str(END)), ticker=ticker)


def reasons(parsed: ParsedBars) -> list[str]:
    assert len(parsed) == 0
    return [bar.reason for bar in parsed.rejected]


def good_bars(parsed: ParsedBars) -> list[dict[str, Any]]:
    """The bars as dictionaries of BAR_COLUMNS and session_date."""
    columns = [*parsed.columns(), parsed.session_dates.tolist()]
    return [
        dict(zip([*BAR_COLUMNS, "session_date"], row, strict=True))
        for row in zip(*columns, strict=True)
    ]


ONE_RULE_BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"c": None}, "not a finite number"),
    ({"v": None}, "not a finite number"),
    ({"o": "10.5"}, "not a finite number"),
    ({"o": "text"}, "not a finite number"),
    ({"o": True}, "not a finite number"),
    ({"o": [10.0]}, "not a finite number"),
    ({"o": {}}, "not a finite number"),
    ({"h": math.nan}, "not a finite number"),
    ({"h": math.inf}, "not a finite number"),
    ({"l": -math.inf}, "not a finite number"),
    ({"l": 0.0}, "price not above 0"),
    ({"o": -10.0}, "price not above 0"),
    ({"v": -1.0}, "volume below 0"),
    ({"v": -0.4}, "volume below 0"),
    ({"v": 1e19}, "volume above 1000000000000"),
    ({"v": 1e300}, "volume above 1000000000000"),
    ({"h": 10.98}, "high below open or close"),
    ({"o": 12.02}, "high below open or close"),
    ({"l": 10.02}, "low above open or close"),
    ({"h": 8.0, "o": 7.0, "c": 7.0}, "low above open or close"),
    ({"t": new_york_ms("2012-11-03T00:00")}, "no session on this day"),
    ({"t": new_york_ms("2012-10-29T00:00")}, "no session on this day"),
    ({"t": new_york_ms("2012-11-22T00:00")}, "no session on this day"),
    ({"t": None}, "no readable time"),
    ({"t": "2012-11-05"}, "no readable time"),
    ({"t": -1}, "no readable time"),
    ({"t": 9e18}, "no readable time"),
    ({"t": math.nan}, "no readable time"),
    ({"t": new_york_ms("2012-12-03T00:00")}, "after the last asked session"),
    ({"t": new_york_ms("2012-10-19T00:00")}, "before the first asked session"),
]


@pytest.mark.parametrize(("changes", "reason"), ONE_RULE_BROKEN)
def test_bar_that_cannot_be_true_is_set_aside_with_the_rule_it_broke(
    changes: dict[str, Any], reason: str
) -> None:
    assert reasons(parse(make_bar(**changes))) == [reason]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"v": 0},
        dict.fromkeys("ohlc", 10.0),
        {"h": 11.0, "l": 10.0},
        dict.fromkeys("ohlc", 0.0001),
        dict.fromkeys("ohlc", 242_695_146.0),
        {"o": 10, "h": 12, "l": 9, "c": 11, "v": 7},
        {"vw": 10.5, "n": 3, "otc": True},
    ],
)
def test_bar_at_the_edge_of_the_rules_is_stored(changes: dict[str, Any]) -> None:
    parsed = parse(make_bar(**changes))
    assert parsed.rejected == []
    assert len(parsed) == 1


@pytest.mark.parametrize("letter", "ohlcvt")
def test_bar_without_a_field_is_set_aside(letter: str) -> None:
    bar = make_bar()
    del bar[letter]
    assert len(reasons(parse(bar))) == 1


def test_bar_set_aside_keeps_what_came() -> None:
    bar = make_bar(c=None, vw=3.5)
    (row,) = parse(bar, make_bar("2012-11-06")).rejected
    assert (row.ticker, row.timeframe, row.session_date) == ("MSFT", "1day", "2012-11-05")
    assert orjson.loads(row.bar) == bar


def test_empty_answer_is_no_bars() -> None:
    for timeframe in ("1day", "5min"):
        parsed = parse(timeframe=timeframe)
        assert len(parsed) == len(parsed.rejected) == 0


@pytest.mark.parametrize(
    "day", ["2012-07-03", "2012-11-02", "2012-11-05", "2013-03-08", "2013-03-11"]
)
@pytest.mark.parametrize("clock", ["00:00", "16:00"], ids=["range", "grouped"])
def test_both_conventions_of_day_bars_become_the_sessions_midnight_in_new_york(
    day: str, clock: str
) -> None:
    rows = [make_bar(f"{day}T{clock}")]
    (good,) = good_bars(
        parse_bars(rows, "1day", sessions_of("2012-01-03", "2013-12-31"), ticker="MSFT")
    )
    assert good["timestamp"] == new_york_ms(f"{day}T00:00")
    assert good["session_date"] == day
    assert good["time_of_day"] is None
    assert good["day_of_week"] == (date.fromisoformat(day).weekday() + 1) % 7


def test_second_bar_of_a_session_is_set_aside_and_the_first_is_kept() -> None:
    parsed = parse(
        make_bar(c=10.5), make_bar("2012-11-05T16:00", c=11.5), make_bar("2012-11-06T00:00")
    )
    assert parsed.prices[3].tolist() == [10.5, 11.0]
    assert [bar.reason for bar in parsed.rejected] == ["a second bar of the same time"]


def test_bad_bar_does_not_keep_the_good_one_of_its_session_out() -> None:
    parsed = parse(make_bar(c=None), make_bar(c=10.5))
    assert parsed.prices[3].tolist() == [10.5]
    assert [bar.reason for bar in parsed.rejected] == ["not a finite number"]


@pytest.mark.parametrize(
    ("volume", "stored"),
    [(1.9e2, 190), (1000.4, 1000), (1000.6, 1001), (0.2, 0), (1.23456789e9, 1234567890)],
)
def test_volume_is_rounded_to_whole_shares(volume: float, stored: int) -> None:
    parsed = parse(make_bar(v=volume))
    assert parsed.volume.tolist() == [stored]
    assert parsed.volume.dtype == "int64"


@pytest.mark.parametrize(
    ("when", "time_of_day", "day_of_week"),
    [
        ("2012-11-02T09:30", "09:30:00", 5),  # summer time, UTC-4
        ("2012-11-05T09:30", "09:30:00", 1),  # winter time, UTC-5
        ("2012-11-05T04:00", "04:00:00", 1),
        ("2012-11-05T19:55", "19:55:00", 1),  # 00:55 UTC of the next day
        ("2012-11-23T12:55", "12:55:00", 5),
    ],
)
def test_five_minute_bar_says_its_time_and_weekday_in_new_york(
    when: str, time_of_day: str, day_of_week: int
) -> None:
    (row,) = good_bars(parse(make_bar(when), timeframe="5min"))
    assert (row["time_of_day"], row["day_of_week"]) == (time_of_day, day_of_week)
    assert row["timestamp"] == new_york_ms(when)
    assert row["session_date"] == when[:10]


@pytest.mark.parametrize(
    "changes",
    [
        {"t": new_york_ms("2012-11-05T03:55")},
        {"t": new_york_ms("2012-11-05T20:00")},
        {"t": new_york_ms("2012-11-05T09:31")},
        {"t": new_york_ms("2012-11-05T09:30:01")},
        {"t": new_york_ms("2012-11-05T09:30") + 1},
    ],
)
def test_five_minute_bar_off_the_grid_is_set_aside(changes: dict[str, Any]) -> None:
    assert reasons(parse(make_bar(**changes), timeframe="5min")) == [
        "outside of 04:00-20:00 or not on five minutes"
    ]


def test_grouped_rows_carry_their_tickers_and_come_sorted() -> None:
    rows = [make_bar("2012-11-05T16:00", T=ticker) for ticker in ("TRUE", "KIMpL", "NA", "BRK.B")]
    parsed = parse(*rows, ticker=None)
    assert parsed.tickers.tolist() == ["BRK.B", "KIMpL", "NA", "TRUE"]


@pytest.mark.parametrize("changes", [{}, {"T": None}, {"T": ""}])
def test_grouped_row_without_a_ticker_is_set_aside(changes: dict[str, Any]) -> None:
    assert reasons(parse(make_bar(**changes), ticker=None)) == ["no ticker"]


def make_series(prices: list[float]) -> list[dict[str, Any]]:
    """A bar a session with all its prices the same."""
    days = sessions_of(str(START), str(END))[: len(prices)]
    return [
        make_bar(f"{day}T00:00", **dict.fromkeys("ohlc", price))
        for day, price in zip(days, prices, strict=True)
    ]


def test_prices_above_ten_million_are_stored_where_the_bars_beside_them_lead_up_to_them() -> None:
    falling = [242_695_146.0 / 1.9**step for step in range(8)]
    parsed = parse(*make_series(falling))
    assert parsed.rejected == []
    assert parsed.prices[3].tolist() == falling
    assert parse(*make_series([242_695_146.0] * 3)).rejected == []


@pytest.mark.parametrize("letters", ["ohlc", "h"])
@pytest.mark.parametrize("places", [[0], [3], [3, 4], [7]])
def test_price_unlike_the_bars_beside_it_is_set_aside(letters: str, places: list[int]) -> None:
    rows = make_series([100.0 + step for step in range(8)])
    for place in places:
        rows[place] |= dict.fromkeys(letters, 9e11)
    parsed = parse(*rows)
    assert len(parsed) == 8 - len(places)
    assert {bar.reason for bar in parsed.rejected} == {
        "price above 10000000, unlike the bars beside it"
    }


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"h": 10.9999}, "high", 11.0),
        ({"h": 10.99}, "high", 11.0),
        ({"l": 10.0001}, "low", 10.0),
        ({"o": 0.5, "c": 0.5, "l": 0.4, "h": 0.4999}, "high", 0.5),
    ],
)
def test_high_or_low_within_a_tick_is_clamped_and_counted(
    changes: dict[str, Any], field: str, value: float
) -> None:
    parsed = parse(make_bar(**changes), make_bar("2012-11-06"))
    assert parsed.rejected == []
    assert parsed.clamped == 1
    assert good_bars(parsed)[0][field] == value


def test_high_below_the_close_of_a_penny_by_more_than_its_tick_is_set_aside() -> None:
    bar = make_bar(o=0.5, c=0.5, l=0.4, h=0.499)
    assert reasons(parse(bar)) == ["high below open or close"]


@pytest.mark.parametrize("name", ["JUNK\x1b", "A B", "\x00", "A" * 21, "ÄÖ"])
def test_broken_ticker_name_is_set_aside(name: str) -> None:
    assert reasons(parse(make_bar("2012-11-05T16:00", T=name), ticker=None)) == [
        "a broken ticker name"
    ]


JUNK = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.booleans(),
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([9e11, -1, 0, [], {}]),
)
PRICE = st.floats(8, 13).map(lambda price: round(price, 2))
MOMENT = st.integers(
    new_york_ms("2012-10-15T00:00") // 300_000, new_york_ms("2012-12-05T00:00") // 300_000
).map(lambda slot: slot * 300_000)
BAR = st.fixed_dictionaries(
    {
        "t": MOMENT | JUNK,
        "o": PRICE | JUNK,
        "h": PRICE.map(lambda price: price + 5) | JUNK,
        "l": PRICE.map(lambda price: price - 5) | JUNK,
        "c": PRICE | JUNK,
        "v": st.floats(0, 1e9) | JUNK,
    }
)
GOOD_BAR = st.builds(lambda t: make_bar() | {"t": t}, MOMENT)
ROWS = st.lists(GOOD_BAR | BAR, max_size=30)


@given(rows=ROWS, timeframe=st.sampled_from(["1day", "5min"]))
def test_every_row_is_either_stored_or_set_aside_and_what_is_stored_can_be_true(
    rows: list[dict[str, Any]], timeframe: str
) -> None:
    parsed = parse(*rows, timeframe=timeframe)
    assert len(parsed) + len(parsed.rejected) == parsed.received == len(rows)
    assert all(bar.reason for bar in parsed.rejected)
    assert (parsed.timestamps[1:] > parsed.timestamps[:-1]).all()
    for bar in good_bars(parsed):
        assert 0 < bar["low"] <= min(bar["open"], bar["close"])
        assert max(bar["open"], bar["close"]) <= bar["high"]
        assert 0 <= bar["volume"] <= 1e12
        local = datetime.fromtimestamp(bar["timestamp"] / 1000, UTC).astimezone(NEW_YORK)
        assert local.date().isoformat() == bar["session_date"]
        assert START <= local.date() <= END
        assert CALENDAR.is_session(pd.Timestamp(local.date()))
        assert bar["day_of_week"] == int(local.strftime("%w"))
        assert bar["time_of_day"] == (local.strftime("%H:%M:%S") if timeframe == "5min" else None)
        assert timeframe == "5min" or (local.hour, local.minute) == (0, 0)


@pytest.fixture(scope="module")
def database() -> Iterator[Any]:
    with closing(open_new_database(Path(":memory:"))) as connection:
        yield connection


def save(connection: Any, parsed: Sequence[ParsedBars]) -> None:
    with transaction(connection):
        for each in parsed:
            save_bars(connection, each, "2012-12-01T00:00:00+00:00")
            save_rejected(connection, each.rejected, "2012-12-01T00:00:00+00:00")


def read(connection: Any) -> tuple[list[Any], list[Any]]:
    return (
        connection.execute("SELECT * FROM ohlcv_data ORDER BY id").fetchall(),
        connection.execute("SELECT * FROM _bars_set_aside ORDER BY 1, 2, 3, 5").fetchall(),
    )


@given(rows=ROWS)
def test_saving_twice_is_the_same_as_once_and_stores_what_was_good(
    database: Any, rows: list[dict[str, Any]]
) -> None:
    with transaction(database):
        database.execute("DELETE FROM ohlcv_data")
        database.execute("DELETE FROM _bars_set_aside")
    parsed = [parse(*rows), parse(*rows, timeframe="5min", ticker="NA")]
    save(database, parsed)
    once = read(database)
    save(database, parsed)
    assert read(database) == once
    good = good_bars(parsed[0]) + good_bars(parsed[1])
    assert len(once[0]) == len(good)
    for stored, bar in zip(once[0], good, strict=True):
        assert stored[1:11] == tuple(bar.values())[:10]
    assert {row[4] for row in once[1]} == {bar.reason for each in parsed for bar in each.rejected}


def test_bar_that_came_again_takes_the_new_values_and_their_time_and_keeps_its_row(
    database: Any,
) -> None:
    query = "SELECT id, close, volume, created_at FROM ohlcv_data"
    database.execute("DELETE FROM ohlcv_data")
    save_bars(database, parse(make_bar(c=10.0)), "2012-11-05T22:00:00+00:00")
    ((number, *_),) = database.execute(query).fetchall()
    save_bars(database, parse(make_bar(c=11.5, v=5)), "2012-11-06T17:00:00-05:00")
    assert database.execute(query).fetchall() == [(number, 11.5, 5, "2012-11-06 22:00:00")]


def test_many_bars_are_saved_whatever_the_size_of_a_statement(database: Any) -> None:
    database.execute("DELETE FROM ohlcv_data")
    slots = range(new_york_ms("2012-11-05T04:00"), new_york_ms("2012-11-05T20:00"), 300_000)
    rows = [make_bar(t=slot + day * 86_400_000) for day in range(3) for slot in slots]
    save(database, [parse(*rows, timeframe="5min")])
    assert database.execute("SELECT count(*) FROM ohlcv_data").fetchone() == (3 * 192,)
