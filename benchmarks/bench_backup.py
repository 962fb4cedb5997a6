#!/usr/bin/env python3
"""How long a verified backup takes beside other ways to copy a database, all in one run on one
machine.

`python benchmarks/bench_backup.py [--sizes 45,1200] [--folder DIR] [--repeats 3]` needs about four
times the largest size on the disk of DIR. Times are the best of the repeats, in multiples of
cp+fsync; a way that needs more than LIMIT times that is stopped. restic and borg take part where
they are installed.
"""

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "scripts"), str(PROJECT / "tests" / "support")]

from backtestdb.console import print_table, say  # noqa: E402
from backtestdb.files import fsync_file, remove_database  # noqa: E402
from backup_tools import BYTES_PER_BAR, make_platform_database  # noqa: E402
from writers import running_writer  # noqa: E402

COMMAND = PROJECT / "scripts" / "backup_database.py"
WRITER_PAUSE_SECONDS = 0.005
LIMIT = 15


def make_database(path: Path, size: int) -> None:
    """Make a database of about `size` bytes that is on the disk as a whole."""
    make_platform_database(path, bars=size // BYTES_PER_BAR)
    fsync_file(path)


def environment_for(database: Path, folder: Path) -> dict[str, str]:
    """Return the environment in which every way finds the database and its own folder."""
    return os.environ | {
        "DATABASE_PATH": str(database),
        "BACKUP_DIR": str(folder / "backups"),
        "GENERATED_SCRIPTS_DIR": str(folder / "scripts"),
        "BACKTEST_ENV_FILE": str(folder / "none.env"),
        "HEARTBEAT_URL": "",
        "RESTIC_PASSWORD": "x",
        "RESTIC_REPOSITORY": str(folder / "restic"),
        "BORG_REPO": str(folder / "borg"),
    }


def make_ways(database: Path, folder: Path) -> dict[str, list[list[object]]]:
    """Return the commands of each way by its name; a file `copy` that they leave is flushed within
    the time."""
    copy = folder / "copy"
    return {
        "cp (torn under a writer)": [["cp", database, copy]],
        "make backup (verified)": [[sys.executable, COMMAND]],
        "make backup-irreplaceable": [[sys.executable, COMMAND, "--irreplaceable-only"]],
        "sqlite3 .backup (unverified)": [
            ["sqlite3", "-cmd", ".timeout 60000", database, f".backup '{copy}'"]
        ],
        "VACUUM INTO (unverified)": [
            ["sqlite3", "-cmd", ".timeout 60000", database, f"VACUUM INTO '{copy}'"]
        ],
        "restic (of the file)": [["restic", "init"], ["restic", "backup", database]],
        "borg (of the file)": [
            ["borg", "init", "-e", "none"],
            ["borg", "create", "::one", database],
        ],
    }


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    (folder / "scripts").mkdir()  # one that is set and missing ends a backup with exit code 2
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def time_of(name: str, database: Path, parent: Path, limit_seconds: float) -> float | None:
    """Return the seconds of one way, None when it was stopped or failed. Raise CalledProcessError
    when our own command fails: that is no measurement."""
    with scratch(parent) as folder:
        os.sync()
        started = time.monotonic()
        for command in make_ways(database, folder)[name]:
            try:
                run(command, environment_for(database, folder), limit_seconds)
            except subprocess.TimeoutExpired:
                return None
            except subprocess.CalledProcessError as error:
                if COMMAND in command:
                    error.add_note(error.stderr.decode())
                    raise
                return None
        if (folder / "copy").exists():
            fsync_file(folder / "copy")
        return time.monotonic() - started


def run(command: list[object], environment: dict[str, str], limit_seconds: float) -> None:
    """Run a command. Raise CalledProcessError, or TimeoutExpired after the limit."""
    words = [str(word) for word in command]
    subprocess.run(words, check=True, capture_output=True, env=environment, timeout=limit_seconds)


def measure(database: Path, parent: Path, repeats: int) -> list[tuple[str, str, str]]:
    """Return name, seconds and times cp of each way, the best of the repeats."""
    ways = make_ways(database, parent)
    names = [name for name, commands in ways.items() if shutil.which(str(commands[0][0]))]
    times: dict[str, list[float]] = {name: [] for name in names}
    limit_seconds = 600.0
    for round_number in range(repeats):
        for name in names:
            if round_number and not times[name]:
                continue
            seconds = time_of(name, database, parent, limit_seconds)
            times[name] += [] if seconds is None else [seconds]
            limit_seconds = max(20.0, LIMIT * times[names[0]][0])
    base = min(times[names[0]])
    return [
        (name, f"{min(found):.2f}", f"{min(found) / base:.1f}")
        if found
        else (name, "not finished", "")
        for name, found in times.items()
    ]


def measure_command(database: Path, parent: Path) -> None:
    """Print start-up and memory of the real command."""
    with scratch(parent) as folder:
        environment = environment_for(database, folder)
        started = time.monotonic()
        run([sys.executable, COMMAND, "--help"], environment, 60)
        print(f"start-up of backup_database.py: {time.monotonic() - started:.2f} s")
        process = subprocess.Popen(
            [sys.executable, str(COMMAND)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        kilobytes = usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)
        print(
            f"memory of backup_database.py: {kilobytes / 1000:.0f} MB at most, exit code "
            f"{process.returncode}"
        )


def set_journal(database: Path, mode: str) -> None:
    """Change the journal mode of a database."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")


def main() -> None:
    """Measure every size in both journal modes, idle and beside a writer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="45,1200", help="in MB, comma-separated")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to work"
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    missing = [program for program in ("sqlite3", "restic", "borg") if not shutil.which(program)]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    with scratch(options.folder) as parent:
        for size in map(int, options.sizes.split(",")):
            database = parent / "backtesting.db"
            remove_database(database)
            say(f"making a database of about {size} MB")
            make_database(database, size * 1_000_000)
            for journal in ("DELETE", "WAL"):
                set_journal(database, journal)
                for busy in (False, True):
                    writer = running_writer(database, pause_seconds=WRITER_PAUSE_SECONDS)
                    with writer if busy else nullcontext():
                        rows = measure(database, parent, options.repeats)
                    state = "a commit every 5 ms" if busy else "idle"
                    title = f"{database.stat().st_size / 1e6:.0f} MB, {journal}, {state}"
                    print_table(title, ("way", "seconds", "times cp"), rows)
            measure_command(database, parent)


if __name__ == "__main__":
    main()
