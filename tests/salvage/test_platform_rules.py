"""What a platform may have in its database: rows that break a rule, functions and a collation of
its own, views that say "main.". None of it stops a backup, a restore or a salvage, and all of it
arrives."""

import json
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings
from backtestdb.database import connect
from backtestdb.salvage.salvage import salvage
from backup_tools import (
    NOON,
    back_up,
    environment_of,
    make_platform_database,
    make_settings,
    verify_every_listed,
)
from commands import Project
from salvage_tools import LATER

RULES = """
CREATE TABLE rules (id INTEGER PRIMARY KEY, ticker TEXT CHECK (is_ticker(ticker)),
    n INT CHECK (n < 5), name TEXT NOT NULL,
    loud TEXT GENERATED ALWAYS AS (shout(name)) STORED,
    hint AS (shout(ticker)), UNIQUE (n, id));
CREATE INDEX rules_by_loud_name ON rules (shout(name));
CREATE TABLE sorted (id INTEGER PRIMARY KEY, name TEXT COLLATE german);
CREATE INDEX sorted_by_name ON sorted (name);
CREATE TABLE checked (id INTEGER PRIMARY KEY, n INT CHECK (n < 5));
CREATE VIEW main_rules AS SELECT name FROM main.rules;
INSERT INTO rules (id, ticker, n, name) VALUES (1, 'AAPL', 1, 'abc'), (2, 'MSFT', 2, 'def');
INSERT INTO sorted (name) VALUES ('b'), ('A');
PRAGMA ignore_check_constraints = ON;
INSERT INTO checked VALUES (1, 4), (2, 99);
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, 'name TEXT NOT NULL', 'name TEXT') WHERE name = 'rules';
PRAGMA schema_version = 7001;
INSERT INTO rules (id, ticker, n, name) VALUES (3, 'TSLA', 3, NULL);
UPDATE sqlite_schema SET sql = replace(sql, 'name TEXT', 'name TEXT NOT NULL') WHERE name = 'rules';
PRAGMA schema_version = 7002;
"""
QUERIES = {
    "SELECT * FROM rules ORDER BY id": [
        (1, "AAPL", 1, "abc", "ABC", "aapl"),
        (2, "MSFT", 2, "def", "DEF", "msft"),
        (3, "TSLA", 3, None, None, "tsla"),
    ],
    "SELECT name FROM sorted ORDER BY name": [("A",), ("b",)],
    "SELECT * FROM checked": [(1, 4), (2, 99)],
    "SELECT name FROM main_rules": [("abc",), ("def",), (None,)],
}


def open_platform(database: Path) -> apsw.Connection:
    platform = apsw.Connection(str(database))
    platform.create_scalar_function("is_ticker", lambda text: text.isupper(), 1, deterministic=True)
    platform.create_scalar_function("shout", lambda t: t and t.swapcase(), 1, deterministic=True)
    platform.create_collation("german", lambda one, other: (one > other) - (one < other))
    return platform


def see_as_platform(database: Path) -> dict[str, list[object]]:
    with closing(open_platform(database)) as platform:
        return {query: list(platform.execute(query)) for query in QUERIES}


@pytest.fixture(params=["DELETE", "WAL"])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path, journal=request.param)
    with closing(open_platform(settings.database_path)) as platform:
        platform.execute(RULES)
    assert see_as_platform(settings.database_path) == QUERIES
    return settings


@pytest.mark.parametrize("kind", ["full", "irreplaceable"])
@pytest.mark.parametrize("target", ["there", "missing"])
def test_platform_rules_survive_backup_and_restore(
    settings: Settings, kind: str, target: str
) -> None:
    back_up(settings, kind)
    (backup,) = verify_every_listed(settings.backup_dir)
    assert backup.manifest is not None
    assert any("NULL value in rules.name" in broken for broken in backup.manifest.broken_rules)
    if target == "missing":
        settings.database_path.unlink()
    else:
        with closing(open_platform(settings.database_path)) as platform:
            platform.execute(
                "DELETE FROM rules; DELETE FROM checked; UPDATE sorted SET name = 'gone'"
            )
    restore_from_backup(settings, None, NOON)
    assert see_as_platform(settings.database_path) == QUERIES


def test_platform_rules_are_listed_drilled_and_rebuilt(settings: Settings, tmp_path: Path) -> None:
    project = Project(tmp_path, settings=environment_of(settings))
    assert "breaks a rule of its table" in project.check("backup_database.py")
    project.check("backup_database.py", "--irreplaceable-only")
    project.check("backup_database.py", "--verify")
    project.check("run_drill.py")
    assert "that break a rule" in project.check("backup_database.py", "--list")
    listed = json.loads(project.run("backup_database.py", "--list", "--json").stdout)
    assert all(backup["broken_rules"] for backup in listed)
    project.check("restore_database.py", "--skip-backfill", "--yes")
    assert see_as_platform(settings.database_path) == QUERIES


def test_platform_rules_do_not_stop_a_salvage(settings: Settings) -> None:
    back_up(settings)
    assert load_catalogue(settings.backup_dir)
    salvaged = salvage(settings.database_path, settings.backup_dir, LATER)
    with closing(connect(salvaged.path)) as connection:
        assert connection.execute("SELECT n FROM checked").fetchall() == [(4,), (99,)]
        rules = connection.execute("SELECT id, ticker, n, name, loud FROM rules").fetchall()
        assert rules == [row[:5] for row in QUERIES["SELECT * FROM rules ORDER BY id"]]
