"""A platform that is started at any moment of a restore: nothing is lost, and "restored" is never
untrue."""

import os
import random
import re
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.config import Settings
from backtestdb.database import connect
from backup_tools import (
    back_up,
    environment_of,
    make_platform_database,
    make_settings,
    strategy_names,
)
from commands import Project
from platform_process import read_tokens, running_platform

STATES = ("missing", "no database", "damaged schema", "empty", "database")
QUICK_SEEDS = range(5)
NEWEST_SEEDS = range(5, 10)
# In parts: COUNT=20 SEED=30 ./db test-long tests/backups/test_restore_beside_platform.py -s
FIRST_LONG_SEED = int(os.environ.get("SEED") or 10)
LONG_SEEDS = range(FIRST_LONG_SEED, FIRST_LONG_SEED + int(os.environ.get("COUNT") or 100))
# Its own line; the table of rows has a column of that name too.
SAYS_RESTORED = re.compile(r"^restored ", re.MULTILINE)
BETTER_SQLITE3 = "better-sqlite3@12.11.1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A full backup of 2 MB, so that there is time to start while it is copied."""
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path, bars=10_000)
    back_up(settings)
    return settings


def bring_into(state: str, database: Path, chance: random.Random) -> None:
    if state == "missing":
        database.unlink()
    elif state == "empty":
        database.write_bytes(b"")
    elif state == "no database":
        database.write_bytes(chance.randbytes(50_000))
    elif state == "damaged schema":
        data = database.read_bytes()
        database.write_bytes(
            data.replace(b"CREATE TABLE strategies", b"CREATE TABLE str\xfftegies", 1)
        )


def restore_beside_platform(settings: Settings, folder: Path, seed: int, *words: str) -> bool:
    """Return whether the restore said that it restored; fail when anything is lost, or when that is
    untrue."""
    chance = random.Random(seed)
    database, log = settings.database_path, folder / "tokens"
    saved = set(strategy_names(database))
    state = STATES[seed % len(STATES)]
    bring_into(state, database, chance)
    project = Project(folder, settings=dict(environment_of(settings)))
    with running_platform(database, log, seed, *words):
        done = project.run("restore_database.py", "--from-backup", "--yes")
        assert "Traceback" not in done.stderr, done.stderr
        wait_for_life(log, done.stdout + done.stderr)
    is_restored = done.returncode == 0
    assert is_restored == bool(SAYS_RESTORED.search(done.stdout)), done.stdout + done.stderr
    tokens = {path: tokens_in(path) for path in database.parent.glob("*.backup-*[0-9]")}
    live = tokens_in(database)
    lost = set(read_tokens(log)) - live - set().union(*tokens.values())
    assert not lost, f"{state}: {sorted(lost)}"
    if is_restored:
        assert saved <= names_in(database), state
        with closing(connect(database, lenient=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return is_restored


def wait_for_life(log: Path, said: str) -> None:
    """Until the platform has committed once more, or plainly cannot."""
    before, deadline = len(read_tokens(log)), time.monotonic() + 10
    while len(read_tokens(log)) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(read_tokens(log)) > before, f"the platform cannot write any more\n{said}"


def tokens_in(path: Path) -> set[str]:
    return read_words(path, "SELECT token FROM platform_log")


def names_in(path: Path) -> set[str]:
    return read_words(path, "SELECT name FROM strategies")


def read_words(path: Path, query: str) -> set[str]:
    try:
        with closing(connect(path, lenient=True)) as connection:
            return {word for (word,) in connection.execute(query)}
    except sqlite3.DatabaseError:
        return set()


@pytest.mark.parametrize("seed", QUICK_SEEDS)
def test_restore_beside_a_platform_that_starts_loses_nothing(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    assert restore_beside_platform(settings, tmp_path, seed)


@pytest.mark.parametrize("seed", NEWEST_SEEDS)
def test_restore_beside_a_platform_with_the_newest_sqlite_loses_nothing(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    assert restore_beside_platform(settings, tmp_path, seed, "newest")


@pytest.fixture(scope="session")
def better_sqlite3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the platform, with the SQLite that it brings."""
    if not shutil.which("npm"):
        pytest.skip("needs Node and npm")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-fund", "--no-audit", "--prefix", str(folder), BETTER_SQLITE3]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"npm could not install {BETTER_SQLITE3}")
    return folder / "node_modules" / "better-sqlite3"


@pytest.mark.long
def test_100_restores_beside_better_sqlite3_lose_nothing(
    settings: Settings, better_sqlite3: Path, tmp_path: Path
) -> None:
    """Any that did not come to its end has to say so; most do."""
    live, original = settings.database_path.parent, tmp_path / "original"
    shutil.copytree(live, original)
    restored = 0
    for seed in LONG_SEEDS:
        shutil.rmtree(live)
        shutil.copytree(original, live)
        restored += restore_beside_platform(settings, tmp_path, seed, "node", str(better_sqlite3))
        (tmp_path / "tokens").unlink()
        print(f"seed {seed}: {restored} restored", flush=True)
    print(f"{restored} of {len(LONG_SEEDS)} restores ended with the backup in place")
    assert restored >= 0.9 * len(LONG_SEEDS)
