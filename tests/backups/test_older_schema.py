"""Databases from before ten tables had AUTOINCREMENT keep their tables as they are: SQLite cannot
add the word, and to make a table anew would be to rewrite what is the user's."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings
from backtestdb.database import connect
from backtestdb.schema import ensure_schema, migrate
from backup_tools import NOON, back_up, change, make_settings, strategy_names
from commands import Project

TEN = {
    *("backtests", "chart_thumbnails", "conversations", "daily_metrics", "earnings_events"),
    *("ohlcv_data", "strategies", "trades", "universe", "universe_stocks"),
}
MADE_ANEW = {"daily_metrics", "earnings_events", "ohlcv_data"}


def read_texts(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'")
        return {name: sql for name, sql in rows if name in TEN}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An older database with three strategies, of which the last was deleted."""
    settings = make_settings(tmp_path)
    path = settings.database_path
    path.parent.mkdir()
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        connection.execute("PRAGMA writable_schema = ON")
        for name in TEN:
            connection.execute(
                "UPDATE sqlite_schema SET sql = replace(sql, ' AUTOINCREMENT', '') WHERE name = ?",
                (name,),
            )
    for name in ("first", "second", "third"):
        change(path, name)
    with closing(connect(path)) as connection:
        connection.execute("DELETE FROM strategies WHERE name = 'third'")
    assert not any("AUTOINCREMENT" in sql for sql in read_texts(path).values())
    return settings


def test_older_tables_stay_as_they_are_when_the_schema_is_brought_up(settings: Settings) -> None:
    before = read_texts(settings.database_path)
    assert set(before) == TEN
    with closing(connect(settings.database_path)) as connection:
        ensure_schema(connection)
        migrate(connection)
    assert read_texts(settings.database_path) == before


def test_older_tables_come_back_as_they_were_from_both_kinds_of_backup(
    settings: Settings, tmp_path: Path
) -> None:
    before = read_texts(settings.database_path)
    project = Project(
        tmp_path,
        settings={
            "DATABASE_PATH": str(settings.database_path),
            "BACKUP_DIR": str(settings.backup_dir),
        },
    )
    back_up(settings)
    change(settings.database_path, "fourth")
    back_up(settings, "irreplaceable", minutes=1)
    settings.database_path.unlink()
    restore_from_backup(settings, None, NOON)
    assert read_texts(settings.database_path) == before
    assert strategy_names(settings.database_path) == ["first", "second", "fourth"]

    # A rebuild carries the user's tables over as they are, and makes those of market data anew.
    project.check("restore_database.py", "--skip-backfill", "--yes")
    after = read_texts(settings.database_path)
    assert {name: after[name] for name in TEN - MADE_ANEW} == {
        name: before[name] for name in TEN - MADE_ANEW
    }
    assert strategy_names(settings.database_path) == ["first", "second", "fourth"]
