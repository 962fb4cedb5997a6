"""Grouped backfills against the sandbox: few requests, the same bars, nothing lost, nothing asked twice."""

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from backtestdb.errors import BusyError
from backtestdb.market.first_fill import staging_path
from backtestdb.market.universes import update_us_stocks
from contents import digest_market, find_damage, query_all
from market_runs import DIRECTLY, KEY, database_of, make_database, make_source, run_backfill
from sandbox_process import SandboxProcess, running_sandbox

NOW = "2026-11-21"
START, END = "2026-11-02", "2026-11-20"  # 15 sessions
SESSIONS = 15
INDEXES = 12
TRAPS = ["NA", "TRUE", "BRK.B", "KIMpL"]
RUNNER = Path(__file__).with_name("market_runs.py")
BARS = "SELECT ticker, timestamp, open, high, low, close, volume, day_of_week FROM ohlcv_data"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with running_sandbox("--tickers", "150", today=NOW) as running:
        yield running


@pytest.fixture(scope="module")
def market(sandbox: SandboxProcess) -> list[str]:
    """Every stock that is listed or was within the time of these tests."""
    found = []
    for active in ("true", "false"):
        answer = sandbox.get("/v3/reference/tickers", market="stocks", active=active, limit=1000).json()
        found += [row["ticker"] for row in answer["results"] if row["type"] != "ETF"]
    return sorted(set(found))


@pytest.fixture(autouse=True)
def quiet(sandbox: SandboxProcess) -> None:
    sandbox.set_faults()
    sandbox.set_settings(history_years=0, free=False, junk=False, latency_seconds=0)
    sandbox.clear_log()


def paths(sandbox: SandboxProcess) -> list[str]:
    return [entry["path"] for entry in sandbox.fetch_log()]


