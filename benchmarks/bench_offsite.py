#!/usr/bin/env python3
"""Bytes and time of copies off the machine: a busy day of minutes, one session more beside other
tools, and what the process that stays costs and whom it delays.

  bench_offsite.py [--minutes 1440] [--megabytes 19] [--sessions 60] [--tickers 4000] [--days 30]
                   [--alone] [--commits 30]

Everything goes to a folder on this disk. restic, borg and rclone are measured where they are
installed. A part is left out with 0.
"""

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "scripts")]

from backtestdb.backups.backup import Hooks, make_backup  # noqa: E402
from backtestdb.backups.catalogue import Backup  # noqa: E402
from backtestdb.config import Settings, load_settings  # noqa: E402
from backtestdb.console import format_bytes  # noqa: E402
from backtestdb.database import connect  # noqa: E402
from backtestdb.files import hash_file  # noqa: E402
from backtestdb.offsite.objects import Remote  # noqa: E402
from backtestdb.offsite.seal import make_data_key  # noqa: E402
from backtestdb.offsite.send import Content, Sender  # noqa: E402
from backtestdb.offsite.send_full import send_full  # noqa: E402
from backtestdb.offsite.send_small import send_small  # noqa: E402
from backtestdb.offsite.small_copy import take_small_copy  # noqa: E402
from backtestdb.offsite.state import load_state  # noqa: E402
from backtestdb.offsite.store import FolderStore  # noqa: E402
from backtestdb.schema import ensure_schema  # noqa: E402

TEXT = (
    "breakout volume momentum reversal support resistance gap earnings trend moving average signal "
    "stop loss target entry exit morning session sector rotation risk position size hold intraday "
    "swing confidence pattern failed confirmed retest higher lower close open range volatility "
    "compression expansion squeeze drift fade chase scale"
)
WORDS = TEXT.split()
MINUTES_LIMIT_BYTES = 60_000_000
COMMITS_MEGABYTES, LOOK_SECONDS = 50.0, 2
# What an agent platform writes in a busy minute: one insight, one strategy, six trades.
INSIGHTS_A_MINUTE = 1
PHRASE = "bench only"
INSERT_BAR = (
    "INSERT INTO ohlcv_data (ticker, timestamp, timeframe, open, high, low, close, volume)"
    " VALUES (?, ?, '1day', ?, ?, ?, ?, ?)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=1440)
    parser.add_argument("--megabytes", type=float, default=19)
    parser.add_argument(
        "--sessions", type=int, default=60, help="sessions in the first full backup"
    )
    parser.add_argument("--tickers", type=int, default=4000)
    parser.add_argument("--days", type=int, default=30, help="daily backups after the first")
    parser.add_argument("--alone", action="store_true", help="without the other tools")
    parser.add_argument(
        "--commits", type=int, default=30, help="seconds of a writer without and with the process"
    )
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="bench-offsite-"))
    try:
        if chosen.minutes:
            bench_minutes(folder / "minutes", chosen.minutes, chosen.megabytes)
        if chosen.days:
            others = not chosen.alone
            bench_days(folder / "days", chosen.sessions, chosen.tickers, chosen.days, others)
        for journal in ("WAL", "DELETE") if chosen.commits else ():
            bench_commits(folder / journal, journal, COMMITS_MEGABYTES, chosen.commits)
    finally:
        shutil.rmtree(folder)
    return 0


def make_sender(folder: Path, clock: list[datetime]) -> Sender:
    state_folder = folder / "state"
    state_folder.mkdir(parents=True)
    return Sender(
        remote=Remote(FolderStore(folder / "elsewhere"), make_data_key()),
        state=load_state(state_folder),
        folder=state_folder,
        clock=lambda: clock[0],
    )


def sentence(chance: random.Random, count: int) -> str:
    return " ".join(
        chance.choice(WORDS) if chance.random() < 0.8 else f"{chance.random() * 500:.2f}"
        for _ in range(count)
    )


