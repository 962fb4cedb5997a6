"""Candles, labels and the lanes of backups: what is drawn, in numbers."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.backups.catalogue import Backup
from backtestdb.backups.manifest import Kind
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.new_york import midnight_ms
from backtestdb.offsite.facts import OffsiteFacts
from backtestdb.page.backup_lanes import make_backup_lanes
from backtestdb.page.charts import (
    choose_ticks,
    make_day_candles,
    make_minute_candles,
    make_session_bars,
)
from backtestdb.page.elsewhere import make_elsewhere
from backtestdb.page.ticker import Bar, CountedSession, MinuteSession, load_trading_hours
from backtestdb.page.tickers import ListedSplit

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SESSIONS = sessions_between(load_calendar(), date(2024, 1, 2), date(2024, 1, 5))


def make_bar(day: date, low: float, high: float, *, rises: bool = True) -> Bar:
    opened, closed = (low, high) if rises else (high, low)
    return Bar(midnight_ms(day), opened, high, low, closed, 100)


def test_candles_stand_at_their_sessions_and_leave_a_gap_where_none_is() -> None:
    bars = [make_bar(SESSIONS[0], 10, 12), make_bar(SESSIONS[3], 9, 11, rises=False)]
    chart = make_day_candles(bars, SESSIONS, [])
    assert chart["places"] == [12.5, 87.5]
    assert (chart["rising"].count("M"), chart["falling"].count("M")) == (1, 1)
    high, low = (
        float(text) for text in chart["wicks"].split("M125.00 ")[1].split("M")[0].split("V")
    )
    assert 0 < high < low < 240
    assert [point[0] for point in chart["points"]] == ["2024-01-02", "2024-01-05"]


def test_split_is_marked_at_the_session_from_which_it_counts() -> None:
    bars = [make_bar(day, 10, 12) for day in SESSIONS]
    splits = [ListedSplit(day, "2:1") for day in ("2024-01-09", "2024-01-04", "2024-01-02")]
    (mark,) = make_day_candles(bars, SESSIONS, splits)["splits"]
    assert (mark.percent, mark.text) == (50.0, "2:1 split on 2024-01-04")


@pytest.mark.parametrize(("low", "high"), [(0.0001, 0.0002), (9.9, 10.1), (1, 1e6), (-3, 5)])
def test_ticks_are_round_and_within(low: float, high: float) -> None:
    ticks = choose_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)


def test_one_price_for_a_whole_session_is_drawn() -> None:
    hours = load_trading_hours([SESSIONS[0]])[0]
    bar = Bar(hours[0], 5, 5, 5, 5, 0)
    session = MinuteSession(
        session_date="2024-01-02", bars=[bar], opens_ms=hours[0], closes_ms=hours[1]
    )
    chart = make_minute_candles(session)
    assert chart["hours"] == [0, 1000]
    assert [label.text for label in chart["labels"]][:2] == ["10:00", "11:00"]
    assert chart["points"][0] == ["09:30", "5.00", "5.00", "5.00", "5.00", "0"]


@pytest.mark.parametrize(("day", "count"), [(date(2024, 7, 2), 78), (date(2024, 7, 3), 42)])
def test_a_session_has_78_bars_and_a_half_day_42(day: date, count: int) -> None:
    ((opens, closes),) = load_trading_hours([day])
    assert (closes - opens) // 300_000 == count


def test_session_with_fewer_bars_is_short() -> None:
    counted = [CountedSession("2024-07-02", 78, 78), CountedSession("2024-07-03", 40, 42)]
    chart = make_session_bars(counted)
    assert chart["short"] == [counted[1]]
    assert [bar["height"] for bar in chart["bars"]] == [100, pytest.approx(51.28, abs=0.01)]


def make_backup(kind: Kind, age: timedelta, confirmed: timedelta | None = None) -> Backup:
    taken = NOW - age
    until = NOW - confirmed if confirmed is not None else taken
    return Backup(
        path=Path(f"{kind}-{taken:%d%H}.db"),
        kind=kind,
        bytes=1000,
        taken_at_utc=taken,
        confirmed_at_utc=until,
        manifest=None,
        problem="no manifest",
    )


def test_backups_stand_where_they_were_taken_each_kind_in_its_lane() -> None:
    day = timedelta(days=1)
    files = [make_backup("full", day * n) for n in (40, 10, 9, 2, 0)]
    files.append(make_backup("irreplaceable", day * 5, confirmed=day))
    lanes = make_backup_lanes(files, NOW)
    assert lanes
    full, small = lanes["lanes"]
    assert [round(mark["x"]) for mark in full["marks"]] == [0, 98, 798, 996]
    (mark,) = small["marks"]
    assert (round(mark["x"]), round(mark["covered"])) == (498, 400)
    oldest = f"{(NOW - 40 * day).astimezone():%Y-%m-%d}"
    assert (lanes["older"], lanes["oldest"]) == (1, oldest)
    assert full["summary"] == "full: none that counts"


def test_copies_elsewhere_are_told_with_the_newest_proven_one() -> None:
    hour = timedelta(hours=1)
    facts = OffsiteFacts(
        target="s3://far/away",
        lag=hour,
        newest_full_utc=NOW - 5 * hour,
        newest_small_utc=None,
        failures={},
        checked_at_utc=NOW - 2 * hour,
        check_problems=("an object is gone",),
        drilled_at_utc=NOW - 3 * hour,
        drill_problem="",
        drill_seconds=12.34,
        drill_bytes=1,
    )
    told = dict(make_elsewhere(facts, NOW))
    assert told["newest full copy"] == f"of {(NOW - 5 * hour).astimezone():%Y-%m-%d %H:%M}"
    assert told["newest small copy"] == "none"
    assert told["checked there"].endswith("ago: an object is gone")
    assert told["restored from there"].endswith("ago, in 12.3 s")
    assert make_elsewhere(None, NOW) == []


def test_no_backup_has_no_lanes() -> None:
    assert make_backup_lanes([], NOW) is None
