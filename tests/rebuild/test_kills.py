"""kill -9 at seeded moments of a rebuild: the old database whole after each, the end the same as
without."""

import random
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from commands import Project
from contents import digest_market, find_damage, read_tables
from platform_database import KEPT_TABLES, make_used_database
from sandbox_process import SandboxOptions, SandboxProcess

END = "2013-03-01"
TICKERS = "AAPL,MSFT,IBM,GOOG,ORCL,INTC"
CONCURRENCY = 4
QUICK_SEEDS = range(3)
LONG_SEEDS = range(3, 53)


SANDBOX = SandboxOptions("--latency-ms", "40", today="2013-03-02")


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxProcess
) -> tuple[Project, dict[str, str], float, int]:
    """A rebuild that nobody kills: project, content, seconds, requests."""
    project = Project(
        tmp_path_factory.mktemp("undisturbed"), sandbox.url, settings={"WATCHLIST_TICKERS": TICKERS}
    )
    sandbox.clear_log()
    started = time.monotonic()
    project.check("restore_database.py", "--end", END)
    seconds = time.monotonic() - started
    return project, digest_market(project.database), seconds, len(sandbox.fetch_log())


@pytest.mark.parametrize(
    "seed", [*QUICK_SEEDS, *[pytest.param(seed, marks=pytest.mark.long) for seed in LONG_SEEDS]]
)
def test_rebuild_killed_at_a_random_moment_continues_to_the_same_end(
    tmp_path: Path,
    sandbox: SandboxProcess,
    undisturbed: tuple[Project, dict[str, str], float, int],
    seed: int,
) -> None:
    _, reference, seconds, requests = undisturbed
    dice = random.Random(seed)
    project = Project(tmp_path, sandbox.url, settings={"WATCHLIST_TICKERS": TICKERS})
    make_used_database(project.database, journal=dice.choice(["WAL", "DELETE"]), rows=30)
    kept = read_tables(project.database, KEPT_TABLES)
    old = digest_market(project.database)
    sandbox.clear_log()

    process = project.start("restore_database.py", "--end", END, "--yes")
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=dice.uniform(0.2, seconds + 0.3))
    process.kill()
    process.communicate()

    # What another program finds now: looked at in a copy, because looking may play back a journal.
    seen = tmp_path / "seen"
    seen.mkdir()
    for path in project.folder.glob("backtesting.db*"):
        if not path.name.startswith(("backtesting.db.rebuilding", "backtesting.db.backup")):
            shutil.copy(path, seen)
    assert find_damage(seen / "backtesting.db") == "ok"
    assert digest_market(seen / "backtesting.db") in (old, reference)
    assert read_tables(seen / "backtesting.db", KEPT_TABLES) == kept

    was_finished = digest_market(seen / "backtesting.db") == reference
    project.check("restore_database.py", "--end", END, "--yes")
    assert digest_market(project.database) == reference
    assert read_tables(project.database, KEPT_TABLES) == kept
    asked = len(sandbox.fetch_log())
    assert asked <= requests * (2 if was_finished else 1) + 2 * CONCURRENCY
    left = {
        path.name
        for path in project.folder.iterdir()
        if "rebuilding" in path.name or "arriving" in path.name
    }
    assert left <= {"backtesting.db.rebuilding.lock"}