def test_market_asked_by_session_holds_what_each_ticker_has_when_asked_alone(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    together = make_database(tmp_path / "together", everyone=market)
    source = make_source(tmp_path / "together", sandbox.url, NOW)
    (report,) = run_backfill(source, together, START, END, "everyone")
    assert len(paths(sandbox)) == SESSIONS
    assert all("/grouped/" in path for path in paths(sandbox))
    some = [*TRAPS, "AAPL", "IBM"]
    alone = make_database(tmp_path / "alone", few=some)
    run_backfill(make_source(tmp_path / "alone", sandbox.url, NOW), alone, START, END, "few")
    marks = ", ".join("?" * len(some))
    query = f"{BARS} WHERE ticker IN ({marks}) AND timestamp >= 1793592000000 ORDER BY 1, 2"
    assert query_all(together, query, *some) == query_all(alone, query, *some)
    assert set(TRAPS) <= {
        ticker for (ticker,) in query_all(together, "SELECT DISTINCT ticker FROM ohlcv_data")
    }
    coverage = report.coverage
    assert coverage.expected == len(market) * SESSIONS
    assert coverage.stored == query_all(together, "SELECT count(*) FROM ohlcv_data")[0][0]
    assert coverage.stored + coverage.known_empty + coverage.set_aside == coverage.expected
    assert coverage.failed == coverage.beyond_plan == 0
    assert report.dropped > 0


def test_market_set_aside_first_ends_as_the_same_database(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    digests = []
    for name, staged_from_bars in (("directly", DIRECTLY), ("staged", 1)):
        database = make_database(tmp_path / name, everyone=market)
        source = make_source(tmp_path / name, sandbox.url, NOW)
        run_backfill(source, database, START, END, "everyone", staged_from_bars=staged_from_bars)
        assert not staging_path(database).exists()
        assert find_damage(database) == "ok"
        assert count_indexes(database) == INDEXES
        digests.append(digest_market(database))
    assert digests[0] == digests[1]


def count_indexes(database: Path) -> int:
    return int(
        query_all(
            database,
            "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name IN"
            " ('ohlcv_data', 'daily_metrics', 'universe_stocks', 'universe')",
        )[0][0]
    )


def test_market_asked_again_sends_no_request_whatever_the_universe(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market, some=market[:40], few=TRAPS)
    source = make_source(tmp_path, sandbox.url, NOW)
    run_backfill(source, database, START, END, "everyone")
    sandbox.clear_log()
    reports = run_backfill(source, database, START, END, "everyone", "some")
    reports += run_backfill(source, database, START, END, "few")
    assert paths(sandbox) == []
    assert [report.has_holes for report in reports] == [False] * 3


def test_universes_together_need_the_requests_of_the_largest(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, few=TRAPS, some=market[:40], everyone=market)
    source = make_source(tmp_path, sandbox.url, NOW)
    reports = run_backfill(source, database, START, END, "few", "some", "everyone")
    assert len(paths(sandbox)) == SESSIONS
    assert [report.coverage.expected for report in reports] == [
        count * SESSIONS for count in (len(TRAPS), 40, len(market))
    ]
    assert not any(report.has_holes for report in reports)


def test_universe_that_grew_asks_for_its_new_tickers_only(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    source = make_source(tmp_path, sandbox.url, NOW)
    database = make_database(tmp_path, everyone=[t for t in market if t not in TRAPS])
    run_backfill(source, database, START, END, "everyone")
    sandbox.clear_log()
    make_members(database, "everyone", market)
    (report,) = run_backfill(source, database, START, END, "everyone")
    assert sorted(path.split("/")[4] for path in paths(sandbox)) == sorted(TRAPS)
    assert not report.has_holes


def make_members(database: Path, name: str, tickers: list[str]) -> None:
    from backtestdb.database import connect
    from backtestdb.market.universes import save_universe

    with closing(connect(database)) as connection:
        save_universe(connection, name, tickers)


def test_every_ticker_of_the_answers_is_kept_on_demand(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market, more=[*market, "QAAA.WS"])
    source = make_source(tmp_path, sandbox.url, NOW)
    (report,) = run_backfill(source, database, START, END, "everyone", keep_every_ticker=True)
    assert report.dropped == 0
    assert query_all(database, "SELECT count(*) > 10 FROM ohlcv_data WHERE ticker LIKE '%.WS'") == [(1,)]
    sandbox.clear_log()
    run_backfill(source, database, START, END, "more")
    assert paths(sandbox) == []


def test_junk_in_the_market_is_set_aside_and_counted(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=[*market, "JUNK"])
    sandbox.set_settings(junk=True)
    (report,) = run_backfill(make_source(tmp_path, sandbox.url, NOW), database, START, END, "everyone")
    assert report.coverage.set_aside == SESSIONS
    assert query_all(database, "SELECT count(*) FROM ohlcv_data WHERE ticker = 'JUNK'") == [(0,)]
    assert sum(
        getattr(report.coverage, name)
        for name in ("stored", "known_empty", "set_aside", "beyond_plan", "failed")
    ) == (report.coverage.expected)


def test_session_that_the_vendor_does_not_have_yet_is_a_hole_and_asked_again(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market)
    source = make_source(tmp_path, sandbox.url, NOW)
    sandbox.set_faults({"match": "grouped.*2026-11-20", "kind": "missing_results"})
    (report,) = run_backfill(source, database, START, END, "everyone")
    assert report.coverage.failed == len(market)
    assert report.failures == {"session 2026-11-20": "the vendor has no bar of the session 2026-11-20 yet"}
    sandbox.set_faults()
    sandbox.clear_log()
    (report,) = run_backfill(source, database, START, END, "everyone")
    assert len(paths(sandbox)) == 1
    assert not report.has_holes


def test_ticker_that_changed_its_company_shows_in_the_report(tmp_path: Path, sandbox: SandboxProcess) -> None:
    database = make_database(tmp_path, few=["META", "AAPL"])
    source = make_source(tmp_path, sandbox.url, NOW)
    for _ in range(2):
        (report,) = run_backfill(source, database, "2021-07-01", "2023-01-31", "few")
        (gap,) = report.gaps
        assert gap.startswith("META changed its company: no bar between 2022-01-28 and 2022-06-09")


def test_ticker_whose_years_between_were_never_asked_for_changed_nothing(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database = make_database(tmp_path, few=["IBM"])
    source = make_source(tmp_path, sandbox.url, NOW)
    run_backfill(source, database, "2024-01-02", "2024-02-28", "few")
    (report,) = run_backfill(source, database, "2026-10-01", "2026-11-20", "few")
    assert report.gaps == []


def test_us_stocks_have_the_delisted_of_the_asked_years_as_inactive_members(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    from datetime import date

    from backtestdb.database import connect
    from backtestdb.market.universes import load_members, load_tickers

    database = make_database(tmp_path)
    client = make_source(tmp_path, sandbox.url, NOW).client
    with closing(connect(database)) as connection:
        change = update_us_stocks(connection, client, ["CS", "ADRC", "PFD"], date(2025, 7, 20))
        assert change.total == len(load_tickers(connection, "us-stocks"))
        gone = set(load_members(connection, "us-stocks")) - set(load_tickers(connection, "us-stocks"))
    assert "PARA" in gone  # delisted 2025-08-07
    assert "ANSS" not in gone  # delisted 2025-07-17
    assert set(TRAPS) <= set(load_tickers(sqlite3.connect(database), "us-stocks"))
    assert not query_all(database, "SELECT 1 FROM universe_stocks WHERE ticker LIKE 'X%'")
    assert len(paths(sandbox)) == 6


QUICK_SEEDS = range(3)
LONG_SEEDS = range(3, 53)
CONCURRENCY = 4


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxProcess, market: list[str]
) -> tuple[dict[str, str], float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    database = make_database(folder, everyone=market)
    sandbox.set_settings(latency_seconds=0.03)
    started = time.monotonic()
    start_runner(folder, sandbox.url, 1).wait()
    seconds = time.monotonic() - started
    return digest_market(database), seconds


def start_runner(folder: Path, url: str, staged_from_bars: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        str(RUNNER),
        str(folder),
        url,
        NOW,
        str(staged_from_bars),
        START,
        END,
        "everyone",
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "seed", [*QUICK_SEEDS, *[pytest.param(seed, marks=pytest.mark.long) for seed in LONG_SEEDS]]
)
def test_market_killed_at_a_random_moment_continues_to_the_same_end(
    tmp_path: Path,
    sandbox: SandboxProcess,
    market: list[str],
    undisturbed: tuple[dict[str, str], float],
    seed: int,
) -> None:
    reference, seconds = undisturbed
    dice = random.Random(seed)
    staged_from_bars = dice.choice([1, DIRECTLY])
    database = make_database(tmp_path, everyone=market)
    sandbox.set_settings(latency_seconds=0.03)
    sandbox.clear_log()
    kills = dice.randint(1, 2)
    for _ in range(kills):
        process = start_runner(tmp_path, sandbox.url, staged_from_bars)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=dice.uniform(0.9, seconds + 0.1))
        process.kill()
        process.communicate()
    process = start_runner(tmp_path, sandbox.url, staged_from_bars)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert digest_market(database) == reference
    assert find_damage(database) == "ok"
    assert count_indexes(database) == INDEXES
    assert not staging_path(database).exists()
    assert len(paths(sandbox)) <= SESSIONS + kills * 2 * CONCURRENCY
    assert KEY not in errors
    assert database == database_of(tmp_path)


def test_second_process_does_not_touch_what_the_first_sets_aside(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market)
    sandbox.set_faults({"match": "2026-11-0", "kind": "slow", "seconds": 60})
    first = start_runner(tmp_path, sandbox.url, 1)
    while len(paths(sandbox)) < 10:
        assert first.poll() is None, first.communicate()
    with pytest.raises(BusyError, match="another process fills this database"):
        run_backfill(make_source(tmp_path, sandbox.url, NOW), database, START, END, "everyone")
    sandbox.set_faults()
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors


def test_staging_file_that_is_no_database_is_asked_for_again(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market)
    staging_path(database).write_bytes(b"not a database, but long enough to be looked at" * 100)
    (report,) = run_backfill(make_source(tmp_path, sandbox.url, NOW), database, START, END, "everyone")
    assert not report.has_holes
    assert not staging_path(database).exists()
