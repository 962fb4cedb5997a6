"""Databases in UTF-16: SQLite attaches no database of another encoding."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.config import Settings
from backtestdb.database import connect
from backtestdb.salvage.salvage import salvage
from backup_tools import (
    back_up,
    change,
    environment_of,
    make_platform_database,
    make_settings,
    strategy_names,
)
from commands import Project
from salvage_tools import LATER, pages_of
from small_database import zero

WORD = "häß\u20ac \U0001f600"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path)
    settings.database_path.parent.mkdir()
    with closing(sqlite3.connect(settings.database_path)) as connection:
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("CREATE TABLE first (a)")
    make_platform_database(settings.database_path, word=WORD)
    return settings


@pytest.fixture
def project(settings: Settings, tmp_path: Path) -> Project:
    return Project(tmp_path, settings=environment_of(settings))


def encoding_of(database: Path) -> str:
    with closing(connect(database)) as connection:
        return str(connection.execute("PRAGMA encoding").fetchone()[0])


@pytest.mark.parametrize("kind", ["full", "irreplaceable"])
@pytest.mark.parametrize("target", ["there", "missing"])
def test_backup_in_utf_16_comes_back(
    settings: Settings, project: Project, kind: str, target: str
) -> None:
    names = strategy_names(settings.database_path)
    back_up(settings, kind)
    project.check("backup_database.py", "--verify")
    project.check("run_drill.py")
    if target == "missing":
        settings.database_path.unlink()
    project.check("restore_database.py", "--from-backup", "--yes")
    assert strategy_names(settings.database_path) == names
    assert encoding_of(settings.database_path) == "UTF-16le"


def test_rebuild_of_a_database_in_utf_16_carries_everything_over(
    settings: Settings, project: Project
) -> None:
    names = strategy_names(settings.database_path)
    project.check("restore_database.py", "--skip-backfill", "--yes")
    assert strategy_names(settings.database_path) == names


def test_salvage_of_a_database_in_utf_16_brings_every_row(settings: Settings) -> None:
    names = strategy_names(settings.database_path)
    back_up(settings)
    zero(settings.database_path, *pages_of(settings.database_path, "strategies"))
    assert strategy_names(salvage(settings.database_path, settings.backup_dir, LATER).path) == names


def test_salvage_of_a_database_in_utf_16_brings_what_is_newer_than_the_backup(
    settings: Settings,
) -> None:
    back_up(settings)
    change(settings.database_path, f"newer {WORD}")
    names = strategy_names(settings.database_path)
    zero(settings.database_path, *pages_of(settings.database_path, "ohlcv_data")[:2])
    assert strategy_names(salvage(settings.database_path, settings.backup_dir, LATER).path) == names


def test_small_backup_in_another_encoding_is_refused_with_the_way_on(
    settings: Settings, project: Project
) -> None:
    back_up(settings, "irreplaceable")
    settings.database_path.unlink()
    make_platform_database(settings.database_path, word="other")
    (backup,) = settings.backup_dir.glob("irreplaceable-*.db")
    said = project.check("restore_database.py", "--from-backup", str(backup), "--yes", expect=1)
    assert "has its text in UTF-16le" in said
    assert set(strategy_names(settings.database_path)) == {f"other {n}" for n in range(50)}
