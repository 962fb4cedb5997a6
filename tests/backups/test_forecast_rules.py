"""When a folder is full, counted by hand on backups of a few bytes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backtestdb.backups import forecast as forecast_module
from backtestdb.backups.catalogue import Backup
from backtestdb.backups.forecast import (
    Forecast,
    Growth,
    count_days,
    describe_forecast,
    forecast,
    keep,
    measure_growth,
    warn_of_full_disk,
)
from backtestdb.backups.manifest import Kind
from backtestdb.backups.retention import Retention
from backtestdb.config import Settings
from backup_tools import make_settings
from manifests import FIRST_TAKEN_AT_UTC, make_backup_of, make_manifest

TEN = Growth(next_bytes=10)


def make_backup(kind: Kind, hours_ago: int, size: int) -> Backup:
    taken = FIRST_TAKEN_AT_UTC - timedelta(hours=hours_ago)
    path = Path(f"/backups/{kind}-{hours_ago}.db")
    return replace(make_backup_of(path, make_manifest(path, kind, taken, {})), bytes=size)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A plain limit, so that sums can be done by hand."""
    return make_settings(tmp_path, max_backups=7, keep_full_weekly=0, keep_full_monthly=0)


def until_full(
    full: Sequence[tuple[int, int]],
    free: int,
    growth: Growth = TEN,
    *,
    newest: int,
    weekly: int = 0,
) -> tuple[int | None, int]:
    found = count_days(full, growth, Retention(newest=newest, weekly=weekly), free)
    assert found.growth == growth
    return found.days, found.kept


# ── the days


def test_day_is_counted_from_tomorrow_to_the_four_hundredth_and_no_further() -> None:
    assert until_full([(1, 10)], 9, newest=1000) == (1, 1)
    assert until_full([(1, 10)], 10, newest=1000) == (2, 2)
    assert until_full([(1, 10)], 3999, newest=1000) == (400, 400)
    assert until_full([(1, 10)], 4000, newest=1000) == (None, 401)


def test_folder_is_near_full_for_thirty_days() -> None:
    assert Forecast(30).is_near is True
    assert Forecast(1).is_near is True
    assert Forecast(31).is_near is False
    assert Forecast(None).is_near is False


def test_new_backup_needs_its_room_before_the_old_one_leaves() -> None:
    assert until_full([(1, 10)], 10, newest=1) == (None, 1)
    assert until_full([(1, 10)], 9, newest=1) == (1, 1)


def test_growing_backup_takes_what_it_is_larger_than_the_one_that_leaves() -> None:
    # On day n, 100 + n bytes are needed and n - 1 have gone: 110 - (n - 1) < 100 + n from n = 6 on.
    growth = Growth(next_bytes=100, daily_bytes=1)
    assert until_full([(1, 100)], 110, growth, newest=1) == (6, 1)


@pytest.mark.parametrize(("free", "days"), [(130, None), (129, 3), (119, 2), (109, 1)])
def test_small_backups_take_room_until_the_oldest_make_way(free: int, days: int | None) -> None:
    growth = Growth(next_bytes=100, small_bytes=10, small_days=3)
    assert until_full([(1, 100)], free, growth, newest=1) == (days, 1)


# Weeks are sevens of days: 98 to 104, 105 to 111.
@pytest.mark.parametrize(
    ("full", "free", "days"),
    [
        # 101 and 100; day for day the newest and the last of this week, until 106, 105 and 104.
        ([(100, 10)], 25, 7),
        ([(103, 10), (100, 10)], 15, 4),
    ],
)
def test_last_backup_of_a_week_begins_to_take_room_when_the_next_week_has_one(
    full: list[tuple[int, int]], free: int, days: int
) -> None:
    assert until_full(full, free, newest=1, weekly=2) == (days, 3)


def test_kept_are_the_newest_then_the_last_of_weeks_and_months_beyond() -> None:
    days = (100, 99, 98, 97, 96, 91, 90, 88, 84, 83, 59, 29)
    full = [(day, day * 1000) for day in days]
    retention = Retention(newest=2, weekly=2, monthly=2)
    assert [day for day, _ in keep(full, retention)] == [100, 99, 98, 97, 96, 88]
    assert keep(full, Retention(newest=3)) == full[:3]


