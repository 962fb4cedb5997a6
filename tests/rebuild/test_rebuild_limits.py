"""A rebuild whose plan does not reach back, and the forecast of requests: what is said before, and
what was sent."""

import json
from pathlib import Path

import pytest

from commands import Project
from contents import query_all
from sandbox_process import SandboxOptions, SandboxProcess

END, NEXT = "2026-11-19", "2026-11-20"
TICKERS = ["AAPL", "IBM", "MSFT"]
SANDBOX = SandboxOptions("--tickers", "200", today=END)


@pytest.fixture
def sandbox(sandbox: SandboxProcess) -> SandboxProcess:
    sandbox.reset(END)
    sandbox.clear_log()
    return sandbox


@pytest.fixture
def project(tmp_path: Path, sandbox: SandboxProcess) -> Project:
    (tmp_path / "list.txt").write_text("\n".join(TICKERS))
    return Project(tmp_path, sandbox.url)


def rebuild(project: Project, *arguments: str, expect: int = 0) -> str:
    file = str(project.folder / "list.txt")
    return project.check(
        "restore_database.py",
        "--russell2000",
        file,
        "--end",
        END,
        "--yes",
        *arguments,
        expect=expect,
    )


def count_bars(project: Project) -> int:
    (row,) = query_all(project.database, "SELECT count(*) FROM ohlcv_data")
    return int(row[0])


def test_plan_that_reaches_back_costs_one_request_before_the_question(
    project: Project, sandbox: SandboxProcess
) -> None:
    assert "your plan begins" not in rebuild(project)
    asked = [entry["path"] for entry in sandbox.fetch_log() if "/aggs/" in entry["path"]]
    assert asked[0].startswith("/v2/aggs/ticker/AAPL/range/1/day/2021-11-22/2021-11-22")
    assert len(asked) <= 1 + len(TICKERS) + 1


def test_free_plan_is_told_before_the_question_and_planned_for(
    project: Project, sandbox: SandboxProcess
) -> None:
    """Before: the plan said 4 h 19 min, and three years were missing at the end."""
    sandbox.set_settings(history_years=2)
    output = rebuild(project, expect=3)
    said = next(line for line in output.splitlines() if "your plan begins" in line)
    assert "your plan begins 2024-11-19: 502 of 1,254 sessions, 6 requests" in said
    log = sandbox.fetch_log()
    # Before the question: the oldest session, a range that the plan cuts, the session before it.
    assert [entry["status"] for entry in log[:3]] == [403, 200, 403]
    # The six: how the vendor spells the tickers of the file (the newest session of the whole
    # market), each ticker, and the list of splits before the bars and behind them.
    asked = [entry["path"].split("?")[0] for entry in log[3:]]
    assert asked[0] == asked[-1] == "/stocks/v1/splits"
    assert asked[1] == f"/v2/aggs/grouped/locale/us/market/stocks/{END}"
    assert sorted(asked[2:-1]) == [
        f"/v2/aggs/ticker/{ticker}/range/1/day/2024-11-19/{END}" for ticker in TICKERS
    ]
    assert output.index("your plan begins") < output.index("russell2000: daily bars")
    status = " ".join(project.run("show_status.py").stdout.split())
    assert (
        "russell2000 1day: 1,254 sessions, 3,762 sessions of tickers: 1,506 stored, 2,256 beyond "
        "the plan" in status
    )


def test_rebuild_with_far_fewer_bars_stops_before_it_replaces(
    project: Project, sandbox: SandboxProcess
) -> None:
    """Before: 438,671 bars were replaced by 11,800, exit 0. `--yes` does not answer this."""
    rebuild(project)
    before = count_bars(project)
    sandbox.set_settings(history_years=2)
    output = rebuild(project, expect=1)
    assert "the old file has" in output
    assert "--accept-fewer" in output
    assert count_bars(project) == before
    rebuild(project, "--accept-fewer", expect=3)
    assert count_bars(project) < 0.6 * before


@pytest.mark.parametrize("case", ["first", "wall", "update", "again", "many"])
def test_forecast_of_requests_is_what_is_sent(
    project: Project, sandbox: SandboxProcess, case: str
) -> None:
    """Within 5 % and one request: that one tells whether a limit still holds."""
    tickers = TICKERS if case != "many" else [f"Z{n}" for n in range(80)]
    project.check("restore_database.py", "--skip-backfill", "--yes")
    project.check("01_create_universe.py", "--universe", "some", "--tickers", ",".join(tickers))
    backfill = ("02_backfill_daily.py", "--universe", "some", "--start", "2024-01-02", "--end", END)
    command, codes = backfill, {0}
    if case == "many":
        command = (
            "02_backfill_daily.py",
            "--universe",
            "some",
            "--start",
            "2026-10-01",
            "--end",
            END,
        )
        codes = {0, 3}
    if case == "wall":
        sandbox.set_settings(history_years=2)
        project.run(
            "02_backfill_daily.py", "--universe", "some", "--start", "2024-10-01", "--end", END
        )
        codes = {3}
    if case in {"update", "again"}:
        project.check(*backfill)
        sandbox.reset(NEXT)
        command = ("update_database.py", "--end", NEXT)
    if case == "again":
        command = ("update_database.py", "--again", "--tickers", "IBM,AAPL")
    plan = json.loads(project.check(*command, "--plan", "--json"))
    sandbox.clear_log()
    assert project.run(*command).returncode in codes
    sent = [
        entry
        for entry in sandbox.fetch_log()
        if entry["path"].startswith(("/v2", "/stocks", "/v3"))
    ]
    assert abs(len(sent) - plan["requests"]) <= 1 + 0.05 * plan["requests"]
