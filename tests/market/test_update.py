"""`make update`: what is new, late corrections, metrics, what the key's plan does not cover."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import connect
from backtestdb.market import metric_store
from backtestdb.market.universes import save_universe
from commands import Project
from contents import query_all, verify_metrics_equal
from market_runs import make_database, make_source, run_backfill, run_update
from sandbox_process import SandboxOptions, SandboxProcess

TODAY = "2026-11-20"
BEFORE = "2026-11-19"
START = "2026-10-01"
SANDBOX = SandboxOptions("--tickers", "150", today=TODAY)


@pytest.fixture(autouse=True)
def quiet(sandbox: SandboxProcess) -> None:
    sandbox.set_faults()
    sandbox.set_today(TODAY)
    sandbox.set_settings(history_years=0, free=False)
    sandbox.clear_log()


@pytest.fixture(scope="module")
def market(sandbox: SandboxProcess) -> list[str]:
    answer = sandbox.get("/v3/reference/tickers", market="stocks", type="CS", limit=1000).json()
    return sorted(row["ticker"] for row in answer["results"])


def count(sandbox: SandboxProcess, part: str) -> int:
    return len([entry for entry in sandbox.fetch_log() if part in entry["path"]])


def test_update_one_session_later_asks_for_it_and_three_corrections_and_splits(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path / "updated", everyone=market, few=["AAPL", "NA", "KIMpL"])
    source = make_source(tmp_path / "updated", sandbox.url, BEFORE)
    run_backfill(source, database, START, BEFORE, "everyone", "few")
    run_backfill(source, database, "2026-11-16", BEFORE, "few", timeframe="5min")
    sandbox.clear_log()
    source = make_source(tmp_path / "updated", sandbox.url, TODAY)
    done = run_update(source, database, TODAY)
    assert count(sandbox, "/grouped/") == 1 + 3
    assert count(sandbox, "/minute/") == 3
    assert count(sandbox, "/splits") == 1
    assert len(sandbox.fetch_log()) == 8
    assert not any(report.has_holes for _, _, report in done.reports)
    assert query_all(database, "SELECT count(*) FROM _sessions_asked WHERE metrics_due = 1") == [
        (0,)
    ]

    whole = make_database(tmp_path / "whole", everyone=market, few=["AAPL", "NA", "KIMpL"])
    run_backfill(
        make_source(tmp_path / "whole", sandbox.url, TODAY), whole, START, TODAY, "everyone", "few"
    )
    verify_metrics_equal(database, whole)

    # Tickers that traded the session before and have no bar of this one wait for a second answer of
    # another run.
    for most in (2, 0):
        sandbox.clear_log()
        run_update(make_source(tmp_path, sandbox.url, TODAY), database, TODAY)
        assert count(sandbox, "/aggs/") <= most


def test_update_takes_late_corrections_over_with_their_metrics(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path / "updated", everyone=market)
    run_backfill(
        make_source(tmp_path / "updated", sandbox.url, BEFORE), database, START, BEFORE, "everyone"
    )
    with closing(connect(database)) as connection:
        # From 2026-11-17 on.
        connection.execute(
            "UPDATE ohlcv_data SET close = close * 1.5, volume = volume + 7 "
            "WHERE timestamp >= 1794891600000"
        )
        connection.execute(
            "UPDATE daily_metrics SET rsi_14 = 1, close = 2 WHERE date >= '2026-11-17'"
        )
    run_update(make_source(tmp_path / "updated", sandbox.url, TODAY), database, TODAY)
    whole = make_database(tmp_path / "whole", everyone=market)
    run_backfill(
        make_source(tmp_path / "whole", sandbox.url, TODAY), whole, START, TODAY, "everyone"
    )
    verify_metrics_equal(database, whole)


def test_update_computes_from_a_window_what_the_whole_history_gives(
    tmp_path: Path, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirteen years of real prices; and a stock that stood still for years, where a window knows
    too little."""
    few = ["AAPL", "MSFT", "IBM"]
    sandbox.set_today("2013-03-01")
    database = make_database(tmp_path, mine=few)
    source = make_source(tmp_path, sandbox.url, "2013-03-01")
    run_backfill(source, database, "2001-01-02", "2013-03-01", "mine")
    with closing(connect(database)) as connection:
        connection.execute("UPDATE ohlcv_data SET ticker = 'STILL' WHERE ticker = 'IBM'")
        connection.execute(
            "UPDATE ohlcv_data SET close = 100 WHERE ticker = 'STILL' AND timestamp > 1199163600000"
        )
        results = []
        for window in (metric_store.WINDOW_BARS, 10**6):
            monkeypatch.setattr(metric_store, "WINDOW_BARS", window)
            connection.execute("DELETE FROM daily_metrics")
            metric_store.save_metrics(
                connection, ["AAPL", "MSFT", "STILL"], source.calendar.sessions[0].date()
            )
            metric_store.save_metrics(connection, ["AAPL", "MSFT", "STILL"], make_day("2013-02-01"))
            results.append(
                connection.execute(
                    "SELECT * FROM daily_metrics WHERE date > '2013-02' ORDER BY 2, 3"
                ).fetchall()
            )
    assert len(results[0]) == 3 * 20
    for row, wanted in zip(*results, strict=True):
        for value, right in zip(row[1:-1], wanted[1:-1], strict=True):
            assert value == (
                pytest.approx(right, rel=1e-9, abs=1e-9) if isinstance(right, float) else right
            )


