#!/usr/bin/env python3
"""How long the slowest commit of another program takes beside a backup, in every journal mode.

`python benchmarks/bench_writers.py [--mb 1000] [--modes DELETE,WAL] [--memory 500] [--folder DIR]`
makes a database of that size, lets a writer commit every 20 ms for as long alone as beside
`make backup`, and prints both. What a backup adds is the difference: on a busy machine a commit is
slow alone, too. `--memory MB` does the same in a container (python:3.11-slim) of so much memory,
page cache included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "scripts"), str(PROJECT / "tests" / "support")]

from backtestdb.files import fsync_file, remove_database, remove_tree  # noqa: E402
from backup_tools import BYTES_PER_BAR, make_platform_database  # noqa: E402
from writers import running_writer  # noqa: E402

COMMAND = PROJECT / "scripts" / "backup_database.py"
MODES = ("DELETE", "TRUNCATE", "PERSIST", "WAL")
PAUSE_SECONDS = 0.02
SHORTEST_SECONDS = 5.0


def run_backup(database: Path, folder: Path) -> float:
    """Make a backup in a process of its own; return the seconds."""
    environment = os.environ | {
        "DATABASE_PATH": str(database),
        "BACKUP_DIR": str(folder / "backups"),
        "BACKTEST_ENV_FILE": str(folder / "none.env"),
        "HEARTBEAT_URL": "",
    }
    environment.pop("GENERATED_SCRIPTS_DIR", None)
    started = time.monotonic()
    # The folder of the run before was removed, its mark with it.
    command = [sys.executable, str(COMMAND), "--new-folder"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - started


def measure_slowest(database: Path, journal: str, folder: Path | None, seconds: float) -> float:
    """Let a writer commit while a backup into `folder` runs, or for so many seconds alone; return
    the slowest commit in milliseconds."""
    with running_writer(database, pause_seconds=PAUSE_SECONDS, journal=journal) as writer:
        if folder:
            run_backup(database, folder)
        else:
            time.sleep(seconds)
        writer.terminate()
        assert writer.stdout
        return float(writer.stdout.read().split()[1])


def measure_mode(journal: str, megabytes: int, folder: Path) -> str:
    """Return a row of the table for one journal mode."""
    database = folder / "live.db"
    kept = "WAL" if journal == "WAL" else "DELETE"
    make_platform_database(database, bars=megabytes * 1_000_000 // BYTES_PER_BAR, journal=kept)
    fsync_file(database)
    seconds = run_backup(database, folder)
    remove_tree(folder / "backups")

    alone = measure_slowest(database, journal, None, max(seconds, SHORTEST_SECONDS))
    beside = measure_slowest(database, journal, folder, seconds)
    size = database.stat().st_size // 1_000_000
    remove_tree(folder / "backups")
    remove_database(database)
    load = os.getloadavg()[0]
    return (
        f"| {journal} | {size} MB | {seconds:.1f} s | {alone:.0f} ms | {beside:.0f} ms | "
        f"{max(beside - alone, 0):.0f} ms | {load:.1f} |"
    )


def run_in_container(memory: int, folder: Path, options: list[str]) -> int:
    """Run this very script with so many megabytes of memory; return its exit code."""
    packages = next((PROJECT / ".venv" / "lib").glob("python3.*")) / "site-packages"
    limits = ["--memory", f"{memory}m", "--memory-swap", f"{memory}m", "--network", "none"]
    mounts = ["--volume", f"{PROJECT}:{PROJECT}:ro", "--volume", f"{folder}:{folder}"]
    python = ["--env", f"PYTHONPATH={packages}", "--env", "PYTHONDONTWRITEBYTECODE=1"]
    image = f"python:{packages.parent.name.removeprefix('python')}-slim"
    inside = ["python", str(Path(__file__).resolve()), "--folder", str(folder), *options]
    command = ["docker", "run", "--rm", *limits, *mounts, *python, image, *inside]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Print a row of the table for each journal mode; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--mb", type=int, default=1000, help="size of the database")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--memory", type=int, help="in a container of so many MB")
    parser.add_argument("--folder", type=Path, help="where; a temporary one by default")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=given.folder, prefix="writers-") as name:
        if given.memory:
            options = ["--mb", str(given.mb), "--modes", given.modes]
            return run_in_container(given.memory, Path(name), options)
        print(
            "| journal | database | a backup alone | slowest commit alone | beside | added | load |"
        )
        print("|---|---|---|---|---|---|---|")
        for journal in given.modes.split(","):
            print(measure_mode(journal, given.mb, Path(name)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