# ── what a day adds


@pytest.mark.parametrize(
    ("sizes", "daily"),
    [
        ({0: 190}, 0),
        ({0: 190, 24: 100}, 90),
        ({0: 190, 24: 999, 48: 7, 72: 100}, 30),
        ({0: 190, 12: 100}, 0),
        ({0: 190, 48: 999}, 0),
    ],
)
def test_growth_is_between_the_oldest_and_the_newest_a_day_or_more_apart(
    settings: Settings, sizes: dict[int, int], daily: float
) -> None:
    full = [make_backup("full", hours, size) for hours, size in sizes.items()]
    assert measure_growth(full, settings, 5) == Growth(next_bytes=190, daily_bytes=daily)
    small = make_backup("irreplaceable", 1, 3)
    found = measure_growth([*full, small], settings, 5)
    assert (found.next_bytes, found.daily_bytes, found.small_bytes) == (190, daily, 3)


@pytest.mark.parametrize(("hours", "days"), [(72, 0.5), (24, 0)])
def test_small_ones_of_a_day_are_added_until_the_hourly_ones_make_room(
    settings: Settings, hours: int, days: float
) -> None:
    sizes = {0: 1, 23: 2, 24: 4, 47: 8, 60: 16}
    small = [make_backup("irreplaceable", age, size) for age, size in sizes.items()]
    settings = replace(settings, keep_small_hourly=hours)
    expected = Growth(next_bytes=5, small_bytes=3, small_days=days)
    assert measure_growth(small, settings, 5) == expected


def test_growth_without_a_backup_is_the_database_itself(settings: Settings) -> None:
    expected = Growth(next_bytes=5, daily_bytes=0, small_bytes=0, small_days=0)
    assert measure_growth([], settings, 5) == expected


# ── the limit that helps


@pytest.mark.parametrize(
    ("free", "fitting"),
    [(70, 0), (60, 6), (50, 5), (40, 4), (10, 1), (9, 0)],
)
def test_limit_that_is_named_is_the_largest_that_lasts(
    settings: Settings, free: int, fitting: int
) -> None:
    found = forecast([make_backup("full", 0, 10)], settings, free, 5)
    assert found.is_near is (free < 70)
    assert found.fitting == fitting


def test_nothing_to_back_up_fills_nothing(settings: Settings) -> None:
    nothing = Forecast(days=None, kept=0, fitting=0, growth=Growth(next_bytes=0))
    assert forecast([], settings, 0, 0) == Forecast() == nothing


# ── in words


@pytest.mark.parametrize(
    ("days", "fitting", "when", "helps"),
    [
        (1, 0, "now", ""),
        (2, 0, "in 2 days", ""),
        (30, 6, "in 30 days", ", or set MAX_BACKUPS=6 in .env"),
    ],
)
def test_full_folder_is_told_with_its_day_its_room_and_what_helps(
    settings: Settings, days: int, fitting: int, when: str, helps: str
) -> None:
    found = Forecast(days, 3, fitting, Growth(next_bytes=2000))
    assert describe_forecast(found, settings, 1500) == (
        f"{settings.backup_dir} is full {when}: 1.5 kB are free, 3 full backups of 2.0 kB fit, "
        "MAX_BACKUPS is 7",
        f"free space on this disk{helps}",
    )


@pytest.mark.parametrize("days", [31, None])
def test_folder_that_lasts_is_not_spoken_of(settings: Settings, days: int | None) -> None:
    assert describe_forecast(Forecast(days, 3), settings, 1500) == ("", "")


def test_installation_without_a_backup_is_warned_by_the_size_of_its_database(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"bytes": 0}
    monkeypatch.setattr(forecast_module, "free_bytes", lambda _folder: free["bytes"])
    assert warn_of_full_disk(settings) == ""
    settings.database_path.parent.mkdir()
    settings.database_path.write_bytes(bytes(1000))
    free["bytes"] = 999
    assert warn_of_full_disk(settings) == (
        f"warning: {settings.backup_dir} is full now: 999 B are free, 0 full backups of 1.0 kB "
        "fit, MAX_BACKUPS is 7; next: free space on this disk"
    )
    free["bytes"] = 1_000_000
    assert warn_of_full_disk(settings) == ""
