"""What `make audit` advises for stored market data is carried out, and the finding is gone."""

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import connect, transaction
from commands import COMMANDS, Project
from contents import query_all
from market_runs import make_database, make_source, run_backfill
from market_setup import sessions_of
from planted_defects import PLANTS, Place
from sandbox_process import SandboxProcess, running_sandbox

START, END = "2026-08-03", "2026-11-19"
MINUTES_START = "2026-11-12"
# Each in a ticker of its own, so that the commands do not mend each other's findings.
DEFECTS = {
    "metrics-values": "ADBE",
    "spike": "AMD",
    "stale-run": "AVGO",
    "gap-in-life": "CRM",
    "day-volume": "CSCO",
    "cut-session": "INTC",
}
BARS = (
    "SELECT ticker, timeframe, timestamp, open, high, low, close, volume FROM ohlcv_data "
    "ORDER BY 1, 2, 3"
)


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with running_sandbox("--tickers", "70", today=END) as running:
        yield running


@pytest.mark.parametrize(
    "rules", [["cut-session"], pytest.param(list(DEFECTS), marks=pytest.mark.long)]
)
def test_advised_again_commands_bring_what_the_vendor_has_and_the_findings_are_gone(
    tmp_path: Path, sandbox: SandboxProcess, rules: list[str]
) -> None:
    project = Project(tmp_path, sandbox.url)
    database = make_database(tmp_path, mine=list(DEFECTS.values()))
    source = make_source(tmp_path, sandbox.url, END)
    run_backfill(source, database, START, END, "mine")
    run_backfill(source, database, MINUTES_START, END, "mine", timeframe="5min")
    before = query_all(database, BARS)
    assert "nothing found" in project.check("audit_database.py")

    minutes = len(sessions_of(MINUTES_START, END))
    with closing(connect(database)) as connection, transaction(connection):
        for rule in rules:
            PLANTS[rule].put(Place(connection, DEFECTS[rule], sessions_of(START, END), minutes))
    printed = project.run("audit_database.py").stdout  # exit 0 where all are warnings
    advised = re.findall(r"^\s*next \([a-z-]+\): (make .+)$", printed, re.MULTILINE)
    assert all(rule in printed for rule in rules)
    assert advised
    for command in dict.fromkeys(advised):
        _, target, arguments = shlex.split(command)
        (script,) = re.findall(r"\w+\.py", COMMANDS[target][0])
        project.check(script, *shlex.split(arguments.removeprefix("ARGS=")))

    assert "nothing found" in project.check("audit_database.py")
    assert query_all(database, BARS) == before
