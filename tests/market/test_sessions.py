"""Sessions of New York: closures, half days, daylight saving."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.config import PROJECT_DIR
from backtestdb.market.sessions import (
    last_completed_session,
    make_new_york_times,
    sessions_back,
    sessions_between,
    sunday_based_weekday,
    years_before,
)
from backtestdb.new_york import end_of_day_ms, midnight_ms
from market_setup import CALENDAR, sessions_of

NEW_YORK = ZoneInfo("America/New_York")
DAYS = st.dates(date(1991, 1, 1), date(2026, 12, 31))


def test_sessions_leave_out_weekends_holidays_and_the_hurricane() -> None:
    assert [day.day for day in sessions_of("2012-10-25", "2012-11-02")] == [25, 26, 31, 1, 2]
    assert date(2012, 11, 22) not in sessions_of("2012-11-19", "2012-11-26")
    assert date(2012, 11, 23) in sessions_of("2012-11-19", "2012-11-26")


def test_a_year_has_about_251_sessions_and_five_have_1254() -> None:
    assert len(sessions_of("2025-11-21", "2026-11-20")) == 251
    assert abs(len(sessions_of("2021-11-21", "2026-11-20")) - 1254) <= 3


def test_range_of_one_session_and_range_of_none() -> None:
    assert sessions_of("2012-11-05", "2012-11-05") == [date(2012, 11, 5)]
    assert sessions_of("2012-11-03", "2012-11-04") == []
    assert sessions_of("2012-11-06", "2012-11-05") == []


@given(start=DAYS, days=st.integers(0, 40))
def test_sessions_between_are_the_sessions_of_each_day(start: date, days: int) -> None:
    each = [start + timedelta(n) for n in range(days + 1)]
    expected = [day for day in each if CALENDAR.is_session(pd.Timestamp(day))]
    assert sessions_between(CALENDAR, start, each[-1]) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-20T16:01:00-05:00", "2026-11-19"),
        ("2026-11-20T20:14:59-05:00", "2026-11-19"),
        ("2026-11-20T20:15:00-05:00", "2026-11-20"),
        ("2026-11-21T12:00:00-05:00", "2026-11-20"),
        ("2026-11-23T03:00:00-05:00", "2026-11-20"),
        ("2012-11-23T17:14:00-05:00", "2012-11-21"),
        ("2012-11-23T17:15:00-05:00", "2012-11-23"),
        ("2012-10-30T20:00:00-04:00", "2012-10-26"),
        ("2026-07-06T20:14:00-04:00", "2026-07-02"),
        ("2026-11-21T10:14:00+09:00", "2026-11-19"),
        ("2026-11-21T10:15:00+09:00", "2026-11-20"),
    ],
)
def test_last_completed_session_is_the_newest_that_is_final(now: str, expected: str) -> None:
    moment = datetime.fromisoformat(now)
    assert last_completed_session(CALENDAR, moment).isoformat() == expected
    assert last_completed_session(CALENDAR, moment.astimezone(UTC)).isoformat() == expected


@given(day=DAYS, count=st.integers(0, 100))
def test_sessions_back_counts_from_the_first_session_that_is_not_before_the_day(
    day: date, count: int
) -> None:
    first = sessions_back(CALENDAR, day, count)
    reached = sessions_between(CALENDAR, day, day + timedelta(10))[0]
    assert len(sessions_between(CALENDAR, first, reached)) == count + 1


def test_sessions_back_ends_where_the_calendar_begins() -> None:
    assert sessions_back(CALENDAR, date(1990, 1, 5), 100) == CALENDAR.first_session.date()


@pytest.mark.parametrize(
    ("end", "years", "start"),
    [
        ("2026-11-20", 1, "2025-11-21"),
        ("2026-11-20", 5, "2021-11-21"),
        ("2012-02-29", 1, "2011-03-01"),
        ("2012-12-31", 1, "2012-01-01"),
    ],
)
def test_a_year_that_ends_with_a_day_begins_the_day_after_the_same_day(
    end: str, years: int, start: str
) -> None:
    assert years_before(date.fromisoformat(end), years).isoformat() == start


@given(day=DAYS)
def test_midnight_and_end_of_a_day_enclose_exactly_the_day_in_new_york(day: date) -> None:
    first = datetime.fromtimestamp(midnight_ms(day) / 1000, NEW_YORK)
    assert (first.date(), first.hour, first.minute, first.second) == (day, 0, 0, 0)
    assert end_of_day_ms(day) + 1 == midnight_ms(day + timedelta(1))


def test_days_of_the_clock_change_have_23_and_25_hours() -> None:
    hours = {
        day: (end_of_day_ms(date.fromisoformat(day)) + 1 - midnight_ms(date.fromisoformat(day)))
        / 3_600_000
        for day in ("2012-03-11", "2012-11-04", "2012-11-05")
    }
    assert list(hours.values()) == [23, 25, 24]


@given(stamps=st.lists(st.integers(700_000_000, 1_800_000_000), max_size=5))
def test_new_york_times_are_those_of_the_zone(stamps: list[int]) -> None:
    times = make_new_york_times(np.array(stamps, dtype="int64") * 1000)
    expected = [datetime.fromtimestamp(stamp, NEW_YORK).replace(tzinfo=None) for stamp in stamps]
    assert [time.to_pydatetime() for time in times] == expected


def test_weekdays_count_from_sunday() -> None:
    week = pd.DatetimeIndex([f"2012-11-{day:02}" for day in range(4, 11)])
    assert sunday_based_weekday(week).tolist() == [0, 1, 2, 3, 4, 5, 6]


ZONE_FREE = """
from datetime import date
import numpy as np
from backtestdb.market.sessions import *
from backtestdb.new_york import midnight_ms
calendar = load_calendar()
print(midnight_ms(date(2012, 11, 5)),
      sessions_between(calendar, date(2012, 10, 26), date(2012, 11, 2)),
      make_new_york_times(np.array([1352125800000]))[0])
"""


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo"])
def test_zone_of_the_machine_changes_nothing(zone: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ZONE_FREE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TZ": zone, "PYTHONPATH": str(PROJECT_DIR / "scripts")},
    )
    days = sessions_of("2012-10-26", "2012-11-02")
    assert ended.stdout.strip() == f"1352091600000 {days} 2012-11-05 09:30:00".replace(
        "date(", "datetime.date("
    ).replace("datetime.datetime.", "datetime.")
