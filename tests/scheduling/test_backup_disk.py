"""The disk of the backups is away: nothing is written where it should be, and that is told."""

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backtestdb.backups.backup_dir import AbsentDiskError
from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.known_folders import MARK_NAME, load_known_folders, memory_path
from backtestdb.config import PROJECT_DIR, Settings
from backtestdb.scheduling.backup_disk import wait_for_disk
from backtestdb.scheduling.event_log import open_event_log
from backtestdb.scheduling.loop import TICK_SECONDS, Scheduler, tick_safely
from backup_tools import back_up, environment_of, make_platform_database, make_settings
from receivers import watcher

SCRIPTS = PROJECT_DIR / "scripts"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With one backup, so that the folder is known."""
    made = make_settings(tmp_path)
    make_platform_database(made.database_path)
    back_up(made)
    return made


def take_disk_off(settings: Settings) -> Path:
    """What a mount point without its disk looks like: the folder is there, and empty."""
    count = len(list(settings.backup_dir.parent.glob("disk *")))
    disk = settings.backup_dir.rename(settings.backup_dir.with_name(f"disk {count}"))
    settings.backup_dir.mkdir()
    return disk


def put_disk_back(settings: Settings, disk: Path) -> None:
    settings.backup_dir.rmdir()
    disk.rename(settings.backup_dir)


def run(
    settings: Settings, script: str, *options: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPTS / script, *options],
        env=environment_of(settings) | changes,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_folder_without_its_mark_is_refused_and_left_as_it_is(settings: Settings) -> None:
    disk = take_disk_off(settings)
    with pytest.raises(AbsentDiskError, match=r"is not there: its mark .* is missing") as refused:
        back_up(settings)
    assert "make backup ARGS=--new-folder" in refused.value.next_step
    assert list(settings.backup_dir.iterdir()) == []

    put_disk_back(settings, disk)
    back_up(settings)


def test_folder_that_is_meant_is_known_from_then_on_and_so_is_the_earlier_one(
    settings: Settings,
) -> None:
    """Two disks that take turns."""
    first = take_disk_off(settings)
    with pytest.raises(AbsentDiskError):
        back_up(settings)
    assert run(settings, "backup_database.py", "--new-folder").returncode == 0
    back_up(settings)
    assert len(load_catalogue(settings.backup_dir)) == 2

    second = take_disk_off(settings)
    put_disk_back(settings, first)
    back_up(settings)
    assert second.is_dir()


def test_status_and_health_name_the_disk_and_no_missing_backup(settings: Settings) -> None:
    take_disk_off(settings)
    health = run(settings, "run_scheduler.py", "--health")
    assert health.returncode == 1
    assert "is not there: its mark" in health.stdout
    found = json.loads(run(settings, "show_status.py", "--json").stdout)["problems"]
    assert "no_backup_disk" in {problem["name"] for problem in found}
    assert not {"no_backup", "stale_backup"} & {problem["name"] for problem in found}


def test_scheduled_run_fails_tells_the_watcher_and_writes_nothing(settings: Settings) -> None:
    take_disk_off(settings)
    with watcher() as (url, paths):
        done = run(replace(settings, heartbeat_url=url), "run_scheduler.py", "--once")
    assert done.returncode == 1
    assert "error: the disk of BACKUP_DIR" in done.stderr
    assert [path.partition(" the disk of ")[0] for path in paths] == ["/ping/secret-id/fail"]
    assert list(settings.backup_dir.iterdir()) == []


def test_loop_waits_for_the_disk_and_takes_it_up_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    disk = take_disk_off(settings)

    class Stop(threading.Event):
        """The disk comes back while the loop sleeps until its next look."""

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == TICK_SECONDS
            assert scheduler.failures["disk"].startswith("the disk of BACKUP_DIR")
            put_disk_back(settings, disk)
            return self.is_set()

    with watcher() as (url, paths):
        settings = replace(settings, heartbeat_url=url, irreplaceable_every_minutes=0)
        scheduler = Scheduler(
            settings=settings,
            log=open_event_log(None),
            clock=lambda: datetime.now(UTC),
            stop=Stop(),
        )
        assert wait_for_disk(scheduler)
        assert tick_safely(scheduler)
    assert paths[0].startswith("/ping/secret-id/fail the disk of BACKUP_DIR")
    assert scheduler.failures == {}


def test_folder_of_an_earlier_release_gets_its_mark_at_the_next_backup(settings: Settings) -> None:
    (settings.backup_dir / MARK_NAME).unlink()
    memory_path(settings.database_path).write_text(json.dumps({str(settings.backup_dir): "/"}))
    back_up(settings)
    known = load_known_folders(settings.database_path)[str(settings.backup_dir)]
    assert known.marks == ((settings.backup_dir / MARK_NAME).read_text().strip(),)


def test_backups_that_were_removed_with_their_folder_are_no_new_beginning(
    settings: Settings,
) -> None:
    shutil.rmtree(settings.backup_dir)
    with pytest.raises(AbsentDiskError):
        back_up(settings)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_disk_without_a_free_byte_is_tried_and_named_to_the_watcher(settings: Settings) -> None:
    """Neither the sign of life nor the lock nor the log can be written."""
    shutil.rmtree(settings.backup_dir)
    memory_path(settings.database_path).unlink()
    settings.backup_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", settings.backup_dir]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this system does not let the tests mount a tmpfs")
    try:
        with (settings.backup_dir / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        with watcher() as (url, paths):
            done = run(replace(settings, heartbeat_url=url), "run_scheduler.py", "--once")
    finally:
        subprocess.run(["umount", settings.backup_dir], check=True)
    assert done.returncode == 1
    assert "full backup failed" in done.stdout
    assert [path.split()[0] for path in paths] == ["/ping/secret-id/start", "/ping/secret-id/fail"]
    assert "are missing" in paths[1] or "disk is full" in paths[1]
