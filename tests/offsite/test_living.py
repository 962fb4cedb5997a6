"""The living process: what it costs, whom it delays, how it is started, and what status says about it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from offsite_tools import Site, make_site
from s3_server import wait_until
from test_dying_machine import start_watch

from backtestdb.database import connect
from backtestdb.offsite.drill import run_and_save
from backtestdb.offsite.facts import find_offsite_problems, load_offsite_facts
from backtestdb.offsite.liveness import Liveness, save_liveness, target_folder
from backtestdb.offsite.target import open_remote
from backtestdb.offsite.watch import Commits
from backup_tools import change, make_platform_database


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
    """A program that empties and removes the log cuts a connection off that another one still holds."""
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


def test_the_process_costs_nothing_when_nothing_changes_and_ends_when_it_is_told(tmp_path: Path) -> None:
    site = make_filled_site(tmp_path)
    process = start_watch(site)
    try:
        wait_until(lambda: len(site.copies()) == 1, 120, "the first copy")
        before, started = cpu_seconds(process.pid), time.monotonic()
        looked = watch_file(site).stat().st_mtime
        wait_until(lambda: watch_file(site).stat().st_mtime > looked + 4, 60, "more looks")
        used, passed = cpu_seconds(process.pid) - before, time.monotonic() - started
        assert len(site.copies()) == 1
        # 1 % of a core at a look every 30 seconds; here every 2.
        assert used / passed < 0.01 * 30 / 2, f"{used:.2f} s in {passed:.1f} s"
        change(site.settings.database_path, "later")
        wait_until(lambda: len(site.copies()) == 2, 60, "the next copy")
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def watch_file(site: Site) -> Path:
    return target_folder(site.settings.backup_dir, site.settings.offsite) / "watch.json"


def cpu_seconds(process_id: int) -> float:
    if sys.platform == "linux":
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    shown = subprocess.run(
        ["ps", "-o", "time=", "-p", str(process_id)], capture_output=True, text=True, check=True
    )
    minutes, seconds = shown.stdout.strip().rsplit(":", 1)
    return 60 * float(minutes.replace(":", "")) + float(seconds)


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