def make_day(text: str):
    from datetime import date

    return date.fromisoformat(text)


def test_update_brings_the_history_of_a_ticker_that_is_new(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=[ticker for ticker in market if ticker != "TRUE"])
    run_backfill(make_source(tmp_path, sandbox.url, BEFORE), database, START, BEFORE, "everyone")
    with closing(connect(database)) as connection:
        save_universe(connection, "everyone", market)
    sandbox.clear_log()
    (result,) = run_update(make_source(tmp_path, sandbox.url, TODAY), database, TODAY).reports
    assert count(sandbox, "/grouped/") == 4
    assert count(sandbox, "/ticker/TRUE/") == 1
    assert not result[2].has_holes
    assert query_all(
        database, "SELECT count(*) FROM daily_metrics WHERE ticker = 'TRUE' AND date >= ?", START
    ) == [(result[2].coverage.expected // len(market),)]


def test_update_command_tells_programs_what_is_there(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database = make_database(tmp_path, few=["AAPL", "IBM"])
    project = Project(tmp_path, sandbox.url)
    project.check("02_backfill_daily.py", "--universe", "few", "--start", START, "--end", BEFORE)
    plan = json.loads(project.run("update_database.py", "--end", TODAY, "--plan", "--json").stdout)
    assert plan["requests"] == 3
    done = project.run("update_database.py", "--end", TODAY, "--json")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["reports"]
    coverage = report["coverage"]
    assert coverage.pop("expected") == sum(coverage.values()) == 2 * 37
    columns = "universe, stored, end_date, state"
    assert query_all(database, f"SELECT {columns} FROM _coverage") == [
        ("few", 74, TODAY, "counted")
    ]


def test_update_of_a_database_without_bars_says_what_to_do(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    make_database(tmp_path, few=["AAPL"])
    output = Project(tmp_path, sandbox.url).check("update_database.py", expect=2)
    assert "make backfill-daily" in output


def test_update_of_a_database_by_older_programs_goes_on_where_its_bars_end(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database = make_database(tmp_path, few=["AAPL", "IBM"])
    run_backfill(make_source(tmp_path, sandbox.url, BEFORE), database, START, BEFORE, "few")
    with closing(connect(database)) as connection:
        for table in ("_ranges_asked", "_coverage"):
            connection.execute(f"DELETE FROM {table}")
    sandbox.clear_log()
    run_update(make_source(tmp_path, sandbox.url, TODAY), database, TODAY)
    assert count(sandbox, "/aggs/") == 2
    assert query_all(database, "SELECT count(*) FROM daily_metrics WHERE date = ?", TODAY) == [(2,)]


def test_free_plan_gives_what_it_has_and_explains_the_rest(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    """Two years back to 2024-11-20, and nothing of today."""
    sandbox.set_settings(history_years=2, free=True)
    database = make_database(tmp_path, everyone=market, few=["AAPL", "IBM"])
    source = make_source(tmp_path, sandbox.url, TODAY)
    (few,) = run_backfill(source, database, "2024-06-03", TODAY, "few")
    assert str(few.history_starts) == "2024-11-20"
    assert str(few.refused_session) == TODAY
    assert few.coverage.failed == 0
    assert few.coverage.beyond_plan == 2 * (119 + 1)
    assert count(sandbox, "/aggs/") <= 2 + 4
    (everyone,) = run_backfill(source, database, "2024-11-13", "2024-12-31", "everyone")
    assert everyone.coverage.failed == 0
    assert everyone.coverage.beyond_plan == (len(market) - 2) * 5 + 2 * 5
    assert everyone.coverage.known_empty < len(market) * 3

    sandbox.clear_log()
    for name, start, end in (
        ("few", "2024-06-03", TODAY),
        ("everyone", "2024-11-13", "2024-12-31"),
    ):
        run_backfill(source, database, start, end, name)
    assert count(sandbox, "/aggs/") == 0

    sandbox.set_settings(history_years=0, free=False)
    later = make_source(tmp_path, sandbox.url, "2026-11-21")
    (better,) = run_backfill(later, database, "2024-06-03", TODAY, "few")
    assert better.history_starts is better.refused_session is None
    assert better.coverage.stored == better.coverage.expected


def test_free_plan_met_by_session_stops_at_its_wall(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    sandbox.set_settings(history_years=2, free=True)
    database = make_database(tmp_path, everyone=market)
    source = make_source(tmp_path, sandbox.url, TODAY, concurrency=2)
    (report,) = run_backfill(source, database, "2024-09-03", "2024-12-13", "everyone")
    assert str(report.history_starts) == "2024-11-20"
    assert report.coverage.failed == 0
    assert count(sandbox, "/grouped/") <= 17 + 1 + 2 * 2


def test_young_ticker_is_not_taken_for_the_end_of_the_plan(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database = make_database(tmp_path, young=["NEWCO"])
    source = make_source(tmp_path, sandbox.url, TODAY)
    for requests in (2, 0):
        sandbox.clear_log()
        (report,) = run_backfill(source, database, "2026-03-02", TODAY, "young")
        assert report.history_starts is None
        assert report.coverage.known_empty > 70
        assert len(sandbox.fetch_log()) == requests
