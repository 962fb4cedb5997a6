"""The scheduler as real processes: catching up, signals, failures, signs of life, bounded logs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import schedule

from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.drill import load_drills
from backtestdb.config import PROJECT_DIR, Settings
from backtestdb.scheduling.event_log import open_event_log
from backtestdb.scheduling.health import load_liveness
from backtestdb.scheduling.loop import (
    Scheduler,
    describe_failure,
    describe_made,
    plan_ticks,
    tick_safely,
)
from backup_tools import environment_of, leftovers, make_platform_database, make_settings
from waiting import wait_until

SCRIPT = PROJECT_DIR / "scripts" / "run_scheduler.py"
IDLE_SECONDS, BUSY_SECONDS = 2.0, 8.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path, journal="WAL")
    return settings


def run(settings: Settings, *options: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *options],
        env=environment_of(settings) | changes,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running_loop(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, SCRIPT], env=environment_of(settings), stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kinds(settings: Settings) -> list[str]:
    return sorted(
        backup.kind for backup in load_catalogue(settings.backup_dir) if backup.is_verified
    )


def is_idle(settings: Settings) -> bool:
    liveness = load_liveness(settings.backup_dir, settings.database_path)
    return len(kinds(settings)) == 2 and liveness is not None and not liveness.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_loop_catches_up_at_its_start_and_ends_at_once_when_idle(
    settings: Settings, number: signal.Signals
) -> None:
    with running_loop(settings) as loop:
        wait_until(lambda: is_idle(settings))
        assert run(settings, "--health").returncode == 0
        started = time.monotonic()
        loop.send_signal(number)
        out, _ = loop.communicate(timeout=30)
        assert time.monotonic() - started < IDLE_SECONDS
    assert loop.returncode == 0
    assert kinds(settings) == ["full", "irreplaceable"]
    assert leftovers(settings.backup_dir) == []
    assert (settings.backup_dir / "backup.log").read_text() == out
    events = [line[20:] for line in out.splitlines()]
    assert [event.split(":")[0] for event in events] == [
        "scheduler started",
        "full backup started",
        "full backup ok",
        "small backup started",
        "small backup ok",
        "scheduler stopped",
    ]


def find_child(loop: subprocess.Popen[str]) -> int | None:
    children = Path(f"/proc/{loop.pid}/task/{loop.pid}/children").read_text().split()
    return int(children[0]) if children else None


def partial_is_there(settings: Settings) -> bool:
    return any(settings.backup_dir.glob("*.partial"))


def test_backup_that_does_not_finish_in_time_is_cleaned_up_at_the_end(settings: Settings) -> None:
    """The backup's process is stopped in the middle of its copy, so it can neither finish nor tidy
    up."""
    with running_loop(settings) as loop:
        wait_until(lambda: partial_is_there(settings))
        child = find_child(loop)
        assert child
        os.kill(child, signal.SIGSTOP)
        assert partial_is_there(settings)
        liveness = load_liveness(settings.backup_dir, settings.database_path)
        assert liveness
        assert liveness.running == "full backup"
        started = time.monotonic()
        loop.send_signal(signal.SIGTERM)
        out, _ = loop.communicate(timeout=30)
        assert time.monotonic() - started < BUSY_SECONDS
    assert loop.returncode == 0
    assert "full backup interrupted" in out
    assert leftovers(settings.backup_dir) == []
    assert kinds(settings) == []
    assert not Path(f"/proc/{child}").exists()


def test_backup_under_way_may_finish_after_the_signal(settings: Settings) -> None:
    with running_loop(settings) as loop:
        wait_until(lambda: partial_is_there(settings))
        loop.send_signal(signal.SIGTERM)
        out, _ = loop.communicate(timeout=30)
    assert loop.returncode == 0
    assert "full backup ok" in out
    assert kinds(settings) == ["full"]  # the small one was not begun any more
    assert leftovers(settings.backup_dir) == []


def test_once_makes_what_is_due_and_nothing_the_second_time(settings: Settings) -> None:
    for _ in range(2):
        done = run(settings, "--once")
        assert (done.returncode, done.stderr) == (0, "")
    assert kinds(settings) == ["full", "irreplaceable"]


def test_once_that_fails_says_so_in_one_line_and_in_both_logs(settings: Settings) -> None:
    settings.database_path.unlink()
    done = run(settings, "--once")
    assert done.returncode == 1
    assert "full backup failed (exit code 1): there is no database at" in done.stdout
    assert "next: check DATABASE_PATH" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "failed" in (settings.backup_dir / "backup-error.log").read_text()
    assert run(settings, "--newest").returncode == 1


def test_second_scheduler_leaves_the_work_to_the_first(settings: Settings) -> None:
    with running_loop(settings) as loop:
        wait_until(lambda: is_idle(settings))
        once = run(settings, "--once")
        assert once.returncode == 0
        assert f"already running (process {loop.pid}" in once.stdout
        second = run(settings)
        assert second.returncode == 1
        assert "already running" in second.stderr


def test_loop_killed_outright_starts_again_and_makes_what_is_missing(settings: Settings) -> None:
    with running_loop(settings) as loop:
        wait_until(lambda: partial_is_there(settings))
        child = find_child(loop)
        assert child
        os.kill(child, signal.SIGKILL)
        loop.kill()
        loop.wait()
    with running_loop(settings):
        wait_until(lambda: is_idle(settings))
    assert leftovers(settings.backup_dir) == []


def make_scheduler(settings: Settings, clock: Callable[[], datetime]) -> Scheduler:
    settings.backup_dir.mkdir(parents=True, exist_ok=True)
    return Scheduler(
        settings=settings,
        log=open_event_log(settings.backup_dir),
        clock=clock,
        stop=threading.Event(),
    )


def test_failing_runs_pause_and_do_not_end_the_loop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    settings = replace(settings, irreplaceable_every_minutes=0)
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    scheduler = make_scheduler(settings, lambda: now)
    hidden = settings.database_path.rename(settings.database_path.with_name("hidden"))
    assert not tick_safely(scheduler)
    now += timedelta(minutes=4)
    assert tick_safely(scheduler)
    assert scheduler.attempts == {"full": 1}
    now += timedelta(minutes=1)
    assert not tick_safely(scheduler)
    assert scheduler.attempts == {"full": 2}
    left = load_liveness(settings.backup_dir, settings.database_path)
    assert left and "there is no database" in left.failures["full"]
    assert "there is no database" in make_scheduler(settings, lambda: now).failures["full"]
    hidden.rename(settings.database_path)
    now -= timedelta(days=3)  # set back: the pause must not last for three days
    assert tick_safely(scheduler)
    assert kinds(settings) == ["full"]
    assert scheduler.failures == {}


def test_drill_is_held_a_day_after_the_first_backup_and_then_weekly(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    now = datetime.now(UTC)
    scheduler = make_scheduler(settings, lambda: now)
    assert tick_safely(scheduler)
    assert load_drills(settings.backup_dir, settings.database_path) == []
    now += timedelta(days=1, minutes=1)
    assert tick_safely(scheduler)
    assert [
        drill.is_good for drill in load_drills(settings.backup_dir, settings.database_path)
    ] == [True]
    now += timedelta(minutes=1)
    assert tick_safely(scheduler)
    assert len(load_drills(settings.backup_dir, settings.database_path)) == 1
    now += timedelta(days=7)
    assert tick_safely(scheduler)
    assert len(load_drills(settings.backup_dir, settings.database_path)) == 2


def test_backup_folder_that_goes_away_does_not_end_the_loop(settings: Settings) -> None:
    scheduler = make_scheduler(settings, lambda: datetime.now(UTC))
    settings.backup_dir.rename(settings.backup_dir.with_name("elsewhere"))
    assert not tick_safely(scheduler)


def test_health_tells_stale_backups_and_a_loop_that_hangs(settings: Settings) -> None:
    before = run(settings, "--health")
    assert before.returncode == 1
    assert "no verified full backup" in before.stdout
    assert "no sign of life" in before.stdout
    assert run(settings, "--once").returncode == 0
    assert run(settings, "--health").returncode == 0
    later = datetime.now(UTC) + timedelta(hours=27)
    stale = run(settings, "--health", "--now", later.isoformat())
    assert stale.returncode == 1
    assert "27.0 h old, more than 26" in stale.stdout
    hanging = run(
        settings, "--health", "--now", (datetime.now(UTC) + timedelta(minutes=7)).isoformat()
    )
    assert hanging.returncode == 1
    assert hanging.stdout == "the loop's last sign of life is 7 minutes old\n"
    assert (
        run(
            settings, "--newest", "--now", (datetime.now(UTC) + timedelta(hours=3)).isoformat()
        ).returncode
        == 0
    )


@pytest.mark.parametrize("damage", ["no manifest", "cut"])
def test_backup_that_is_not_verified_does_not_count_as_newest(
    settings: Settings, damage: str
) -> None:
    assert run(settings, "--once").returncode == 0
    (database,) = settings.backup_dir.glob("backtesting-*.db")
    if damage == "cut":
        os.truncate(database, 4096)
    else:
        database.with_suffix(".json").unlink()
    assert "no verified full backup" in run(settings, "--health").stdout


def test_unknown_time_zone_is_refused(settings: Settings) -> None:
    refused = run(settings, "--once", TZ="Europe/Berlinn")
    assert refused.returncode == 2
    assert "TZ=Europe/Berlinn is no time zone" in refused.stderr


def test_clock_that_goes_back_does_not_stop_the_ticks() -> None:
    jobs = schedule.Scheduler()
    plan_ticks(jobs, lambda: None)
    job = jobs.jobs[0]
    assert job.next_run
    job.next_run += timedelta(hours=1)  # what an hour that comes twice looks like
    plan_ticks(jobs, lambda: None)
    assert jobs.idle_seconds is not None
    assert jobs.idle_seconds <= 60
    assert len(jobs.jobs) == 1


def test_log_files_are_bounded(tmp_path: Path) -> None:
    log = open_event_log(tmp_path, max_bytes=2000)
    for number in range(300):
        log.error("event %d", number)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"backup.log", "backup.log.1", "backup-error.log", "backup-error.log.1"}
    assert max(sizes.values()) <= 2000
    assert "event 299" in (tmp_path / "backup.log").read_text()


def test_log_that_launchd_writes_holds_each_event_once_and_is_bounded(settings: Settings) -> None:
    settings.backup_dir.mkdir()
    path = settings.backup_dir / "backup.log"
    path.write_text("old line\n" * 200_000)
    for _ in range(2):
        with path.open("a") as log:
            subprocess.run(
                [sys.executable, SCRIPT, "--once"],
                env=environment_of(settings),
                stdout=log,
                check=True,
            )
    written = path.with_name("backup.log.1").read_text().removeprefix("old line\n" * 200_000)
    assert written.count("full backup ok") == 1
    assert path.read_text() == ""


def test_full_disk_does_not_stop_the_log_on_standard_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backup.log").symlink_to("/dev/full")
    open_event_log(tmp_path).info("an event")
    open_event_log(None)  # closes what could not be written
    out, err = capfd.readouterr()
    assert out.endswith("an event\n")
    assert err == ""


def test_scheduler_imports_nothing_of_the_market_side() -> None:
    code = (
        "import json, runpy, sys; sys.argv = ['x', '--help']; sys.path.insert(0, "
        f"{str(SCRIPT.parent)!r})\n"
    )
    code += f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    code += "except SystemExit: print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    modules = set(json.loads(out.splitlines()[-1]))
    assert "schedule" in modules
    assert not modules & {"pandas", "numpy", "exchange_calendars", "requests", "rich"}


def test_result_of_a_drill_is_told_by_backup_and_reason() -> None:
    """What run_drill.py --json prints is all that the loop has of it."""
    one = {"backup": "backtesting-x.db", "problem": "there was no room to try it: 5 missing"}
    failed = json.dumps({"problem": "", "rehearsals": [one, {"backup": "y.db", "problem": ""}]})
    assert describe_failure("", failed) == f"{one['backup']}: {one['problem']}"
    passed = json.dumps({"problem": "", "rehearsals": [{"backup": "y.db", "problem": ""}]})
    assert describe_made(passed) == "y.db"
