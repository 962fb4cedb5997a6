"""Bars as they arrive: which are stored, which are set aside and why, and the time that each gets."""

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
from backtestdb.market.bars import CheckedBars, check_bars
from market_setup import CALENDAR, make_database

NEW_YORK = ZoneInfo("America/New_York")
START, END = date(2012, 10, 22), date(2012, 11, 30)


def new_york_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp() * 1000)


def make_bar(when: str = "2012-11-05T00:00", **changes: Any) -> dict[str, Any]:
    bar = {"t": new_york_ms(when), "o": 10.0, "h": 12.0, "l": 9.0, "c": 11.0, "v": 1000.0}
    return {**bar, **changes}


def check(*rows: dict[str, Any], timeframe: str = "1day", ticker: str | None = "MSFT") -> CheckedBars:
    return check_bars(rows, timeframe, CALENDAR, START, END, ticker)


def reasons(checked: CheckedBars) -> list[str]:
    assert checked.good.empty
    return checked.rejected["reason"].tolist()


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
    (dict.fromkeys("ohlc", 9e11), "price above 10000000"),
    ({"v": -1.0}, "volume below 0"),
    ({"v": -0.4}, "volume below 0"),
    ({"v": 1e19}, "volume above 1000000000000"),
    ({"v": 1e300}, "volume above 1000000000000"),
    ({"h": 10.99}, "high below open or close"),
    ({"o": 12.01}, "high below open or close"),
    ({"l": 10.01}, "low above open or close"),
    ({"h": 8.0, "o": 7.0, "c": 7.0}, "low above open or close"),
    ({"t": new_york_ms("2012-11-03T00:00")}, "no session on this day"),
    ({"t": new_york_ms("2012-10-29T00:00")}, "no session on this day"),
    ({"t": new_york_ms("2012-11-22T00:00")}, "no session on this day"),
    ({"t": None}, "no session on this day"),
    ({"t": "2012-11-05"}, "no session on this day"),
    ({"t": -1}, "no session on this day"),
    ({"t": 9e18}, "no session on this day"),
    ({"t": math.nan}, "no session on this day"),
    ({"t": new_york_ms("2012-12-03T00:00")}, "after the last asked session"),
    ({"t": new_york_ms("2012-10-19T00:00")}, "before the first asked session"),
]


@pytest.mark.parametrize(("changes", "reason"), ONE_RULE_BROKEN)
def test_bar_that_cannot_be_true_is_set_aside_with_the_rule_it_broke(
    changes: dict[str, Any], reason: str
) -> None:
    assert reasons(check(make_bar(**changes))) == [reason]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"v": 0},
        dict.fromkeys("ohlc", 10.0),
        {"h": 11.0, "l": 10.0},
        dict.fromkeys("ohlc", 0.0001),
        dict.fromkeys("ohlc", 9_999_999.0),
        {"o": 10, "h": 12, "l": 9, "c": 11, "v": 7},
        {"vw": 10.5, "n": 3, "otc": True},
    ],
)
def test_bar_at_the_edge_of_the_rules_is_stored(changes: dict[str, Any]) -> None:
    checked = check(make_bar(**changes))
    assert checked.rejected.empty
    assert len(checked.good) == 1


@pytest.mark.parametrize("letter", "ohlcvt")
def test_bar_without_a_field_is_set_aside(letter: str) -> None:
    bar = make_bar()
    del bar[letter]
    assert len(reasons(check(bar))) == 1


def test_bar_set_aside_keeps_what_came() -> None:
    bar = make_bar(c=None, vw=3.5)
    row = check(bar, make_bar("2012-11-06")).rejected.iloc[0]
    assert (row["ticker"], row["timeframe"], row["session_date"]) == ("MSFT", "1day", "2012-11-05")
    assert orjson.loads(row["bar"]) == bar


def test_empty_answer_is_no_bars() -> None:
    for timeframe in ("1day", "5min"):
        checked = check(timeframe=timeframe)
        assert len(checked.good) == len(checked.rejected) == 0


@pytest.mark.parametrize("day", ["2012-07-03", "2012-11-02", "2012-11-05", "2013-03-08", "2013-03-11"])
@pytest.mark.parametrize("clock", ["00:00", "16:00"], ids=["range", "grouped"])
def test_both_conventions_of_day_bars_become_the_sessions_midnight_in_new_york(day: str, clock: str) -> None:
    rows = [make_bar(f"{day}T{clock}")]
    good = check_bars(rows, "1day", CALENDAR, date(2012, 1, 3), date(2013, 12, 31), "MSFT").good.iloc[0]
    assert good["timestamp"] == new_york_ms(f"{day}T00:00")
    assert good["session_date"] == day
    assert good["time_of_day"] is None
    assert good["day_of_week"] == (date.fromisoformat(day).weekday() + 1) % 7


