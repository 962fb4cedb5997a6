"""The checks of `make doctor` that need another machine, another clock or another system: as pure
functions."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.config import load_settings
from backtestdb.health.disks import check_mount, check_protected_folders, uses_wal
from backtestdb.health.settings import check_settings, find_other_databases
from backtestdb.health.system import check_clock, check_time_zones, check_users, has_wal_bug
from backtestdb.mounts import Mount
from backtestdb.scheduling.notify import run_backup
from commands import Project
from platform_database import make_used_database
from sandbox_process import running_sandbox

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
    ],
)
def test_wal_bug_is_in_the_versions_that_sqlite_names(
    version: tuple[int, int, int], expected: bool
) -> None:
    assert has_wal_bug(version) is expected


def test_mount_without_locks_is_wrong_under_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(point=Path("/x"), kind="virtiofs", is_read_only=False)
    monkeypatch.setattr("backtestdb.health.disks.mount_of", lambda _path: mount)
    assert check_mount(Path("/x.db"), is_wal=True).level == "wrong"
    assert check_mount(Path("/x.db"), is_wal=False).level == "note"


@pytest.mark.parametrize(("journal", "expected"), [("WAL", True), ("DELETE", False)])
def test_wal_is_read_from_the_header(tmp_path: Path, journal: str, expected: bool) -> None:
    assert uses_wal(make_used_database(tmp_path / "a.db", journal=journal, rows=1)) is expected


@pytest.mark.parametrize(
    ("path", "platform", "expected"),
    [
        ("Documents/x.db", "darwin", 1),
        ("Library/Mobile Documents/com~apple~CloudDocs/x.db", "darwin", 1),
        ("Developer/x.db", "darwin", 0),
        ("Documents/x.db", "linux", 0),
    ],
)
def test_folders_that_macos_guards_are_named(path: str, platform: str, expected: int) -> None:
    home = Path("/Users/me")
    assert (
        len(list(check_protected_folders(platform, home, {"DATABASE_PATH": home / path})))
        == expected
    )


def test_clock_is_wrong_when_the_vendor_or_the_newest_backup_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    make_used_database(project.database, rows=1)
    run_backup(load_settings(project.environment()), "full", NOW)
    backups = tmp_path / "backups"
    assert check_clock(NOW + timedelta(hours=1), backups, None).level == "ok"
    assert check_clock(NOW - timedelta(hours=1), backups, None).level == "wrong"
    assert check_clock(NOW, backups, NOW + timedelta(minutes=1)).level == "ok"
    assert check_clock(NOW, backups, NOW + timedelta(minutes=3)).level == "wrong"


def test_new_york_is_known() -> None:
    assert check_time_zones().level == "ok"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_program_that_has_the_database_open_is_named_with_its_number(tmp_path: Path) -> None:
    database = make_used_database(tmp_path / "a.db", rows=1)
    assert "no other program" in check_users(database).what
    code = (
        f"open({str(database)!r}); f = open({str(database)!r}); print('open', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "open\n"
        assert f"({holder.pid})" in check_users(database).what
        holder.communicate("\n")


def test_wrong_setting_is_named_and_the_rest_of_the_checks_still_runs(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAX_BACKUPS=0\nPOLYGON_API_KEY=very-secret\n")
    settings, findings = check_settings({}, tmp_path / ".env")
    assert settings is None
    assert "MAX_BACKUPS=0" in findings[0].what
    assert "very-secret" not in str(findings)


def test_other_databases_are_found_two_folders_deep_and_the_own_one_is_not(tmp_path: Path) -> None:
    for folder in (".", "server", "a/b", "a/b/c", "node_modules/x"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "backtesting.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "backtesting.db")
    found = find_other_databases(tmp_path / "link.db", {tmp_path: 2}, is_lost=False)
    assert found == []
    found = find_other_databases(
        tmp_path / "backtesting.db", {tmp_path: 2, tmp_path / "a": 2}, is_lost=False
    )
    assert [finding.what.split(" (")[0] for finding in found] == [
        str(tmp_path / folder / "backtesting.db") for folder in ("a/b", "a/b/c", "server")
    ]
    assert {finding.level for finding in found} == {"note"}


def test_other_database_is_wrong_where_the_one_in_use_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "backtesting.db").touch()
    (found,) = find_other_databases(tmp_path / "backtesting.db", {tmp_path: 1}, is_lost=True)
    assert found.level == "wrong"
    assert found.next_step.endswith(f"DATABASE_PATH='{tmp_path}/a b/backtesting.db' make status")


@pytest.mark.parametrize("key", ["wrong-key-1234", ""])
def test_key_that_is_refused_or_missing_is_named_online_and_never_shown(
    tmp_path: Path, key: str
) -> None:
    with running_sandbox(today="2013-03-02") as sandbox:
        project = Project(tmp_path, sandbox.url, key)
        printed = project.check("check_environment.py", "--online", expect=1)
        asked = len(sandbox.fetch_log())
    assert ("does not accept the API key (401)" in printed) is bool(key)
    assert ("no API key is set" in printed) is (not key)
    assert asked == bool(key)
    assert not key or key not in printed


def test_doctor_offline_sends_nothing(tmp_path: Path) -> None:
    with running_sandbox(today="2013-03-02") as sandbox:
        project = Project(tmp_path, sandbox.url)
        project.run("check_environment.py")
        assert sandbox.fetch_log() == []
    assert not (tmp_path / "state").exists()
    assert not list(tmp_path.iterdir())
