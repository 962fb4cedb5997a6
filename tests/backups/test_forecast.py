"""When BACKUP_DIR is full: said weeks before, and right to the day."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from backtestdb.backups.forecast import Growth, count_days, forecast
from backtestdb.backups.identity import load_own_catalogue
from backtestdb.backups.retention import Retention
from backtestdb.health.backup_facts import load_backup_facts
from backtestdb.health.database_facts import DatabaseFacts
from backtestdb.health.problems import judge_backups
from backup_tools import age_backups, back_up, make_platform_database, make_settings

MB = 1_000_000
DATABASE = DatabaseFacts(path=Path("/db"), origin="default", state="present", bytes=1000, tables=[])


def test_disk_of_60_megabytes_takes_no_eighth_backup_of_8() -> None:
    found = count_days([(1, 8 * MB)], Growth(next_bytes=8 * MB), Retention(newest=30), 52 * MB)
    assert (found.days, found.kept) == (7, 7)
    assert found.is_near


def test_disk_that_holds_all_that_is_kept_and_one_more_is_never_full() -> None:
    growth, retention = Growth(next_bytes=8 * MB), Retention(newest=30, weekly=4, monthly=3)
    assert count_days([(1, 8 * MB)], growth, retention, 37 * 8 * MB).days is None
    assert count_days([(1, 8 * MB)], growth, retention, 35 * 8 * MB).days is not None


def test_growing_database_fills_a_disk_that_it_fits_today() -> None:
    growth = Growth(next_bytes=10 * MB, daily_bytes=1 * MB)
    found = count_days([(1, 10 * MB)], growth, Retention(newest=3), 90 * MB)
    # Three of the days before and the new one, of 10 MB and a day's growth each: 4n - 6 > 100 - 40.
    assert found.days == 17


@given(
    free=st.integers(0, 400),
    size=st.integers(1, 20),
    more=st.integers(1, 100),
    newest=st.integers(1, 40),
)
def test_more_room_never_fills_earlier(free: int, size: int, more: int, newest: int) -> None:
    growth, retention = Growth(next_bytes=size), Retention(newest=newest, weekly=2)
    one = count_days([(1, size)], growth, retention, free).days or 10_000
    other = count_days([(1, size)], growth, retention, free + more).days or 10_000
    assert other >= one


def test_growth_is_measured_from_the_backups_and_the_problem_names_a_limit(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path, bars=100)
    back_up(settings)
    back_up(settings, "irreplaceable", minutes=1)
    catalogue = load_own_catalogue(settings.backup_dir, settings.database_path)
    each = next(backup.bytes for backup in catalogue if backup.kind == "full")
    found = forecast(catalogue, settings, free=20 * each, database_bytes=each)
    assert found.days
    assert found.days <= 30
    assert 1 <= found.fitting < settings.max_backups
    fewer = replace(settings, max_backups=found.fitting)
    assert not forecast(catalogue, fewer, free=20 * each, database_bytes=each).is_near
    assert forecast(catalogue, settings, free=10_000 * each, database_bytes=each).days is None

    facts = load_backup_facts(
        settings.backup_dir,
        settings.database_path,
        each,
        datetime.now(UTC),
        database_id="",
        rows={},
        settings=settings,
    )
    near = replace(facts, fills="full in 6 days", before_it_fills="MAX_BACKUPS=5", room_for=6)
    problems = {one.name: one.next_step for one in judge_backups(near, DATABASE)}
    assert problems["disk_fills"] == "MAX_BACKUPS=5"


def test_small_backup_that_is_old_is_a_problem_beside_a_fresh_full_one(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path)
    back_up(settings, "irreplaceable")
    age_backups(
        load_own_catalogue(settings.backup_dir, settings.database_path), timedelta(hours=27)
    )
    back_up(settings)

    def names(**changes: object) -> set[str]:
        facts = load_backup_facts(
            settings.backup_dir,
            settings.database_path,
            1,
            datetime(2026, 11, 20, 13, tzinfo=UTC),
            database_id="",
            rows={},
            settings=replace(settings, **changes),  # type: ignore[arg-type]
        )
        return {one.name for one in judge_backups(facts, DATABASE)}

    assert "stale_small_backup" in names()
    assert "stale_small_backup" not in names(irreplaceable_every_minutes=0)