def test_second_bar_of_a_session_is_set_aside_and_the_first_is_kept() -> None:
    checked = check(make_bar(c=10.5), make_bar("2012-11-05T16:00", c=11.5), make_bar("2012-11-06T00:00"))
    assert checked.good["close"].tolist() == [10.5, 11.0]
    assert checked.rejected["reason"].tolist() == ["a second bar of the same time"]


def test_bad_bar_does_not_keep_the_good_one_of_its_session_out() -> None:
    checked = check(make_bar(c=None), make_bar(c=10.5))
    assert checked.good["close"].tolist() == [10.5]
    assert checked.rejected["reason"].tolist() == ["not a finite number"]


@pytest.mark.parametrize(
    ("volume", "stored"), [(1.9e2, 190), (1000.4, 1000), (1000.6, 1001), (0.2, 0), (1.23456789e9, 1234567890)]
)
def test_volume_is_rounded_to_whole_shares(volume: float, stored: int) -> None:
    good = check(make_bar(v=volume)).good
    assert good["volume"].tolist() == [stored]
    assert good["volume"].dtype == "int64"


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
    row = check(make_bar(when), timeframe="5min").good.iloc[0]
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
    assert reasons(check(make_bar(**changes), timeframe="5min")) == [
        "outside of 04:00-20:00 or not on five minutes"
    ]


def test_grouped_rows_carry_their_tickers_and_come_sorted() -> None:
    rows = [make_bar("2012-11-05T16:00", T=ticker) for ticker in ("TRUE", "KIMpL", "NA", "BRK.B")]
    checked = check(*rows, ticker=None)
    assert checked.good["ticker"].tolist() == ["BRK.B", "KIMpL", "NA", "TRUE"]


@pytest.mark.parametrize("changes", [{}, {"T": None}, {"T": ""}])
def test_grouped_row_without_a_ticker_is_set_aside(changes: dict[str, Any]) -> None:
    assert reasons(check(make_bar(**changes), ticker=None)) == ["no ticker"]


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
    checked = check(*rows, timeframe=timeframe)
    good, rejected = checked.good, checked.rejected
    assert len(good) + len(rejected) == len(rows)
    assert (rejected["reason"] != "").all()
    assert good["timestamp"].is_monotonic_increasing
    assert good["timestamp"].is_unique
    for bar in good.to_dict("records"):
        assert 0 < bar["low"] <= min(bar["open"], bar["close"])
        assert max(bar["open"], bar["close"]) <= bar["high"] <= 1e7
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
    with closing(make_database(Path(":memory:"))) as connection:
        yield connection


def save(connection: Any, checked: Sequence[CheckedBars]) -> None:
    with transaction(connection):
        for each in checked:
            save_bars(connection, each.good)
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
    checked = [check(*rows), check(*rows, timeframe="5min", ticker="NA")]
    save(database, checked)
    once = read(database)
    save(database, checked)
    assert read(database) == once
    good = checked[0].good.to_dict("records") + checked[1].good.to_dict("records")
    assert len(once[0]) == len(good)
    for stored, bar in zip(once[0], good, strict=True):
        assert stored[1:11] == tuple(bar.values())[:10]
    assert {row[4] for row in once[1]} == {reason for each in checked for reason in each.rejected["reason"]}


def test_bar_that_came_again_takes_the_new_values_and_keeps_its_row(database: Any) -> None:
    database.execute("DELETE FROM ohlcv_data")
    save(database, [check(make_bar(c=10.0))])
    before = database.execute("SELECT id, created_at FROM ohlcv_data").fetchall()
    save(database, [check(make_bar(c=11.5, v=5))])
    assert database.execute("SELECT id, created_at FROM ohlcv_data").fetchall() == before
    assert database.execute("SELECT close, volume FROM ohlcv_data").fetchall() == [(11.5, 5)]


def test_many_bars_are_saved_whatever_the_size_of_a_statement(database: Any) -> None:
    database.execute("DELETE FROM ohlcv_data")
    slots = range(new_york_ms("2012-11-05T04:00"), new_york_ms("2012-11-05T20:00"), 300_000)
    rows = [make_bar(t=slot + day * 86_400_000) for day in range(3) for slot in slots]
    save(database, [check(*rows, timeframe="5min")])
    assert database.execute("SELECT count(*) FROM ohlcv_data").fetchone() == (3 * 192,)
