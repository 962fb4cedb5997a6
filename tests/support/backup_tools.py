"""What the tests of backups and restores share: databases, settings, and processes that are
killed."""

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backtestdb.backups.backup import Hooks, Outcome
from backtestdb.backups.catalogue import Backup, load_catalogue
from backtestdb.backups.verify import verify_backup
from backtestdb.config import Settings, load_settings
from backtestdb.database import connect, table_names
from backtestdb.scheduling.notify import run_backup
from backtestdb.schema import ensure_schema

# One moment everywhere, said in the local time that names of backups are made of.
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC).astimezone()
BARS = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers LIMIT ?)
INSERT INTO ohlcv_data
    (ticker, timestamp, open, high, low, close, volume, timeframe, time_of_day, day_of_week)
SELECT 'T' || (n / 20000), 1600000000000 + n % 20000 * 300000, 100 + n % 977 / 7.0,
    101 + n % 977 / 7.0,
    99 + n % 977 / 7.0, 100.5 + n % 977 / 7.0, n % 100003, '5min', '09:30:00', n % 5 FROM numbers
"""
BYTES_PER_BAR = 185
# What a backup tells of itself when it has scripts to keep, and an older backup to remove.
BACKUP_STEPS = (
    "locked",
    "cleaned",
    "pinned",
    "copying",
    "copied",
    "checked",
    "scripts copied",
    "manifest written",
    "scripts named",
    "database named",
    "manifest named",
    "expired",
    "expired database removed",
    "pruned",
)


def make_settings(folder: Path, **values: object) -> Settings:
    """Everything below `folder`; `values` are fields of Settings."""
    environment = {
        "DATABASE_PATH": str(folder / "live" / "backtesting.db"),
        "BACKUP_DIR": str(folder / "backups"),
        "GENERATED_SCRIPTS_DIR": str(folder / "live" / "claude-generated-scripts"),
    }
    return replace(load_settings(environment, folder / "no.env"), **values)  # type: ignore[arg-type]


def environment_of(settings: Settings) -> dict[str, str]:
    return os.environ | {
        "DATABASE_PATH": str(settings.database_path),
        "BACKUP_DIR": str(settings.backup_dir),
        "GENERATED_SCRIPTS_DIR": ":".join(map(str, settings.generated_scripts_dirs)),
        "MAX_BACKUPS": str(settings.max_backups),
        "KEEP_FULL_WEEKLY": str(settings.keep_full_weekly),
        "KEEP_FULL_MONTHLY": str(settings.keep_full_monthly),
        "HEARTBEAT_URL": settings.heartbeat_url,
        "BACKTEST_ENV_FILE": str(settings.backup_dir / "no.env"),
    }


def make_platform_database(
    path: Path, *, word: str = "old", bars: int = 2000, journal: str = "DELETE"
) -> Path:
    """The platform's schema with some rows of both sorts; `word` tells its irreplaceable rows
    apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(connect(path, create=True)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("PRAGMA synchronous = OFF")
        ensure_schema(connection)
        connection.execute("BEGIN")
        connection.execute(BARS, (bars,))
        connection.execute("INSERT INTO universe (name, total_stocks) VALUES ('tech_sector', 2)")
        connection.execute(
            "INSERT INTO universe_stocks (universe_id, ticker) VALUES (1, 'AAPL'), (1, 'MSFT')"
        )
        for n in range(50):
            add_strategy(connection, f"{word} {n}")
        connection.execute("COMMIT")
    return path


def copy_with_backups(original: Path, folder: Path) -> Settings:
    """Copy the database and the backups that lie below `original`, as if they had been made below
    `folder`."""
    # Without what is remembered about the disk of the backups: theirs is another.
    beside = shutil.ignore_patterns("*.disks.json")
    shutil.copytree(original, folder, dirs_exist_ok=True, ignore=beside)
    settings = make_settings(folder)
    for manifest in settings.backup_dir.glob("*.json"):
        manifest.write_text(manifest.read_text().replace(str(original), str(folder)))
    return settings


def add_strategy(connection: sqlite3.Connection, name: str) -> None:
    connection.execute(
        "INSERT INTO strategies (name, ticker, timeframe, config) VALUES (?, 'AAPL', '1day', ?)",
        (name, name * 40),
    )


def change(database: Path, name: str) -> None:
    with closing(connect(database)) as connection:
        add_strategy(connection, name)


def strategy_names(database: Path) -> list[str]:
    with closing(connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM strategies ORDER BY id")]


def read_all(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with closing(connect(database)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in table_names(connection)
        }


def fingerprint(database: Path) -> dict[str, object]:
    """Every row of the small tables, and numbers that tell one set of bars from another: cheap
    enough to be taken after each of hundreds of kills."""
    bars = "SELECT count(*), total(volume), total(close), max(timestamp) FROM ohlcv_data"
    with closing(connect(database)) as connection:
        return {
            table: connection.execute(
                bars if table == "ohlcv_data" else f"SELECT * FROM {table}"
            ).fetchall()
            for table in table_names(connection)
        }


def back_up(
    settings: Settings, kind: str = "full", *, minutes: int = 0, hooks: Hooks | None = None
) -> Outcome:
    """At NOON plus `minutes`."""
    return run_backup(settings, kind, NOON + timedelta(minutes=minutes), hooks=hooks)  # type: ignore[arg-type]


def age_backups(backups: Iterable[Backup], age: timedelta) -> None:
    """As if they had been made that much earlier."""
    for backup in backups:
        values = json.loads(backup.manifest_path.read_text())
        for name in ("taken_at_utc", "clock_utc"):
            values[name] = (datetime.fromisoformat(values[name]) - age).isoformat()
        confirmed = (backup.confirmed_at_utc - age).timestamp()
        backup.manifest_path.write_text(json.dumps(values))
        os.utime(backup.manifest_path, (confirmed, confirmed))


def verified_names(backup_dir: Path) -> set[str]:
    return {backup.path.name for backup in load_catalogue(backup_dir) if backup.is_verified}


def verify_every_listed(backup_dir: Path) -> list[Backup]:
    """What is listed can be restored: read every backup that counts, to the last bit."""
    listed = [backup for backup in load_catalogue(backup_dir) if backup.is_verified]
    for backup in listed:
        verify_backup(backup)
    return listed


def leftovers(backup_dir: Path) -> list[str]:
    """Files that belong to no backup."""
    with_manifest = {
        backup.path.stem.split("-", 1)[1]
        for backup in load_catalogue(backup_dir)
        if backup.manifest
    }
    return [
        path.name
        for path in backup_dir.iterdir()
        if not path.name.startswith((".", "backup"))
        and (
            ".partial" in path.name
            or ".expired" in path.name
            or path.stem.split("-", 1)[-1] not in with_manifest
        )
        and path.name.removeprefix("claude-scripts-") not in with_manifest
    ]


def run_in_child(work: Callable[[], object]) -> int:
    """Start `work` in a process of its own; return its id. It ends with 0, or 1 when `work`
    raises."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def kill_after(child: int, seconds: float) -> bool:
    """Let the process run that long, then kill it; return whether it was still running."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def time_of(work: Callable[[], object]) -> float:
    """Seconds that `work` takes in a process of its own."""
    started = time.monotonic()
    child = run_in_child(work)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return time.monotonic() - started


def kill_at_call(nth: int) -> Callable[[object], None]:
    """Return a hook that kills its own process when it is called for the `nth` time."""
    calls = itertools.count(1)

    def kill(_: object) -> None:
        if next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


class KillAtStep:
    """A hook that kills its own process when the step `name` comes for the `nth` time."""

    def __init__(self, name: str, nth: int = 1) -> None:
        self.name, self.left = name, nth

    def __call__(self, name: str) -> None:
        self.left -= name == self.name
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def flip_bit(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def damage(path: Path, way: str, chance: random.Random, other: Path) -> None:
    """Damage a database file in one of the ways that DAMAGES names; `other` is another good one."""
    size = path.stat().st_size
    page = chance.randrange(1, size // 4096)
    if way == "value":
        data = path.read_bytes()
        start = data.index(b"old 1", chance.randrange(size // 8))
        flip_bit(path, start + chance.randrange(100), chance.randrange(8))
    elif way == "structure":
        flip_bit(path, page * 4096 + chance.randrange(12), chance.randrange(8))
    elif way == "anywhere":
        flip_bit(path, chance.randrange(size), chance.randrange(8))
    elif way == "header":
        flip_bit(path, chance.randrange(100), chance.randrange(8))
    elif way == "cut":
        os.truncate(path, chance.randrange(1, size))
    elif way == "cut at a page":
        os.truncate(path, page * 4096)
    elif way == "zeroed":
        with path.open("r+b") as file:
            file.seek(page * 4096)
            file.write(bytes(4096))
    elif way == "swapped":
        path.write_bytes(other.read_bytes())
    elif way == "empty":
        os.truncate(path, 0)


DAMAGES = (
    "value",
    "structure",
    "anywhere",
    "header",
    "cut",
    "cut at a page",
    "zeroed",
    "swapped",
    "empty",
)
