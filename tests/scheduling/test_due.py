"""What is due: single rules first, then a simulated year of everything that happens to a
machine."""

import random
from bisect import bisect
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from backtestdb.scheduling.due import (
    LATEST_AFTER,
    STALE_AFTER,
    BackupTimes,
    find_stale,
    find_stuck,
    retry_at,
    wake_minutes,
    what_is_due,
)

ZONES = ("America/New_York", "Europe/Berlin", "Asia/Kolkata", "UTC")
TWO = time(2)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def local(zone: str, text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def full_due(zone: str, now: str, *taken: str, at: time = TWO) -> bool:
    times = BackupTimes(full=tuple(local(zone, text) for text in taken))
    due = what_is_due(local(zone, now), times, backup_time=at, every_minutes=0, zone=ZoneInfo(zone))
    return due == ["full"]


@pytest.mark.parametrize(
    ("now", "taken", "expected"),
    [
        ("2026-03-03 01:59", "2026-03-02 02:00", False),
        ("2026-03-03 02:00", "2026-03-02 02:00", True),
        ("2026-03-03 14:00", "2026-03-02 02:00", True),
        ("2026-03-03 14:00", "2026-03-03 02:00", False),
        ("2026-03-03 00:10", "2026-03-01 02:00", True),  # the second was missed
        ("2026-03-03 02:00", "2026-03-03 00:10", False),  # and was made up for on the third
        ("2026-03-04 01:00", "2026-03-03 00:10", False),
        ("2026-03-04 02:00", "2026-03-03 00:10", True),
    ],
)
def test_full_backup_counts_for_its_local_day(now: str, taken: str, expected: bool) -> None:
    assert full_due("Europe/Berlin", now, taken) is expected


def test_first_backup_is_due_at_any_hour() -> None:
    assert full_due("UTC", "2026-03-03 00:01")


def test_hour_that_is_skipped_in_spring_is_made_up_for_at_once() -> None:
    assert not full_due("America/New_York", "2026-03-08 01:59", "2026-03-07 02:30", at=time(2, 30))
    assert full_due("America/New_York", "2026-03-08 03:00", "2026-03-07 02:30", at=time(2, 30))


def test_hour_that_comes_twice_in_autumn_has_one_backup() -> None:
    zone, at = "America/New_York", time(1, 30)
    first, second = local(zone, "2026-11-01 01:30", fold=0), local(zone, "2026-11-01 01:30", fold=1)
    before = BackupTimes(full=(local(zone, "2026-10-31 01:30"),))
    assert what_is_due(first, before, backup_time=at, every_minutes=0, zone=ZoneInfo(zone)) == [
        "full"
    ]
    for minutes in range(120):
        now = first.astimezone(UTC) + minutes * MINUTE
        assert not what_is_due(
            now, BackupTimes(full=(first,)), backup_time=at, every_minutes=0, zone=ZoneInfo(zone)
        )
    assert second.astimezone(UTC) - first.astimezone(UTC) == HOUR


def test_backup_caught_up_after_midnight_leaves_no_gap_of_two_days() -> None:
    late = time(23)
    assert full_due("UTC", "2026-03-03 00:30", "2026-03-01 23:00", at=late)
    assert not full_due("UTC", "2026-03-03 23:00", "2026-03-03 00:30", at=late)
    assert not full_due("UTC", "2026-03-04 01:59", "2026-03-03 00:30", at=late)
    assert full_due("UTC", "2026-03-04 02:00", "2026-03-03 00:30", at=late)
    assert LATEST_AFTER < STALE_AFTER


def test_clock_that_was_years_ahead_does_not_stop_backups() -> None:
    assert full_due("UTC", "2026-03-03 02:00", "2031-01-01 02:00", "2026-03-02 02:00")
    assert not full_due("UTC", "2026-03-03 02:00", "2031-01-01 02:00", "2026-03-03 01:00")


def test_clock_set_back_within_the_day_makes_no_second_backup() -> None:
    assert not full_due("UTC", "2026-03-03 02:01", "2026-03-03 05:00", "2026-03-02 02:00")


def test_small_backups_do_not_drift_when_asked_every_minute() -> None:
    taken = local("UTC", "2026-03-03 10:00:20")
    for now, expected in (("10:59:59", []), ("11:00:01", ["irreplaceable"])):
        moment = local("UTC", f"2026-03-03 {now}")
        times = BackupTimes(full=(taken,), irreplaceable=(taken,))
        assert what_is_due(moment, times, backup_time=TWO, every_minutes=60, zone=UTC) == expected


def test_small_backups_turned_off_are_never_due() -> None:
    now = local("UTC", "2026-03-03 10:00")
    assert (
        what_is_due(now, BackupTimes(full=(now,)), backup_time=TWO, every_minutes=0, zone=UTC) == []
    )


def test_stale_after_26_hours_and_not_before() -> None:
    now = local("UTC", "2026-03-03 10:00")
    assert find_stale(now, [now - 26 * HOUR]) == ""
    assert "26.1 h old" in find_stale(now, [now - 26.1 * HOUR])
    assert "no verified full backup" in find_stale(now, [])
    assert "no verified full backup" in find_stale(now, [now + DAY])


def test_loop_is_stuck_without_a_sign_of_life() -> None:
    now = local("UTC", "2026-03-03 10:00")
    assert find_stuck(now, now - 4 * MINUTE) == ""
    assert "6 minutes" in find_stuck(now, now - 6 * MINUTE)
    assert find_stuck(now, None)


def test_pause_after_failures_grows_to_an_hour() -> None:
    start = local("UTC", "2026-03-03 10:00")
    minutes = [(retry_at(start, failures) - start) // MINUTE for failures in (1, 2, 3, 4, 5, 400)]
    assert minutes == [5, 10, 20, 40, 60, 60]


@pytest.mark.parametrize(
    ("at", "every", "expected"),
    [
        (TWO, 60, [0]),
        (time(2, 17), 0, [17]),
        (time(2, 17), 120, [17]),
        (time(2, 50), 15, [5, 20, 35, 50]),
        (time(2, 1), 90, [1, 31]),
        (TWO, 7, list(range(0, 60, 5))),
    ],
)
def test_wake_minutes_hold_backup_time_and_the_interval(
    at: time, every: int, expected: list[int]
) -> None:
    assert wake_minutes(at, every) == expected
    assert at.minute in expected


class Machine:
    """A year from `start` on: when it is awake, what its clock shows, when backups fail."""

    def __init__(self, seed: int, start: datetime) -> None:
        chance = random.Random(seed)
        self.off = self.spans(chance, start, 90, (1, 80))  # sleeps and power-offs, up to three days
        self.failing = self.spans(chance, start, 25, (1, 30))
        self.wrong_clock = [
            (*span, chance.choice((-26, -3, -1, 1, 5, 50)) * HOUR)
            for span in self.spans(chance, start, 8, (1, 60))
        ]

    @staticmethod
    def spans(
        chance: random.Random, start: datetime, count: int, hours: tuple[int, int]
    ) -> list[tuple[datetime, datetime]]:
        begins = [start + chance.randrange(365 * 24 * 60) * MINUTE for _ in range(count)]
        return [(begin, begin + chance.uniform(*hours) * HOUR) for begin in sorted(begins)]

    def clock(self, true_time: datetime) -> datetime:
        return true_time + next(
            (wrong for begin, end, wrong in self.wrong_clock if begin <= true_time < end),
            timedelta(),
        )


def within(spans: list[tuple[datetime, datetime]], moment: datetime) -> bool:
    """Some spans overlap; none is longer than a few of them begin after each other."""
    after = bisect(spans, moment, key=lambda span: span[0])
    return any(moment < end for _, end in spans[max(after - 20, 0) : after])


def live_a_year(
    zone: ZoneInfo, seed: int, step: timedelta, at: time
) -> tuple[Counter[date], set[date], int]:
    """Return full backups by local day of the machine's clock, the days that had to have one, and
    attempts."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    machine = Machine(seed, start)
    full: list[datetime] = []
    days: Counter[date] = Counter()
    owed: set[date] = set()
    attempts = failures = 0
    not_before = start
    true_time = start
    while true_time < start + 365 * DAY:
        true_time += step
        if within(machine.off, true_time):
            failures, not_before = 0, start  # a start forgets the pause
            continue
        now = machine.clock(true_time)
        works = not within(machine.failing, true_time)
        here = now.astimezone(zone)
        if works and here.time() >= at and true_time >= not_before:
            owed.add(here.date())
        due = what_is_due(
            now, BackupTimes(full=tuple(full[-8:])), backup_time=at, every_minutes=0, zone=zone
        )
        if due and true_time >= not_before:
            attempts += 1
            if works:
                full.append(now)
                days[here.date()] += 1
                failures, not_before = 0, start
            else:
                failures += 1
                not_before = retry_at(true_time, failures)
    return days, owed, attempts


def check_year(zone: str, seed: int, step: timedelta, at: time) -> None:
    days, owed, attempts = live_a_year(ZoneInfo(zone), seed, step, at)
    assert [day for day, count in days.items() if count > 1] == []
    assert sorted(owed - days.keys()) == []
    assert len(owed) > 200
    assert attempts > sum(days.values())  # some failed


@pytest.mark.parametrize(
    ("zone", "at"),
    [*((zone, TWO) for zone in ZONES), (ZONES[0], time(1, 30)), (ZONES[1], time(23, 5))],
    ids=str,
)
def test_year_asked_every_seven_minutes_has_one_full_backup_a_day(zone: str, at: time) -> None:
    check_year(zone, 1, 7 * MINUTE, at)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 7))
@pytest.mark.parametrize("zone", ZONES)
def test_year_of_minutes_has_one_full_backup_a_day(zone: str, seed: int) -> None:
    check_year(zone, seed, MINUTE, TWO)


@pytest.mark.parametrize("zone", ZONES)
def test_undisturbed_year_is_never_stale_and_keeps_its_time(zone: str) -> None:
    """Two days on which clocks change are among them; every backup is made at 02:00 or, in spring,
    at 03:00."""
    where = ZoneInfo(zone)
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    full = [now]
    hours: Counter[int] = Counter()
    while now < datetime(2027, 1, 1, tzinfo=UTC):
        now += 10 * MINUTE
        assert find_stale(now, full[-1:]) == ""
        if what_is_due(
            now, BackupTimes(full=tuple(full[-3:])), backup_time=TWO, every_minutes=0, zone=where
        ):
            full.append(now)
            hours[now.astimezone(where).hour] += 1
    assert hours[2] + hours[3] == hours.total() >= 364
    assert hours[3] <= 1
