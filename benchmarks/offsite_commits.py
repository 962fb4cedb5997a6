"""Part of bench_offsite.py: what the process that stays costs, and whom it delays."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from measuring import process_seconds
from offsite_work import add_work, make_irreplaceable

PROGRAM = Path(__file__).resolve().parents[1] / "scripts" / "run_offsite.py"
PHRASE = "bench only bench only"
MEGABYTES, LOOK_SECONDS = 50.0, 2


def bench_commits(folder: Path, journal: str, seconds: int) -> None:
    """Print what the process costs while nothing changes, and how long commits take beside it."""
    folder.mkdir()
    database = folder / "backtesting.db"
    make_irreplaceable(database, MEGABYTES)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    (folder / "elsewhere").mkdir()
    environment = os.environ | {
        **{"DATABASE_PATH": str(database), "BACKUP_DIR": str(folder / "backups")},
        **{"OFFSITE": str(folder / "elsewhere"), "OFFSITE_PASSPHRASE": PHRASE},
        **{"OFFSITE_EVERY_SECONDS": str(LOOK_SECONDS), "BACKTEST_ENV_FILE": os.devnull},
    }
    program = [sys.executable, str(PROGRAM)]
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
    print(f"\n{journal}, {MEGABYTES:.0f} MB irreplaceable, a look every {LOOK_SECONDS} s")
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
    """Commit twenty times a second; return the seconds of each commit, sorted."""
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
