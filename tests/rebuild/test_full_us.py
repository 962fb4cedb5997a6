"""restore_database.py --full-us-stocks: the vendor's list, five years, killed and continued."""

import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from commands import Project
from contents import digest_market, find_damage, query_all
from sandbox_process import SandboxOptions, SandboxProcess

END = "2026-11-20"
ARGUMENTS = ("restore_database.py", "--full-us-stocks", "--end", END, "--yes")
CONCURRENCY = 4


SANDBOX = SandboxOptions("--tickers", "90", today="2026-11-21")


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxProcess
) -> tuple[Project, str, float, list[str]]:
    """An undisturbed rebuild: project, what it said, seconds, paths of its requests."""
    project = Project(tmp_path_factory.mktemp("whole"), sandbox.url)
    sandbox.clear_log()
    started = time.monotonic()
    output = project.check(*ARGUMENTS)
    return (
        project,
        output,
        time.monotonic() - started,
        [entry["path"] for entry in sandbox.fetch_log()],
    )


def test_restore_of_us_stocks_brings_the_listed_and_the_delisted(
    whole: tuple[Project, str, float, list[str]],
) -> None:
    project, output, _, paths = whole
    assert "as the vendor lists them" in output
    assert len([path for path in paths if "/reference/" in path]) == 6
    members = dict(
        query_all(project.database, "SELECT is_active, count(*) FROM universe_stocks GROUP BY 1")
    )
    assert members[1] > 70
    assert members[0] >= 2  # ANSS and PARA, delisted in 2025
    # One more than there are tickers: the look at the oldest session before the question.
    assert len([path for path in paths if "/aggs/" in path]) == sum(members.values()) + 1
    bars = query_all(project.database, "SELECT count(*) FROM ohlcv_data WHERE ticker = 'ANSS'")
    assert bars[0][0] > 900
    assert find_damage(project.database) == "ok"
    assert query_all(project.database, "PRAGMA journal_mode") == [("delete",)]
    assert "META: no bar between 2022-01-28 and 2022-06-09" in output


@pytest.mark.parametrize(
    "seed", [0, *[pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 10)]]
)
def test_restore_of_us_stocks_killed_at_a_random_moment_continues_to_the_same_end(
    tmp_path: Path, sandbox: SandboxProcess, whole: tuple[Project, str, float, list[str]], seed: int
) -> None:
    undisturbed, _, seconds, paths = whole
    project = Project(tmp_path, sandbox.url)
    sandbox.clear_log()
    process = project.start(*ARGUMENTS)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=random.Random(seed).uniform(0.5, seconds))
    process.kill()
    process.communicate()
    was_finished = project.database.exists()
    if not was_finished:
        project.check(*ARGUMENTS)
        assert len(sandbox.fetch_log()) <= len(paths) + 2 * CONCURRENCY + 6
    assert digest_market(project.database) == digest_market(undisturbed.database)
