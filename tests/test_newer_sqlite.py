"""A healthy database that a newer SQLite wrote: too old is this Python's SQLite, and nothing is
damaged."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings
from backtestdb.database import look_at_file
from backup_tools import (
    NOON,
    back_up,
    environment_of,
    make_platform_database,
    make_settings,
    verify_every_listed,
)
from commands import Project
from newer_sqlite import write_with_newer_sqlite

if sqlite3.sqlite_version_info >= (3, 44):  # the one that can read ORDER BY inside of group_concat
    pytest.skip("this Python's SQLite reads what the test writes", allow_module_level=True)


@pytest.fixture(params=["DELETE", "WAL", "log"])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    settings = make_settings(tmp_path)
    journal = "WAL" if request.param == "log" else request.param
    make_platform_database(settings.database_path, journal=journal)
    write_with_newer_sqlite(settings.database_path, leave_log=request.param == "log")
    return settings


@pytest.fixture
def project(settings: Settings, tmp_path: Path) -> Project:
    return Project(tmp_path, settings=dict(environment_of(settings)))


def names_by_view(database: Path) -> str:
    with closing(apsw.Connection(str(database))) as connection:
        return str(next(iter(connection.execute("SELECT names FROM strategy_names")))[0])


def test_database_of_a_newer_sqlite_is_told_from_a_damaged_one(settings: Settings) -> None:
    assert look_at_file(settings.database_path) == "too_new"


@pytest.mark.parametrize("kind", ["full", "irreplaceable"])
def test_database_of_a_newer_sqlite_is_backed_up_verified_and_restored(
    settings: Settings, kind: str
) -> None:
    names = names_by_view(settings.database_path)
    back_up(settings, kind)
    (backup,) = verify_every_listed(settings.backup_dir)
    assert names_by_view(backup.path) == names
    with closing(apsw.Connection(str(settings.database_path))) as connection:
        connection.execute("UPDATE strategies SET name = 'overwritten'")
    restore_from_backup(settings, None, NOON)
    assert names_by_view(settings.database_path) == names
    assert look_at_file(settings.database_path) == "too_new"


def test_database_of_a_newer_sqlite_is_replaced_in_place_and_kept(settings: Settings) -> None:
    names = names_by_view(settings.database_path)
    inode = settings.database_path.stat().st_ino
    back_up(settings)
    with closing(apsw.Connection(str(settings.database_path))) as platform:
        platform.execute(
            "INSERT INTO strategies (name, ticker, timeframe, config) VALUES ('x', 'A', '1day', '')"
        )
        restored = restore_from_backup(settings, None, NOON)
        assert list(platform.execute("SELECT names FROM strategy_names")) == [(names,)]
    assert settings.database_path.stat().st_ino == inode
    kept = restored.replacement.kept_as
    assert kept is not None
    assert restored.replacement.kept_is_sound
    assert names_by_view(kept) == f"{names},x"


def test_commands_on_a_database_of_a_newer_sqlite_say_what_to_do(project: Project) -> None:
    project.check("backup_database.py")
    project.check("backup_database.py", "--irreplaceable-only")
    project.check("backup_database.py", "--verify")
    project.check("run_drill.py")
    status = json.loads(project.run("show_status.py", "--json").stdout)
    assert status["database"]["state"] == "too_new"
    problems = {problem["name"]: problem for problem in status["problems"]}
    assert "too old to read" in problems["too_new_database"]["what"]
    assert "damaged_database" not in problems
    for command in (["restore_database.py", "--skip-backfill", "--yes"], ["salvage_database.py"]):
        refused = project.run(*command)
        assert "Traceback" not in refused.stderr
        assert "damaged" not in refused.stderr, refused.stderr
    assert not list(project.folder.glob("**/*.backup-*"))
