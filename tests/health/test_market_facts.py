"""What `make status` sees in the market data, and that the commands it names put it right."""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from backtestdb.health.market_facts import choose_sample, make_newest_metrics
from backtestdb.market.metrics import COMPUTED_METRICS, make_metrics
from backtestdb.sandbox.source import REAL_TICKERS, load_real_prices
from commands import Project
from contents import query_all
from market_runs import make_database, make_source, run_backfill
from sandbox_process import SandboxOptions, SandboxProcess
from walking_bars import make_bars, make_walk

METRICS = f"SELECT ticker, date, {', '.join(COMPUTED_METRICS)} FROM daily_metrics ORDER BY 1, 2"


@pytest.mark.parametrize("sessions", [1, 2, 5, 6, 13, 14, 20, 21, 50, 199, 200, 500])
def test_newest_metrics_equal_those_that_are_stored(sessions: int) -> None:
    walk = make_walk(sessions, sessions)
    expected = make_metrics(walk).iloc[-1]
    found = make_newest_metrics(walk.to_dict("records"))
    assert set(COMPUTED_METRICS) <= set(found)
    for name, value in found.items():
        assert (value is None and np.isnan(expected[name])) or value == pytest.approx(
            expected[name]
        ), name


@pytest.mark.parametrize("ticker", REAL_TICKERS)
def test_newest_metrics_of_a_window_of_real_prices_agree_with_the_whole_history(
    ticker: str,
) -> None:
    bars = make_bars(ticker, load_real_prices()[ticker].columns)
    expected = make_metrics(bars).iloc[-1]
    found = make_newest_metrics(bars.tail(500).to_dict("records"))
    for name, value in found.items():
        assert (
            np.isnan(expected[name])
            if value is None
            else value == pytest.approx(expected[name], rel=1e-9)
        )


def test_every_ticker_has_its_turn_in_the_sample() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE universe_stocks (ticker TEXT, is_active INTEGER)")
        connection.executemany(
            "INSERT INTO universe_stocks VALUES (?, 1)",
            [(f"T{number:04}",) for number in range(430)],
        )
        samples = [choose_sample(connection, turn) for turn in range(21)]
    assert all(len(sample) == 20 for sample in samples)
    assert len({ticker for sample in samples for ticker in sample}) >= 420


SANDBOX = SandboxOptions("--tickers", "20", today="2026-11-21")


@pytest.fixture
def project(tmp_path: Path, sandbox: SandboxProcess) -> Project:
    database = make_database(tmp_path, mine=["AAPL", "META"])
    source = make_source(tmp_path, sandbox.url, "2026-11-21")
    run_backfill(source, database, "2026-10-01", "2026-11-20", "mine")
    run_backfill(source, database, "2026-11-19", "2026-11-20", "mine", timeframe="5min")
    return Project(tmp_path, sandbox.url, key="")


def find_problems(project: Project) -> dict[str, dict[str, str]]:
    values = json.loads(project.run("show_status.py", "--json").stdout)
    return {problem["name"]: problem for problem in values["problems"]}


def change(project: Project, statement: str) -> None:
    with closing(sqlite3.connect(project.database)) as connection:
        assert connection.execute(statement).rowcount > 0
        connection.commit()


def run_next_steps(project: Project, problem: dict[str, str]) -> None:
    """The commands of a problem's next step, one after the other."""
    for step in problem["next_step"].split(", then "):
        subprocess.run(
            ["make", "--no-print-directory", *step.split()[1:]],
            cwd=Path(__file__).parents[2],
            env=project.environment(),
            check=True,
            capture_output=True,
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE daily_metrics SET rsi_14 = 50 WHERE date = '2026-11-20' AND ticker = 'META'",
        "UPDATE daily_metrics SET sma_200 = NULL WHERE date = '2026-11-20'",
        "UPDATE ohlcv_data SET close = close + 0.01 "
        "WHERE timeframe = '1day' AND timestamp = 1795150800000",
        "DELETE FROM ohlcv_data WHERE timeframe = '1day' AND timestamp = 1795150800000",
    ],
)
def test_metrics_that_another_program_overwrote_are_told_and_put_right(
    project: Project, statement: str
) -> None:
    assert not find_problems(project).keys() & {"metrics_differ", "older_times", "splits_due"}
    before = query_all(project.database, METRICS)
    change(project, statement)
    problem = find_problems(project)["metrics_differ"]
    assert "2026-11-20: " in problem["what"]
    run_next_steps(project, problem)
    assert "metrics_differ" not in find_problems(project)
    if "daily_metrics" in statement:
        after = query_all(project.database, METRICS)
        assert len(after) == len(before)
        for row, expected in zip(after, before, strict=True):
            assert row == tuple(
                pytest.approx(x, rel=1e-9) if isinstance(x, float) else x for x in expected
            )


def test_database_of_older_scripts_is_told_with_the_two_commands_that_adopt_it(
    project: Project,
) -> None:
    change(
        project,
        "UPDATE ohlcv_data SET time_of_day = substr(time_of_day, 1, 5) WHERE timeframe = '5min'",
    )
    change(project, "UPDATE daily_metrics SET rsi_14 = 50, sma_200 = close")
    problem = find_problems(project)["older_times"]
    assert (
        problem["next_step"]
        == "make fix-time-of-day, then make backfill-daily ARGS=--metrics-again"
    )
    run_next_steps(project, problem)
    assert not find_problems(project).keys() & {"metrics_differ", "older_times"}


def test_tickers_due_after_splits_are_told(project: Project) -> None:
    change(
        project,
        "INSERT INTO _splits_due VALUES ('AAPL', 'AAPL 2:1 on 2026-11-05 is listed', '2026-11-21')",
    )
    problem = find_problems(project)["splits_due"]
    assert problem["what"].endswith("AAPL: AAPL 2:1 on 2026-11-05 is listed")
    assert problem["next_step"] == "make update"
