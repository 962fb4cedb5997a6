#!/usr/bin/env python3
"""The whole life of a database in a folder of its own, against a sandbox of the vendor's API on
this machine.

Every step is the real command in a process of its own. No key is needed, nothing of yours is
touched.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from backtestdb.arguments import Parser
from backtestdb.config import PROJECT_DIR
from backtestdb.console import format_duration, run
from backtestdb.database import connect, transaction
from backtestdb.errors import ProjectError, UsageError

SCRIPTS = PROJECT_DIR / "scripts"
# The public-domain prices of the sandbox end here: AAPL, MSFT, IBM and GOOG are real, the rest is
# made up.
END = "2013-03-01"
KEY = "demonstration-key"
# In a folder that an earlier demonstration made: such a folder, and no other, is emptied.
MARKER = ".made-by-demo"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "--folder", type=Path, default=PROJECT_DIR / "demo", help="where it happens (demo/)"
    )
    folder = parser.parse_args(arguments).folder.resolve()
    started = time.monotonic()
    empty_folder(folder)
    announce(
        "DEMONSTRATION: prices of 2012/13, most of them made up. Not for trading, not for learning."
    )

    with running_sandbox() as url:
        environment = make_environment(folder, url)
        live_through(folder, environment)

    announce(
        f"demonstration done in {format_duration(time.monotonic() - started)}: look into {folder}"
    )
    return 0


def empty_folder(folder: Path) -> None:
    """Given the folder of the demonstration, leave it there and empty but for its marker. Raise
    UsageError, with nothing removed, for a folder with files in it that no demonstration made."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", next_step="name a folder that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise UsageError(
                f"{folder} holds files that no demonstration made: nothing was removed",
                next_step="name a folder that does not exist yet, or an empty one",
            )
        shutil.rmtree(folder)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def live_through(folder: Path, environment: dict[str, str]) -> None:
    """Rebuild, use, back up, lose, restore, and see that nothing is missing."""
    database = folder / "backtesting.db"
    step("rebuild from scratch", environment, "restore_database.py", "--end", END)
    announce("the platform works: an agent learns, and leaves a script")
    use_like_the_platform(database, folder / "claude-generated-scripts")
    before = read_agents(database)
    step("back up", environment, "backup_database.py")
    announce("disaster: the database is overwritten, the scripts are deleted")
    damage(database)
    shutil.rmtree(folder / "claude-generated-scripts")
    step("restore the backup", environment, "restore_database.py", "--from-backup", "--yes")
    step("check every backup", environment, "backup_database.py", "--verify")

    if (
        read_agents(database) != before
        or not (folder / "claude-generated-scripts" / "scan.py").is_file()
    ):
        raise ProjectError("the restored database is not what was backed up")

    announce("the agent, what it learned and its script are back")


def use_like_the_platform(database: Path, scripts: Path) -> None:
    """Write rows and scripts as the platform does."""
    with closing(connect(database)) as connection, transaction(connection):
        connection.execute(
            "INSERT INTO trading_agents (id, name, timeframe) "
            "VALUES ('agent-1', 'Demonstration', '5min')"
        )
        connection.execute(
            "INSERT INTO agent_knowledge (id, agent_id, knowledge_type, insight, created_at)"
            " VALUES ('k-1', 'agent-1', 'PATTERN', 'gaps close more often than not', '2013-03-01')"
        )

    scripts.mkdir()
    (scripts / "scan.py").write_text("print('a script that an agent wrote')\n")


def read_agents(database: Path) -> list[tuple[object, ...]]:
    with closing(connect(database)) as connection:
        return connection.execute(
            "SELECT * FROM trading_agents JOIN agent_knowledge ON agent_id = trading_agents.id"
        ).fetchall()


def damage(database: Path) -> None:
    database.write_bytes(b"\xff" * database.stat().st_size)


def make_environment(folder: Path, url: str) -> dict[str, str]:
    """Return the demonstration's own settings: nothing of the user's .env takes part."""
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
    command = [
        sys.executable,
        str(SCRIPTS / "run_sandbox.py"),
        "--today",
        "2013-03-02",
        "--key",
        KEY,
    ]
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
