"""The living process: what it costs, whom it delays, how it is started, and what status says about
it."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR
from backtestdb.database import connect
from backtestdb.offsite.commits import Commits
from backtestdb.offsite.drill import run_and_save
from backtestdb.offsite.facts import find_offsite_problems, load_offsite_facts
from backtestdb.offsite.liveness import Liveness, save_liveness, target_folder
from backtestdb.offsite.send_full import drop_left_bases
from backtestdb.offsite.target import open_remote
from backtestdb.scheduling.health import find_overdue
from backtestdb.scheduling.loop import Scheduler, find_state
from backup_tools import change, environment_of, make_platform_database
from offsite_tools import Site, make_site, start_watch
from waiting import wait_until


def make_filled_site(folder: Path, journal: str = "WAL") -> Site:
    site = make_site(folder)
    make_platform_database(site.settings.database_path, journal=journal)
    site.settings.backup_dir.mkdir(parents=True, exist_ok=True)
    site.init()
    return site


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_commit_is_seen_and_nothing_else(journal: str, tmp_path: Path) -> None:
    database = tmp_path / "backtesting.db"
    make_platform_database(database, journal=journal)
    commits = Commits(database)
    seen = commits.mark()
    assert commits.mark() == seen
    change(database, "one")
    after = commits.mark()
    assert after != seen
    with closing(connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    assert commits.mark() == after

    other = tmp_path / "other.db"
    make_platform_database(other, journal=journal, word="new")
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    other.replace(database)
    assert commits.mark() != after
    commits.forget()


def test_a_log_that_was_replaced_is_seen(tmp_path: Path) -> None:
    """A program that empties and removes the log cuts a connection off that another one still
    holds."""
    database = tmp_path / "backtesting.db"
    make_platform_database(database, journal="WAL")
    commits = Commits(database)
    change(database, "one")
    seen = commits.mark()
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    change(database, "two")
    assert commits.mark() != seen or commits.seen is None
    commits.forget()


def test_the_process_sends_nothing_when_nothing_changes_and_ends_when_it_is_told(
    tmp_path: Path,
) -> None:
    """What it costs meanwhile is measured by benchmarks/bench_offsite.py."""
    site = make_filled_site(tmp_path)
    process = start_watch(site)
    try:
        wait_until(lambda: len(site.copies()) == 1, 120, "the first copy")
        looked = watch_file(site).stat().st_mtime
        wait_until(lambda: watch_file(site).stat().st_mtime > looked + 4, 60, "more looks")
        assert len(site.copies()) == 1
        change(site.settings.database_path, "later")
        wait_until(lambda: len(site.copies()) == 2, 60, "the next copy")
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def watch_file(site: Site) -> Path:
    return target_folder(site.settings.backup_dir, site.settings.offsite) / "watch.json"


def test_every_report_knows_the_copies_and_loads_none_of_their_packages(tmp_path: Path) -> None:
    """They come from small files here: neither the network nor what only the copies need."""
    site = make_filled_site(tmp_path)
    site.back_up()
    site.send()
    settings = site.settings
    environment = environment_of(settings) | {"OFFSITE": settings.offsite, "OFFSITE_PASSPHRASE": ""}
    shutil.rmtree(settings.offsite)
    folder = target_folder(settings.backup_dir, settings.offsite)
    late = datetime.now(UTC) - timedelta(minutes=9)
    newest = Liveness(looked_at_utc=late, covered_until_utc=late, newest_small_utc=late)

    def run(*command: str) -> str:
        program = (
            "import runpy, sys\n"
            "sys.argv = sys.argv[1:]\n"
            "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "finally:\n    print('loaded', {'obstore', 'pyrage', 'zstandard'} & set(sys.modules))"
        )
        script = str(PROJECT_DIR / "scripts" / command[0])
        return subprocess.run(
            [sys.executable, "-c", program, script, *command[1:]],
            env=environment | {"PYTHONPATH": str(PROJECT_DIR / "scripts")},
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    save_liveness(folder, newest)
    status = run("show_status.py", "--json")
    values = json.loads(status.partition("\nloaded")[0])
    assert values["offsite"]["lag"] >= 540
    assert "offsite_stale" in {problem["name"] for problem in values["problems"]}
    numbers = run("show_status.py", "--prometheus")
    assert re.search(r"^ai_backtest_offsite_lag_seconds \d{3}", numbers, re.MULTILINE)
    assert 'ai_backtest_problem{name="offsite_stale"} 1' in numbers
    doctor = run("check_environment.py")
    assert "minutes behind" in " ".join(doctor.split())
    assert all(said.rstrip().endswith("loaded set()") for said in (status, numbers, doctor))


def test_watcher_and_person_hear_of_copies_that_are_behind_unless_the_machine_slept(
    tmp_path: Path,
) -> None:
    site = make_filled_site(tmp_path)
    settings = site.settings
    folder = target_folder(settings.backup_dir, settings.offsite)
    now = datetime.now(UTC)
    site.back_up()
    covered = now - timedelta(hours=9)
    folder.mkdir(parents=True)
    assert find_overdue(settings, now + timedelta(seconds=30)) == ""
    assert "nothing was sent" in find_overdue(settings, now + timedelta(minutes=30))
    save_liveness(folder, Liveness(looked_at_utc=covered, covered_until_utc=covered))
    assert find_overdue(settings, now + timedelta(seconds=30)) == ""
    later = now + timedelta(minutes=30)
    assert "minutes behind" in find_overdue(settings, later)
    log, stop = logging.getLogger("test"), threading.Event()
    scheduler = Scheduler(
        settings=settings, log=log, clock=lambda: later, stop=stop, kind="loop", job="backups"
    )
    assert "minutes behind" in find_state(scheduler)["offsite"]


def test_base_of_a_target_that_is_no_longer_used_goes_after_its_time(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    for name, days in (("left", 31), ("used", 1)):
        folder = tmp_path / name / "full"
        folder.mkdir(parents=True)
        for file in ("full-base.db", "state.json"):
            (folder / file).write_text("")
        moment = (now - timedelta(days=days)).timestamp()
        os.utime(folder / "state.json", (moment, moment))
    drop_left_bases(tmp_path.iterdir(), now)
    left = {path.parent.parent.name for path in tmp_path.glob("*/full/full-base.db")}
    assert left == {"used"}


def test_status_tells_what_is_behind_damaged_or_does_not_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_filled_site(tmp_path)
    settings, now = site.settings, datetime.now(UTC)
    folder = target_folder(settings.backup_dir, settings.offsite)

    def problems(at: datetime) -> dict[str, str]:
        found = find_offsite_problems(load_offsite_facts(settings, at))
        return {problem.name: problem.what for problem in found}

    assert "nothing was sent" in problems(now)["offsite_stale"]
    site.back_up()
    site.send()
    assert problems(datetime.now(UTC)) == {}  # what the problem advises, helps
    save_liveness(folder, Liveness(looked_at_utc=now, covered_until_utc=now))
    assert problems(now + timedelta(minutes=4)) == {}
    assert "6 minutes behind" in problems(now + timedelta(minutes=6))["offsite_stale"]

    remote = open_remote(settings)
    drill = run_and_save(settings, remote, folder, "", now.astimezone(), print)
    assert (drill.is_good, drill.rows > 2000, drill.fetched_bytes > 1000) == (True, True, True)
    assert problems(now) == {}

    for segment in (Path(settings.offsite) / "full-base" / "segments").iterdir():
        segment.write_bytes(b"rust")
    assert not run_and_save(settings, remote, folder, "", now.astimezone(), print).is_good
    assert site.check(capsys)[0] == 1
    assert set(problems(now)) == {"offsite_drill_failed", "offsite_damaged"}
    site.send()
    assert run_and_save(settings, remote, folder, "", now.astimezone(), print).is_good
