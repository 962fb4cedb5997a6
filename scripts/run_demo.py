#!/usr/bin/env python3
"""The whole life of a database in a folder of its own, against a sandbox of the vendor's API on this machine.

Every step is the real command in a process of its own. No key is needed, nothing of yours is touched.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from backtestdb.config import PROJECT_DIR
from backtestdb.console import format_duration, run
from backtestdb.errors import ProjectError

SCRIPTS = PROJECT_DIR / "scripts"
# The public-domain prices of the sandbox end here: AAPL, MSFT, IBM and GOOG are real, the rest is made up.
END = "2013-03-01"
KEY = "demonstration-key"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=PROJECT_DIR / "demo", help="where it happens (demo/)")
    folder = parser.parse_args(arguments).folder.resolve()
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    announce("DEMONSTRATION: prices of 2012/13, most of them made up. Not for trading, not for learning.")
    with running_sandbox() as url:
        environment = make_environment(folder, url)
        step("rebuild from scratch", environment, "restore_database.py", "--end", END)
    announce(f"demonstration done in {format_duration(time.monotonic() - started)}: look into {folder}")
    return 0


def make_environment(folder: Path, url: str) -> dict[str, str]:
    """The demonstration's own settings: nothing of the user's .env takes part."""
    return {
        **os.environ,
        "BACKTEST_ENV_FILE": os.devnull,
        "XDG_STATE_HOME": str(folder / "state"),
        "DATABASE_PATH": str(folder / "backtesting.db"),
        "BACKUP_DIR": str(folder / "backups"),
        "GENERATED_SCRIPTS_DIR": str(folder / "claude-generated-scripts"),
        "HEARTBEAT_URL": "",
        "POLYGON_BASE_URL": url,
        "POLYGON_API_KEY": KEY,
        "POLYGON_REQUESTS_PER_MINUTE": "0",
        "WATCHLIST_TICKERS": "",
    }


@contextmanager
def running_sandbox() -> Iterator[str]:
    """Start the vendor's stand-in on a free port of 127.0.0.1; yield its address."""
    command = [sys.executable, str(SCRIPTS / "run_sandbox.py"), "--today", "2013-03-02", "--key", KEY]
    process = subprocess.Popen([*command, "--exit-with-stdin"], stdin=-1, stdout=-1, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "http://" not in line:
            raise ProjectError(
                "the sandbox did not start", next_step="run scripts/run_sandbox.py and see why"
            )
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait()


def step(title: str, environment: dict[str, str], script: str, *arguments: str) -> None:
    """Run one real command; end the demonstration when it fails."""
    announce(f"{title}: python scripts/{script} {' '.join(arguments)}")
    code = subprocess.call([sys.executable, str(SCRIPTS / script), *arguments], env=environment)
    if code:
        raise ProjectError(f"the step {title!r} ended with exit code {code}")


def announce(text: str) -> None:
    print(f"\n── {text}", flush=True)


if __name__ == "__main__":
    run(main)
