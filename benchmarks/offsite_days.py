"""Part of bench_offsite.py: a full backup every day, with one session more each, beside restic,
borg and rclone where they are installed."""

import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from backtestdb.backups.backup import Hooks, make_backup
from backtestdb.backups.catalogue import Backup
from backtestdb.config import Settings, load_settings
from backtestdb.console import format_bytes
from backtestdb.offsite.send_full import send_full
from measuring import cpu_seconds, folder_bytes
from offsite_work import add_work, make_irreplaceable, make_sender

PHRASE = "bench only"
INSERT_BAR = (
    "INSERT INTO ohlcv_data (ticker, timestamp, timeframe, open, high, low, close, volume)"
    " VALUES (?, ?, '1day', ?, ?, ?, ?, ?)"
)


def bench_days(folder: Path, sessions: int, tickers: int, days: int, others: bool) -> None:
    """Print what each way sends and keeps of daily full backups, each with one session more."""
    folder.mkdir()
    environment = {
        "DATABASE_PATH": str(folder / "backtesting.db"),
        "BACKUP_DIR": str(folder / "backups"),
    }
    settings = load_settings(environment, folder / "no.env")
    make_irreplaceable(settings.database_path, 19)
    chance = random.Random(2)
    fill_by_ticker(settings.database_path, chance, sessions, tickers)
    backup = back_up(settings)
    clock = [datetime.now(UTC)]
    sender = make_sender(folder / "ours", clock)
    (folder / "ours").mkdir(exist_ok=True)

    ways = {"page deltas": lambda taken: send_full(sender, taken)}
    ways |= other_tools(folder) if others else {}
    facts: dict[str, list[tuple[int, float, float]]] = {name: [] for name in ways}
    for day in range(days + 1):
        if day:
            add_session(settings.database_path, chance, sessions + day, tickers)
            backup.path.unlink()
            backup.manifest_path.unlink()
            backup = back_up(settings)
        for name, send in ways.items():
            before, started, cpu = (
                folder_bytes(place_of(folder, name)),
                time.monotonic(),
                cpu_seconds(),
            )
            send(backup)
            added = folder_bytes(place_of(folder, name)) - before
            facts[name].append((added, time.monotonic() - started, cpu_seconds() - cpu))
    print(
        f"\n{days} days of a full backup of {format_bytes(backup.bytes)}, one session of "
        f"{tickers} more each"
    )
    for name, measured in facts.items():
        first, rest = measured[0], measured[1:]
        each = sum(one[0] for one in rest) / max(len(rest), 1)
        print(
            f"  {name}: first {format_bytes(first[0])} in {first[1]:.1f} s; each day "
            f"{format_bytes(int(each))} ({each / first[0]:.3f} of the first), "
            f"{sum(one[1] for one in rest) / max(len(rest), 1):.1f} s, "
            f"{sum(one[2] for one in rest) / max(len(rest), 1):.1f} s of a core; kept "
            f"{format_bytes(folder_bytes(place_of(folder, name)))}"
        )


def fill_by_ticker(database: Path, chance: random.Random, sessions: int, tickers: int) -> None:
    """Load one ticker after the other, as the first fill does, so that index pages are full and the
    next session splits those it falls into."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        for ticker in range(tickers):
            bars = (make_bar(chance, ticker, session) for session in range(sessions))
            connection.executemany(INSERT_BAR, bars)


def add_session(database: Path, chance: random.Random, session: int, tickers: int) -> None:
    """Add one day bar for each ticker, and some work of the agents."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = OFF")
        bars = (make_bar(chance, ticker, session) for ticker in range(tickers))
        connection.executemany(INSERT_BAR, bars)
        add_work(connection, chance, 40, midnight_ms(session))


def midnight_ms(session: int) -> int:
    """Return the time of a session's day bar."""
    return 1_600_000_000_000 + session * 86_400_000


def make_bar(chance: random.Random, ticker: int, session: int) -> tuple[object, ...]:
    """Return a row for INSERT_BAR."""
    price = 20 + chance.random() * 400
    factors = (1, 1.01, 0.99, 0.99 + chance.random() / 50)
    prices = [round(price * factor, 2) for factor in factors]
    return (f"T{ticker:04}", midnight_ms(session), *prices, chance.randrange(10**7))


def back_up(settings: Settings) -> Backup:
    """Make a full backup."""
    outcome = make_backup(settings, "full", datetime.now().astimezone(), False, Hooks())
    return outcome.backup


def other_tools(folder: Path) -> dict[str, Callable[[Backup], object]]:
    """Return how restic, borg and rclone copy a backup, each into a folder of its own, where they
    are installed."""
    tools: dict[str, Callable[[Backup], object]] = {}
    environment = os.environ | {"RESTIC_PASSWORD": PHRASE, "BORG_PASSPHRASE": PHRASE}

    def run(*command: str) -> None:
        subprocess.run(command, env=environment, check=True, capture_output=True)

    if shutil.which("restic"):
        place = str(place_of(folder, "restic"))
        run("restic", "--repo", place, "init")
        tools["restic"] = lambda taken: run("restic", "--repo", place, "backup", str(taken.path))
    if shutil.which("borg"):
        repository = str(place_of(folder, "borg"))
        run("borg", "init", "--encryption=repokey", repository)
        tools["borg"] = lambda taken: run(
            "borg",
            "create",
            "--compression",
            "zstd",
            f"{repository}::{time.time_ns()}",
            str(taken.path),
        )
    if shutil.which("rclone"):
        target = str(place_of(folder, "rclone copy"))
        tools["rclone copy"] = lambda taken: run("rclone", "copy", str(taken.path), target)
    return tools


def place_of(folder: Path, name: str) -> Path:
    """Return the folder in which one of the ways keeps what it was sent."""
    return (
        folder / "ours" / "elsewhere" if name == "page deltas" else folder / name.replace(" ", "-")
    )
