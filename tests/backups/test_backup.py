"""A backup from beginning to end, in real processes that are really killed."""

import itertools
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.backups.backup import Hooks
from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.verify import verify_backup
from backtestdb.config import PROJECT_DIR, Settings
from backtestdb.database import connect
from backtestdb.errors import BusyError, DatabaseFileError, ProjectError
from backtestdb.files import make_stamp
from backtestdb.scheduling.notify import run_backup
from backup_tools import (
    BACKUP_STEPS,
    NOON,
    KillAtStep,
    back_up,
    change,
    environment_of,
    flip_bit,
    kill_after,
    leftovers,
    make_platform_database,
    make_settings,
    read_all,
    run_in_child,
    time_of,
    verified_names,
    verify_every_listed,
)

BACKUP = PROJECT_DIR / "scripts" / "backup_database.py"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path, max_backups=3, keep_full_weekly=0, keep_full_monthly=0)
    make_platform_database(settings.database_path)
    (settings.generated_scripts_dirs[0] / "sub").mkdir(parents=True)
    (settings.generated_scripts_dirs[0] / "sub" / "pattern.py").write_text("print('pattern')\n")
    return settings


def run_command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BACKUP), *arguments],
        env=environment_of(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_backup_holds_every_row_and_a_manifest_that_says_so(settings: Settings) -> None:
    backup = back_up(settings).backup
    assert backup.path.name == f"backtesting-{make_stamp(NOON)}.db"
    assert read_all(backup.path) == read_all(settings.database_path)
    manifest = json.loads(backup.manifest_path.read_text())
    assert manifest["rows"]["ohlcv_data"] == 2000
    assert manifest["bytes"] == backup.path.stat().st_size
    assert manifest["taken_at_utc"] == "2026-11-20T12:00:00.000000Z"
    assert manifest["source_path"] == str(settings.database_path)
    assert manifest["generated_scripts"]["count"] == 1
    verify_backup(backup)


def test_backup_files_are_private_to_the_user(settings: Settings) -> None:
    back_up(settings)
    back_up(settings, "irreplaceable")
    for path in [settings.backup_dir, *settings.backup_dir.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_backup_of_a_wal_database_opens_on_read_only_media(settings: Settings) -> None:
    with closing(connect(settings.database_path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("DELETE FROM strategies WHERE id > 10")
        backup = back_up(settings).backup
    with closing(
        sqlite3.connect(f"file:{backup.path}?mode=ro&immutable=1", uri=True)
    ) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("SELECT count(*) FROM strategies").fetchone() == (10,)


def test_small_backup_holds_everything_but_market_data(settings: Settings) -> None:
    with closing(connect(settings.database_path)) as connection:
        connection.execute("CREATE TABLE of_a_newer_platform (x)")
        connection.execute("INSERT INTO of_a_newer_platform VALUES (1)")
    backup = back_up(settings, "irreplaceable").backup
    source, copy = read_all(settings.database_path), read_all(backup.path)
    assert set(source) - set(copy) >= {"ohlcv_data", "daily_metrics"}
    assert {"universe", "universe_stocks"} <= set(copy)
    assert {table: source[table] for table in copy} == copy
    assert {"strategies", "news_events", "of_a_newer_platform"} <= set(copy)
    verify_backup(backup)


def test_small_backup_is_skipped_only_while_nothing_irreplaceable_changed(
    settings: Settings,
) -> None:
    first = back_up(settings, "irreplaceable")
    with closing(connect(settings.database_path)) as connection:
        connection.execute("DELETE FROM ohlcv_data WHERE id < 10")
    unchanged = back_up(settings, "irreplaceable", minutes=60)
    assert (unchanged.is_new, unchanged.backup.path) == (False, first.backup.path)
    for minutes, statement in enumerate(
        (
            "UPDATE strategies SET name = 'other' WHERE id = 7",
            "CREATE INDEX added ON strategies (name)",
            "CREATE TABLE added_too (x)",
            "PRAGMA user_version = 77",
            "UPDATE strategies SET config = CAST(config AS BLOB) WHERE id = 7",
        )
    ):
        with closing(connect(settings.database_path)) as connection:
            connection.execute(statement)
        assert back_up(settings, "irreplaceable", minutes=61 + minutes).is_new, statement
        assert not back_up(settings, "irreplaceable", minutes=61 + minutes).is_new, statement


def test_small_backup_after_its_last_one_was_lost_or_damaged_is_made_again(
    settings: Settings,
) -> None:
    back_up(settings, "irreplaceable").backup.path.unlink()
    again = back_up(settings, "irreplaceable", minutes=1)
    assert again.is_new
    flip_bit(again.backup.path, 20_000, 3)
    assert back_up(settings, "irreplaceable", minutes=2).is_new


def test_backups_of_the_same_second_and_of_a_clock_set_back_keep_their_order(
    settings: Settings,
) -> None:
    made = [back_up(settings, minutes=minutes).backup for minutes in (0, 0, -90)]
    assert len({backup.path for backup in made}) == 3
    assert [backup.path for backup in load_catalogue(settings.backup_dir)] == [
        b.path for b in reversed(made)
    ]
    assert made[2].manifest
    assert made[2].manifest.clock_utc == NOON - timedelta(minutes=90)


def test_retention_keeps_the_newest_of_each_kind_and_takes_the_scripts_along(
    settings: Settings,
) -> None:
    settings = replace(settings, max_backups=2, keep_full_weekly=0, keep_full_monthly=0)
    foreign = settings.backup_dir / "backtesting-2020-01-01-000000.db"
    back_up(settings)
    foreign.write_bytes(b"of somebody else")
    for minutes in range(1, 5):
        change(settings.database_path, f"new {minutes}")
        back_up(settings, minutes=minutes)
        back_up(settings, "irreplaceable", minutes=minutes)
    kinds = [backup.kind for backup in verify_every_listed(settings.backup_dir)]
    # Of small ones all of 48 hours.
    assert sorted(kinds) == ["full", "full", *4 * ["irreplaceable"]]
    assert len(list(settings.backup_dir.glob("claude-scripts-*"))) == 2
    assert foreign.exists()
    assert [b.path for b in load_catalogue(settings.backup_dir) if not b.is_verified] == [foreign]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no database"), (b"", "empty file"), (b"not a database" * 400, "not a database")],
)
def test_backup_of_no_database_is_refused_and_nothing_is_pruned(
    settings: Settings, content: bytes | None, reason: str
) -> None:
    for minutes in range(4):
        back_up(replace(settings, max_backups=9), minutes=minutes)
    settings.database_path.unlink()
    if content is not None:
        settings.database_path.write_bytes(content)
    before = verified_names(settings.backup_dir)
    with pytest.raises(DatabaseFileError, match=reason):
        back_up(settings, minutes=9)
    assert verified_names(settings.backup_dir) == before
    assert len(before) == 4


def test_backup_of_a_database_without_tables_is_refused(settings: Settings) -> None:
    settings.database_path.unlink()
    with closing(connect(settings.database_path, create=True)) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(DatabaseFileError, match="holds no table"):
        back_up(settings)
    assert not leftovers(settings.backup_dir)


@pytest.mark.parametrize("make_link", ["symlink_to", "hardlink_to"])
def test_backup_of_a_backup_through_a_link_is_refused(settings: Settings, make_link: str) -> None:
    backup = back_up(settings).backup
    settings.database_path.unlink()
    getattr(settings.database_path, make_link)(backup.path)
    with pytest.raises(ProjectError, match="is one of the backups"):
        back_up(settings, minutes=1)
    assert verified_names(settings.backup_dir) == {backup.path.name}


def test_backup_folder_that_is_a_file_or_lies_in_the_scripts_folder_is_refused(
    settings: Settings,
) -> None:
    with pytest.raises(ProjectError, match="lies inside GENERATED_SCRIPTS_DIR"):
        back_up(replace(settings, backup_dir=settings.generated_scripts_dirs[0] / "backups"))
    with pytest.raises(ProjectError, match="is a file"):
        back_up(replace(settings, backup_dir=settings.database_path))


def test_backup_folder_on_a_disk_that_was_never_there_is_refused(settings: Settings) -> None:
    missing = Path("/media/no-such-disk/ai-backtest")
    with pytest.raises(ProjectError, match="nothing is mounted"):
        back_up(replace(settings, backup_dir=missing))
    assert not missing.parent.exists()


def test_second_backup_waits_and_then_names_the_holder(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtestdb.backups.catalogue.WAIT_FOR_LOCK_SECONDS", 0.3)

    def second(step: str) -> None:
        if step == "copied":
            with pytest.raises(BusyError, match=f"already running .process {os.getpid()}"):
                back_up(settings, minutes=1)

    back_up(settings, hooks=Hooks(step=second))
    assert len(verified_names(settings.backup_dir)) == 1


def test_backup_of_a_source_with_a_broken_page_is_refused(settings: Settings) -> None:
    with settings.database_path.open("r+b") as file:
        file.seek(4096 * 60)
        file.write(b"\x00" * 4096)
    with pytest.raises(Exception, match=r"quick_check found|malformed|cannot be read"):
        back_up(settings)
    assert not verified_names(settings.backup_dir)
    assert not leftovers(settings.backup_dir)


def test_command_reports_steps_and_lists_for_people_and_programs(settings: Settings) -> None:
    made = run_command(settings)
    assert made.returncode == 0, made.stderr
    assert "backup made and verified" in made.stdout
    assert str(settings.database_path) in made.stderr
    assert "snapshot:" in made.stderr
    listed = json.loads(run_command(settings, "--list", "--json").stdout)
    assert [(entry["verified"], entry["kind"]) for entry in listed] == [(True, "full")]
    assert "backtesting-" in run_command(settings, "--list").stdout
    assert run_command(settings, "--verify").returncode == 0
    settings.database_path.unlink()
    failed = run_command(settings)
    assert failed.returncode == 1
    assert "error: there is no database" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_limit_of_no_backups_is_a_settings_error(settings: Settings) -> None:
    refused = run_command(replace(settings, max_backups=0))
    assert refused.returncode == 2
    assert "MAX_BACKUPS" in refused.stderr


def make_history(settings: Settings) -> list[str]:
    """As many backups as are kept, so that the next one removes one."""
    for minutes in range(3):
        change(settings.database_path, f"before {minutes}")
        back_up(settings, minutes=minutes)
    return listed_names(settings)


def listed_names(settings: Settings) -> list[str]:
    """Newest first; each is read to the last bit."""
    return [backup.path.name for backup in verify_every_listed(settings.backup_dir)]


def verify_after_kill(settings: Settings, before: list[str]) -> None:
    """Nothing unverified is listed, no good backup is lost, the next run cleans up."""
    listed = listed_names(settings)
    assert len(listed) >= len(before)
    assert set(before[:-1]) <= set(listed), "only the oldest may go, when its time has come"
    run_backup(settings, "full", datetime.now(UTC))
    assert all(backup.is_verified for backup in load_catalogue(settings.backup_dir))
    assert leftovers(settings.backup_dir) == []
    assert len(verify_every_listed(settings.backup_dir)) == 3


@pytest.mark.parametrize("step", BACKUP_STEPS)
def test_backup_killed_at_a_step_leaves_none_or_a_whole_one(settings: Settings, step: str) -> None:
    before = make_history(settings)
    child = run_in_child(lambda: back_up(settings, minutes=10, hooks=Hooks(step=KillAtStep(step))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    verify_after_kill(settings, before)


def kill_commands(settings: Settings, kills: int) -> None:
    """Kill the real command at a seeded moment of its whole life, again and again in one folder."""
    make_history(settings)
    command = [sys.executable, str(BACKUP)]
    whole = time_of(
        lambda: subprocess.run(
            command, env=environment_of(settings), capture_output=True, check=True
        )
    )
    killed = 0
    for seed in itertools.count(1000):
        before = listed_names(settings)
        process = subprocess.Popen(
            command,
            env=environment_of(settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        killed += kill_after(process.pid, random.Random(seed).uniform(0.3, 1) * whole)
        process.returncode = 0
        verify_after_kill(settings, before)
        if killed >= kills:
            return


def test_backup_command_killed_at_random_moments_leaves_none_or_a_whole_one(
    settings: Settings,
) -> None:
    kill_commands(settings, 4)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_backup_command_killed_200_times_at_random_moments(settings: Settings) -> None:
    kill_commands(settings, 200)