def add_work(
    connection: sqlite3.Connection, chance: random.Random, count: int, moment_ms: int
) -> None:
    """`count` insights, each with a strategy and six trades."""
    for _ in range(count):
        agent = f"agent-{chance.randrange(25)}"
        connection.execute(
            "INSERT INTO agent_knowledge (id, agent_id, knowledge_type, insight, created_at)"
            " VALUES (?, ?, 'pattern', ?, ?)",
            (f"{chance.getrandbits(128):032x}", agent, sentence(chance, 40), str(moment_ms)),
        )
        config = json.dumps({word: round(chance.random() * 100, 3) for word in WORDS[:12]})
        connection.execute(
            "INSERT INTO strategies (name, ticker, timeframe, config) "
            "VALUES (?, 'AAPL', '5min', ?)",
            (sentence(chance, 3), config),
        )
        connection.executemany(
            "INSERT INTO trades (backtest_id, ticker, side, entry_timestamp, entry_price, quantity)"
            " VALUES (?, ?, 'LONG', ?, ?, ?)",
            [
                (
                    1,
                    chance.choice(("AAPL", "MSFT")),
                    moment_ms + n,
                    chance.random() * 400,
                    chance.randrange(500),
                )
                for n in range(6)
            ],
        )


def make_irreplaceable(database: Path, megabytes: float) -> random.Random:
    chance = random.Random(1)
    with closing(connect(database, create=True)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = OFF")
        ensure_schema(connection)
        connection.execute("BEGIN")
        while connection.execute("PRAGMA page_count").fetchone()[0] * 4096 < megabytes * 1e6:
            add_work(connection, chance, 500, 1_700_000_000_000)
        connection.execute("COMMIT")
    return chance


def bench_minutes(folder: Path, minutes: int, megabytes: float) -> None:
    """A day in which every minute has work: what is sent, and what a look costs."""
    folder.mkdir()
    database, path = folder / "backtesting.db", folder / "now.db"
    chance = make_irreplaceable(database, megabytes)
    clock = [datetime(2026, 11, 24, tzinfo=UTC)]
    sender = make_sender(folder, clock)
    sent: dict[str, list[int]] = {}
    started, cpu = time.monotonic(), cpu_seconds()
    for minute in range(minutes + 1):
        with closing(connect(database)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("BEGIN")
            add_work(connection, chance, INSIGHTS_A_MINUTE, 1_700_000_000_000 + minute)
            connection.execute("COMMIT")
        copy = take_small_copy(database, path)
        content = Content(
            path=path,
            file="irreplaceable.db",
            database=str(database),
            database_id="",
            taken_at_utc=clock[0],
            sha256=hash_file(path),
            rows=copy.rows,
        )
        record = send_small(sender, content, is_minute=bool(minute % 60))
        sent.setdefault(record.name.copy_class, []).append(record.sent_bytes)
        clock[0] += timedelta(minutes=1)
    total = folder_bytes(folder / "elsewhere")
    first = sum(sent["small-base"][:1])
    print(f"\n{minutes} busy minutes at {format_bytes(database.stat().st_size)} irreplaceable")
    for copy_class, sizes in sent.items():
        average = format_bytes(sum(sizes) // len(sizes))
        print(f"  {copy_class}: {len(sizes)} copies, {format_bytes(sum(sizes))}, {average} each")
    after = total - first
    print(
        f"  sent in all {format_bytes(total)}, records included; after the first base "
        f"{format_bytes(after)}"
    )
    print(f"  {after / minutes * 1440 / MINUTES_LIMIT_BYTES:.2f} of 60 MB a day")
    print(
        f"  a look: {(time.monotonic() - started) / minutes:.2f} s, "
        f"{(cpu_seconds() - cpu) / minutes:.2f} s of a core"
    )


def bench_days(folder: Path, sessions: int, tickers: int, days: int, others: bool) -> None:
    """Daily full backups, each with one session more: what each way sends and keeps."""
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
    """As the first fill loads: one ticker after the other, so that index pages are full and the
    next session splits those it falls into."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        for ticker in range(tickers):
            bars = (make_bar(chance, ticker, session) for session in range(sessions))
            connection.executemany(INSERT_BAR, bars)


def add_session(database: Path, chance: random.Random, session: int, tickers: int) -> None:
    """One day bar for each ticker, and some work of the agents."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = OFF")
        bars = (make_bar(chance, ticker, session) for ticker in range(tickers))
        connection.executemany(INSERT_BAR, bars)
        add_work(connection, chance, 40, midnight_ms(session))


def midnight_ms(session: int) -> int:
    return 1_600_000_000_000 + session * 86_400_000


def make_bar(chance: random.Random, ticker: int, session: int) -> tuple[object, ...]:
    price = 20 + chance.random() * 400
    factors = (1, 1.01, 0.99, 0.99 + chance.random() / 50)
    prices = [round(price * factor, 2) for factor in factors]
    return (f"T{ticker:04}", midnight_ms(session), *prices, chance.randrange(10**7))


def back_up(settings: Settings) -> Backup:
    outcome = make_backup(settings, "full", datetime.now().astimezone(), False, Hooks())
    return outcome.backup


def other_tools(folder: Path) -> dict[str, object]:
    """restic, borg and rclone copy, where they are installed; each into a folder of its own."""
    tools: dict[str, object] = {}
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


def bench_commits(folder: Path, journal: str, megabytes: float, seconds: int) -> None:
    """What the process costs while nothing changes, and how long commits take beside it."""
    folder.mkdir()
    database = folder / "backtesting.db"
    make_irreplaceable(database, megabytes)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    (folder / "elsewhere").mkdir()
    environment = os.environ | {
        **{"DATABASE_PATH": str(database), "BACKUP_DIR": str(folder / "backups")},
        **{"OFFSITE": str(folder / "elsewhere"), "OFFSITE_PASSPHRASE": f"{PHRASE} {PHRASE}"},
        **{"OFFSITE_EVERY_SECONDS": str(LOOK_SECONDS), "BACKTEST_ENV_FILE": os.devnull},
    }
    program = [sys.executable, str(PROJECT / "scripts" / "run_offsite.py")]
    subprocess.run([*program, "init"], env=environment, check=True, capture_output=True)
    alone = time_commits(database, seconds)

    process = subprocess.Popen([*program, "watch"], env=environment, stdout=subprocess.DEVNULL)
    try:
        copies = folder / "elsewhere" / "small-base" / "copies"
        while not (copies.is_dir() and any(copies.iterdir())):
            time.sleep(0.1)
        time.sleep(LOOK_SECONDS)
        used, started = process_seconds(process.pid), time.monotonic()
        time.sleep(seconds)
        share = (process_seconds(process.pid) - used) / (time.monotonic() - started)
        beside = time_commits(database, seconds)
    finally:
        process.terminate()
        process.wait()
    print(f"\n{journal}, {megabytes:.0f} MB irreplaceable, a look every {LOOK_SECONDS} s")
    print(
        f"  nothing changes: {share:.2%} of a core, {share * LOOK_SECONDS / 30:.3%} at a look "
        "every 30 s"
    )
    for what, times in (("alone", alone), ("beside it", beside)):
        print(
            f"  {len(times)} commits {what}: median {1000 * times[len(times) // 2]:.1f} ms, "
            f"worst {1000 * times[-1]:.1f} ms"
        )


def time_commits(database: Path, seconds: int) -> list[float]:
    """Seconds of each commit, sorted; twenty a second."""
    chance, times, end = random.Random(time.time_ns()), [], time.monotonic() + seconds
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        while time.monotonic() < end:
            started = time.monotonic()
            connection.execute("BEGIN IMMEDIATE")
            add_work(connection, chance, 1, 1_700_000_000_000)
            connection.execute("COMMIT")
            times.append(time.monotonic() - started)
            time.sleep(0.05)
    return sorted(times)


def process_seconds(process_id: int) -> float:
    """Of a core, so far."""
    with suppress(OSError):
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    shown = ["ps", "-o", "cputimes=", "-p", str(process_id)]
    return float(subprocess.run(shown, capture_output=True, text=True, check=True).stdout)


def place_of(folder: Path, name: str) -> Path:
    return (
        folder / "ours" / "elsewhere" if name == "page deltas" else folder / name.replace(" ", "-")
    )


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cpu_seconds() -> float:
    """Of this process and the ones that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    sys.exit(main())
