"""Sessions of the New York exchange: which days, when each closes, and its midnight in UTC."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache

import exchange_calendars
import numpy as np
import pandas as pd
from exchange_calendars import ExchangeCalendar

from backtestdb.new_york import NEW_YORK

FIRST_DAY = "1990-01-01"
# Trading after hours ends four hours after the close, and bars of the vendor are 15 minutes late on
# its cheaper plans: a day bar asked for at 16:01 had half of the session's volume.
FINAL_AFTER_CLOSE = pd.Timedelta(hours=4, minutes=15)
MINUTES_PER_SESSION = 960  # 04:00 to 20:00 New York, the hours for which the vendor has bars


@cache
def load_calendar() -> ExchangeCalendar:
    """Return the XNYS calendar from 1990 to a year from now."""
    return exchange_calendars.get_calendar("XNYS", start=FIRST_DAY)


def sessions_between(calendar: ExchangeCalendar, start: date, end: date) -> list[date]:
    """Return the sessions from `start` to `end`, both included, in order."""
    index = calendar.sessions
    first = index.searchsorted(pd.Timestamp(start))
    last = index.searchsorted(pd.Timestamp(end), "right")
    return [stamp.date() for stamp in index[first:last]]


def last_completed_session(calendar: ExchangeCalendar, now_utc: datetime) -> date:
    """Return the newest session that is final at `now_utc`: 20:15 New York, 17:15 on half days
    (FINAL_AFTER_CLOSE)."""
    closes = calendar.schedule["close"]
    position = closes.searchsorted(pd.Timestamp(now_utc) - FINAL_AFTER_CLOSE, "right") - 1
    return pd.Timestamp(closes.index[position]).date()


def load_final_times(sessions: Sequence[date]) -> list[str]:
    """Return when each of `sessions` became final, as the text of UTC that records carry (see
    `last_completed_session`)."""
    final_seconds = load_final_seconds()
    return [
        datetime.fromtimestamp(final_seconds[day], UTC).isoformat(timespec="seconds")
        for day in sessions
    ]


@cache
def load_final_seconds() -> dict[date, int]:
    """Return when each session of the calendar became final, in seconds UTC. Each answer asks for
    some of them: pandas took 3.4 ms for one."""
    schedule = load_calendar().schedule
    final = (pd.DatetimeIndex(schedule["close"]) + FINAL_AFTER_CLOSE).as_unit("s").asi8
    return dict(zip(schedule.index.date, final.tolist(), strict=True))


def sessions_back(calendar: ExchangeCalendar, session_date: date, count: int) -> date:
    """Return the session `count` sessions before the first that is `session_date` or later."""
    position = calendar.sessions.searchsorted(pd.Timestamp(session_date)) - count
    return pd.Timestamp(calendar.sessions[max(position, 0)]).date()


def years_before(end: date, years: int) -> date:
    """Return the day after the same calendar day `years` earlier: a year that ends with `end`."""
    return (pd.Timestamp(end) - pd.DateOffset(years=years) + pd.Timedelta(days=1)).date()


def make_midnights_ms(session_dates: pd.DatetimeIndex) -> np.ndarray:
    """Return midnight in New York of each naive date, as milliseconds UTC."""
    return session_dates.tz_localize(NEW_YORK).as_unit("ms").asi8


def make_new_york_times(timestamps_ms: np.ndarray) -> pd.DatetimeIndex:
    """Return UTC ms as naive New York times; the date is taken in that zone."""
    return (
        pd.DatetimeIndex(timestamps_ms.astype("datetime64[ms]"), tz="UTC")
        .tz_convert(NEW_YORK)
        .tz_localize(None)
    )


def sunday_based_weekday(days: pd.DatetimeIndex) -> np.ndarray:
    """Return weekdays from 0 = Sunday, as the platform counts."""
    return ((days.day_of_week + 1) % 7).to_numpy()
