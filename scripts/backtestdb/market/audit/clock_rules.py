"""When a bar may be: sessions, the grid of times, and the columns that repeat the time."""

from collections.abc import Iterable

import numpy as np

from backtestdb.market.audit.columns import Bars, Flags, Ints, day_text
from backtestdb.market.audit.rule import Batch, Hits, Rule, flagged

FIVE_MINUTES_MS = 300_000
# The hours for which the vendor has bars: 04:00 to 20:00 New York.
FIRST_MINUTE, STOP_MINUTE = 240, 1200
CLOCK_TEXTS = np.array([f"{m // 60:02}:{m % 60:02}:00" for m in range(1440)], dtype=object)
WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
# 1970-01-01, the day 0, was a Thursday; the platform counts from 0 = Sunday.
WEEKDAY_OF_DAY_0 = 4


def find_bars_without_session(batch: Batch) -> Iterable[Hits]:
    for bars in (batch.days, batch.minutes):
        to_come = bars.day > batch.known.today
        yield from flagged(
            bars, to_come, lambda bars, i: f"a bar of {day_text(bars.day[i])}, a day to come"
        )
        broken = ~to_come & (batch.known.place_of(bars.day) < 0)
        yield from flagged(bars, broken, describe_day)


def describe_day(bars: Bars, i: int) -> str:
    return f"a bar of {day_text(bars.day[i])}, a {WEEKDAYS[weekday(bars)[i]]} without a session"


def find_bars_off_the_grid(batch: Batch) -> Iterable[Hits]:
    """Yield day bars that do not begin at midnight in New York, and 5-minute bars that do not begin
    on five minutes from 04:00 to 20:00."""
    days, minutes = batch.days, batch.minutes
    broken = days.timestamp != days.midnight
    yield from flagged(days, broken, lambda days, i: f"begins at {clock(days, i)}, not at midnight")

    broken = (minutes.timestamp % FIVE_MINUTES_MS != 0) | (minutes.minute < FIRST_MINUTE)
    broken |= minutes.minute >= STOP_MINUTE
    yield from flagged(
        minutes,
        broken,
        lambda minutes, i: (
            f"begins at {clock(minutes, i)}, not on five minutes from 04:00 to 20:00"
        ),
    )


def clock(bars: Bars, i: int) -> str:
    """Return a bar's time in New York; seconds and their fraction only where they are not 0."""
    seconds, milliseconds = divmod(int(bars.timestamp[i]) % 60_000, 1000)
    exact = f":{seconds:02}.{milliseconds:03}" if seconds or milliseconds else ""
    return f"{bars.minute[i] // 60:02}:{bars.minute[i] % 60:02}{exact}"


def find_second_bars(batch: Batch) -> Iterable[Hits]:
    """Yield second bars of a session, or of the same five minutes."""
    days, minutes = batch.days, batch.minutes
    again = days.follows & equals_before(days.day)
    yield from flagged(
        days, again, lambda days, i: f"a second day bar of the session, at {clock(days, i)}"
    )

    again = minutes.follows & equals_before(minutes.timestamp // FIVE_MINUTES_MS)
    yield from flagged(
        minutes,
        again,
        lambda minutes, i: f"a second bar of the same five minutes, at {clock(minutes, i)}",
    )


def equals_before(values: Ints) -> Flags:
    return np.asarray(np.diff(values, prepend=values[:1] - 1) == 0)


def find_wrong_weekdays(batch: Batch) -> Iterable[Hits]:
    for bars in (batch.days, batch.minutes):
        yield from flagged(bars, bars.day_of_week != weekday(bars), describe_weekday)


def describe_weekday(bars: Bars, i: int) -> str:
    right = weekday(bars)[i]
    return f"day_of_week is {bars.day_of_week[i]:g}, a {WEEKDAYS[right]} is {right}"


def weekday(bars: Bars) -> Ints:
    return (bars.day + WEEKDAY_OF_DAY_0) % 7


def find_wrong_times_of_day(batch: Batch) -> Iterable[Hits]:
    days, minutes = batch.days, batch.minutes
    has_one = np.array([text is not None for text in days.time_of_day.tolist()], dtype=bool)
    yield from flagged(
        days, has_one, lambda days, i: f"time_of_day is {days.time_of_day[i]!r}, a day bar has none"
    )
    differs = np.asarray(minutes.time_of_day != CLOCK_TEXTS[minutes.minute], dtype=bool)
    whole_minute = minutes.timestamp % 60_000 == 0
    yield from flagged(minutes, differs & whole_minute, describe_time_of_day)


def describe_time_of_day(minutes: Bars, i: int) -> str:
    right = CLOCK_TEXTS[minutes.minute[i]]
    return f"time_of_day is {minutes.time_of_day[i]!r}, in New York it was {right}"


RULES = (
    Rule(
        id="no-session",
        level="error",
        checks="a bar lies on a day without a session, or on a day to come",
        source="the exchange's calendar (XNYS)",
        mend="refetch",
        in_batch=find_bars_without_session,
    ),
    Rule(
        id="off-grid",
        level="error",
        checks="a day bar does not begin at midnight in New York, or a 5-minute bar not on five "
        "minutes from 04:00 to 20:00",
        source="the vendor's windows; docs/DATABASE.md, what the vendor answers",
        mend="refetch",
        in_batch=find_bars_off_the_grid,
    ),
    Rule(
        id="second-bar",
        level="error",
        checks="a ticker has two day bars of one session, or two bars of the same five minutes",
        source="one window, one bar",
        mend="refetch",
        in_batch=find_second_bars,
    ),
    Rule(
        id="wrong-weekday",
        level="error",
        checks="day_of_week is not the weekday in New York, counted from 0 = Sunday",
        source="the platform's column; docs/DATABASE.md",
        mend="fix-times",
        in_batch=find_wrong_weekdays,
    ),
    Rule(
        id="wrong-time-of-day",
        level="error",
        checks="time_of_day of a 5-minute bar is not its time in New York as HH:MM:SS, or a day "
        "bar has one",
        source="the platform's column; docs/DATABASE.md",
        mend="fix-times",
        in_batch=find_wrong_times_of_day,
    ),
)
